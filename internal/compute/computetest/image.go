package computetest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"

	"berth/internal/compute"
)

func images(s *suite) {
	for range 2 {
		s.image()
	}
	m := s.wanted("clone")
	m.Running = false
	s.ensure(m)
	s.wantError(s.driver.DeleteImage(s.context(), "sealed"), compute.ErrInUse, "DeleteImage with a clone that is off")
	second := s.wanted("second")
	second.Running = false
	s.ensure(second) // the refusal took nothing away
	for _, id := range []string{m.ID, second.ID} {
		if err := s.driver.Delete(s.context(), id); err != nil {
			s.Fatal(err)
		}
	}
	for range 2 {
		if err := s.driver.DeleteImage(s.context(), "sealed"); err != nil {
			s.Errorf("DeleteImage: %v", err)
		}
	}
	_, err := s.driver.Ensure(s.context(), m)
	s.wantError(err, compute.ErrNoImage, "Ensure from a deleted image")
	if _, err := s.driver.Status(s.context(), m.ID); !errors.Is(err, compute.ErrNotFound) {
		s.Errorf("after an Ensure without its image, Status: %v, want %v", err, compute.ErrNotFound)
	}
	if left := s.Leftovers(m.ID); len(left) > 0 {
		s.Errorf("an Ensure without its image left %q", left)
	}
}

func badImages(s *suite) {
	sealed, err := os.ReadFile(s.Image)
	if err != nil {
		s.Fatal(err)
	}
	for what, spoil := range map[string]func([]byte) []byte{
		"empty":                  func(b []byte) []byte { return nil },
		"cut within its header":  func(b []byte) []byte { return b[:100] },
		"raw":                    func(b []byte) []byte { return make([]byte, 1<<16) },
		"of an unknown version":  func(b []byte) []byte { b[7] = 9; return b },
		"with a backing file":    func(b []byte) []byte { b[14] = 1; return b },
		"with a data file":       func(b []byte) []byte { b[79] |= 4; return b },
		"encrypted":              func(b []byte) []byte { b[35] = 2; return b },
		"of an absurd size":      func(b []byte) []byte { b[24] = 0x7f; return b },
		"of a size of no bytes":  func(b []byte) []byte { clear(b[24:32]); return b },
		"that claims to be qcow": func(b []byte) []byte { b[0] = 'q'; return b },
	} {
		path := filepath.Join(s.TempDir(), "spoilt.qcow2")
		if err := os.WriteFile(path, spoil(bytes.Clone(sealed)), 0o600); err != nil {
			s.Fatal(err)
		}
		s.wantError(s.driver.EnsureImage(s.context(), "spoilt", path), compute.ErrInvalid, "an image "+what)
	}
	s.wantError(s.driver.EnsureImage(s.context(), "spoilt", filepath.Join(s.TempDir(), "missing")), os.ErrNotExist, "no image")
	// An image over another one.
	s.wantError(s.driver.EnsureImage(s.context(), "layered", s.Image, filepath.Join(s.TempDir(), "missing")), os.ErrNotExist, "an image over none")
	s.wantError(s.driver.EnsureImage(s.context(), "layered", s.Image, s.Image, s.Image), compute.ErrInvalid, "an image over two")
	smaller := filepath.Join(s.TempDir(), "smaller.qcow2")
	half := bytes.Clone(sealed)
	binary.BigEndian.PutUint64(half[24:], binary.BigEndian.Uint64(half[24:])/2)
	if err := os.WriteFile(smaller, half, 0o600); err != nil {
		s.Fatal(err)
	}
	s.wantError(s.driver.EnsureImage(s.context(), "layered", smaller, s.Image), compute.ErrInvalid, "an image over a larger one")
	empty := filepath.Join(s.TempDir(), "empty.qcow2")
	if out, err := exec.CommandContext(s.Context(), "qemu-img", "create", "-q", "-f", "qcow2", empty, strconv.FormatUint(binary.BigEndian.Uint64(sealed[24:]), 10)).CombinedOutput(); err != nil {
		s.Fatalf("%v: %s", err, out)
	}
	for range 2 {
		if err := s.driver.EnsureImage(s.context(), "layered", empty, s.Image); err != nil {
			s.Fatal(err)
		}
	}
	layered := s.wanted("layered")
	layered.Image = "layered"
	s.ensure(layered)
	s.guestBoots(layered.ID, 1) // what boots is in the image below
	s.wantError(s.driver.DeleteImage(s.context(), "layered"), compute.ErrInUse, "deleting an image over another one")

	m := s.wanted("clone")
	m.Image = "spoilt"
	_, err = s.driver.Ensure(s.context(), m)
	s.wantError(err, compute.ErrNoImage, "a machine from an image that was refused")
	if now, err := os.ReadFile(s.Image); err != nil || !bytes.Equal(now, sealed) {
		s.Errorf("the sealed image was written to (%v)", err)
	}
}
