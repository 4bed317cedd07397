package memory

import (
	"bytes"
	"encoding/binary"
	"errors"
	"image"
	"image/color"
	"image/png"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"berth/internal/compute"
)

// running is a host with a running machine "m".
func running(t *testing.T) (*Host, compute.Driver, compute.Machine) {
	t.Helper()
	header := make([]byte, 104)
	copy(header, "QFI\xfb\x00\x00\x00\x03")
	binary.BigEndian.PutUint64(header[24:], uint64(compute.GiB))
	path := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(path, header, 0o600); err != nil {
		t.Fatal(err)
	}
	host := NewHost()
	d := host.Open()
	if err := d.EnsureImage(t.Context(), "i", path); err != nil {
		t.Fatal(err)
	}
	m := compute.Machine{ID: "m", Image: "i", RootGiB: 1, VCPUs: 1, MemoryMiB: 64, Firmware: compute.BIOS, Running: true, Boots: 1}
	if _, err := d.Ensure(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	return host, d, m
}

// viewer is a connection past the handshake.
type viewer struct {
	*testing.T
	net.Conn
}

func view(t *testing.T, d compute.Driver) viewer {
	t.Helper()
	conn, err := d.Display(t.Context(), "m")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	v := viewer{t, conn}
	v.take(12)
	v.send([]byte("RFB 003.008\n"))
	v.take(2)
	v.send([]byte{1})
	v.take(4)
	v.send([]byte{0})
	hello := v.take(24)
	if w, h := binary.BigEndian.Uint16(hello), binary.BigEndian.Uint16(hello[2:]); w != width || h != height {
		t.Errorf("screen of %d x %d", w, h)
	}
	if name := v.take(int(binary.BigEndian.Uint32(hello[20:]))); string(name) != "m" {
		t.Errorf("name %q", name)
	}
	return v
}

func (v viewer) take(n int) []byte {
	v.Helper()
	b := make([]byte, n)
	if _, err := io.ReadFull(v, b); err != nil {
		v.Fatalf("read %d bytes: %v", n, err)
	}
	return b
}

func (v viewer) send(b []byte) {
	v.Helper()
	if _, err := v.Write(b); err != nil {
		v.Fatal(err)
	}
}

func (v viewer) request(incremental byte, x, y, w, h uint16) {
	b := []byte{3, incremental}
	for _, n := range []uint16{x, y, w, h} {
		b = binary.BigEndian.AppendUint16(b, n)
	}
	v.send(b)
}

// update takes an update of one raw rectangle, of that many bytes a pixel.
func (v viewer) update(bytesPerPixel int) (image.Rectangle, []byte) {
	v.Helper()
	head := v.take(16)
	if !bytes.Equal(head[:4], []byte{0, 0, 0, 1}) || !bytes.Equal(head[12:], make([]byte, 4)) {
		v.Fatalf("update begins %v", head)
	}
	n := func(i int) int { return int(binary.BigEndian.Uint16(head[i:])) }
	r := image.Rect(n(4), n(6), n(4)+n(8), n(6)+n(10))
	return r, v.take(r.Dx() * r.Dy() * bytesPerPixel)
}

// TestPicture: the display shows what the screenshot shows, in the viewer's own pixel format.
func TestPicture(t *testing.T) {
	_, d, _ := running(t)
	shot, err := d.Screenshot(t.Context(), "m")
	if err != nil {
		t.Fatal(err)
	}
	want, err := png.Decode(bytes.NewReader(shot))
	if err != nil {
		t.Fatal(err)
	}
	v := view(t, d)
	check := func(r image.Rectangle, pixels []byte, n int, pixel func(color.RGBA) []byte) {
		t.Helper()
		seen := map[string]bool{}
		for i := 0; i < r.Dx()*r.Dy(); i++ {
			x, y := r.Min.X+i%r.Dx(), r.Min.Y+i/r.Dx()
			c := color.RGBAModel.Convert(want.At(x, y)).(color.RGBA)
			if got := pixels[i*n : i*n+n]; !bytes.Equal(got, pixel(c)) {
				t.Fatalf("pixel %d,%d is %x, want %x for %v", x, y, got, pixel(c), c)
			}
			seen[string(pixel(c))] = true
		}
		if len(seen) < 2 {
			t.Error("a picture of one colour shows nothing")
		}
	}
	v.request(0, 0, 0, width, height)
	r, pixels := v.update(4)
	if r != image.Rect(0, 0, width, height) {
		t.Errorf("rectangle %v", r)
	}
	check(r, pixels, 4, func(c color.RGBA) []byte { return []byte{c.B, c.G, c.R, 0} })

	v.send([]byte{2, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 16})                              // SetEncodings: raw, ZRLE
	v.send([]byte{0, 0, 0, 0, 16, 16, 1, 1, 0, 31, 0, 63, 0, 31, 11, 5, 0, 0, 0, 0}) // SetPixelFormat: 5-6-5, big-endian
	v.send(append([]byte{6, 0, 0, 0, 0, 0, 0, 5}, "paste"...))                       // ClientCutText
	v.send([]byte{5, 1, 0, 10, 0, 20})                                               // PointerEvent
	v.request(0, 0, 190, 100, 1000)                                                  // more than there is
	r, pixels = v.update(2)
	if r != image.Rect(0, 190, 100, height) {
		t.Errorf("rectangle %v", r)
	}
	check(r, pixels, 2, func(c color.RGBA) []byte {
		return binary.BigEndian.AppendUint16(nil, uint16(c.R)*31/255<<11|uint16(c.G)*63/255<<5|uint16(c.B)*31/255)
	})
}

// TestKeys: a key that is pressed is remembered and seen, by a viewer that waits for a change.
func TestKeys(t *testing.T) {
	host, d, m := running(t)
	v := view(t, d)
	v.request(0, 0, 0, width, height)
	_, before := v.update(4)
	v.request(1, 0, 0, width, height)
	v.send([]byte{4, 1, 0, 0, 0, 0, 0, 'a'}) // KeyEvent: down
	v.send([]byte{4, 0, 0, 0, 0, 0, 0, 'a'}) // up
	_, after := v.update(4)
	if bytes.Equal(before, after) {
		t.Error("the picture did not change")
	}
	if typed := host.Typed("m"); !slices.Equal(typed, []uint32{'a'}) {
		t.Errorf("typed %v", typed)
	}
	v.request(1, 0, 0, width, height)
	m.Boots = 2
	if _, err := d.Ensure(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	if _, booted := v.update(4); bytes.Equal(booted, before) || bytes.Equal(booted, after) {
		t.Error("the picture of the second boot is that of the first")
	}
}

// TestBadViewers: whatever a viewer sends, the connection ends and the next viewer is served.
func TestBadViewers(t *testing.T) {
	_, d, _ := running(t)
	for what, bad := range map[string][]byte{
		"unknown message": {99},
		"colour map":      {0, 0, 0, 0, 8, 8, 0, 0, 0, 7, 0, 7, 0, 3, 0, 3, 6, 0, 0, 0},
		"24 bits":         {0, 0, 0, 0, 24, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0, 0, 0, 0},
		"shift of 32":     {0, 0, 0, 0, 32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 32, 8, 0, 0, 0, 0},
	} {
		v := view(t, d)
		v.Write(bad)
		if _, err := v.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: %v", what, err)
		}
	}
	view(t, d)
}

func TestFaults(t *testing.T) {
	host, d, m := running(t)
	broken := errors.New("broken")
	m.Boots = 2
	host.Fail("Ensure", broken)
	if _, err := d.Ensure(t.Context(), m); !errors.Is(err, broken) || host.GuestBoots("m") != 1 {
		t.Errorf("Fail: %v, %d boots", err, host.GuestBoots("m"))
	}
	host.FailAfter("Ensure", broken)
	if _, err := d.Ensure(t.Context(), m); !errors.Is(err, broken) || host.GuestBoots("m") != 2 {
		t.Errorf("FailAfter: %v, %d boots", err, host.GuestBoots("m"))
	}
	if got, err := d.Ensure(t.Context(), m); err != nil || got.Boots != 2 || host.GuestBoots("m") != 2 {
		t.Errorf("after the faults: %+v, %v", got, err)
	}
}
