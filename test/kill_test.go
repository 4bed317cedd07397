package test

import (
	"bytes"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"berth/internal/phony"
)

// How often the service is killed during one import, and how many seconds its source takes for the file. The issue asks for
// 50 and 60: BERTH_TEST_KILLS=50 BERTH_TEST_SECONDS=60.
func killing(t *testing.T) (kills, seconds int) {
	t.Helper()
	read := func(name string, usual int) int {
		v := os.Getenv(name)
		if v == "" {
			return usual
		}
		n, err := strconv.Atoi(v)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		return n
	}
	return read("BERTH_TEST_KILLS", 6), read("BERTH_TEST_SECONDS", 10)
}

// throttled serves a file by https, in ranges, at a rate, and counts the bytes sent.
func throttled(t *testing.T, content []byte, bytesPerSecond int) (url, ca string, sent *atomic.Int64) {
	t.Helper()
	sent = &atomic.Int64{}
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"one"`)
		http.ServeContent(&slowWriter{w, bytesPerSecond, sent}, r, "", time.Time{}, bytes.NewReader(content))
	}))
	t.Cleanup(s.Close)
	ca = filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	return s.URL, ca, sent
}

type slowWriter struct {
	http.ResponseWriter
	rate int
	sent *atomic.Int64
}

func (w *slowWriter) Write(p []byte) (n int, err error) {
	for len(p) > 0 {
		step := min(len(p), max(1, w.rate/20))
		m, err := w.ResponseWriter.Write(p[:step])
		n += m
		w.sent.Add(int64(m))
		if err != nil {
			return n, err
		}
		if err := http.NewResponseController(w.ResponseWriter).Flush(); err != nil {
			return n, err
		}
		time.Sleep(time.Duration(step) * time.Second / time.Duration(w.rate))
		p = p[step:]
	}
	return n, nil
}

// run starts the service on a data folder that it may have been killed on.
func run(t *testing.T, data string, flags ...string) (*service, *exec.Cmd) {
	t.Helper()
	path, err := program()
	if err != nil {
		t.Fatal(err)
	}
	log, err := os.OpenFile(filepath.Join(data, "service.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	if err := os.Remove(filepath.Join(data, "admin.json")); err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	cmd := exec.Command(path, append([]string{"serve", "--data", data, "--listen", "127.0.0.1:0", "--accelerator", "tcg", "--on-exit", "power-off", "--grace", "1s"}, flags...)...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c := &client{http: &http.Client{Timeout: time.Minute}}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		if b, err := os.ReadFile(filepath.Join(data, "admin.json")); err == nil && json.Unmarshal(b, &c.key) == nil {
			c.dial()
			return &service{c, data}, cmd
		}
		if time.Now().After(deadline) {
			b, _ := os.ReadFile(log.Name())
			kill(cmd)
			t.Fatalf("the service did not become ready:\n%s", b)
		}
	}
}

// kill is kill -9.
func kill(cmd *exec.Cmd) {
	cmd.Process.Kill() //nolint:errcheck // it may have ended already
	cmd.Wait()         //nolint:errcheck // it was killed
}

// TestAnImportOfAServiceThatIsKilled kills the service (kill -9) at random moments of one import from a slow host. It ends all the
// same: with the disk that an undisturbed import makes, from where it stopped and not from the beginning, and with no file
// left over.
func TestAnImportOfAServiceThatIsKilled(t *testing.T) {
	kills, seconds := killing(t)
	file := export(t, phony.Base, "ova")
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	url, ca, sent := throttled(t, content, len(content)/seconds)
	data := t.TempDir()
	flags := []string{"--import-hosts", strings.TrimPrefix(url, "https://"), "--import-networks", "127.0.0.0/8", "--import-ca", ca}
	s, cmd := run(t, data, flags...)
	t.Cleanup(func() { kill(cmd) })
	var asked task
	if err := s.ec2(t, &asked, "ImportImage", "DiskContainer.1.Url", url+"/win10.ova"); err != nil {
		t.Fatal(err)
	}
	// The moments are spread over twice the time that the file takes: lives of some seconds, in which the import gets on, and
	// some of no time at all.
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	for i := range kills {
		life := time.Duration(rng.Float64() * 2 * float64(seconds) / float64(kills) * 2 * float64(time.Second))
		time.Sleep(life)
		kill(cmd)
		s, cmd = run(t, data, flags...)
		var now struct {
			Tasks []task `xml:"importImageTaskSet>item"`
		}
		if err := s.ec2(t, &now, "DescribeImportImageTasks", "ImportTaskId.1", asked.ID); err != nil || len(now.Tasks) != 1 {
			t.Fatalf("after kill %d: %+v, %v", i+1, now, err)
		}
		if n := now.Tasks[0]; n.Status == "deleted" {
			t.Fatalf("after kill %d: %+v", i+1, n)
		}
	}
	all := s.imported(t, asked.ID)
	if last := all[len(all)-1]; last.Status != "completed" {
		t.Fatalf("the import ended as %+v", last)
	}
	// Each life loses what came after its last checkpoint, which is 2 seconds old at most, and what is in buffers on the way.
	if most := int64(len(content)) + int64(kills)*(int64(3*len(content)/seconds)+64<<10); sent.Load() > most {
		t.Errorf("%d bytes were sent of a file of %d, with %d kills: more than %d", sent.Load(), len(content), kills, most)
	}
	// The same file, undisturbed: the same disk, kept once.
	s.bucket(t, "exports")
	s.put(t, "exports", "win10.ova", file)
	s.ami(t, "exports", "win10.ova")
	var stored struct {
		StoredImages []struct {
			Digest     string
			References []string
		}
	}
	if err := s.berth(t, "ListStoredImages", map[string]any{}, &stored); err != nil {
		t.Fatal(err)
	}
	if len(stored.StoredImages) != 1 || len(stored.StoredImages[0].References) != 2 {
		t.Errorf("the two imports keep %+v", stored)
	}
	if files := s.files(t); fmt.Sprint(files) != fmt.Sprint([]string{"stored/" + strings.TrimPrefix(stored.StoredImages[0].Digest, "sha256:") + ".qcow2"}) {
		t.Errorf("the files are %v", files)
	}
}
