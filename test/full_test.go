package test

import (
	"bytes"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// confined starts the service in a way that limits what it can write: by a shell that has the folder as $0 and ends with exec "$@".
// root is where the process sees its files, for others.
func confined(t *testing.T, wrap []string, script string, flags ...string) (s *service, cmd *exec.Cmd, data string) {
	t.Helper()
	path, err := program()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	args := append(wrap, "sh", "-ec", script+`; exec "$@"`, dir, path, "serve", "--data", dir, "--listen", "127.0.0.1:0", "--accelerator", "tcg", "--on-exit", "power-off", "--grace", "1s", "--keep-free", "0") //nolint:gocritic // wrap is not used again
	cmd = exec.Command(args[0], append(args[1:], flags...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	log, err := os.Create(filepath.Join(t.TempDir(), "service.log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		kill(cmd)
		if t.Failed() {
			b, err := os.ReadFile(log.Name())
			t.Logf("the service's log (%v):\n%s", err, b[max(0, len(b)-20_000):])
		}
	})
	data = filepath.Join("/proc", fmt.Sprint(cmd.Process.Pid), "root", dir) // also where others do not have it mounted
	c := &client{http: &http.Client{Timeout: time.Minute}}
	eventually(t, "the service is ready", func() (bool, error) {
		b, err := os.ReadFile(filepath.Join(data, "admin.json"))
		if errors.Is(err, os.ErrNotExist) && cmd.Process.Signal(syscall.Signal(0)) == nil {
			return false, nil
		}
		return err == nil, errors.Join(err, json.Unmarshal(b, &c.key))
	})
	c.dial()
	return &service{c, data}, cmd, data
}

// namespace is how a file system of one's own can be mounted here, in a namespace of mounts; nil: not at all.
func namespace(t *testing.T) []string {
	for _, wrap := range [][]string{{"unshare", "-Urm"}, {"unshare", "-m"}} {
		if err := exec.CommandContext(t.Context(), wrap[0], append(wrap[1:], "mount", "-t", "tmpfs", "none", t.TempDir())...).Run(); err == nil {
			return wrap
		}
	}
	return nil
}

// fill takes all that is left of a file system.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for block := make([]byte, 1<<20); len(block) > 0; {
		if _, err := f.Write(block); errors.Is(err, syscall.ENOSPC) {
			block = block[:len(block)/2]
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

// refusedForRoom sees that an import has failed for want of room, clearly, and that nothing of it is to be seen.
func refusedForRoom(t *testing.T, s *service, id, says string) {
	t.Helper()
	seen := s.imported(t, id)
	if last := seen[len(seen)-1]; last.Status != "deleted" || !strings.HasPrefix(last.StatusMessage, says) || last.ImageID != "" || last.DiskSnapshot != "" {
		t.Errorf("the import ended as %+v", last)
	}
	if files := s.files(t); len(files) != 0 {
		t.Errorf("it left %v", files)
	}
	var images struct {
		IDs []string `xml:"imagesSet>item>imageId"`
	}
	if err := s.ec2(t, &images, "DescribeImages"); err != nil || len(images.IDs) != 0 {
		t.Errorf("there are the images %v (%v)", images.IDs, err)
	}
	var stored struct{ StoredImages []struct{ Digest string } }
	if err := s.berth(t, "ListStoredImages", map[string]any{}, &stored); err != nil || len(stored.StoredImages) != 0 {
		t.Errorf("there are the disks %v (%v)", stored.StoredImages, err)
	}
}

// The disk becomes full in the middle of a copy, for real: somebody else takes what there was when the import began. It fails,
// says why, and gives back what it took, on a file system on which not even a record can be written any more; then an import
// that finds room works. Where no file system can be mounted, the other test has to do.
func TestADiskThatBecomesFull(t *testing.T) {
	t.Parallel()
	wrap := namespace(t)
	if wrap == nil {
		t.Log("no file system can be mounted here, in no namespace: TestAFileThatCannotGrow alone shows what happens")
		return
	}
	const bulk = 48 << 20
	s, cmd, data := confined(t, wrap, `mount -t tmpfs -o size=160m none "$0"; cd "$0"`)
	slow := newBrake(t)
	s.bucket(t, "exports")
	s.put(t, "exports", "win10.qcow2", bulky(t, bulk, true))
	slow.on(data, cmd.Process, func(time.Duration) int64 { return bulk / 4 })
	asked, err := s.importDisk(t, "exports", "win10.qcow2")
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "a part of the disk is there", func() (bool, error) {
		written, _ := slow.written()
		return written > bulk/4, nil
	})
	ballast := filepath.Join(data, "ballast")
	fill(t, ballast)
	slow.off()
	refusedForRoom(t, s, asked.ID, "ServerError: Insufficient storage. [This service's disk is full.")
	// As little can be uploaded.
	full := export(t, "small", "vmdk")
	fill(t, ballast+"2") // what the import gave back
	f, err := os.Open(full)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	bucket, name := "exports", "small.vmdk"
	if _, err := s.s3.PutObject(t.Context(), &s3.PutObjectInput{Bucket: &bucket, Key: &name, Body: f}, func(o *s3.Options) { o.RetryMaxAttempts = 1 }); code("InternalError", "no disk space left")(err) != nil {
		t.Errorf("an upload: %v", err)
	}
	if err := errors.Join(os.Remove(ballast), os.Remove(ballast+"2")); err != nil {
		t.Fatal(err)
	}
	s.ami(t, "exports", "win10.qcow2")
}

// The disk becomes full in the middle of a download by https, for real. The import fails, says why, and gives back what it
// took; then there is room, and the same file is imported.
func TestADiskThatBecomesFullWhileAnExportIsFetched(t *testing.T) {
	t.Parallel()
	wrap := namespace(t)
	if wrap == nil {
		t.Log("no file system can be mounted here, in no namespace: TestAFileThatCannotGrow alone shows what happens")
		return
	}
	content, err := os.ReadFile(bulky(t, 48<<20, true))
	if err != nil {
		t.Fatal(err)
	}
	half, filled := make(chan struct{}), make(chan struct{})
	var once sync.Once
	source := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"one"`)
		if r.Header.Get("Range") == "bytes=0-0" {
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
			return
		}
		w.Header().Set("Content-Range", fmt.Sprintf("bytes 0-%d/%d", len(content)-1, len(content)))
		w.WriteHeader(http.StatusPartialContent)
		_, _ = w.Write(content[:len(content)/2]) // it may be given up
		_ = http.NewResponseController(w).Flush()
		once.Do(func() { close(half) })
		<-filled
		_, _ = w.Write(content[len(content)/2:])
	}))
	t.Cleanup(source.Close)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: source.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	s, _, data := confined(t, wrap, `mount -t tmpfs -o size=160m none "$0"; cd "$0"`,
		"--import-hosts", source.Listener.Addr().String(), "--import-networks", "127.0.0.0/8", "--import-ca", ca)
	var asked task
	if err := s.ec2(t, &asked, "ImportImage", "DiskContainer.1.Url", source.URL+"/win10.qcow2"); err != nil {
		t.Fatal(err)
	}
	<-half
	eventually(t, "half of it is here", func() (bool, error) {
		var st syscall.Stat_t
		err := syscall.Stat(filepath.Join(data, "imports", asked.ID, "1.part"), &st)
		return st.Blocks*512 >= int64(len(content)/2), err
	})
	ballast := filepath.Join(data, "ballast")
	fill(t, ballast)
	close(filled)
	refusedForRoom(t, s, asked.ID, "ServerError: Insufficient storage. [This service's disk is full.")
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	if err := s.ec2(t, &asked, "ImportImage", "DiskContainer.1.Url", source.URL+"/win10.qcow2"); err != nil {
		t.Fatal(err)
	}
	seen := s.imported(t, asked.ID)
	if last := seen[len(seen)-1]; last.Status != "completed" {
		t.Errorf("with room, it ended as %+v", last)
	}
}

// No file may become larger than so much (RLIMIT_FSIZE): what needs no privilege, and no check beforehand sees. The import of a
// disk that is larger fails, and says why; one of a smaller disk works.
func TestAFileThatCannotGrow(t *testing.T) {
	t.Parallel()
	s, _, _ := confined(t, nil, `ulimit -f 98304`) // of 512 bytes: 48 MiB
	s.bucket(t, "exports")
	s.put(t, "exports", "grows.qcow2", bulky(t, 128<<20, false))
	s.put(t, "exports", "small.vmdk", export(t, "small", "vmdk"))
	asked, err := s.importDisk(t, "exports", "grows.qcow2")
	if err != nil {
		t.Fatal(err)
	}
	refusedForRoom(t, s, asked.ID, "ServerError: Insufficient storage. [A file would be larger than this service's file system, or a limit of its process (RLIMIT_FSIZE), lets it be.")
	s.ami(t, "exports", "small.vmdk")
}
