package phony

import (
	"fmt"
	"image"
	"slices"
)

// The boot code of a phony machine: a loader in the master boot record (440 bytes at most) reads the screen program from
// the sectors behind the partition table into memory and jumps to it. The program sets VGA mode 12h (640 x 480, 16 colours,
// four planes), draws a desktop that says what it is, echoes typed keys, and switches the machine off when the power
// button is pressed. It needs a PC BIOS; a machine with UEFI firmware does not boot.

const (
	loaderAddress = 0x7C00 // where a BIOS puts the boot sector
	screenAddress = 0x7E00
	// screenSector is the program's first sector (LBA): behind the 33 sectors of a GPT, before the first partition.
	screenSector  = 34
	screenSectors = 8
)

// bootLoader is the code of the master boot record.
func bootLoader() ([]byte, error) {
	a := newAssembler(loaderAddress)
	a.op(0xFA)                         // cli
	a.op(0x31, 0xC0)                   // xor ax, ax
	a.op(0x8E, 0xD8)                   // mov ds, ax
	a.op(0x8E, 0xC0)                   // mov es, ax
	a.op(0x8E, 0xD0)                   // mov ss, ax
	a.word(loaderAddress, 0xBC)        // mov sp, 7C00h
	a.op(0xFB, 0xFC)                   // sti; cld
	a.op(0xEA)                         // jmp 0:next, as some BIOSes come as 07C0h:0
	a.address("next")                  //
	a.word(0)                          //
	a.label("next")                    //
	a.address("packet", 0xBE)          // mov si, packet
	a.op(0xB4, 0x42)                   // mov ah, 42h: extended read; dl is the drive
	a.op(0xCD, 0x13)                   // int 13h
	a.short(opJB, "failed")            // jc failed
	a.op(0xEA)                         // jmp 0:screenAddress
	a.word(screenAddress)              //
	a.word(0)                          //
	a.label("failed")                  //
	a.address("message", 0xBE)         // mov si, message
	a.label("next character")          //
	a.op(0xAC)                         // lodsb
	a.op(0x84, 0xC0)                   // test al, al
	a.short(opJZ, "stop")              // jz stop
	a.op(0xB4, 0x0E, 0xBB, 0x07, 0x00) // mov ah, 0Eh; mov bx, 7
	a.op(0xCD, 0x10)                   // int 10h
	a.short(opJMP, "next character")   //
	a.label("stop")                    //
	a.op(0xF4)                         // hlt
	a.short(opJMP, "stop")             //
	a.label("message")                 //
	a.op([]byte("Disk read error\x00")...)
	a.label("packet")               // disk address packet
	a.op(0x10, 0, screenSectors, 0) // its size, sectors
	a.word(screenAddress)           // to offset,
	a.word(0)                       // segment
	a.op(screenSector, 0, 0, 0, 0, 0, 0, 0)
	return a.bytes()
}

// The desktop's colours: indexes into the palette below.
const (
	colourDesktop = 0 // text cells have this ground, so it is the desktop itself
	colourBar     = 1
	colourPane    = 2
	colourTitle   = 3
	colourLetter  = 4
	colourShade   = 5
	colourInk     = 8
	colourPaper   = 15
)

// palette is red, green, blue of 0 to 63 for each colour; the unnamed are grey.
var palette = [16][3]byte{
	colourDesktop: {2, 20, 34}, colourBar: {3, 9, 16}, colourPane: {22, 48, 58}, colourTitle: {8, 34, 50},
	colourLetter: {63, 50, 14}, colourShade: {1, 12, 22}, 6: {30, 30, 30}, 7: {42, 42, 42}, colourInk: {6, 8, 12},
	9: {20, 20, 20}, 10: {24, 24, 24}, 11: {28, 28, 28}, 12: {32, 32, 32}, 13: {36, 36, 36}, 14: {50, 50, 50}, colourPaper: {62, 62, 62},
}

// rectangle is filled with one colour. x and width are in bytes of eight pixels, y and height in lines.
type rectangle struct{ x, y, width, height, colour int }

// The typing window: text rows and columns (of 8 x 16 pixels) that keys are echoed into.
const (
	typeTop, typeBottom = 20, 25 // rows, bottom exclusive
	typeLeft, typeRight = 9, 71  // columns, right exclusive
)

// bigLetters is "BERTH", a byte for each of a letter's eight lines; a pixel is drawn as 8 x 8.
var bigLetters = [5][8]byte{
	{0x7C, 0x66, 0x66, 0x7C, 0x66, 0x66, 0x7C, 0x00},
	{0x7E, 0x60, 0x60, 0x7C, 0x60, 0x60, 0x7E, 0x00},
	{0x7C, 0x66, 0x66, 0x7C, 0x6C, 0x66, 0x66, 0x00},
	{0x7E, 0x18, 0x18, 0x18, 0x18, 0x18, 0x18, 0x00},
	{0x66, 0x66, 0x66, 0x7E, 0x66, 0x66, 0x66, 0x00},
}

// Where the letters stand: byte column and line of the first, and of their shade.
const lettersX, lettersY = 31, 56

// desktop lists the rectangles in the order in which they are painted.
func desktop() []rectangle {
	list := []rectangle{
		{9, 48, 7, 44, colourPane}, {17, 48, 7, 44, colourPane}, // the four panes
		{9, 96, 7, 44, colourPane}, {17, 96, 7, 44, colourPane},
		{9, 290, 63, 122, colourShade}, // the window, its shadow first
		{8, 282, 63, 122, colourPaper},
		{8, 282, 63, 24, colourTitle},
		{0, 448, 80, 32, colourBar}, // the bar, with its small panes
		{2, 454, 1, 8, colourPane}, {4, 454, 1, 8, colourPane},
		{2, 466, 1, 8, colourPane}, {4, 466, 1, 8, colourPane},
	}
	for pass, colour := range []int{colourShade, colourLetter} {
		for i, letter := range bigLetters {
			for line, bits := range letter {
				for x := range 8 {
					if bits&(0x80>>x) != 0 {
						list = append(list, rectangle{lettersX + 8*i + x, lettersY + 8*line + 4 - 4*pass, 1, 8, colour})
					}
				}
			}
		}
	}
	return list
}

// line is a text at a row and column. Its colour is drawn over ground by exclusive or, as the BIOS does when bit 7 is set.
type line struct {
	row, column    int
	colour, ground byte
	text           string
}

var lines = []line{
	{10, 9, colourPaper, colourDesktop, "This is not Windows: a Berth sample desktop."},
	{12, 9, colourPane, colourDesktop, "Berth made this machine to show the eight steps from an exported"},
	{13, 9, colourPane, colourDesktop, "VM to a desktop. Import your own Windows to see Windows here."},
	{18, 9, colourPaper, colourTitle, "Type something"},
	{28, 7, colourPaper, colourBar, "Berth"},
	{28, 47, 7, colourBar, "The power button switches off"},
}

// screenProgram is the code behind the loader.
func screenProgram() ([]byte, error) {
	a := newAssembler(screenAddress)
	a.word(0x0012, 0xB8)           // mov ax, 12h: 640 x 480 in 16 colours
	a.op(0xCD, 0x10)               // int 10h
	a.word(0x1002, 0xB8)           // mov ax, 1002h: colour n is DAC entry n
	a.address("palette map", 0xBA) // mov dx, palette map
	a.op(0xCD, 0x10)
	a.word(0x1012, 0xB8) // mov ax, 1012h: set DAC entries
	a.word(0, 0xBB)      // mov bx, 0: from
	a.word(16, 0xB9)     // mov cx, 16
	a.address("palette", 0xBA)
	a.op(0xCD, 0x10)

	// Paint the rectangles: five words each, ended by a width of zero.
	a.address("rectangles", 0xBE)     // mov si, rectangles
	a.label("paint")                  //
	a.op(0x83, 0x7C, 0x02, 0x00)      // cmp word [si+2], 0
	a.short(opJZ, "painted")          //
	a.near(opCALL, "fill")            //
	a.op(0x83, 0xC6, 0x0A)            // add si, 10
	a.short(opJMP, "paint")           //
	a.label("painted")                //
	a.address("lines", 0xBE)          // mov si, lines
	a.label("write line")             //
	a.op(0xAD)                        // lodsw: row in ah, column in al
	a.op(0x83, 0xF8, 0xFF)            // cmp ax, -1
	a.short(opJZ, "written")          //
	a.op(0x89, 0xC2)                  // mov dx, ax
	a.op(0xAC)                        // lodsb: colour
	a.op(0x88, 0xC3, 0xB7, 0x00)      // mov bl, al; mov bh, 0
	a.op(0xB4, 0x02, 0xCD, 0x10)      // mov ah, 2; int 10h: move the cursor
	a.label("write character")        //
	a.op(0xAC, 0x84, 0xC0)            // lodsb; test al, al
	a.short(opJZ, "write line")       //
	a.op(0xB4, 0x0E, 0xCD, 0x10)      // mov ah, 0Eh; int 10h: teletype
	a.short(opJMP, "write character") //
	a.label("written")                //
	a.near(opCALL, "find power")      //
	a.near(opCALL, "clear")           //

	// Wait for the clock's or the keyboard's interrupt, then look at both.
	a.label("idle")
	a.op(0xB4, 0x01, 0xCD, 0x16)  // mov ah, 1; int 16h: a key?
	a.short(opJNZ, "key")         //
	a.near(opCALL, "check power") //
	a.op(0xFB, 0xF4)              // sti; hlt
	a.short(opJMP, "idle")        //
	a.label("key")                //
	a.op(0xB4, 0x00, 0xCD, 0x16)  // mov ah, 0; int 16h: take it
	a.near(opCALL, "echo")        //
	a.short(opJMP, "idle")        //

	echoCode(a)
	fillCode(a)
	powerCode(a)

	a.label("palette map")
	for i := range byte(17) {
		a.op(i % 16)
	}
	a.label("palette")
	for _, c := range palette {
		a.op(c[:]...)
	}
	a.label("rectangles")
	for _, r := range append(desktop(), rectangle{}) {
		a.word(uint16(r.y*80 + r.x))
		a.word(uint16(r.width))
		a.word(uint16(r.height))
		a.word(uint16(r.colour))
		a.word(0)
	}
	a.label("lines")
	for _, l := range lines {
		a.op(byte(l.column), byte(l.row), 0x80|l.colour^l.ground)
		a.op(append([]byte(l.text), 0)...)
	}
	a.word(0xFFFF)
	a.label("paper") // the typing window's inside, for clear
	a.word(typeTop*16*80 + typeLeft)
	a.word(typeRight - typeLeft)
	a.word((typeBottom - typeTop) * 16)
	a.word(colourPaper)
	a.word(0)
	a.label("cursor") // column, row
	a.word(0)
	a.label("power port")
	a.word(0)
	return a.bytes()
}

// echoCode: "echo" shows the character in al in the typing window; "clear" empties the window.
func echoCode(a *assembler) {
	const ink = 0x80 | colourInk ^ colourPaper
	a.label("echo")
	a.address("cursor", 0x8B, 0x16)   // mov dx, [cursor]: dh row, dl column
	a.op(0x3C, 0x0D)                  // cmp al, Enter
	a.short(opJZ, "new line")         //
	a.op(0x3C, 0x08)                  // cmp al, Backspace
	a.short(opJZ, "back")             //
	a.op(0x3C, 0x20)                  // cmp al, ' '
	a.short(opJB, "echoed")           // jb: arrows and such have no character
	a.near(opCALL, "put")             //
	a.op(0xFE, 0xC2)                  // inc dl
	a.op(0x80, 0xFA, typeRight)       // cmp dl, right
	a.short(opJB, "moved")            //
	a.label("new line")               //
	a.op(0xB2, typeLeft)              // mov dl, left
	a.op(0xFE, 0xC6)                  // inc dh
	a.op(0x80, 0xFE, typeBottom)      // cmp dh, bottom
	a.short(opJB, "moved")            //
	a.label("clear")                  //
	a.address("paper", 0xBE)          // mov si, paper
	a.near(opCALL, "fill")            //
	a.word(typeTop<<8|typeLeft, 0xBA) // mov dx, top left
	a.short(opJMP, "moved")           //
	a.label("back")                   // paint the cell before with paper
	a.op(0x80, 0xFA, typeLeft)        // cmp dl, left
	a.short(opJZ, "echoed")           //
	a.op(0xFE, 0xCA)                  // dec dl
	a.op(0x88, 0xF0, 0xB4, 80)        // mov al, dh; mov ah, 80
	a.op(0xF6, 0xE4)                  // mul ah: row * 80
	a.op(0xC1, 0xE0, 0x04)            // shl ax, 4: a row has 16 lines
	a.op(0x00, 0xD0, 0x80, 0xD4, 0)   // add al, dl; adc ah, 0
	a.address("cell", 0xA3)           // mov [cell], ax
	a.address("cell", 0xBE)           // mov si, cell
	a.op(0x52)                        // push dx
	a.near(opCALL, "fill")            //
	a.op(0x5A)                        // pop dx
	a.label("moved")                  //
	a.address("cursor", 0x89, 0x16)   // mov [cursor], dx
	a.label("echoed")                 //
	a.op(0xC3)                        // ret
	a.label("put")                    // al at dx
	a.op(0x50)                        // push ax
	a.word(ink, 0xBB)                 // mov bx, ink: page 0
	a.op(0xB4, 0x02, 0xCD, 0x10)      // mov ah, 2; int 10h
	a.op(0x58)                        // pop ax
	a.op(0xB4, 0x09)                  // mov ah, 9: write without moving
	a.word(1, 0xB9)                   // mov cx, 1
	a.op(0xCD, 0x10, 0xC3)            // int 10h; ret
	a.label("cell")
	a.word(0)
	a.word(1)
	a.word(16)
	a.word(colourPaper)
	a.word(0)
}

// fillCode: "fill" paints the rectangle at si. The VGA's set/reset register turns every byte written into eight pixels of
// one colour. Keeps si; spoils ax, bx, cx, dx, di.
func fillCode(a *assembler) {
	a.label("fill")
	a.op(0x06)                  // push es
	a.word(0xA000, 0xB8)        // mov ax, 0A000h
	a.op(0x8E, 0xC0)            // mov es, ax
	a.word(0x3C4, 0xBA)         // mov dx, 3C4h: sequencer
	a.word(0x0F02, 0xB8)        // mov ax, 0F02h: write all planes
	a.op(0xEF)                  // out dx, ax
	a.word(0x3CE, 0xBA)         // mov dx, 3CEh: graphics controller
	a.op(0xB0, 0x00)            // mov al, 0: set/reset is
	a.op(0x8A, 0x64, 0x06)      // mov ah, [si+6]: the colour,
	a.op(0xEF)                  // out dx, ax
	a.word(0x0F01, 0xB8)        // mov ax, 0F01h: for all planes,
	a.op(0xEF)                  // out dx, ax
	a.word(0x0003, 0xB8)        // mov ax, 3: as it is,
	a.op(0xEF)                  // out dx, ax
	a.word(0x0005, 0xB8)        // mov ax, 5: in write mode 0,
	a.op(0xEF)                  // out dx, ax
	a.word(0xFF08, 0xB8)        // mov ax, 0FF08h: all eight pixels
	a.op(0xEF)                  // out dx, ax
	a.op(0x8B, 0x3C)            // mov di, [si]
	a.op(0x8B, 0x5C, 0x04)      // mov bx, [si+4]: lines
	a.label("fill line")        //
	a.op(0x8B, 0x4C, 0x02)      // mov cx, [si+2]
	a.op(0x57)                  // push di
	a.op(0xF3, 0xAA)            // rep stosb
	a.op(0x5F)                  // pop di
	a.op(0x83, 0xC7, 80)        // add di, 80
	a.op(0x4B)                  // dec bx
	a.short(opJNZ, "fill line") //
	a.word(0x0001, 0xB8)        // mov ax, 1: set/reset off, for the BIOS
	a.op(0xEF)                  // out dx, ax
	a.op(0x07, 0xC3)            // pop es; ret
}

// powerCode: "find power" looks for QEMU's power management block (PIIX4 at 00:01.3, or ICH9 at 00:1f.0) and lets the power
// button be seen; "check power" switches off (sleep state S5) when it was pressed. On other hardware neither does anything.
func powerCode(a *assembler) {
	const (
		piix4, ich9 = 1<<11 | 3<<8, 0x1F << 11 // PCI device and function, for port 0CF8h
		buttonBit   = 1                        // of the status and enable registers' upper byte
	)
	a.label("find power")
	a.op(0x66, 0xBB)                         // mov ebx, 00:1f.0
	a.op(0, ich9>>8, 0, 0x80)                //
	a.op(0x66, 0xBE, 0x86, 0x80, 0x18, 0x29) // mov esi, ICH9's ids
	a.near(opCALL, "find at")                //
	a.op(0x66, 0xBB)                         // mov ebx, 00:01.3
	a.op(0, piix4>>8, 0, 0x80)               //
	a.op(0x66, 0xBE, 0x86, 0x80, 0x13, 0x71) // mov esi, PIIX4's ids
	a.label("find at")                       //
	a.near(opCALL, "read pci")               //
	a.op(0x66, 0x39, 0xF0)                   // cmp eax, esi
	a.short(opJNZ, "not found")              //
	a.op(0xB3, 0x40)                         // mov bl, 40h: base of the block
	a.near(opCALL, "read pci")               //
	a.op(0x24, 0x80)                         // and al, 80h: 128 ports
	a.op(0x85, 0xC0)                         // test ax, ax
	a.short(opJZ, "not found")               //
	a.address("power port", 0xA3)            // mov [power port], ax
	a.op(0x89, 0xC2, 0x83, 0xC2, 0x02)       // mov dx, ax; add dx, 2: enable register
	a.op(0xED)                               // in ax, dx
	a.op(0x80, 0xCC, buttonBit)              // or ah, button
	a.op(0xEF)                               // out dx, ax
	a.label("not found")                     //
	a.op(0xC3)                               // ret
	a.label("read pci")                      // eax = configuration register ebx
	a.op(0x66, 0x89, 0xD8)                   // mov eax, ebx
	a.word(0xCF8, 0xBA)                      // mov dx, 0CF8h
	a.op(0x66, 0xEF)                         // out dx, eax
	a.op(0xB2, 0xFC)                         // mov dl, 0FCh
	a.op(0x66, 0xED, 0xC3)                   // in eax, dx; ret
	a.label("check power")                   //
	a.address("power port", 0x8B, 0x16)      // mov dx, [power port]
	a.op(0x85, 0xD2)                         // test dx, dx
	a.short(opJZ, "not pressed")             //
	a.op(0xED)                               // in ax, dx: status register
	a.op(0xF6, 0xC4, buttonBit)              // test ah, button
	a.short(opJZ, "not pressed")             //
	a.op(0x83, 0xC2, 0x04)                   // add dx, 4: control register
	a.word(0x2000, 0xB8)                     // mov ax, 2000h: sleep now, type 0 (QEMU's S5)
	a.op(0xEF)                               // out dx, ax
	a.label("not pressed")                   //
	a.op(0xC3)                               // ret
}

// bootCode is the loader, and the program for screenSectors.
func bootCode() (loader, program []byte, err error) {
	if loader, err = bootLoader(); err != nil {
		return nil, nil, err
	}
	program, err = screenProgram()
	return loader, program, err
}

// TypingArea is where on the screen typed keys are shown, in pixels: the cells are 8 wide and 16 high.
var TypingArea = image.Rect(typeLeft*8, typeTop*16, typeRight*8, typeBottom*16)

// CheckScreen tells whether a picture is that of a phony machine that has started, whatever has been typed: it must have
// 640 x 480 pixels, and every rectangle of the desktop that nothing covers must show its colour. It is what tests of
// drivers and of the gateway look for.
func CheckScreen(picture image.Image) error {
	if size := picture.Bounds().Size(); size != image.Pt(640, 480) {
		return fmt.Errorf("the screen has %d x %d pixels, not 640 x 480", size.X, size.Y)
	}
	list := desktop()
	for i, r := range list {
		at := image.Rect(r.x*8, r.y, (r.x+r.width)*8, r.y+r.height)
		p := image.Pt(at.Max.X-4, at.Max.Y-2)
		covered := p.In(TypingArea) || slices.ContainsFunc(list[i+1:], func(o rectangle) bool {
			return p.In(image.Rect(o.x*8, o.y, (o.x+o.width)*8, o.y+o.height))
		})
		if covered || r.colour == colourBar {
			continue // the bar has text in its corner
		}
		c := palette[r.colour]
		red, green, blue, _ := picture.At(p.X+picture.Bounds().Min.X, p.Y+picture.Bounds().Min.Y).RGBA()
		const tolerance = 12 // of 255: displays widen six bits to eight in more than one way
		for j, got := range []uint32{red >> 8, green >> 8, blue >> 8} {
			if want := int(c[j]) * 255 / 63; int(got)-want > tolerance || want-int(got) > tolerance {
				return fmt.Errorf("pixel %d,%d is #%02x%02x%02x, not the desktop's colour %d", p.X, p.Y, red>>8, green>>8, blue>>8, r.colour)
			}
		}
	}
	return nil
}
