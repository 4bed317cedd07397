package phony

import (
	"testing"
)

func TestBootCodeFits(t *testing.T) {
	code, program, err := bootCode()
	if err != nil {
		t.Fatal(err)
	}
	if len(code) > 440 {
		t.Errorf("loader is %d bytes", len(code))
	}
	if len(program) > screenSectors*sectorBytes {
		t.Errorf("program is %d bytes", len(program))
	}
	t.Log(len(code), len(program))
}
