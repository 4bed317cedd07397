package memory

import (
	"bytes"
	"hash/fnv"
	"image"
	"image/color"
	"image/png"
	"net"
	"sync"
)

// Size of the screen in pixels: VGA's, which every RFB client can show.
const width, height = 640, 480

// screen is what a running machine shows, and the viewers of it.
type screen struct {
	name    string
	pressed func(key uint32)

	mu      sync.Mutex
	picture *image.RGBA
	version int           // counts the changes of picture
	changed chan struct{} // closed when version rises
	viewers map[net.Conn]bool
	closed  bool
	keys    int
}

func newScreen(name string, boots int, pressed func(uint32)) *screen {
	s := &screen{name: name, pressed: pressed, changed: make(chan struct{}), viewers: map[net.Conn]bool{}}
	s.boot(boots)
	return s
}

// boot shows the picture of that boot: a background made from the machine's name and as many white bars as it has booted.
func (s *screen) boot(boots int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sum := fnv.New32a()
	sum.Write([]byte(s.name))
	n := sum.Sum32()
	background := color.RGBA{byte(n) / 2, byte(n>>8) / 2, byte(n>>16)/2 + 64, 255} // dark, so that the bars are seen
	picture := image.NewRGBA(image.Rect(0, 0, width, height))
	for y := range height {
		for x := range width {
			c := background
			if x%20 < 12 && x/20 < boots && y >= 200 && y < 280 {
				c = color.RGBA{255, 255, 255, 255}
			}
			picture.SetRGBA(x, y, c)
		}
	}
	s.picture, s.keys = picture, 0
	s.changedLocked()
}

// press shows a key as a square whose colour is the key's.
func (s *screen) press(key uint32) {
	s.pressed(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	picture := image.NewRGBA(s.picture.Rect)
	copy(picture.Pix, s.picture.Pix)
	const columns, square = 32, 20
	left, top := s.keys%columns*square, 300+s.keys/columns%8*square
	for y := top; y < top+square-2; y++ {
		for x := left; x < left+square-2; x++ {
			picture.SetRGBA(x, y, color.RGBA{byte(key*37) | 1, byte(key*91) | 1, byte(key*151) | 1, 255})
		}
	}
	s.picture = picture
	s.keys++
	s.changedLocked()
}

func (s *screen) changedLocked() {
	s.version++
	close(s.changed)
	s.changed = make(chan struct{})
}

// look is the picture, never written again, its version, and a channel that is closed when there is a newer one.
func (s *screen) look() (picture *image.RGBA, version int, newer <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.picture, s.version, s.changed
}

func (s *screen) png() ([]byte, error) {
	picture, _, _ := s.look()
	var b bytes.Buffer
	err := png.Encode(&b, picture)
	return b.Bytes(), err
}

// dial is a new viewer's end of an RFB connection. It ends when the viewer closes it or the screen goes dark.
func (s *screen) dial() net.Conn {
	ours, theirs := net.Pipe()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		ours.Close()
		return theirs
	}
	s.viewers[ours] = true
	go func() {
		_ = serve(ours, s) // the viewer has gone
		ours.Close()
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.viewers, ours)
	}()
	return theirs
}

// close ends every viewer's connection.
func (s *screen) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for conn := range s.viewers {
		conn.Close()
	}
}
