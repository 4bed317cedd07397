package computetest

import (
	"bytes"
	"errors"
	"image/png"
	"io"
	"time"
)

func display(s *suite) {
	s.image()
	m := s.wanted("seen")
	s.ensure(m)
	s.guestBoots(m.ID, 1)
	for range 2 { // a second viewer beside the first
		conn, err := s.driver.Display(s.context(), m.ID)
		if err != nil {
			s.Fatal(err)
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(s.Patience)); err != nil {
			s.Error(err)
		}
		greeting := make([]byte, 12)
		if _, err := io.ReadFull(conn, greeting); err != nil || string(greeting) != "RFB 003.008\n" {
			s.Fatalf("greeting %q, %v", greeting, err)
		}
		if _, err := io.WriteString(conn, "RFB 003.008\n"); err != nil {
			s.Fatal(err)
		}
		security := make([]byte, 2)
		if _, err := io.ReadFull(conn, security); err != nil || security[0] != 1 || security[1] != 1 {
			s.Fatalf("security types %v, %v: want one, None (who may look is the gateway's business)", security, err)
		}
		if _, err := conn.Write([]byte{1}); err != nil {
			s.Fatal(err)
		}
		result := make([]byte, 4)
		if _, err := io.ReadFull(conn, result); err != nil || !bytes.Equal(result, make([]byte, 4)) {
			s.Fatalf("security result %v, %v", result, err)
		}
		if _, err := conn.Write([]byte{1}); err != nil { // shared
			s.Fatal(err)
		}
		size := make([]byte, 4)
		if _, err := io.ReadFull(conn, size); err != nil || bytes.Equal(size[:2], []byte{0, 0}) {
			s.Fatalf("screen of size %v, %v", size, err)
		}
	}
	picture, err := s.driver.Screenshot(s.context(), m.ID)
	if err != nil {
		s.Fatal(err)
	}
	decoded, err := png.Decode(bytes.NewReader(picture))
	if err != nil {
		s.Fatalf("the screenshot is no PNG: %v", err)
	}
	if size := decoded.Bounds().Size(); size.X < 320 || size.Y < 200 {
		s.Errorf("a screenshot of %v pixels", size)
	}
}

func displayEnds(s *suite) {
	s.image()
	m := s.wanted("dark")
	s.ensure(m)
	s.guestBoots(m.ID, 1) // from here on it turns off when asked to
	conn, err := s.driver.Display(s.context(), m.ID)
	if err != nil {
		s.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(s.Patience)); err != nil {
		s.Fatal(err)
	}
	if _, err := io.ReadFull(conn, make([]byte, 12)); err != nil {
		s.Fatal(err)
	}
	m.Running = false
	s.ensure(m)
	if n, err := conn.Read(make([]byte, 1)); err == nil {
		s.Errorf("read %d bytes from the display of a machine that is off", n)
	} else if timeout := (interface{ Timeout() bool })(nil); errors.As(err, &timeout) && timeout.Timeout() {
		s.Errorf("the display of a machine that is off stays open: %v", err)
	}
}
