package phony

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/png"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

func TestBootCodeFits(t *testing.T) {
	loader, program, err := bootCode()
	if err != nil {
		t.Fatal(err)
	}
	if len(loader) > 440 { // then comes the disk's signature
		t.Errorf("loader is %d bytes", len(loader))
	}
	if len(program) > screenSectors*sectorBytes {
		t.Errorf("program is %d bytes", len(program))
	}
}

func TestAssembler(t *testing.T) {
	a := newAssembler(0x100)
	a.label("start")
	a.short(opJMP, "end")
	a.address("end", 0xBE)
	a.near(opCALL, "start")
	a.label("end")
	got, err := a.bytes()
	if want := []byte{0xEB, 6, 0xBE, 0x08, 0x01, 0xE8, 0xF8, 0xFF}; err != nil || !bytes.Equal(got, want) {
		t.Errorf("% x, %v; want % x", got, err, want)
	}
	a.short(opJMP, "nowhere")
	if _, err := a.bytes(); err == nil {
		t.Error("a jump to no label is assembled")
	}
	a = newAssembler(0)
	a.short(opJMP, "far")
	a.op(make([]byte, 200)...)
	a.label("far")
	if _, err := a.bytes(); err == nil {
		t.Error("a short jump over 200 bytes is assembled")
	}
}

// guest is a phony machine under QEMU.
type guest struct {
	t    *testing.T
	dir  string
	conn net.Conn
	in   *bufio.Scanner
	done chan struct{} // closed when QEMU has ended, with err
	err  error
}

func start(t *testing.T, args ...string) *guest {
	t.Helper()
	g := &guest{t: t, dir: t.TempDir(), done: make(chan struct{})}
	socket := filepath.Join(g.dir, "qmp")
	cmd := exec.Command("qemu-system-x86_64", append([]string{
		"-accel", "tcg", "-nodefaults", "-no-user-config", "-device", "VGA", "-m", "64", "-display", "none",
		"-qmp", "unix:" + socket + ",server=on,wait=off",
	}, args...)...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		g.err = cmd.Wait()
		close(g.done)
	}()
	t.Cleanup(func() {
		cmd.Process.Kill()
		<-g.done
	})
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		conn, err := net.Dial("unix", socket)
		if err == nil {
			g.conn = conn
			break
		}
		select {
		case <-g.done:
			t.Fatalf("QEMU ended: %v: %s", g.err, errs.String())
		default:
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { g.conn.Close() })
	g.in = bufio.NewScanner(g.conn)
	g.in.Scan() // the greeting
	g.do("qmp_capabilities", nil)
	return g
}

func (g *guest) do(command string, arguments any) {
	g.t.Helper()
	m := map[string]any{"execute": command}
	if arguments != nil {
		m["arguments"] = arguments
	}
	if err := json.NewEncoder(g.conn).Encode(m); err != nil {
		g.t.Fatal(err)
	}
	for g.in.Scan() {
		var answer struct {
			Return json.RawMessage
			Error  *struct{ Desc string }
		}
		if err := json.Unmarshal(g.in.Bytes(), &answer); err != nil {
			g.t.Fatal(err)
		}
		if answer.Error != nil {
			g.t.Fatalf("%s: %s", command, answer.Error.Desc)
		}
		if answer.Return != nil {
			return
		}
	}
	g.t.Fatalf("%s: no answer: %v", command, g.in.Err())
}

func (g *guest) screen() image.Image {
	g.t.Helper()
	path := filepath.Join(g.dir, "screen.png")
	g.do("screendump", map[string]any{"filename": path, "format": "png"})
	data, err := os.ReadFile(path)
	if err != nil {
		g.t.Fatal(err)
	}
	picture, err := png.Decode(bytes.NewReader(data))
	if err != nil {
		g.t.Fatal(err)
	}
	return picture
}

func (g *guest) until(what string, holds func(image.Image) error) image.Image {
	g.t.Helper()
	for end := time.Now().Add(60 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		picture := g.screen()
		err := holds(picture)
		if err == nil {
			return picture
		}
		if time.Now().After(end) {
			g.t.Fatalf("%s: %v", what, err)
		}
	}
}

func (g *guest) press(keys ...string) {
	g.t.Helper()
	for _, key := range keys {
		g.do("send-key", map[string]any{"keys": []any{map[string]any{"type": "qcode", "data": key}}, "hold-time": 20})
		time.Sleep(60 * time.Millisecond)
	}
}

// ink counts the dark pixels of the typing window's cell in a column and row.
func ink(picture image.Image, column, row int) int {
	n := 0
	for y := range 16 {
		for x := range 8 {
			r, _, _, _ := picture.At(TypingArea.Min.X+8*column+x, TypingArea.Min.Y+16*row+y).RGBA()
			if r>>8 < 128 {
				n++
			}
		}
	}
	return n
}

// TestBoot starts the base machine as the drivers do, looks at its screen, types, and presses the power button.
func TestBoot(t *testing.T) {
	disk := baseDisk(t)
	drive := []string{"-blockdev", "driver=raw,node-name=disk,read-only=off,file.driver=file,file.filename=" + disk}
	for name, args := range map[string][]string{
		"virtio on q35": {"-machine", "q35", "-device", "virtio-blk-pci,drive=disk"},
		"AHCI on q35":   {"-machine", "q35", "-device", "ide-hd,drive=disk,bus=ide.0"},
		"IDE on pc":     {"-machine", "pc", "-device", "ide-hd,drive=disk,bus=ide.0"},
	} {
		t.Run(name, func(t *testing.T) {
			g := start(t, append(args, drive...)...)
			empty := g.until("the desktop shows", CheckScreen)
			for column := range 4 {
				if ink(empty, column, 0) != 0 {
					t.Fatalf("cell %d has ink before a key is typed", column)
				}
			}
			typed := func(counts ...int) func(image.Image) error {
				return func(p image.Image) error {
					if err := CheckScreen(p); err != nil {
						return err
					}
					for column, want := range counts {
						if got := ink(p, column%3, column/3); got == 0 && want > 0 || got > 0 && want == 0 {
							return fmt.Errorf("cell %d has %d pixels of ink", column, got)
						}
					}
					return nil
				}
			}
			g.press("h", "i")
			g.until("hi", typed(1, 1, 0))
			g.press("backspace")
			g.until("h", typed(1, 0, 0))
			g.press("ret", "x", "up", "y") // the arrow has no character
			p := g.until("h, xy", typed(1, 0, 0, 1, 1, 0))
			if ink(p, 0, 0) == ink(p, 0, 1) {
				t.Error("h and x look the same")
			}
			g.do("system_powerdown", nil)
			select {
			case <-g.done:
				if g.err != nil {
					t.Errorf("QEMU: %v", g.err)
				}
			case <-time.After(20 * time.Second):
				t.Error("the power button does nothing")
			}
		})
	}
}

// TestScreenWraps types more than a line and more than the window: the text wraps, and then begins anew.
func TestScreenWraps(t *testing.T) {
	g := start(t, "-machine", "q35", "-device", "virtio-blk-pci,drive=disk",
		"-blockdev", "driver=raw,node-name=disk,file.driver=file,file.filename="+baseDisk(t))
	g.until("the desktop shows", CheckScreen)
	g.press("a")
	for range typeBottom - typeTop - 1 {
		g.press("ret")
	}
	g.press("b")
	g.until("first and last line", func(p image.Image) error {
		if ink(p, 0, 0) == 0 || ink(p, 0, typeBottom-typeTop-1) == 0 {
			return errors.New("not yet")
		}
		return nil
	})
	g.press("ret", "c")
	g.until("the window was cleared", func(p image.Image) error {
		if ink(p, 0, 0) == 0 || ink(p, 0, typeBottom-typeTop-1) != 0 {
			return errors.New("not yet")
		}
		return CheckScreen(p)
	})
}

func TestCheckScreenRefuses(t *testing.T) {
	if CheckScreen(image.NewRGBA(image.Rect(0, 0, 640, 480))) == nil {
		t.Error("a black screen is taken for the desktop")
	}
	if CheckScreen(image.NewRGBA(image.Rect(0, 0, 720, 400))) == nil {
		t.Error("a text screen is taken for the desktop")
	}
}
