package s3

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

func inMemory(b []byte) body { return body{r: bytes.NewReader(b), size: int64(len(b))} }

// multiETag is the ETag of a multipart object, made the plain way.
func multiETag(parts ...[]byte) string {
	h := md5.New()
	for _, p := range parts {
		s := md5.Sum(p)
		h.Write(s[:])
	}
	return fmt.Sprintf("%x-%d", h.Sum(nil), len(parts))
}

func readObject(t testing.TB, s *Store, bucket, key string) []byte {
	t.Helper()
	_, f, err := s.open(bucket, key)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// inode tells which file a content is.
func inode(t testing.TB, name string) uint64 {
	t.Helper()
	fi, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	return fi.Sys().(*syscall.Stat_t).Ino
}

// step is one UploadPart; a later one of the same number takes its place.
type step struct{ number, size int }

// However the parts were cut, in whatever order and how often they came, the object is what the client asked for.
func TestAssembly(t *testing.T) {
	t.Parallel()
	const five = MinPartBytes
	for _, c := range []struct {
		name    string
		steps   []step
		use     []int // part numbers
		inPlace bool  // the object is the even file of the first part's size
	}{
		{"even and a rest", []step{{1, five}, {2, five}, {3, 1000}}, []int{1, 2, 3}, true},
		{"even to the end", []step{{1, five}, {2, five}}, []int{1, 2}, true},
		{"rest first, backwards", []step{{3, 1000}, {2, five}, {1, five}}, []int{1, 2, 3}, true},
		{"one small part", []step{{1, 7}}, []int{1}, true},
		{"one empty part", []step{{1, 0}}, []int{1}, true},
		{"empty rest", []step{{1, five}, {2, 0}}, []int{1, 2}, true},
		{"a part sent again", []step{{1, five}, {2, five}, {1, five}, {2, five}, {2, five}, {3, 9}}, []int{1, 2, 3}, true},
		{"a part sent again with another size", []step{{1, five}, {2, five + 1}, {2, five}, {3, 9}, {3, 8}}, []int{1, 2, 3}, true},
		{"a part too many", []step{{1, five}, {2, five}, {3, five}, {4, 3}}, []int{1, 2}, true},
		{"a rest of a part's size left out", []step{{1, five}, {2, five}, {3, five}, {4, five}}, []int{1, 2, 3}, true},
		{"a rest larger than the parts", []step{{1, five}, {2, five + 3}}, []int{1, 2}, false},
		{"uneven", []step{{1, five + 2}, {2, five}, {3, five + 1}, {4, 1}}, []int{1, 2, 3, 4}, false},
		{"numbers with gaps", []step{{2, five}, {5, five}, {10_000, 5}}, []int{2, 5, 10_000}, false},
		{"the middle left out", []step{{1, five}, {2, five}, {3, five}}, []int{1, 3}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, s := t.Context(), openStore(t, t.TempDir())
			if err := s.CreateBucket("images"); err != nil {
				t.Fatal(err)
			}
			u, err := s.createUpload("images", "k", nil, CRC32, fullObject)
			if err != nil {
				t.Fatal(err)
			}
			sent := map[int][]byte{}
			for i, st := range c.steps {
				sent[st.number] = noise(uint64(i), st.size)
				if _, err := s.putPart(ctx, "images", "k", u.ID, st.number, inMemory(sent[st.number])); err != nil {
					t.Fatal(err)
				}
			}
			var list []completed
			var parts [][]byte
			for _, n := range c.use {
				sum := md5.Sum(sent[n])
				list = append(list, completed{number: n, etag: hex.EncodeToString(sum[:])})
				parts = append(parts, sent[n])
			}
			var ino uint64
			if c.inPlace {
				even := filepath.Join(s.dir, filepath.FromSlash(u.path(evenPrefix+fmt.Sprint(len(parts[0])))))
				if len(parts[0]) > 0 {
					ino = inode(t, even)
				}
			}
			s = reopen(t, s) // everything so far is on disk
			o, err := s.complete(ctx, "images", "k", u.ID, list, Checksum{}, -1, condition{})
			if err != nil {
				t.Fatal(err)
			}
			h := CRC32.new()
			h.Write(slices.Concat(parts...))
			if want := (Checksum{CRC32, fullObject, base64.StdEncoding.EncodeToString(h.Sum(nil))}); o.Checksum != want {
				t.Errorf("checksum %v, want %v", o.Checksum, want)
			}
			if o.ETag != multiETag(parts...) || !bytes.Equal(readObject(t, s, "images", "k"), slices.Concat(parts...)) {
				t.Errorf("content or ETag %s differs", o.ETag)
			}
			content := filepath.Join(s.dir, bucketsDir, "images", dataDir, o.Data)
			if ino != 0 && inode(t, content) != ino {
				t.Error("the object was copied")
			}
			again, err := s.complete(ctx, "images", "k", u.ID, list, Checksum{}, -1, condition{})
			if err != nil || again.ETag != o.ETag {
				t.Errorf("completed again: %v, %v", again, err)
			}
			if _, err := s.putPart(ctx, "images", "k", u.ID, 1, inMemory([]byte("late"))); !errors.Is(err, ErrNoSuchUpload) {
				t.Errorf("a part after completion: %v", err)
			}
			if n := files(t, s.dir); n[dataDir] != 1 || n[u.ID] != 0 {
				t.Errorf("files %v", n)
			}
		})
	}
}

// After a completion that was refused late, the upload is as it was, but for the parts that were left out.
func TestCompletionRefused(t *testing.T) {
	ctx, s := t.Context(), openStore(t, t.TempDir())
	if err := s.CreateBucket("images"); err != nil {
		t.Fatal(err)
	}
	u := must2(s.createUpload("images", "k", nil, "", ""))(t)
	var list []completed
	var content []byte
	for n := range 4 {
		b := noise(uint64(n), MinPartBytes)
		p := must2(s.putPart(ctx, "images", "k", u.ID, n+1, inMemory(b)))(t)
		list, content = append(list, completed{number: n + 1, etag: p.ETag}), append(content, b...)
	}
	// The content has its second name, then the record cannot be written.
	objects := filepath.Join(s.dir, bucketsDir, "images", objectsDir)
	if err := os.Rename(objects, objects+"-away"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.complete(ctx, "images", "k", u.ID, list[:2], Checksum{}, -1, condition{}); err == nil {
		t.Fatal("completed without a record")
	}
	if err := os.Rename(objects+"-away", objects); err != nil {
		t.Fatal(err)
	}
	// A part behind the end makes the file grow again: the parts that were cut off must not seem to be there.
	again := must2(s.putPart(ctx, "images", "k", u.ID, 4, inMemory(content[3*MinPartBytes:])))(t)
	for range 2 {
		list[3].etag = again.ETag
		if _, err := s.complete(ctx, "images", "k", u.ID, list, Checksum{}, -1, condition{}); !errors.Is(err, ErrInvalidPart) {
			t.Fatalf("a part that was cut off: %v", err)
		}
		s = reopen(t, s)
	}
	must2(s.putPart(ctx, "images", "k", u.ID, 3, inMemory(content[2*MinPartBytes:3*MinPartBytes])))(t)
	must2(s.complete(ctx, "images", "k", u.ID, list, Checksum{}, -1, condition{}))(t)
	if !bytes.Equal(readObject(t, s, "images", "k"), content) {
		t.Error("content differs")
	}
}

func must2[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T { t.Helper(); return must(t, v, err) }
}

// A crash between an object's record and the end of its upload must not leave an upload that writes into the object.
func TestFinishedUploadIsRemoved(t *testing.T) {
	ctx, dir := t.Context(), t.TempDir()
	s := openStore(t, dir)
	if err := s.CreateBucket("images"); err != nil {
		t.Fatal(err)
	}
	u := must2(s.createUpload("images", "k", nil, "", ""))(t)
	p := must2(s.putPart(ctx, "images", "k", u.ID, 1, inMemory([]byte("content"))))(t)
	saved := filepath.Join(dir, "saved")
	if err := os.MkdirAll(saved, 0o700); err != nil {
		t.Fatal(err)
	}
	folder := filepath.Join(dir, filepath.FromSlash(u.dir))
	for _, f := range []string{uploadRecord, partsLog, p.File} { // the same files, as before the completion removes them
		if err := os.Link(filepath.Join(folder, f), filepath.Join(saved, f)); err != nil {
			t.Fatal(err)
		}
	}
	must2(s.complete(ctx, "images", "k", u.ID, []completed{{number: 1, etag: p.ETag}}, Checksum{}, -1, condition{}))(t)
	if err := os.Rename(saved, folder); err != nil {
		t.Fatal(err)
	}
	s = reopen(t, s)
	if _, err := s.putPart(ctx, "images", "k", u.ID, 1, inMemory([]byte("CONTENT"))); !errors.Is(err, ErrNoSuchUpload) {
		t.Errorf("the upload is still there: %v", err)
	}
	if got := readObject(t, s, "images", "k"); string(got) != "content" {
		t.Errorf("%q", got)
	}
}

// The API of multipart uploads, through the SDK, parts in parallel, for each checksum.
func TestMultipart(t *testing.T) {
	d, ctx := openDoor(t), t.Context()
	b := d.bucket(t, "images")
	content := noise(5, 3*MinPartBytes+12345)
	for _, c := range []struct {
		algorithm types.ChecksumAlgorithm
		kind      types.ChecksumType
	}{{}, {"CRC32", ""}, {"CRC32", "FULL_OBJECT"}, {"CRC32C", "COMPOSITE"}, {"CRC64NVME", "FULL_OBJECT"}, {"SHA256", "COMPOSITE"}, {"SHA1", ""}} {
		key := aws.String("disk." + string(c.algorithm) + string(c.kind))
		up, err := d.client.CreateMultipartUpload(ctx, &awss3.CreateMultipartUploadInput{Bucket: &b, Key: key, ChecksumAlgorithm: c.algorithm, ChecksumType: c.kind, ContentType: aws.String("x/y")})
		if err != nil {
			t.Fatal(err)
		}
		done := make([]types.CompletedPart, 4)
		var pieces [][]byte
		var wg sync.WaitGroup
		for i := range done {
			piece := content[i*MinPartBytes : min(len(content), (i+1)*MinPartBytes)]
			pieces = append(pieces, piece)
			wg.Go(func() {
				p, err := d.client.UploadPart(ctx, &awss3.UploadPartInput{Bucket: &b, Key: key, UploadId: up.UploadId, PartNumber: aws.Int32(int32(i + 1)), Body: bytes.NewReader(piece), ChecksumAlgorithm: c.algorithm})
				if err != nil {
					t.Error(err)
					return
				}
				done[i] = types.CompletedPart{PartNumber: aws.Int32(int32(i + 1)), ETag: p.ETag, ChecksumCRC32: p.ChecksumCRC32, ChecksumCRC32C: p.ChecksumCRC32C,
					ChecksumCRC64NVME: p.ChecksumCRC64NVME, ChecksumSHA1: p.ChecksumSHA1, ChecksumSHA256: p.ChecksumSHA256}
			})
		}
		wg.Wait()
		parts, err := d.client.ListParts(ctx, &awss3.ListPartsInput{Bucket: &b, Key: key, UploadId: up.UploadId, MaxParts: aws.Int32(3)})
		if err != nil || len(parts.Parts) != 3 || !*parts.IsTruncated || *parts.NextPartNumberMarker != "3" || *parts.Parts[2].Size != MinPartBytes {
			t.Errorf("ListParts: %+v, %v", parts, err)
		}
		uploads, err := d.client.ListMultipartUploads(ctx, &awss3.ListMultipartUploadsInput{Bucket: &b})
		if err != nil || len(uploads.Uploads) != 1 || *uploads.Uploads[0].UploadId != *up.UploadId {
			t.Errorf("ListMultipartUploads: %+v, %v", uploads, err)
		}
		in := &awss3.CompleteMultipartUploadInput{Bucket: &b, Key: key, UploadId: up.UploadId, MultipartUpload: &types.CompletedMultipartUpload{Parts: done}, MpuObjectSize: aws.Int64(int64(len(content)))}
		if c.kind == "FULL_OBJECT" && c.algorithm == "CRC32" {
			in.ChecksumCRC32, in.ChecksumType = aws.String("AAAAAA=="), c.kind
			_, err := d.client.CompleteMultipartUpload(ctx, in)
			wantCode(t, err, "BadDigest")
			h := CRC32.new()
			h.Write(content)
			in.ChecksumCRC32 = aws.String(base64.StdEncoding.EncodeToString(h.Sum(nil)))
		}
		out, err := d.client.CompleteMultipartUpload(ctx, in)
		if err != nil {
			t.Fatal(err)
		}
		if *out.ETag != `"`+multiETag(pieces...)+`"` {
			t.Errorf("ETag %s", *out.ETag)
		}
		get, err := d.client.GetObject(ctx, &awss3.GetObjectInput{Bucket: &b, Key: key, ChecksumMode: "ENABLED"})
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(get.Body) // the SDK compares a FULL_OBJECT checksum
		if err != nil || !bytes.Equal(got, content) {
			t.Errorf("%v: content differs: %v", c, err)
		}
		want := c.kind
		if want == "" && c.algorithm != "" {
			want = "COMPOSITE"
		}
		if get.ChecksumType != want || *get.ContentType != "x/y" {
			t.Errorf("%v: checksum type %q, content type %q", c, get.ChecksumType, *get.ContentType)
		}
		second, err := d.client.GetObject(ctx, &awss3.GetObjectInput{Bucket: &b, Key: key, PartNumber: aws.Int32(4)})
		if err != nil || *second.PartsCount != 4 {
			t.Fatalf("part 4: %v", err)
		}
		if got, _ := io.ReadAll(second.Body); !bytes.Equal(got, pieces[3]) {
			t.Error("part 4 differs")
		}
		if again, err := d.client.CompleteMultipartUpload(ctx, in); err != nil || *again.ETag != *out.ETag {
			t.Errorf("completed again: %v", err)
		}
	}
}

func TestMultipartRefusals(t *testing.T) {
	d, ctx := openDoor(t), t.Context()
	b, key := d.bucket(t, "images"), aws.String("k")
	_, err := d.client.CreateMultipartUpload(ctx, &awss3.CreateMultipartUploadInput{Bucket: &b, Key: key, ChecksumAlgorithm: "SHA256", ChecksumType: "FULL_OBJECT"})
	wantCode(t, err, "InvalidRequest")
	up, err := d.client.CreateMultipartUpload(ctx, &awss3.CreateMultipartUploadInput{Bucket: &b, Key: key})
	if err != nil {
		t.Fatal(err)
	}
	send := func(n int32, content string) *string {
		p, err := d.client.UploadPart(ctx, &awss3.UploadPartInput{Bucket: &b, Key: key, UploadId: up.UploadId, PartNumber: &n, Body: strings.NewReader(content)})
		if err != nil {
			t.Fatal(err)
		}
		return p.ETag
	}
	one, two := send(1, "small"), send(2, "small too")
	complete := func(parts ...types.CompletedPart) error {
		return errOf(d.client.CompleteMultipartUpload(ctx, &awss3.CompleteMultipartUploadInput{Bucket: &b, Key: key, UploadId: up.UploadId, MultipartUpload: &types.CompletedMultipartUpload{Parts: parts}}))
	}
	cp := func(n int32, etag *string) types.CompletedPart {
		return types.CompletedPart{PartNumber: &n, ETag: etag}
	}
	wantCode(t, complete(cp(1, one), cp(2, two)), "EntityTooSmall")
	wantCode(t, complete(cp(2, two), cp(1, one)), "InvalidPartOrder")
	wantCode(t, complete(cp(1, one), cp(1, one)), "InvalidPartOrder")
	wantCode(t, complete(cp(1, two)), "InvalidPart")
	wantCode(t, complete(cp(3, two)), "InvalidPart")
	wantCode(t, complete(), "MalformedXML")
	for _, n := range []int32{-1, 0, 10_001} {
		_, err := d.client.UploadPart(ctx, &awss3.UploadPartInput{Bucket: &b, Key: key, UploadId: up.UploadId, PartNumber: &n, Body: strings.NewReader("x")})
		wantCode(t, err, "InvalidArgument")
	}
	_, err = d.client.UploadPart(ctx, &awss3.UploadPartInput{Bucket: &b, Key: aws.String("other"), UploadId: up.UploadId, PartNumber: aws.Int32(1), Body: strings.NewReader("x")})
	wantCode(t, err, "NoSuchUpload")
	_, err = d.client.UploadPart(ctx, &awss3.UploadPartInput{Bucket: &b, Key: key, UploadId: aws.String("../../.."), PartNumber: aws.Int32(1), Body: strings.NewReader("x")})
	wantCode(t, err, "NoSuchUpload")
	_, err = d.client.AbortMultipartUpload(ctx, &awss3.AbortMultipartUploadInput{Bucket: &b, Key: key, UploadId: up.UploadId})
	if err != nil {
		t.Fatal(err)
	}
	wantCode(t, complete(cp(1, one)), "NoSuchUpload")
	_, err = d.client.ListParts(ctx, &awss3.ListPartsInput{Bucket: &b, Key: key, UploadId: up.UploadId})
	wantCode(t, err, "NoSuchUpload")
	if n := files(t, d.store.dir); len(n) != 2 { // the lock and the bucket's record
		t.Errorf("files %v", n)
	}
}

// Parts may be copied from objects.
func TestUploadPartCopy(t *testing.T) {
	d, ctx := openDoor(t), t.Context()
	b, key := d.bucket(t, "images"), aws.String("k")
	content := noise(7, 2*MinPartBytes)
	d.put(t, b, "source", content)
	up, err := d.client.CreateMultipartUpload(ctx, &awss3.CreateMultipartUploadInput{Bucket: &b, Key: key})
	if err != nil {
		t.Fatal(err)
	}
	var parts []types.CompletedPart
	for i, r := range []string{"bytes=0-5242879", "bytes=5242880-10485759"} {
		p, err := d.client.UploadPartCopy(ctx, &awss3.UploadPartCopyInput{Bucket: &b, Key: key, UploadId: up.UploadId, PartNumber: aws.Int32(int32(i + 1)), CopySource: aws.String(b + "/source"), CopySourceRange: &r})
		if err != nil {
			t.Fatal(err)
		}
		parts = append(parts, types.CompletedPart{PartNumber: aws.Int32(int32(i + 1)), ETag: p.CopyPartResult.ETag})
	}
	if _, err := d.client.CompleteMultipartUpload(ctx, &awss3.CompleteMultipartUploadInput{Bucket: &b, Key: key, UploadId: up.UploadId, MultipartUpload: &types.CompletedMultipartUpload{Parts: parts}}); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(d.get(t, b, "k"), content) {
		t.Error("content differs")
	}
}

// The same part, sent many times at once with different contents, while the upload is completed: the object is of parts that were
// acknowledged, and no late write reaches it.
func TestCompletionAgainstParts(t *testing.T) {
	ctx, s := t.Context(), openStore(t, t.TempDir())
	if err := s.CreateBucket("images"); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		u := must2(s.createUpload("images", "k", nil, "", ""))(t)
		first := noise(1, MinPartBytes)
		p := must2(s.putPart(ctx, "images", "k", u.ID, 1, inMemory(first)))(t)
		ctx, cancel := context.WithCancel(ctx)
		var wg sync.WaitGroup
		for i := range 4 {
			wg.Go(func() {
				for ctx.Err() == nil { // part 2 lies behind the object's end, in the same file
					_, err := s.putPart(ctx, "images", "k", u.ID, 2, inMemory(bytes.Repeat([]byte{byte(i)}, MinPartBytes)))
					if errors.Is(err, ErrNoSuchUpload) {
						return
					}
				}
			})
		}
		time.Sleep(time.Duration(rand.IntN(20)) * time.Millisecond)
		_, err := s.complete(ctx, "images", "k", u.ID, []completed{{number: 1, etag: p.ETag}}, Checksum{}, -1, condition{})
		wg.Wait()
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(readObject(t, s, "images", "k"), first) {
			t.Fatal("a late part has reached the object")
		}
	}
}

func TestStage(t *testing.T) {
	ctx, s := t.Context(), openStore(t, t.TempDir())
	if err := s.CreateBucket("images"); err != nil {
		t.Fatal(err)
	}
	content := noise(9, 1<<20)
	must2(s.put(ctx, "images", "a/b", nil, inMemory(content), condition{}))(t)
	dst := filepath.Join(t.TempDir(), "disk")
	var done, total int64
	for range 2 { // the second time over the first
		if err := s.Stage(ctx, "images", "a/b", dst, func(d, t int64) { done, total = d, t }); err != nil {
			t.Fatal(err)
		}
	}
	o := must2(s.head("images", "a/b"))(t)
	if inode(t, dst) != inode(t, filepath.Join(s.dir, bucketsDir, "images", dataDir, o.Data)) {
		t.Error("the file was copied on one file system")
	}
	if done != 1<<20 || total != 1<<20 {
		t.Errorf("progress %d of %d", done, total)
	}
	if err := s.remove("images", "a/b"); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(dst); err != nil || !bytes.Equal(got, content) {
		t.Errorf("the staged file went with the object: %v", err)
	}
	for _, c := range []struct {
		bucket, key string
		want        error
	}{{"images", "a/b", ErrNoSuchKey}, {"nothing", "a/b", ErrNoSuchBucket}} {
		if err := s.Stage(ctx, c.bucket, c.key, dst, nil); !errors.Is(err, c.want) {
			t.Errorf("Stage: %v, want %v", err, c.want)
		}
		if _, err := s.Stat(ctx, c.bucket, c.key); !errors.Is(err, c.want) {
			t.Errorf("Stat: %v, want %v", err, c.want)
		}
	}
	if entries, err := os.ReadDir(filepath.Dir(dst)); err != nil || len(entries) != 1 {
		t.Errorf("left beside the staged file: %v, %v", entries, err)
	}
	// Another file system: a copy, which obeys its context.
	if other, err := os.MkdirTemp("/dev/shm", "berth-s3-"); err == nil {
		t.Cleanup(func() { _ = os.RemoveAll(other) })
		must2(s.put(ctx, "images", "a/b", nil, inMemory(content), condition{}))(t)
		if err := s.Stage(ctx, "images", "a/b", filepath.Join(other, "disk"), nil); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(filepath.Join(other, "disk")); err != nil || !bytes.Equal(got, content) {
			t.Errorf("copied: %v", err)
		}
		ctx, cancel := context.WithCancel(ctx)
		cancel()
		if err := s.Stage(ctx, "images", "a/b", filepath.Join(other, "late"), nil); !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: %v", err)
		}
		if entries, _ := os.ReadDir(other); len(entries) != 1 {
			t.Errorf("left behind: %v", entries)
		}
	}
}

// A record that cannot be read makes its object absent and keeps everything in its bucket.
func TestDamagedRecord(t *testing.T) {
	ctx, s := t.Context(), openStore(t, t.TempDir())
	if err := s.CreateBucket("images"); err != nil {
		t.Fatal(err)
	}
	for _, k := range []string{"a", "b"} {
		must2(s.put(ctx, "images", k, nil, inMemory([]byte(k)), condition{}))(t)
	}
	record := filepath.Join(s.dir, bucketsDir, "images", objectsDir, recordName("a"))
	raw, err := os.ReadFile(record)
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"", "{", strings.Replace(string(raw), `"size":1`, `"size":2`, 1), strings.Replace(string(raw), `"key":"a"`, `"key":"b"`, 1), strings.Replace(string(raw), `"data":"`, `"data":"../`, 1)} {
		if bad == string(raw) {
			t.Fatal("the damage is none")
		}
		if err := os.WriteFile(record, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		s = reopen(t, s)
		if _, err := s.head("images", "a"); !errors.Is(err, ErrNoSuchKey) {
			t.Errorf("%q: %v", bad, err)
		}
		if _, err := s.head("images", "b"); err != nil {
			t.Error(err)
		}
		if n := files(t, s.dir); n[dataDir] != 2 {
			t.Errorf("%q: content was removed: %v", bad, n)
		}
		if err := s.DeleteBucket("images"); !errors.Is(err, ErrBucketNotEmpty) {
			t.Errorf("DeleteBucket: %v", err)
		}
	}
	if err := os.WriteFile(record, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := readObject(t, reopen(t, s), "images", "a"); string(got) != "a" {
		t.Errorf("%q", got)
	}
}
