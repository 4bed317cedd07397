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
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
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

// TestAnImportOfAServiceThatIsKilled kills the service (kill -9) at random moments of one import from a slow host, whose conversion
// is as slow. It ends all the same: with the disk that an undisturbed import makes, from where it stopped and not from the
// beginning, and with no file left over.
func TestAnImportOfAServiceThatIsKilled(t *testing.T) {
	kills, seconds := killing(t)
	const bulk = 64 << 20
	file := bulky(t, bulk, true)
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	url, ca, sent := throttled(t, content, len(content)/seconds)
	data := t.TempDir()
	flags := []string{"--import-hosts", strings.TrimPrefix(url, "https://"), "--import-networks", "127.0.0.0/8", "--import-ca", ca}
	slow, rate := newBrake(t), func(since time.Duration) int64 { return int64(bulk / float64(seconds) * since.Seconds()) }
	s, cmd := run(t, data, flags...)
	slow.on(data, cmd.Process, rate)
	t.Cleanup(func() { kill(cmd) })
	var asked task
	if err := s.ec2(t, &asked, "ImportImage", "DiskContainer.1.Url", url+"/win10.qcow2"); err != nil {
		t.Fatal(err)
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	fell := map[string]int{} // how many kills fell into what
	murder := func() {
		slow.off()
		kill(cmd)
		stage, checkpoint := s.conversion(t, asked.ID)
		if fell[stage]++; checkpoint > 0 {
			fell["behind a checkpoint"]++
		}
		s, cmd = run(t, data, flags...)
		slow.on(data, cmd.Process, rate)
		var now struct {
			Tasks []task `xml:"importImageTaskSet>item"`
		}
		if err := s.ec2(t, &now, "DescribeImportImageTasks", "ImportTaskId.1", asked.ID); err != nil || len(now.Tasks) != 1 {
			t.Fatalf("after the kills %v: %+v, %v", fell, now, err)
		}
		if n := now.Tasks[0]; n.Status == "deleted" {
			t.Fatalf("after the kills %v: %+v", fell, n)
		}
	}
	// The moments are spread over the time that download and conversion take: lives of some seconds, in which the import gets on, and
	// some of no time at all.
	for range kills {
		time.Sleep(time.Duration(rng.Float64() * 2 * 2 * float64(seconds) / float64(kills) * float64(time.Second)))
		murder()
	}
	// Should chance have let them all fall elsewhere: one more, in a conversion that has a checkpoint.
	for deadline := time.Now().Add(3 * time.Minute); fell["behind a checkpoint"] == 0; time.Sleep(50 * time.Millisecond) {
		if stage, checkpoint := s.conversion(t, asked.ID); checkpoint > 0 {
			kills++
			murder()
		} else if stage == "the end" || time.Now().After(deadline) {
			t.Fatalf("the conversion wrote no checkpoint down: %v", fell)
		}
	}
	t.Logf("the kills fell into: %v", fell)
	all := s.imported(t, asked.ID)
	slow.off()
	if last := all[len(all)-1]; last.Status != "completed" {
		t.Fatalf("the import ended as %+v", last)
	}
	// Each life loses what came after its last checkpoint, which is 2 seconds old at most, and what is in buffers on the way.
	if most := int64(len(content)) + int64(kills)*(int64(3*len(content)/seconds)+64<<10); sent.Load() > most {
		t.Errorf("%d bytes were sent of a file of %d, with %d kills: more than %d", sent.Load(), len(content), kills, most)
	}
	log, err := os.ReadFile(filepath.Join(data, "service.log"))
	if err != nil {
		t.Fatal(err)
	}
	resumed := regexp.MustCompile(`a conversion was gone on with.* from=([1-9][0-9]*) `).FindSubmatch(log)
	if resumed == nil {
		t.Error("the conversion was not gone on with from a checkpoint")
	} else {
		t.Logf("the conversion was gone on with from byte %s", resumed[1])
	}
	// The same file, undisturbed: the same disk, kept once.
	s.bucket(t, "exports")
	s.put(t, "exports", "win10.qcow2", file)
	s.ami(t, "exports", "win10.qcow2")
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

// conversion says by a task's files what it is at, and up to which byte of its disk there is a checkpoint.
func (s *service) conversion(t *testing.T, id string) (stage string, checkpoint int64) {
	t.Helper()
	made := filepath.Join(s.data, "imports", id, "disk-1.qcow2")
	if b, err := os.ReadFile(made + ".part.checkpoint"); err == nil {
		var notes struct{ At int64 }
		if err := json.Unmarshal(b, &notes); err != nil {
			t.Fatalf("%s: %v", b, err)
		}
		return "the conversion", notes.At
	}
	if _, err := os.Stat(filepath.Join(s.data, "imports", id, "1.part")); err == nil {
		return "the download", 0
	}
	if _, err := os.Stat(filepath.Join(s.data, "imports", id)); err == nil {
		return "what lies between and behind", 0
	}
	return "the end", 0
}
