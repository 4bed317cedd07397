package disk

import (
	"bytes"
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"strings"
)

// ErrNoManifest says that Verify has nothing to compare with: the file is neither OVA nor OVF, or one without a manifest.
var ErrNoManifest = errors.New("disk: the export has no manifest")

// manifest is the .mf file in an OVA or beside an OVF: one line for each other file, such as
//
//	SHA256(machine.ovf)= 5994471abb01112afcc18159f6cc74b4f511b99806da59b3caf5a9c173cacfc5
type manifest struct {
	format  string // for Refusals
	digests []digest
}

type digest struct {
	file string
	src  Source // nil: it is not there
	line int64  // byte of the manifest's line in the OVA, or in the manifest beside an OVF
	name string // of the algorithm
	make func() hash.Hash
	sum  []byte
}

// hashes are those that DSP0243 allows (SHA1 in version 1, SHA256 and SHA512 from 2 on) and VMware writes.
var hashes = map[string]func() hash.Hash{
	"SHA1":   sha1.New,
	"SHA256": sha256.New,
	"SHA512": sha512.New,
}

// readManifest parses the manifest, which is text at byte at of f. Every file that it does not name would stay unverified, so that it
// must name all that are needed. find gives it the file that a line names, whose name is known to be local; nil where there is none.
func readManifest(f *file, text []byte, at int64, needed []string, find func(name string, line int64) (Source, error)) (*manifest, error) {
	begin := at
	m := &manifest{format: f.format}
	named := map[string]bool{}
	for line := range bytes.Lines(text) {
		start := at
		at += int64(len(line))
		words := strings.TrimSpace(string(line))
		if words == "" || words[0] == '#' {
			continue
		}
		algorithm, rest, ok := strings.Cut(words, "(")
		close := strings.LastIndex(rest, ")")
		if !ok || close < 0 {
			return nil, f.refuse(Damaged, "manifest", start, "%.80q is not a digest", words)
		}
		name, value := strings.TrimPrefix(rest[:close], "./"), strings.TrimSpace(rest[close+1:])
		value, ok = strings.CutPrefix(value, "=")
		algorithm = strings.ToUpper(strings.ReplaceAll(strings.TrimSpace(algorithm), "-", ""))
		newHash := hashes[algorithm]
		if newHash == nil {
			return nil, f.refuse(Unsupported, "manifest", start, "digest %.20q, known are SHA1, SHA256 and SHA512", algorithm)
		}
		sum, err := hex.DecodeString(strings.TrimSpace(value))
		if !ok || err != nil || len(sum) != newHash().Size() {
			return nil, f.refuse(Damaged, "manifest", start, "%.40q is not the value of a %s digest", value, algorithm)
		}
		switch {
		case !localName(name):
			return nil, f.refuse(RefersElsewhere, "manifest", start, "%.80q leads out of the export", name)
		case named[name]:
			return nil, f.refuse(Damaged, "manifest", start, "%.80q is there twice", name)
		case len(named) == maxMembers:
			return nil, f.refuse(Damaged, "manifest", start, "more than %d digests", maxMembers)
		}
		named[name] = true
		src, err := find(name, start)
		if err != nil {
			return nil, err
		}
		m.digests = append(m.digests, digest{name, src, start, algorithm, newHash, sum})
	}
	for _, name := range needed {
		if !named[name] {
			return nil, f.refuse(Damaged, "manifest", begin, "it has no digest of %.80q", name)
		}
	}
	return m, nil
}

// HasManifest tells whether the export brings digests along, which Verify compares it with.
func (e *Envelope) HasManifest() bool { return e.manifest != nil }

// Verify reads the whole export and compares it with the digests in its manifest. It returns nil if all agree, a Refusal
// that names the first file that does not, ErrNoManifest if there is nothing to compare with, ctx's error, or one of
// reading. progress, if there is one, is told how many of the bytes that there are digests of have been read; an error from it ends
// Verify with that error. The manifest itself is not signed, or its signature is not looked at: Verify finds damage, not malice.
func (e *Envelope) Verify(ctx context.Context, progress func(done, size int64) error) error {
	if e.manifest == nil {
		return ErrNoManifest
	}
	var done, all int64
	for _, d := range e.manifest.digests {
		if d.src != nil {
			all += d.src.Size()
		}
	}
	buf := make([]byte, 256<<10)
	for _, d := range e.manifest.digests {
		if d.src == nil {
			return &Refusal{Format: e.manifest.format, Reason: Damaged, Field: "manifest", Offset: d.line,
				Detail: fmt.Sprintf("%s, whose digest the manifest has, is not there", d.file)}
		}
		h, size := d.make(), d.src.Size()
		for off := int64(0); off < size; {
			if err := ctx.Err(); err != nil {
				return err
			}
			if progress != nil {
				if err := progress(done, all); err != nil {
					return err
				}
			}
			n, err := d.src.ReadAt(buf[:min(int64(len(buf)), size-off)], off)
			h.Write(buf[:n])
			off += int64(n)
			done += int64(n)
			if off < size && err != nil {
				if errors.Is(err, io.EOF) {
					err = io.ErrUnexpectedEOF
				}
				return fmt.Errorf("disk: verify %s at byte %d: %w", d.file, off, err)
			}
		}
		if !bytes.Equal(h.Sum(nil), d.sum) {
			return &Refusal{Format: e.manifest.format, Reason: Damaged, Field: "manifest", Offset: d.line,
				Detail: fmt.Sprintf("%s is not the file whose %s digest the manifest has: it was damaged or changed", d.file, d.name)}
		}
	}
	return nil
}
