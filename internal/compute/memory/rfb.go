package memory

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"image"
	"io"
	"net"
)

// pixelFormat is RFC 6143, 7.4, as far as true colour goes.
type pixelFormat struct {
	bytes     int // 1, 2 or 4
	bigEndian bool
	max       [3]uint16
	shift     [3]byte
}

// ownFormat is what ServerInit offers: 32 bits per pixel, depth 24, little-endian, true colour, 255 each, shifts 16, 8, 0.
var ownFormat = [16]byte{32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0}

func parsePixelFormat(b [16]byte) (pixelFormat, error) {
	be := binary.BigEndian
	f := pixelFormat{
		bytes:     int(b[0]) / 8,
		bigEndian: b[2] != 0,
		max:       [3]uint16{be.Uint16(b[4:]), be.Uint16(b[6:]), be.Uint16(b[8:])},
		shift:     [3]byte{b[10], b[11], b[12]},
	}
	if b[0] != 8 && b[0] != 16 && b[0] != 32 {
		return f, fmt.Errorf("rfb: %d bits per pixel", b[0])
	}
	if b[3] == 0 {
		return f, errors.New("rfb: a colour map is asked for, only true colour is served")
	}
	for i, s := range f.shift {
		if s > 31 {
			return f, fmt.Errorf("rfb: shift %d of colour %d", s, i)
		}
	}
	return f, nil
}

// encode appends the rectangle's pixels.
func (f pixelFormat) encode(to []byte, picture *image.RGBA, r image.Rectangle) []byte {
	for y := r.Min.Y; y < r.Max.Y; y++ {
		for x := r.Min.X; x < r.Max.X; x++ {
			rgb := picture.Pix[picture.PixOffset(x, y):][:3]
			var v uint32
			for i, c := range rgb {
				v |= uint32(c) * uint32(f.max[i]) / 255 << f.shift[i]
			}
			var b [4]byte
			if f.bigEndian {
				binary.BigEndian.PutUint32(b[:], v)
				to = append(to, b[4-f.bytes:]...)
			} else {
				binary.LittleEndian.PutUint32(b[:], v)
				to = append(to, b[:f.bytes]...)
			}
		}
	}
	return to
}

// update is a FramebufferUpdateRequest, with the pixel format that holds for its answer.
type update struct {
	incremental bool
	area        image.Rectangle
	format      pixelFormat
}

// serve speaks RFB 3.8 (RFC 6143) with one viewer until the connection ends: no password, raw encoding.
func serve(conn net.Conn, s *screen) error {
	in := bufio.NewReader(conn)
	if err := handshake(in, conn, s.name); err != nil {
		return err
	}
	format, err := parsePixelFormat(ownFormat)
	if err != nil {
		return err
	}
	requests := make(chan update, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer conn.Close() // the reader below is not left waiting
		answer(conn, s, requests)
	}()
	defer func() { <-done }()
	defer close(requests)
	defer conn.Close() // before waiting for the writer
	for {
		kind, err := in.ReadByte()
		if err != nil {
			return err
		}
		// The message's length after its type (RFC 6143, 7.5).
		length, ok := map[byte]int{0: 19, 2: 3, 3: 9, 4: 7, 5: 5, 6: 7}[kind]
		if !ok {
			return fmt.Errorf("rfb: message type %d", kind)
		}
		message := make([]byte, length)
		if _, err := io.ReadFull(in, message); err != nil {
			return err
		}
		be := binary.BigEndian
		switch kind {
		case 0: // SetPixelFormat
			if format, err = parsePixelFormat([16]byte(message[3:])); err != nil {
				return err
			}
		case 2: // SetEncodings: raw, which we use, need not be named
			if _, err := io.CopyN(io.Discard, in, 4*int64(be.Uint16(message[1:]))); err != nil {
				return err
			}
		case 3: // FramebufferUpdateRequest
			x, y := int(be.Uint16(message[1:])), int(be.Uint16(message[3:]))
			area := image.Rect(x, y, x+int(be.Uint16(message[5:])), y+int(be.Uint16(message[7:])))
			u := update{message[0] != 0, area.Intersect(image.Rect(0, 0, width, height)), format}
			select {
			case requests <- u:
			case waiting := <-requests: // asked again before the answer: one answer is enough (7.5.3)
				u.incremental = u.incremental && waiting.incremental
				requests <- u
			case <-done:
				return nil
			}
		case 4: // KeyEvent
			if message[0] != 0 {
				s.press(be.Uint32(message[3:]))
			}
		case 6: // ClientCutText
			if _, err := io.CopyN(io.Discard, in, int64(be.Uint32(message[3:]))); err != nil {
				return err
			}
		}
	}
}

// handshake is RFC 6143, 7.1 to 7.3.
func handshake(in *bufio.Reader, out io.Writer, name string) error {
	if _, err := io.WriteString(out, "RFB 003.008\n"); err != nil {
		return err
	}
	version := make([]byte, 12)
	if _, err := io.ReadFull(in, version); err != nil {
		return err
	}
	if string(version) != "RFB 003.008\n" {
		return fmt.Errorf("rfb: version %q, only 3.8 is served", version)
	}
	if _, err := out.Write([]byte{1, 1}); err != nil { // one security type: None
		return err
	}
	chosen, err := in.ReadByte()
	if err != nil {
		return err
	}
	if chosen != 1 {
		return fmt.Errorf("rfb: security type %d chosen, only 1 offered", chosen)
	}
	if _, err := out.Write([]byte{0, 0, 0, 0}); err != nil { // SecurityResult: OK
		return err
	}
	if _, err := in.ReadByte(); err != nil { // ClientInit: the screen is always shared
		return err
	}
	hello := binary.BigEndian.AppendUint16(nil, width)
	hello = binary.BigEndian.AppendUint16(hello, height)
	hello = append(hello, ownFormat[:]...)
	hello = binary.BigEndian.AppendUint32(hello, uint32(len(name)))
	_, err = out.Write(append(hello, name...))
	return err
}

// answer sends one update for each request: at once, or, for an incremental one, when the picture has changed.
func answer(out io.Writer, s *screen, requests chan update) {
	sent := 0
	for u := range requests {
		picture, version, newer := s.look()
		for u.incremental && version == sent {
			select {
			case again, ok := <-requests:
				if !ok {
					return
				}
				u = again
			case <-newer:
			}
			picture, version, newer = s.look()
		}
		sent = version
		b := []byte{0, 0, 0, 1} // FramebufferUpdate, one rectangle
		for _, n := range []int{u.area.Min.X, u.area.Min.Y, u.area.Dx(), u.area.Dy()} {
			b = binary.BigEndian.AppendUint16(b, uint16(n))
		}
		b = append(b, 0, 0, 0, 0) // raw
		if _, err := out.Write(u.format.encode(b, picture, u.area)); err != nil {
			return
		}
	}
}
