package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// keeps is a service that keeps those disks, in the words of its door.
func keeps(t *testing.T, disks string) (data string) {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.Header.Get("X-Amz-Target") {
		case "BerthService.ListStoredImages":
			fmt.Fprintf(w, `{"StoredImages":[%s],"FileBytes":2048,"QuotaBytes":4096}`, disks)
		case "BerthService.CollectStoredImages":
			files := ""
			if disks != "" {
				files = `"stray\u001b"`
			}
			fmt.Fprintf(w, `{"StoredImages":[%s],"Files":[%s]}`, disks, files)
		case "BerthService.VerifyStoredImage":
			one, _, _ := strings.Cut(disks, "},")
			fmt.Fprintf(w, `{"StoredImage":%s}`, strings.TrimSuffix(one, "}")+"}")
		default:
			w.WriteHeader(http.StatusBadRequest)
		}
	}))
	t.Cleanup(s.Close)
	data = t.TempDir()
	b, err := json.Marshal(adminFile{Endpoint: s.URL, Region: "us-east-1", AccessKeyID: "AKIAEXAMPLE", SecretAccessKey: "of a test"})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(data, "admin.json"), b, 0o600); err != nil {
		t.Fatal(err)
	}
	return data
}

func TestImagesAreToldInTextAndInJSON(t *testing.T) {
	none, damaged := keeps(t, ""), keeps(t, `{"Digest":"sha256:00","SizeBytes":4096,"FileBytes":2048,"References":["snap-1"],"Base":"sha256:01","Damage":"bad \u001b"}`)
	const object = `{"digest":"sha256:00","base":"sha256:01","damage":"bad \u001b","sizeBytes":4096,"fileBytes":2048,"references":["snap-1"]}` + "\n"
	for _, c := range []struct {
		data    string
		command []string
		want    string
		code    int
	}{
		{none, []string{"gc"}, "Nothing to remove: all that is kept is for something.\n", 0},
		{none, []string{"gc", "--output", "json"}, "", 0},
		{none, []string{"list"}, "Nothing is kept.\n", 0},
		{none, []string{"list", "-o", "json"}, `{"images":0,"totalBytes":2048,"quotaBytes":4096}` + "\n", 0},
		{damaged, []string{"gc"}, "sha256:00 removed, 2.0 KiB\nstray\\x1b removed: a file that was no disk's\n", 0},
		{damaged, []string{"gc", "-o", "json"}, object + `{"file":"stray\u001b"}` + "\n", 0},
		{damaged, []string{"list"}, "sha256:00\n    2.0 KiB, of a disk of 4.0 KiB, for snap-1\n    over sha256:01\n    DAMAGED: bad \\x1b\n2.0 KiB together, of a quota of 4.0 KiB\n", 0},
		{damaged, []string{"list", "-o", "json"}, object + `{"images":1,"totalBytes":2048,"quotaBytes":4096}` + "\n", 0},
		// The one under it is read as well, of which this service says the same.
		{damaged, []string{"verify"}, "sha256:00 DAMAGED: bad \\x1b\nsha256:01 DAMAGED: bad \\x1b\n", 1},
		{damaged, []string{"verify", "sha256:00", "-o", "json"}, object + object, 1},
	} {
		code := 0
		got := standardOutput(t, func() { code = run(append([]string{"images", "--data", c.data}, c.command...)) })
		if got != c.want || code != c.code {
			t.Errorf("images %q: %q, %d; want %q, %d", c.command, got, code, c.want, c.code)
		}
	}
}

// Who verifies one that is laid over another verifies that, too, once: a guest reads both.
func TestVerifyingAnOverlayVerifiesWhatIsUnderIt(t *testing.T) {
	data := keeps(t, `{"Digest":"sha256:02","Base":"sha256:00"},{"Digest":"sha256:01","Base":"sha256:00"},{"Digest":"sha256:00"}`)
	for _, c := range []struct{ asked, told []string }{
		{nil, []string{"sha256:02", "sha256:01", "sha256:00"}},
		{[]string{"sha256:00"}, []string{"sha256:00"}},
		{[]string{"sha256:01"}, []string{"sha256:01", "sha256:00"}},
		{[]string{"sha256:01", "sha256:02"}, []string{"sha256:01", "sha256:02", "sha256:00"}},
	} {
		got := standardOutput(t, func() {
			if code := run(append([]string{"images", "--data", data, "verify"}, c.asked...)); code != 0 {
				t.Errorf("%q: exit code %d", c.asked, code)
			}
		})
		if want := strings.Join(c.told, " sound\n") + " sound\n"; got != want {
			t.Errorf("%q: %q, want %q", c.asked, got, want)
		}
	}
}

// Who asks a service that has been stopped is told so, and how to start it.
func TestImagesOfAServiceThatIsStopped(t *testing.T) {
	data := t.TempDir()
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	b, err := json.Marshal(adminFile{Endpoint: gone.URL, Region: "us-east-1", AccessKeyID: "AKIAEXAMPLE", SecretAccessKey: "of a test"})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(data, "admin.json"), b, 0o600); err != nil {
		t.Fatal(err)
	}
	_, stderr, code := berth(t, "images", "--data", data, "list")
	if want := "nothing answers at " + gone.URL + ": the service is not running (start it with: berth serve --data " + data + ")"; code != 2 || !strings.Contains(stderr, want) {
		t.Errorf("exit code %d: %s", code, stderr)
	}
}
