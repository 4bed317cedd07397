// Command sysprep stands in for Windows' own Sysprep in Wine, which has none: it takes the same command line, refuses one that is not as
// Microsoft's documentation has it, and leaves the same files. What it is to do stands in the environment.
package main

import (
	"encoding/xml"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

func main() {
	exe, err := os.Executable()
	if err != nil {
		panic(err)
	}
	folder := filepath.Dir(exe)
	panther := filepath.Join(folder, "Panther")
	if err := os.MkdirAll(panther, 0o777); err != nil {
		panic(err)
	}
	fail := func(lines ...string) {
		log, err := os.OpenFile(filepath.Join(panther, "setuperr.log"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o666)
		if err != nil {
			panic(err)
		}
		for _, l := range lines {
			fmt.Fprintf(log, "%s, %s\r\n", time.Now().Format("2006-01-02 15:04:05"), l)
		}
		if err := log.Close(); err != nil {
			panic(err)
		}
		os.Exit(0) // Sysprep's exit code tells nothing
	}
	var answer string
	args := slices.DeleteFunc(slices.Clone(os.Args[1:]), func(a string) bool {
		rest, ok := strings.CutPrefix(a, "/unattend:")
		if ok {
			answer = rest
		}
		return ok
	})
	slices.Sort(args)
	if !slices.Equal(args, []string{"/generalize", "/oobe", "/quiet", "/shutdown"}) {
		fail("Error      SYSPRP Invalid command line: " + strings.Join(os.Args[1:], " "))
	}
	b, err := os.ReadFile(answer)
	if err != nil {
		fail("Error      SYSPRP Failed to read the answer file: " + err.Error())
	}
	var file struct {
		XMLName  xml.Name `xml:"urn:schemas-microsoft-com:unattend unattend"`
		Settings []struct {
			Pass string `xml:"pass,attr"`
		} `xml:"settings"`
	}
	if err := xml.Unmarshal(b, &file); err != nil || len(file.Settings) == 0 || file.Settings[0].Pass != "oobeSystem" {
		fail(fmt.Sprintf("Error      SYSPRP Failed to parse the answer file: %v", err))
	}
	if os.Getenv("SYSPREP_FAILS") != "" {
		fail("Info       SYSPRP Nothing of note",
			"Error      SYSPRP Package Contoso.Game_1.0.0.0_x64__8wekyb3d8bbwe was installed for a user, but not provisioned for all users. This package will not function properly in the sysprep image.",
			"Error      SYSPRP Failed to remove apps for the current user: 0x80073cf2.<b>&\x1b[2J")
	}
	if err := os.WriteFile(filepath.Join(folder, "Sysprep_succeeded.tag"), nil, 0o666); err != nil {
		panic(err)
	}
}
