package s3

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go"

	"berth/internal/awsapi"
)

const (
	testKeyID  = "AKIAIOSFODNN7EXAMPLE"
	testSecret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
	testRegion = "eu-central-1"
	account    = "123456789012"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv("BERTH_S3_TEST_CHILD"); dir != "" {
		crashChild(dir)
		return
	}
	os.Exit(m.Run())
}

type keys map[string]awsapi.AccessKey

func (k keys) AccessKey(_ context.Context, id string) (awsapi.AccessKey, error) {
	if key, ok := k[id]; ok {
		return key, nil
	}
	return awsapi.AccessKey{}, awsapi.ErrNoSuchKey
}

func policy(t testing.TB, document string) *awsapi.Policy {
	t.Helper()
	p, err := awsapi.ParsePolicy(document)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func openStore(t testing.TB, dir string) *Store {
	t.Helper()
	s, err := Open(StoreOptions{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// door is a door on a port of its own, and its administrator's client.
type door struct {
	url    string
	store  *Store
	client *awss3.Client
	keys   keys
}

func openDoor(t testing.TB) *door {
	t.Helper()
	d := &door{store: openStore(t, t.TempDir())}
	d.keys = keys{testKeyID: {ID: testKeyID, Secret: testSecret, UserName: "admin", AccountID: account, Policy: policy(t, awsapi.AdministratorAccess)}}
	srv := httptest.NewServer(&Door{Store: d.store, Region: testRegion, AccountID: account,
		Auth: &awsapi.Authenticator{Keys: d.keys, Region: testRegion, Now: time.Now}})
	t.Cleanup(srv.Close)
	d.url = srv.URL
	d.client = d.as(testKeyID, testSecret)
	return d
}

func (d *door) as(id, secret string, more ...func(*awss3.Options)) *awss3.Client {
	return awss3.New(awss3.Options{Region: testRegion, BaseEndpoint: aws.String(d.url), UsePathStyle: true, RetryMaxAttempts: 1,
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: id, SecretAccessKey: secret}, nil
		})}, more...)
}

func noise(seed uint64, n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16)}).Read(b) // never fails
	return b
}

func must[T any](t testing.TB, v T, err error) T {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func wantCode(t testing.TB, err error, code string) {
	t.Helper()
	var api smithy.APIError
	if !errors.As(err, &api) || api.ErrorCode() != code {
		t.Errorf("got %v, want %s", err, code)
	}
}

func (d *door) bucket(t testing.TB, name string) string {
	t.Helper()
	_, err := d.client.CreateBucket(t.Context(), &awss3.CreateBucketInput{Bucket: &name})
	if err != nil {
		t.Fatal(err)
	}
	return name
}

func (d *door) put(t testing.TB, bucket, key string, content []byte) {
	t.Helper()
	if _, err := d.client.PutObject(t.Context(), &awss3.PutObjectInput{Bucket: &bucket, Key: &key, Body: bytes.NewReader(content)}); err != nil {
		t.Fatal(err)
	}
}

func (d *door) get(t testing.TB, bucket, key string) []byte {
	t.Helper()
	out, err := d.client.GetObject(t.Context(), &awss3.GetObjectInput{Bucket: &bucket, Key: &key})
	if err != nil {
		t.Fatal(err)
	}
	defer out.Body.Close()
	b, err := io.ReadAll(out.Body)
	return must(t, b, err)
}

// files lists what a store has on disk, by folder.
func files(t testing.TB, dir string) map[string]int {
	t.Helper()
	out := map[string]int{}
	err := filepath.WalkDir(dir, func(p string, e os.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			out[filepath.Base(filepath.Dir(p))]++
			if strings.HasSuffix(p, tempSuffix) {
				t.Errorf("temporary file %s is left", p)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// raw sends a request that no client library would make.
func raw(t testing.TB, method, url string, body []byte, header map[string]string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range header {
		r.Header.Set(k, v)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}
