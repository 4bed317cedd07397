package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"
	"time"

	"golang.org/x/term"

	"berth/internal/check/report"
	"berth/internal/disk"
	"berth/internal/image"
	"berth/internal/windows/ntfs"
	"berth/internal/windows/offline"
)

// insideCmd is what the commands that look into an exported VM have in common.
type insideCmd struct {
	File    string `arg:"" type:"existingfile" help:"An exported VM: OVA, OVF, VMDK, VHD, VHDX, QCOW2 or a raw disk. It is only read."`
	Windows int    `help:"Which Windows, where there are several (berth inspect lists them). The first one is 1." default:"1" placeholder:"N"`
	Format  string `help:"What the file is (${formats}), where its content could be taken for something else." placeholder:"NAME"`
}

// open opens the export. The envelope is to be closed.
func (c *insideCmd) open() (*disk.Envelope, *offline.Found, error) {
	env, err := openExport(c.File, disk.Options{Format: strings.ToUpper(c.Format)})
	if err != nil {
		return nil, nil, err
	}
	return env, offline.Find(env), nil
}

// system picks the Windows.
func (c *insideCmd) system(found *offline.Found) (*offline.System, error) {
	switch n := len(found.Systems); {
	case n == 0:
		return nil, found.NoWindows
	case c.Windows < 1 || c.Windows > n:
		return nil, fmt.Errorf("there is no Windows %d: berth inspect found %d", c.Windows, n)
	case n > 1:
		fmt.Fprintf(os.Stderr, "berth: note: this is Windows %d of %d (--windows)\n", c.Windows, n)
	}
	return found.Systems[c.Windows-1], nil
}

// volumeFlags are insideCmd's for the commands that look at files.
type volumeFlags struct {
	insideCmd
	Partition string `help:"Look at this partition instead of Windows' own (C:): its number, or DISK:NUMBER, as berth inspect shows them." placeholder:"N"`
}

// files is the file system that is meant.
func (c *volumeFlags) files(found *offline.Found) (fs.FS, error) {
	if c.Partition == "" {
		s, err := c.system(found)
		if err != nil {
			return nil, err
		}
		return s.Files(), nil
	}
	diskText, numberText, ok := strings.Cut(c.Partition, ":")
	if !ok {
		diskText, numberText = "0", c.Partition
	}
	d, err1 := strconv.Atoi(diskText)
	n, err2 := strconv.Atoi(numberText)
	if err1 != nil || err2 != nil {
		return nil, fmt.Errorf("--partition %q: a number is expected, or DISK:NUMBER", c.Partition)
	}
	return found.Files(d, n)
}

// enter opens the export and the file system that is meant, and makes p a path in it. The envelope is to be closed.
func (c *volumeFlags) enter(p string) (env *disk.Envelope, files fs.FS, name string, err error) {
	if name, err = insidePath(p); err != nil {
		return nil, nil, "", err
	}
	env, found, err := c.open()
	if err != nil {
		return nil, nil, "", err
	}
	if files, err = c.files(found); err != nil {
		return nil, nil, "", errors.Join(absent(err), env.Close())
	}
	return env, files, name, nil
}

// insidePath turns a path as people write it (C:\Windows, /Windows, Windows/System32) into one of io/fs. ".." never leads out of
// the volume.
func insidePath(p string) (string, error) {
	p = strings.ReplaceAll(p, `\`, "/")
	if len(p) >= 2 && p[1] == ':' && (len(p) == 2 || p[2] == '/') {
		if p[0] != 'C' && p[0] != 'c' {
			return "", fmt.Errorf("%s: only C: is known, Windows' own volume; for others say --partition", p)
		}
		p = p[2:]
	}
	if p = strings.TrimPrefix(path.Clean("/"+p), "/"); p == "" {
		p = "."
	}
	return p, nil
}

// asTyped names in a file system's error the path as it was typed, in place of what insidePath made of it.
func asTyped(typed string, err error) error {
	if at := (*fs.PathError)(nil); errors.As(err, &at) {
		err = at.Err
	}
	return fmt.Errorf("%s: %w", typed, err)
}

// absent makes exit code 1 of what surely is not there.
func absent(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		fmt.Fprintln(os.Stderr, "berth:", image.Printable(err.Error()))
		return exitCode(1)
	}
	return err
}

type lsCmd struct {
	volumeFlags
	Path      string `arg:"" optional:"" help:"A folder or file, C:\\Windows or Windows/System32. Without it, the root folder."`
	Long      bool   `short:"l" help:"Attributes, size, time of last change (UTC), and where links lead."`
	Recursive bool   `short:"r" help:"Folders within folders, too. Links are not followed."`
	Output    string `help:"text or json: one object per line." enum:"text,json" default:"text" short:"o"`
}

// Help is shown by berth ls --help.
func (lsCmd) Help() string {
	return `Lists a folder inside an exported VM: one name per line, folders with a slash behind, links with an @. Names compare as in Windows, without case. What does not print in a name is shown as \x1b.

    berth ls win10.ova
    berth ls -l win10.ova 'C:\Windows\System32\drivers'
    berth ls -r --partition 1 win10.vhdx /
    berth ls -o json win10.qcow2 Users | jq -r .name

Exit codes: 0; 1 there is no such path; 2 it could not be read.`
}

// listed is an entry as berth ls -o json prints it.
type listed struct {
	Path       string    `json:"path"`
	Name       string    `json:"name"`
	Kind       string    `json:"kind"` // "file", "folder", "link"
	Bytes      int64     `json:"bytes"`
	Modified   time.Time `json:"modified"`
	Attributes string    `json:"attributes,omitempty"` // as attrib shows them: "RHSA"
	Target     string    `json:"target,omitempty"`     // of a link
}

func (c lsCmd) Run(ctx context.Context) error {
	env, files, name, err := c.enter(c.Path)
	if err != nil {
		return err
	}
	defer func() { _ = env.Close() }() // only read
	return absent(c.list(ctx, os.Stdout, files, name))
}

func (c *lsCmd) list(ctx context.Context, w io.Writer, files fs.FS, name string) error {
	info, err := fs.Stat(files, name)
	if err != nil {
		return asTyped(c.Path, err)
	}
	if !info.IsDir() {
		return c.entry(w, files, name, path.Base(name), info)
	}
	return c.folder(ctx, w, files, name, "")
}

// folder lists what is in a folder; shown is its path relative to the one that was asked for. What cannot be read is said, and the
// first such error returned at the end.
func (c *lsCmd) folder(ctx context.Context, w io.Writer, files fs.FS, name, shown string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	entries, first := fs.ReadDir(files, name)
	for _, e := range entries {
		at, show := path.Join(name, e.Name()), path.Join(shown, e.Name())
		info, err := e.Info()
		if err == nil {
			err = c.entry(w, files, at, show, info)
		} else {
			fmt.Fprintf(os.Stderr, "berth: %s: %s\n", image.Printable(show), image.Printable(err.Error()))
		}
		if err == nil && c.Recursive && info.IsDir() {
			err = c.folder(ctx, w, files, at, show)
		}
		if err != nil && first == nil {
			first = fmt.Errorf("%s: %w", show, err)
		}
	}
	return first
}

func (c *lsCmd) entry(w io.Writer, files fs.FS, at, show string, info fs.FileInfo) error {
	l := listed{Path: at, Name: path.Base(at), Kind: "file", Bytes: info.Size(), Modified: info.ModTime().UTC()}
	mark := ""
	switch {
	case info.IsDir():
		l.Kind, mark, l.Bytes = "folder", "/", 0
	case info.Mode()&fs.ModeSymlink != 0:
		l.Kind, mark, l.Bytes = "link", "@", 0
		var link *ntfs.ReparseError
		if _, err := files.Open(at); errors.As(err, &link) {
			l.Target = link.Target
		}
	}
	if e, ok := info.Sys().(*ntfs.Entry); ok {
		l.Attributes = attributes(e.Attributes)
	}
	var err error
	switch {
	case c.Output == "json":
		err = report.WriteJSON(w, l, "")
	case !c.Long:
		_, err = fmt.Fprintf(w, "%s%s\n", image.Printable(show), mark)
	default:
		size := strconv.FormatInt(l.Bytes, 10)
		if l.Kind != "file" {
			size = "<" + strings.ToUpper(l.Kind) + ">"
		}
		line := fmt.Sprintf("%-6s %14s  %s  %s%s", l.Attributes, size, l.Modified.Format("2006-01-02 15:04"), image.Printable(show), mark)
		if l.Target != "" {
			line += " -> " + image.Printable(l.Target)
		}
		_, err = fmt.Fprintln(w, line)
	}
	return err
}

// attributes shows FILE_ATTRIBUTE_* ([MS-FSCC] 2.6) by the letters of Windows' attrib, and C for compressed, E for encrypted.
func attributes(bits uint32) string {
	var b strings.Builder
	for _, a := range []struct {
		bit    uint32
		letter byte
	}{{0x20, 'A'}, {0x4, 'S'}, {0x2, 'H'}, {0x1, 'R'}, {0x800, 'C'}, {0x4000, 'E'}} {
		if bits&a.bit != 0 {
			b.WriteByte(a.letter)
		}
	}
	return b.String()
}

type catCmd struct {
	volumeFlags
	Path string `arg:"" help:"The file, C:\\Windows\\win.ini or Windows/win.ini; NAME:STREAM is an alternate stream."`
	Out  string `short:"o" help:"Write it to this new file; - is standard output, with nothing escaped." placeholder:"OUT"`
}

// Help is shown by berth cat --help.
func (catCmd) Help() string {
	return `Writes a file inside an exported VM to standard output, or with -o to a new file. Files that NTFS or CompactOS compress are written as Windows reads them. Links are not followed. On a terminal, control characters are shown as \x1b.

    berth cat win10.ova 'C:\Windows\Panther\setupact.log' | less
    berth cat -o SYSTEM win10.ova Windows/System32/config/SYSTEM
    berth cat --partition 1 -o BCD win10.vhdx EFI/Microsoft/Boot/BCD

Exit codes: 0; 1 there is no such file; 2 it could not be read or written.`
}

func (c catCmd) Run(ctx context.Context) error {
	env, files, name, err := c.enter(c.Path)
	if err != nil {
		return err
	}
	defer func() { _ = env.Close() }() // only read
	f, err := files.Open(name)
	if err != nil {
		return absent(asTyped(c.Path, err))
	}
	defer func() { _ = f.Close() }() // only read
	if info, err := f.Stat(); err != nil || info.IsDir() {
		return errors.Join(err, fmt.Errorf("%s is a folder: berth ls lists it", c.Path))
	}
	from := readerUntil{ctx, f}
	switch c.Out {
	case "-":
		_, err = io.Copy(os.Stdout, from)
	case "":
		_, err = io.Copy(tamed(os.Stdout), from)
	default:
		err = writeNew(c.Out, from)
	}
	return err
}

// writeNew writes a file that is not there yet, or nothing: no file is replaced and no link followed.
func writeNew(name string, from io.Reader) error {
	out, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, from)
	if err = errors.Join(err, out.Close()); err != nil {
		err = errors.Join(err, os.Remove(name))
	}
	return err
}

// readerUntil reads until its context ends. It hides what else r can do, so that io.Copy asks it piece by piece.
type readerUntil struct {
	ctx context.Context
	r   io.Reader
}

func (r readerUntil) Read(b []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(b)
}

// tamed is f, or where f is a terminal a writer that shows control characters instead of sending them.
func tamed(f *os.File) io.Writer {
	if term.IsTerminal(int(f.Fd())) {
		return &tamer{w: f}
	}
	return f
}

// tamer writes control characters but tabulators and line ends as \x1b: C0, DEL, and C1 as UTF-8 has them and as bytes of their own.
type tamer struct {
	w    io.Writer
	left int // bytes that are still to come of a character of UTF-8
}

func (t *tamer) Write(b []byte) (int, error) {
	var out bytes.Buffer
	for i, c := range b {
		switch {
		case c == '\t' || c == '\n' || c == '\r' && (i+1 == len(b) || b[i+1] == '\n'), c >= 0x20 && c < 0x7f:
			t.left = 0
			out.WriteByte(c)
		case t.left > 0 && c >= 0x80 && c < 0xc0:
			t.left--
			out.WriteByte(c)
		case c > 0xc2 && c < 0xf5: // not C2, which begins C1
			t.left = 1
			if c >= 0xe0 {
				t.left = 2
			}
			if c >= 0xf0 {
				t.left = 3
			}
			out.WriteByte(c)
		default:
			t.left = 0
			fmt.Fprintf(&out, `\x%02x`, c)
		}
	}
	if _, err := t.w.Write(out.Bytes()); err != nil {
		return 0, err
	}
	return len(b), nil
}
