package disk

import (
	"bytes"
	"crypto/sha256"
	"encoding"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// checkpoint is how far a copy is: all before byte At of the disk is in the file, and what is needed to go on. It lies beside
// the part of the copy, as JSON. What is written after it is cut off, or written over.
type checkpoint struct {
	Key    string // of what is copied, and how
	At     int64
	Length int64 // of the part, in bytes, at least: a shorter one is not what was written
	Result Copied
	Chain  []byte      // state of Copied.Digest's hash
	QCOW2  *qcow2State `json:",omitempty"`
}

// checkpointLimit bounds the file, in bytes: a QCOW2 of 16 TiB has 600 KiB of tables in it.
const checkpointLimit = 16 << 20

// checkpointVersion tells checkpoints apart of programs that would go on otherwise: it changes with the checkpoint, with the
// forms that are written, and with Copied.Digest, of which half would be of one kind and half of another.
const checkpointVersion = "3 SHA-256 of BLAKE3"

func notesOf(part string) string { return part + ".checkpoint" }

// forget removes the checkpoint beside a part, whole or half written, if there is one.
func forget(part string) error {
	var errs []error
	for _, path := range []string{notesOf(part), notesOf(part) + "~"} {
		if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// openPart opens the file that the copy is written to, new or as a killed copy left it, and locks it.
func (c *copying) openPart(part string) (_ *os.File, err error) {
	noted := c.opt.Checkpoint != "" && c.input == nil // a compressed stream cannot be entered in its middle
	flags := os.O_RDWR | os.O_CREATE | os.O_EXCL
	var old *checkpoint
	var key string
	if noted {
		if c.opt.Resume {
			if old, err = readCheckpoint(notesOf(part)); err != nil {
				return nil, err
			}
		}
		if key, err = c.key(); err != nil {
			return nil, err
		}
	}
	switch info, err := os.Lstat(part); {
	case err == nil && !info.Mode().IsRegular(): // a link would have what it leads to written over
		return nil, &fs.PathError{Op: "create", Path: part, Err: fs.ErrExist}
	case old != nil:
		flags = os.O_RDWR | os.O_CREATE // it is ours: only a copy writes checkpoints
	case err == nil:
		return nil, &fs.PathError{Op: "create", Path: part, Err: fs.ErrExist}
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	case noted: // before the part, so that there is none without
		if err := (&checkpoint{Key: key}).write(notesOf(part)); err != nil {
			return nil, err
		}
	}
	f, err := os.OpenFile(part, flags, 0o666)
	if noted && old == nil && err != nil && !errors.Is(err, fs.ErrExist) { // else somebody was quicker, and it is theirs now
		return nil, errors.Join(err, forget(part))
	}
	if err != nil {
		return nil, err
	}
	// Not removed on an error: somebody else may be at work on it.
	if err := lock(f); err != nil {
		return nil, errors.Join(fmt.Errorf("disk: %s is being written by another copy: %w", part, err), f.Close())
	}
	c.aim(f)
	if c.opt.Durable {
		c.back = newWriteBack(f)
	}
	if noted {
		c.save = func(s *checkpoint) error {
			s.Key = key
			// What it speaks of must not be lost when it is not.
			if err := f.Sync(); err != nil {
				return err
			}
			info, err := f.Stat()
			if err != nil {
				return err
			}
			s.Length = min(info.Size(), s.end()) // more may have been written since
			return s.write(notesOf(part))
		}
	}
	info, err := f.Stat()
	switch {
	case err != nil:
	case old == nil: // A new file is not truncated: ext4 would take that for a file being replaced, and write it to the disk at close.
	case old.Key == key && old.At > 0 && info.Size() >= old.Length:
		err = c.resume(old)
	default:
		if err = f.Truncate(0); err == nil {
			err = (&checkpoint{Key: key}).write(notesOf(part))
		}
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// key tells what is copied, and how, from everything else.
func (c *copying) key() (string, error) {
	h := sha256.New()
	fmt.Fprintf(h, "%s %q %d %t %t %t %d\n", checkpointVersion, c.opt.Checkpoint, c.opt.Form, c.opt.Unverified, c.opt.Digest, c.opt.Skip != nil, c.size)
	if c.base != nil { // whoever names the source may be wrong
		f := c.base.file
		n := min(f.size, 64<<10)
		for _, at := range []int64{0, f.size - n} {
			p, err := f.bytes("beginning and end", at, n)
			if err != nil {
				return "", err
			}
			h.Write(p)
		}
		fmt.Fprintf(h, "%d\n", f.size)
	}
	if c.over != nil {
		for _, p := range c.over.patches {
			fmt.Fprintf(h, "%d %d\n", p.Off, len(p.Data))
			h.Write(p.Data)
		}
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// checkpoint describes the copy when all before byte at of the disk is written.
func (c *copying) checkpoint(at int64) (*checkpoint, error) {
	chain, err := c.chain.(encoding.BinaryMarshaler).MarshalBinary()
	if err != nil {
		return nil, fmt.Errorf("disk: checkpoint: %w", err)
	}
	s := &checkpoint{At: at, Result: c.result, Chain: chain}
	c.to.state(s)
	return s, nil
}

// end is where the part is cut off to go on, in bytes.
func (s *checkpoint) end() int64 {
	if s.QCOW2 != nil {
		return s.QCOW2.End
	}
	return s.At
}

func (c *copying) resume(s *checkpoint) error {
	if s.At > c.size || s.At%copyPiece != 0 && s.At != c.size {
		return fmt.Errorf("disk: checkpoint: byte %d of a disk of %d", s.At, c.size)
	}
	if err := c.chain.(encoding.BinaryUnmarshaler).UnmarshalBinary(s.Chain); err != nil {
		return fmt.Errorf("disk: checkpoint: %w", err)
	}
	c.result, c.from = s.Result, s.At
	c.result.Resumed = s.At
	return c.to.restore(s)
}

func (s *checkpoint) write(path string) error {
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	// Whole or not at all, after a power cut, too.
	temporary := path + "~"
	f, err := os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err == nil {
		_, err = f.Write(b)
		if err == nil && s.At > 0 {
			err = f.Sync()
		}
		err = errors.Join(err, f.Close())
	}
	if err == nil {
		err = os.Rename(temporary, path)
	}
	if err != nil { // the disk may be full; perhaps there is none of it
		_ = os.Remove(temporary)
	}
	return err
}

// readCheckpoint returns nil if there is none at path.
func readCheckpoint(path string) (*checkpoint, error) {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > checkpointLimit {
		return nil, fmt.Errorf("disk: %s is no checkpoint", path)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	s := new(checkpoint)
	if len(b) == 0 { // what a power cut may leave of the first one
		return s, nil
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(s); err != nil {
		return nil, fmt.Errorf("disk: %s is no checkpoint: %w", path, err)
	}
	return s, nil
}
