// Package phonytest makes and opens the disks of phony machines for tests, counts what is read of a file ([OpenCounted]), and compares what is
// made of a machine with a file that has it ([Golden]).
//
// It stands beside package phony, whose own tests look at what it makes with package offline, and whose users in the program need neither tests
// nor Windows. Start reading at [Open].
package phonytest

import (
	"io/fs"
	"path/filepath"
	"testing"
	"testing/fstest"

	"berth/internal/disk"
	"berth/internal/phony"
	"berth/internal/windows/offline"
	"berth/testdata/machines"
)

// Load reads one of testdata/machines.
func Load(t testing.TB, name string) *phony.Machine {
	t.Helper()
	m, err := phony.Load(name)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// Parse reads a machine that is told as those of testdata/machines are, and which is a difference from [phony.Base].
func Parse(t testing.TB, text string) *phony.Machine {
	t.Helper()
	base, err := fs.ReadFile(machines.FS, phony.Base+".txtar")
	if err != nil {
		t.Fatal(err)
	}
	m, err := phony.LoadFS(fstest.MapFS{phony.Base + ".txtar": {Data: base}, "this.txtar": {Data: []byte(text)}}, "this")
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// Disk writes the machine as a raw disk into a folder of the test, and opens it. The envelope tells of the CD drives that the machine has, as an
// export with a descriptor would; file is the disk's path.
func Disk(t testing.TB, m *phony.Machine) (env *disk.Envelope, file string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "disk.raw")
	if err := m.WriteRaw(t.Context(), file); err != nil {
		t.Fatal(err)
	}
	env, err := disk.OpenFile(file, disk.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = env.Close() })
	env.Hardware.CDROMs = m.Hardware.CDROMs
	return env, file
}

// Open makes the machine's disk as Disk does, and returns the Windows on it, of which there must be one.
func Open(t testing.TB, m *phony.Machine) (sys *offline.System, file string) {
	t.Helper()
	env, file := Disk(t, m)
	systems, err := offline.Open(env)
	if err != nil {
		t.Fatal(err)
	}
	return systems[0], file
}
