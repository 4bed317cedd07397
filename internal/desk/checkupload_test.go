package desk

import (
	"bytes"
	"context"
	"encoding/json"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"testing/fstest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"berth/internal/awsapi"
	"berth/internal/check"
	"berth/internal/phony"
	"berth/internal/s3"
	"berth/testdata/machines"
)

// The verdict on an upload is there before the upload has ended: the second half of a disk is withheld.
func TestTheCheckRunsWhileTheUploadDoes(t *testing.T) {
	store, err := s3.Open(s3.StoreOptions{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	f := newFixture(t, func(c *Config) { c.Objects = store })
	key, _, err := f.AdminKey(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	auth := &awsapi.Authenticator{Keys: f.Desk, Region: f.Region(), Now: time.Now}
	door := httptest.NewServer(&s3.Door{Store: store, Auth: auth, Region: f.Region(), AccountID: f.AccountID(), NewID: func() string { return "request" }})
	t.Cleanup(door.Close)
	client := awss3.New(awss3.Options{Region: f.Region(), BaseEndpoint: &door.URL, UsePathStyle: true, HTTPClient: http.DefaultClient,
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: key.ID, SecretAccessKey: key.Secret.Reveal()}, nil
		})})
	if err := store.CreateBucket("exports"); err != nil {
		t.Fatal(err)
	}
	raw := smallDisk(t)
	for _, format := range []string{"raw", "vpc", "vmdk"} {
		t.Run(format, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "disk."+format)
			args := []string{"convert", "-f", "raw", "-O", format}
			switch format {
			case "vmdk":
				args = append(args, "-o", "subformat=monolithicSparse")
			case "vpc":
				args = append(args, "-o", "subformat=fixed,force_size=on")
			}
			run(t, "qemu-img", append(args, raw, path)...)
			content, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			part := 8 << 20
			if format == "vmdk" { // it has what is stored alone
				part = 1 << 20
			}
			up, err := client.CreateMultipartUpload(t.Context(), &awss3.CreateMultipartUploadInput{Bucket: aws.String("exports"), Key: &format})
			if err != nil {
				t.Fatal(err)
			}
			asked := &CheckUploadInput{Bucket: aws.String("exports"), Key: &format, SizeBytes: int64(len(content))}
			_, err = f.Berth().CheckUpload(t.Context(), asked)
			refusal(t, err, "InvalidParameterValuesException", "No part of it has come yet")
			var parts []types.CompletedPart
			send := func(n int) {
				t.Helper()
				out, err := client.UploadPart(t.Context(), &awss3.UploadPartInput{Bucket: aws.String("exports"), Key: &format, UploadId: up.UploadId, PartNumber: aws.Int32(int32(n + 1)), Body: bytes.NewReader(content[n*part : min(len(content), (n+1)*part)])})
				if err != nil {
					t.Fatal(err)
				}
				parts = append(parts, types.CompletedPart{ETag: out.ETag, PartNumber: aws.Int32(int32(n + 1))})
			}
			verdict := func() map[string]check.Outcome {
				t.Helper()
				out, err := f.Berth().CheckUpload(t.Context(), asked)
				if err != nil {
					t.Fatal(err)
				}
				var report check.Report
				if err := json.Unmarshal([]byte(out.Report), &report); err != nil {
					t.Fatal(err)
				}
				codes := map[string]check.Outcome{}
				for _, x := range report.Findings {
					codes[x.Code] = x.Outcome
				}
				return codes
			}
			all := (len(content) + part - 1) / part
			for n := range all / 2 {
				if n == 1 && format != "vpc" { // which comes to its hives at once
					_, err = f.Berth().CheckUpload(t.Context(), asked)
					refusal(t, err, "InvalidParameterValuesException", "what says where Windows is has not come yet.")
				}
				send(n)
			}
			half := verdict() // while the second half is withheld
			if half["AutoLogonEnabled"] != check.Warn {
				t.Errorf("of half the disk, AutoLogonEnabled is %s, want WARN", half["AutoLogonEnabled"])
			}
			for n := all / 2; n < all; n++ {
				send(n)
			}
			whole := verdict()
			told := 0
			for code, outcome := range half {
				if outcome != whole[code] && outcome != check.Unknown {
					t.Errorf("%s is %s of half the disk and %s of all of it", code, outcome, whole[code])
				}
				if outcome != check.Unknown {
					told++
				}
			}
			if len(half) != len(whole) || told < len(whole)/2 {
				t.Errorf("half the disk told %d of %d", told, len(whole))
			}
			if format == "vmdk" { // parts so small are for trying things out
				if _, err := client.AbortMultipartUpload(t.Context(), &awss3.AbortMultipartUploadInput{Bucket: aws.String("exports"), Key: &format, UploadId: up.UploadId}); err != nil {
					t.Fatal(err)
				}
			} else if _, err := client.CompleteMultipartUpload(t.Context(), &awss3.CompleteMultipartUploadInput{Bucket: aws.String("exports"), Key: &format, UploadId: up.UploadId, MultipartUpload: &types.CompletedMultipartUpload{Parts: parts}}); err != nil {
				t.Fatal(err)
			}
			_, err = f.Berth().CheckUpload(t.Context(), asked)
			refusal(t, err, "ResourceNotFoundException", "is under way")
		})
	}
}

// smallDisk is a raw disk of 256 MiB with a machine that logs on by itself.
func smallDisk(t *testing.T) string {
	t.Helper()
	fsys := fstest.MapFS{"small.txtar": {Data: []byte("A machine on a small disk.\n\n-- machine --\nbase = auto-logon-enabled\ndisk = 256MiB\n\n-- files --\n- pagefile.sys\n- swapfile.sys\n")}}
	for _, name := range []string{phony.Base, "auto-logon-enabled"} {
		b, err := fs.ReadFile(machines.FS, name+".txtar")
		if err != nil {
			t.Fatal(err)
		}
		fsys[name+".txtar"] = &fstest.MapFile{Data: b}
	}
	m, err := phony.LoadFS(fsys, "small")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "small.raw")
	if err := m.Export(t.Context(), path, "raw"); err != nil {
		t.Fatal(err)
	}
	// What was once on it, and is free now: in a format that has only what is stored, it comes behind the hives.
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	noise := make([]byte, 40<<20)
	rand.NewChaCha8([32]byte{1}).Read(noise) //nolint:errcheck // it cannot fail
	if _, err := f.WriteAt(noise, 205<<20); err != nil {
		t.Fatal(err)
	}
	return path
}
