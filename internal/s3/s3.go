// Package s3 is Berth's S3 door and the objects behind it: the place to which a user uploads an exported virtual machine
// (`aws s3 cp machine.ova s3://bucket/`) and from which ImportImage and ImportSnapshot read it.
//
// It has three parts:
//
//   - [Store] keeps buckets and objects in one directory. An object is one plain file, so that an import takes it over by a hard link
//     in no time and without more disk; a multipart upload writes its parts straight to where they belong in that file.
//   - [Door] is the http.Handler that speaks Amazon's S3 REST API over a Store: enough for the AWS CLI and the AWS SDKs to make
//     buckets, upload (also in parts), download, list, copy and delete. Signatures, keys and policies are the business of package awsapi.
//   - [External] reads from any other S3-compatible endpoint; [Buckets] is both at once.
//
// Each of the three is a [Source]. Two more places can be read from besides, by URL, each a [Place]: [Web] (https, hosts that
// were allowed) and [Folder] (a folder of this host). The rest of Berth knows only the two interfaces.
//
// It does not do versions, ACLs, tags, encryption, bucket policies, lifecycle, replication or any other sub-resource: those are refused
// with NotImplemented, never ignored. docs/adr/0004-s3-door.md says why this is not an existing gateway.
//
// Start reading at Store (store.go) and its put (object.go), then upload.go for multipart uploads, then Door.ServeHTTP (door.go).
package s3

import (
	"context"
	"time"
)

// Limits of Amazon S3 (User Guide: "Amazon S3 multipart upload limits", "Uploading objects", "Naming Amazon S3 objects").
// Amazon's "MB", "GB" and "TB" are MiB, GiB and TiB here as there.
const (
	MaxKeyBytes    = 1024     // bytes of UTF-8
	MaxPutBytes    = 5 << 30  // one PutObject or one part
	MaxObjectBytes = 5 << 40  // a completed multipart upload
	MinPartBytes   = 5 << 20  // every part but the last
	MaxParts       = 10_000   // numbers 1 to 10,000
	MaxListKeys    = 1000     // entries in one answer of a List operation, keys in one DeleteObjects
	maxMetaBytes   = 2 << 10  // all x-amz-meta-* names and values together
	maxXMLBytes    = 4 << 20  // our bound for a request's XML: 10,000 parts with a SHA-256 each need 2.5 MiB
	copyBufBytes   = 1 << 20  // one read of a body; also the most that one write holds an upload's lock for
	copyStepBytes  = 64 << 20 // between two looks at the context, and two progress reports, while a file is copied
)

// Info is what a Source says of an object.
type Info struct {
	Size     int64     `json:"size"`     // bytes
	ETag     string    `json:"etag"`     // without quotes: the MD5 in hex, or for a multipart upload the MD5 of the parts' MD5s, "-", and their number
	Modified time.Time `json:"modified"` // UTC
}

// Source is a place that disk images are imported from.
//
// A missing bucket or object is a *[Refusal] with code NoSuchBucket or NoSuchKey; lack of permission is one with AccessDenied.
type Source interface {
	// Stat tells an object's size and ETag.
	Stat(ctx context.Context, bucket, key string) (Info, error)

	// Stage puts the object's content at path dst, which it replaces if it exists. The file appears at dst complete or not at all,
	// and may share its storage with the source: it must never be written to. Stage may be called again after a crash.
	// progress may be nil; it is called with bytes done and bytes in total, done never falling, the last time with done = total.
	Stage(ctx context.Context, bucket, key, dst string, progress func(done, total int64)) error
}

// Place is where files are fetched from by a URL. Refusals are as a Source's; other errors are trouble that may pass.
type Place interface {
	// Check says what is wrong with a URL, without fetching anything: a sentence's end, "the host is not allowed".
	Check(url string) error
	// Stat tells a file's size, and an ETag that changes when the file does.
	Stat(ctx context.Context, url string) (Info, error)
	// Stage puts the file at path dst as Source.Stage does.
	Stage(ctx context.Context, url, dst string, progress func(done, total int64)) error
}

var (
	_ Source = (*Store)(nil)
	_ Source = (*External)(nil)
	_ Place  = (*Web)(nil)
	_ Place  = (*Folder)(nil)
)
