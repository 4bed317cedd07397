package s3

import (
	"bufio"
	"bytes"
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// What the child says when something has been answered with success.
const (
	saidObject = "object" // key, ETag, size
	saidPart   = "part"   // upload id, part number, ETag
	saidDone   = "done"   // upload id
	saidNext   = "next"   // ETag and MD5 of the object that is going to be completed
)

// crashChild writes objects and multipart uploads for ever. Each line that it prints is an answer that a client has got.
func crashChild(dir string) {
	ctx := context.Background()
	s, err := Open(StoreOptions{Dir: dir})
	if err == nil {
		if err = s.CreateBucket("images"); errors.Is(err, ErrBucketOwned) {
			err = nil
		}
	}
	fail := func(err error) {
		if err != nil {
			fmt.Println("error", err)
			os.Exit(3)
		}
	}
	fail(err)
	say := func(args ...any) { fmt.Println(args...) } // one write(2) for each line
	in := func(b []byte) body { return body{r: bytes.NewReader(b), size: int64(len(b))} }
	for i := rand.Uint64(); ; i++ {
		content := noise(i, int(i%300_000))
		key := fmt.Sprint("key", i%3)
		o, err := s.put(ctx, "images", key, nil, in(content), condition{})
		fail(err)
		say(saidObject, key, o.ETag, o.Size)

		u, err := s.createUpload("images", fmt.Sprint("multi", i%2), nil, "", "")
		fail(err)
		var list []completed
		whole, etags := md5.New(), md5.New()
		for n, size := range []int{MinPartBytes, MinPartBytes, 1000 + int(i%1000)} {
			b := bytes.Repeat([]byte{byte(i), byte(n)}, size/2)
			if i%2 == 0 && n == 1 { // once more, so that it lies in a file of its own
				p, err := s.putPart(ctx, "images", u.Key, u.ID, n+1, in(b))
				fail(err)
				say(saidPart, u.ID, n+1, p.ETag)
			}
			p, err := s.putPart(ctx, "images", u.Key, u.ID, n+1, in(b))
			fail(err)
			say(saidPart, u.ID, n+1, p.ETag)
			list = append(list, completed{number: n + 1, etag: p.ETag})
			whole.Write(b)
			sum := md5.Sum(b)
			etags.Write(sum[:])
		}
		say(saidNext, hex.EncodeToString(etags.Sum(nil))+"-3", hex.EncodeToString(whole.Sum(nil)))
		o, err = s.complete(ctx, "images", u.Key, u.ID, list, Checksum{}, -1, condition{})
		fail(err)
		say(saidDone, u.ID)
		say(saidObject, u.Key, o.ETag, o.Size)
	}
}

// A process that is killed at any moment, again and again, loses nothing that was answered, and leaves nothing that is half.
func TestKill(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	content := map[string]string{} // MD5 by ETag of a multipart object
	for round := range 12 {
		said := runChild(t, dir, time.Duration(60+rand.IntN(250))*time.Millisecond)
		s, err := Open(StoreOptions{Dir: dir})
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		objects, parts := map[string]string{}, map[string]map[int]string{}
		for _, line := range said {
			f := strings.Fields(line)
			switch f[0] {
			case saidObject:
				objects[f[1]] = f[2]
			case saidPart:
				if parts[f[1]] == nil {
					parts[f[1]] = map[int]string{}
				}
				var n int
				if _, err := fmt.Sscan(f[2], &n); err != nil {
					t.Fatal(err)
				}
				parts[f[1]][n] = f[3]
			case saidDone:
				delete(parts, f[1])
			case saidNext:
				content[f[1]] = f[2]
			default:
				t.Fatalf("round %d: the child says %q", round, line)
			}
		}
		checkObjects(t, s, objects, content)
		checkUploads(t, s, parts)
		n := files(t, dir)
		s.mu.RLock()
		have := len(s.buckets["images"].objects)
		s.mu.RUnlock()
		if n[dataDir] != have || n[objectsDir] != have {
			t.Errorf("round %d: %d objects, files %v", round, have, n)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// runChild runs a child, kills it after a while and returns the lines it has printed.
func runChild(t *testing.T, dir string, after time.Duration) []string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.CommandContext(t.Context(), exe)
	c.Env = append(os.Environ(), "BERTH_S3_TEST_CHILD="+dir)
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	var said []string
	for r := bufio.NewScanner(out); r.Scan(); {
		if len(said) == 0 {
			time.AfterFunc(after, func() { _ = c.Process.Kill() })
		}
		said = append(said, r.Text())
	}
	_ = c.Wait() // killed
	if len(said) == 0 {
		t.Fatal("the child said nothing")
	}
	return said
}

// checkObjects holds every object against its ETag, and those that were answered against what was said: the last one of a key that
// was answered, or one that was on its way when the process died.
func checkObjects(t *testing.T, s *Store, said map[string]string, content map[string]string) {
	t.Helper()
	for key := range said {
		if _, err := s.head("images", key); err != nil {
			t.Errorf("%s was answered and is lost: %v", key, err)
		}
	}
	l, err := s.list("images", "", "", cursor{}, 1000)
	if err != nil {
		t.Fatal(err)
	}
	unsaid := 0
	for _, o := range l.objects {
		if e, ok := said[o.Key]; ok && e != o.ETag {
			unsaid++
		}
		_, f, err := s.open("images", o.Key)
		if err != nil {
			t.Fatal(err)
		}
		h := md5.New()
		if _, err := io.Copy(h, f); err != nil {
			t.Fatal(err)
		}
		_ = f.Close()
		want := o.ETag
		if len(o.Parts) > 0 {
			var known bool
			if want, known = content[o.ETag]; !known {
				t.Errorf("%s has ETag %s, which nobody was going to complete", o.Key, o.ETag)
			}
		}
		if got := hex.EncodeToString(h.Sum(nil)); got != want {
			t.Errorf("%s has MD5 %s, not %s", o.Key, got, want)
		}
	}
	if unsaid > 1 {
		t.Errorf("%d objects are others than were answered; one was on its way at most", unsaid)
	}
}

// checkUploads holds every part that was answered against its ETag, by reading it.
func checkUploads(t *testing.T, s *Store, said map[string]map[int]string) {
	t.Helper()
	for id, parts := range said {
		s.mu.RLock()
		u := s.buckets["images"].uploads[id]
		s.mu.RUnlock()
		if u == nil {
			if len(parts) < 3 { // with three it may have been completed
				t.Errorf("upload %s is lost with %d parts", id, len(parts))
			}
			continue
		}
		for n, etag := range parts {
			p, ok := u.parts[n]
			if !ok || p.ETag != etag && n != 2 { // part 2 is sent twice with the same content
				t.Errorf("part %d of %s is lost: %+v", n, id, p)
				continue
			}
			f, err := s.root.Open(u.path(p.File))
			if err != nil {
				t.Fatal(err)
			}
			h := md5.New()
			if _, err := io.Copy(h, io.NewSectionReader(f, p.Offset, p.Size)); err != nil {
				t.Fatal(err)
			}
			_ = f.Close()
			if got := hex.EncodeToString(h.Sum(nil)); got != p.ETag {
				t.Errorf("part %d of %s has MD5 %s, not %s", n, id, got, p.ETag)
			}
		}
		if err := s.abort("images", u.Key, id); err != nil {
			t.Error(err)
		}
	}
}
