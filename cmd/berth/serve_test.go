package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A list of buckets without an endpoint is a mistake that would go unnoticed: every import from them would find nothing.
func TestBucketsNeedTheirEndpoint(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	err := serveCmd{Data: data, S3Buckets: []string{"exports"}}.Run(t.Context())
	if err == nil || !strings.Contains(err.Error(), "--s3-endpoint") {
		t.Errorf("%v", err)
	}
	if _, err := os.Stat(data); !os.IsNotExist(err) {
		t.Errorf("the data folder: %v", err)
	}
}
