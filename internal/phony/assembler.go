package phony

import "fmt"

// assembler puts 16-bit x86 machine code together: bytes, and labels that are resolved at the end. It knows no
// instructions; screen.go writes them as bytes with the mnemonic beside them.
type assembler struct {
	origin int // address of the first byte
	code   []byte
	labels map[string]int
	fixups []fixup
}

type fixup struct {
	at    int
	label string
	wide  bool // two bytes
	rel   bool // relative to the end of the operand
}

func newAssembler(origin int) *assembler {
	return &assembler{origin: origin, labels: map[string]int{}}
}

// op appends machine code.
func (a *assembler) op(b ...byte) { a.code = append(a.code, b...) }

// word appends an opcode and a 16-bit operand.
func (a *assembler) word(v uint16, opcode ...byte) {
	a.code = append(append(a.code, opcode...), byte(v), byte(v>>8))
}

// label names the next byte.
func (a *assembler) label(name string) { a.labels[name] = a.origin + len(a.code) }

// short is a jump whose operand is one signed byte: JZ, JMP SHORT, LOOP.
func (a *assembler) short(opcode byte, label string) {
	a.op(opcode)
	a.fixups = append(a.fixups, fixup{len(a.code), label, false, true})
	a.op(0)
}

// near is CALL or JMP with a 16-bit distance.
func (a *assembler) near(opcode byte, label string) {
	a.op(opcode)
	a.fixups = append(a.fixups, fixup{len(a.code), label, true, true})
	a.op(0, 0)
}

// address appends an opcode and a label's address.
func (a *assembler) address(label string, opcode ...byte) {
	a.op(opcode...)
	a.fixups = append(a.fixups, fixup{len(a.code), label, true, false})
	a.op(0, 0)
}

// bytes resolves the labels. An error is a mistake in the program, which its test finds.
func (a *assembler) bytes() ([]byte, error) {
	for _, f := range a.fixups {
		v, ok := a.labels[f.label]
		if !ok {
			return nil, fmt.Errorf("boot code: no label %q", f.label)
		}
		if !f.wide {
			v -= a.origin + f.at + 1
			if v < -128 || v > 127 {
				return nil, fmt.Errorf("boot code: short jump to %q over %d bytes", f.label, v)
			}
			a.code[f.at] = byte(v)
			continue
		}
		if f.rel {
			v -= a.origin + f.at + 2
		}
		le.PutUint16(a.code[f.at:], uint16(v))
	}
	return a.code, nil
}

const (
	opJZ    = 0x74
	opJNZ   = 0x75
	opJB    = 0x72
	opJMP   = 0xEB
	opLOOP  = 0xE2
	opCALL  = 0xE8
	opJMPnr = 0xE9
)
