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

// ErrNoManifest says that Verify has nothing to compare with: the file is no OVA, or an OVA without a manifest.
var ErrNoManifest = errors.New("disk: the export has no manifest")

// manifest is the .mf file of an OVA: one line for each other file, such as
//
//	SHA256(machine.ovf)= 5994471abb01112afcc18159f6cc74b4f511b99806da59b3caf5a9c173cacfc5
type manifest struct {
	digests []digest
}

type digest struct {
	member *member
	line   int64 // byte of the manifest's line in the OVA
	name   string
	make   func() hash.Hash
	sum    []byte
}

// hashes are those that DSP0243 allows (SHA1 in version 1, SHA256 and SHA512 from 2 on) and VMware writes.
var hashes = map[string]func() hash.Hash{
	"SHA1":   sha1.New,
	"SHA256": sha256.New,
	"SHA512": sha512.New,
}

// readManifest parses the manifest. Every file that it does not name would stay unverified, so that it must name all of
// them but itself and the certificate, which signs it.
func readManifest(f *file, sums *member, members []member) (*manifest, error) {
	if sums.bytes > ovfLimit {
		return nil, f.refuse(Damaged, "manifest", sums.offset, "%d bytes, at most %d are read", sums.bytes, ovfLimit)
	}
	text, err := f.bytes("manifest", sums.offset, sums.bytes)
	if err != nil {
		return nil, err
	}
	byName := map[string]*member{}
	for i := range members {
		byName[members[i].name] = &members[i]
	}
	m := &manifest{}
	named := map[*member]bool{}
	at := sums.offset
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
		target := byName[name]
		switch {
		case target == nil:
			return nil, f.refuse(Damaged, "manifest", start, "%.80q is not in the OVA", name)
		case named[target]:
			return nil, f.refuse(Damaged, "manifest", start, "%.80q is there twice", name)
		}
		named[target] = true
		m.digests = append(m.digests, digest{target, start, algorithm, newHash, sum})
	}
	for i := range members {
		o := &members[i]
		if o != sums && !named[o] && !strings.HasSuffix(strings.ToLower(o.name), ".cert") {
			return nil, f.refuse(Damaged, "manifest", sums.offset, "it has no digest of %.80q", o.name)
		}
	}
	return m, nil
}

// Verify reads the whole export and compares it with the digests in its manifest. It returns nil if all agree, a Refusal
// that names the first file that does not, ErrNoManifest if there is nothing to compare with, ctx's error, or one of
// reading. The manifest itself is not signed, or its signature is not looked at: Verify finds damage, not malice.
func (e *Envelope) Verify(ctx context.Context) error {
	if e.manifest == nil {
		return ErrNoManifest
	}
	buf := make([]byte, 256<<10)
	for _, d := range e.manifest.digests {
		h := d.make()
		for off := int64(0); off < d.member.bytes; {
			if err := ctx.Err(); err != nil {
				return err
			}
			n, err := d.member.ReadAt(buf[:min(int64(len(buf)), d.member.bytes-off)], off)
			h.Write(buf[:n])
			off += int64(n)
			if off < d.member.bytes && err != nil {
				if errors.Is(err, io.EOF) {
					err = io.ErrUnexpectedEOF
				}
				return fmt.Errorf("disk: verify %s at byte %d: %w", d.member.name, off, err)
			}
		}
		if !bytes.Equal(h.Sum(nil), d.sum) {
			return &Refusal{Format: "OVA", Reason: Damaged, Field: "manifest", Offset: d.line,
				Detail: fmt.Sprintf("%s is not the file whose %s digest the manifest has: it was damaged or changed", d.member.name, d.name)}
		}
	}
	return nil
}
