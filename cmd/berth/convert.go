package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"

	"berth/internal/disk"
	"berth/internal/image"
)

type convertCmd struct {
	File   string `arg:"" type:"existingfile" help:"An exported VM: OVA, OVF, VMDK, VHD, VHDX, QCOW2, or a raw disk, as it is or in gzip or xz. It is only read."`
	Out    string `arg:"" type:"path" help:"The disk to write. There must be no such file yet."`
	To     string `help:"raw or qcow2; if not said, the name's ending tells: .raw, .img or .qcow2." enum:"raw,qcow2," default:"" placeholder:"FORMAT"`
	Layout string `help:"Of a QCOW2: fast (the default: stored as it is, a desktop that boots from it reads it soonest), zstd (compressed), or compact (the compressed blocks of a streamOptimized VMDK or a QCOW2 are taken over: smallest and soonest done, but QEMU is the one reader known to take them)." enum:"${layouts}," default:"" placeholder:"NAME"`
	Disk   int    `help:"Which disk of an OVA that has several, from 1 on." placeholder:"N"`
	Format string `help:"What the file is (${copyFormats}), where its content could be taken for something else." placeholder:"NAME"`

	NoSkip        bool `help:"Leave nothing out; no --keep flag goes with it. Otherwise what NTFS has free is left out, and the contents of page files and of a hibernation file that holds no Windows."`
	KeepFree      bool `help:"Do not leave out what NTFS has free: deleted files can be found in the copy, too."`
	KeepPageFiles bool `help:"Do not leave out the contents of pagefile.sys and swapfile.sys."`
	KeepHiberfile bool `help:"Do not leave out the contents of hiberfil.sys."`
	NoVerify      bool `help:"With compact: take compressed blocks over without looking whether they can be read."`
	Digest        bool `help:"Print a digest of the contents: the same for every form and format of a disk."`

	Resume  bool   `help:"Go on with a conversion that was stopped or killed. With it, one that is interrupted is kept, to be gone on with."`
	Durable bool   `help:"End only when the copy has reached the disk, so that it survives a power cut."`
	Output  string `help:"text, or json: an object per line as it goes, and one about the copy." enum:"text,json" default:"text" short:"o"`
}

// Help is shown by berth convert --help.
func (convertCmd) Help() string {
	return `Writes the disk of an exported VM as a raw disk or as a QCOW2. A raw disk is sparse: it is as long as the disk, but takes only the space of what is on it ("du" tells how much that is).

  berth convert win10.ova win10.qcow2
  berth convert win10-disk1.vmdk win10.raw
  berth convert win10.ova win10.qcow2 --layout compact
  berth convert server.ova data.raw --disk 2
  berth convert win10.raw.xz win10.raw --no-skip

What NTFS has free is not copied, nor the contents of pagefile.sys, swapfile.sys and of a hiberfil.sys that holds no Windows: they read as zeros, and with them goes what was deleted. All of a volume is copied, and why is said, if it is not certainly at rest: marked dirty, not closed properly, or with a Windows that is hibernated.

The export is found out by its content, never by its name, and is neither changed nor trusted: a disk that refers to another file is refused, but for the parts of a split VMDK and the disks of an OVF, which must lie beside it. The copy has its name only when it is whole; until then it ends in ".part". A conversion that is interrupted leaves nothing behind, unless it was begun with --resume.`
}

// convertMemory is what the runtime is asked to stay below, in bytes; the bar for the whole process is 96 MiB.
const convertMemory = 72 << 20

func (c convertCmd) Run(ctx context.Context) error {
	form, err := c.form()
	if err != nil {
		return err
	}
	if err := c.kept(); err != nil {
		return err
	}
	if _, err := os.Lstat(c.Out); err == nil {
		return fmt.Errorf("%s is there already, and nothing is ever written over: choose another name, or remove it", c.Out)
	}
	if info, err := os.Stat(filepath.Dir(c.Out)); err != nil || !info.IsDir() {
		return fmt.Errorf("%s is no folder that the copy could be written to", filepath.Dir(c.Out))
	}
	// Whoever reads what is printed may end first: that is an error of a write, not the end of this process with all half-made.
	signal.Ignore(syscall.SIGPIPE)
	env, err := openExport(c.File, disk.Options{Format: strings.ToUpper(c.Format), Sequential: true})
	if r := (*disk.Refusal)(nil); errors.As(err, &r) && r.Reason == disk.NotADisk && r.Format == "RAW" && c.Format == "" {
		return fmt.Errorf("%w; if it is a raw disk that no machine starts from, say so with --format raw", err)
	} else if err != nil {
		return err
	}
	defer env.Close()
	for _, w := range env.Warnings {
		fmt.Fprintln(os.Stderr, "berth: note:", w)
	}
	d, err := c.choose(env.Disks)
	if err != nil {
		return err
	}
	stream := d.Size() < 0 // in a gzip or xz file
	if stream && c.Resume {
		return errors.New("what is in a gzip or xz file cannot be gone on with in its middle: convert it without --resume")
	}
	opt := disk.CopyOptions{Form: form, Unverified: c.NoVerify, Digest: c.Digest, Durable: c.Durable, Resume: c.Resume, Confirm: env.Unchanged}
	if opt.Checkpoint, err = c.identity(env); err != nil {
		return err
	}
	var left image.LeftOut
	if !c.NoSkip {
		left = image.LeaveOut(d, image.Keep{Free: c.KeepFree, PageFiles: c.KeepPageFiles, HiberFile: c.KeepHiberfile}, others(env.Disks, d)...)
		opt.Skip = left.Ranges
	}
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(convertMemory))
	var done disk.Copied
	if c.Output == "json" {
		done, err = c.events(ctx, os.Stdout, d, opt, left)
	} else {
		done, err = c.shown(ctx, d, opt)
	}
	if err != nil {
		return c.failed(ctx, err, env, stream)
	}
	if c.Output == "text" {
		c.tell(os.Stderr, done, left)
	}
	return nil
}

// failed says of a conversion that failed why, and what is left of it.
func (c convertCmd) failed(ctx context.Context, err error, env *disk.Envelope, stream bool) error {
	switch {
	case errors.Is(err, fs.ErrExist) && stream:
		return fmt.Errorf("%w; if no other conversion is at work, remove the file", err)
	case errors.Is(err, fs.ErrExist) && c.Resume:
		return fmt.Errorf("%w, and nothing tells how far it is: remove the file, and begin anew", err)
	case errors.Is(err, fs.ErrExist):
		return fmt.Errorf("%w; if no other conversion is at work, go on with it by --resume, or remove the file", err)
	case ctx.Err() != nil:
		if err = context.Cause(ctx); errors.Is(err, context.Canceled) {
			err = errors.New("interrupted")
		}
	default: // what was read of a file that changes may be wrong in any way
		if changed := env.Unchanged(); changed != nil {
			err = fmt.Errorf("%w, and must not be: switch the machine off, or export it, and convert again", changed)
		}
	}
	full := errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EFBIG)
	switch _, gone := os.Lstat(c.Out + ".part"); {
	case gone == nil && c.Resume && (full || ctx.Err() != nil):
		return fmt.Errorf("%w; what is done is kept: go on with the same command", err)
	case ctx.Err() != nil && gone != nil:
		return fmt.Errorf("%w; nothing is left of it", err)
	}
	return err
}

// form is what is to be written.
func (c convertCmd) form() (disk.Form, error) {
	to := c.To
	if to == "" {
		switch strings.ToLower(filepath.Ext(c.Out)) {
		case ".raw", ".img":
			to = "raw"
		case ".qcow2":
			to = "qcow2"
		default:
			return 0, fmt.Errorf("say with --to raw or --to qcow2 what %s shall be: its name does not", filepath.Base(c.Out))
		}
	}
	form := disk.Raw
	switch {
	case to == "qcow2":
		form = image.Layouts[cmp.Or(c.Layout, image.DefaultLayout)]
	case c.Layout != "":
		return 0, errors.New("a raw disk has no --layout")
	}
	if c.NoVerify && (form != disk.Compact || c.Digest) {
		return 0, errors.New("--no-verify goes with --layout compact, and not with --digest, for which all is read")
	}
	return form, nil
}

// kept refuses flags that say what is not to be left out where nothing is.
func (c convertCmd) kept() error {
	for _, flag := range []struct {
		name  string
		given bool
	}{{"--keep-free", c.KeepFree}, {"--keep-page-files", c.KeepPageFiles}, {"--keep-hiberfile", c.KeepHiberfile}} {
		if c.NoSkip && flag.given {
			return fmt.Errorf("--no-skip leaves nothing out at all: say either it or %s", flag.name)
		}
	}
	return nil
}

// identity tells the source, and what is left out of it, from any other.
func (c convertCmd) identity(env *disk.Envelope) (string, error) {
	path, err := filepath.Abs(c.File)
	return fmt.Sprintf("%s %s%d %t %t %t", path, env.Identity(), c.Disk, c.KeepFree, c.KeepPageFiles, c.KeepHiberfile), err
}

// shown converts with a live line.
func (c convertCmd) shown(ctx context.Context, d disk.Disk, opt disk.CopyOptions) (done disk.Copied, err error) {
	const name = "Convert"
	live := newProgress(os.Stderr)
	live.names = 0 // there is one step, and much to say of it
	wide := live.room(name)
	err = live.step(name, func(say func(string)) (string, error) {
		p := newPace(time.Now)
		opt.Progress = func(at, all int64) { say(p.text(at, all, wide)) }
		done, err = disk.CopyFile(ctx, c.Out, d, opt)
		return fmt.Sprintf("%s to %s, %s of %s", strings.TrimSpace(d.Format+" "+d.SubFormat), c.Out, size(done.Plain+done.Passed+done.Packed), size(done.Size)), err
	})
	return done, err
}

// bar is a bar of n characters.
func bar(at, all int64, n int) string {
	full := int(at * int64(n) / max(all, 1))
	return strings.Repeat("█", full) + strings.Repeat("░", n-full)
}

// text is how far a conversion is, in so many characters: the bar is what there is room for.
func (p *pace) text(at, all int64, wide int) string {
	rate, left := p.at(at, all)
	text := size(at)
	if all >= 0 { // how much comes out of a gzip file shows at its end
		text = fmt.Sprintf("%3d %% of %s", at*100/max(all, 1), size(all))
		// What there is room for beside the longest text, so that the bar does not change with it.
		if n := min(20, wide-len(" 100 % of 1023.9 GiB, 1023.9 MiB/s, 99h59m59s left")); n >= 5 {
			text = bar(at, all, n) + " " + text
		}
	}
	if rate > 0 {
		text += fmt.Sprintf(", %s/s", size(rate))
	}
	if left >= 0 {
		text += fmt.Sprintf(", %s left", left.Round(time.Second))
	}
	return text
}

// pace tells how fast something goes.
type pace struct {
	now   func() time.Time
	begun time.Time
	from  int64 // where it began: behind zero when it was gone on with
	first bool
}

func newPace(now func() time.Time) *pace { return &pace{now: now, begun: now(), first: true} }

// at is called when at of all bytes are done; all is below zero where it is not known. It returns bytes per second, 0 until that is known,
// and what is left at that rate, -1 where that is not.
func (p *pace) at(at, all int64) (rate int64, left time.Duration) {
	if p.first {
		p.from, p.first = at, false
	}
	took := p.now().Sub(p.begun).Seconds()
	if took <= 0 || at <= p.from {
		return 0, -1
	}
	rate = max(1, int64(float64(at-p.from)/took))
	if all < 0 {
		return rate, -1
	}
	return rate, time.Duration(float64(max(0, all-at)) / float64(rate) * float64(time.Second))
}

// converting is every object of berth convert --output json but the last.
type converting struct {
	Event string `json:"event"` // "progress"
	Done  int64  `json:"done"`
	Size  int64  `json:"size"` // -1: not known
	// Rate and Left are absent until they are known; Left always is where Size is not known.
	Rate int64    `json:"bytesPerSecond,omitempty"`
	Left *float64 `json:"secondsLeft,omitempty"`
}

// event is how far a conversion is, at a pace.
func (p *pace) event(at, all int64) converting {
	rate, left := p.at(at, all)
	e := converting{Event: "progress", Done: at, Size: all, Rate: rate}
	if left >= 0 {
		seconds := left.Seconds()
		e.Left = &seconds
	}
	return e
}

// converted is the last object of berth convert --output json.
type converted struct {
	Event   string `json:"event"` // "done"
	Out     string `json:"out"`
	Size    int64  `json:"size"`   // of the guest's disk, as all that follow
	Stored  int64  `json:"stored"` // by the source
	LeftOut int64  `json:"leftOut"`
	Plain   int64  `json:"plain"`   // stored as it is
	Passed  int64  `json:"passed"`  // in compressed blocks that were taken over
	Packed  int64  `json:"packed"`  // compressed anew
	Resumed int64  `json:"resumed"` // the byte from which on it was gone on
	File    int64  `json:"file"`    // length of the file
	// Free is what of the volumes is free, Files the contents of which files were left out, Kept why what was not.
	Free   int64            `json:"free"`
	Files  map[string]int64 `json:"files"`
	Kept   []string         `json:"kept"`
	Digest string           `json:"digest,omitempty"`
}

// events converts and writes an object per line to w.
func (c convertCmd) events(ctx context.Context, w io.Writer, d disk.Disk, opt disk.CopyOptions, left image.LeftOut) (disk.Copied, error) {
	out := json.NewEncoder(w)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	p, last := newPace(time.Now), time.Time{}
	opt.Progress = func(at, all int64) {
		event := p.event(at, all)
		if now := time.Now(); now.Sub(last) > 500*time.Millisecond {
			last = now
			if err := out.Encode(event); err != nil {
				cancel(err) // nobody reads them any more
			}
		}
	}
	done, err := disk.CopyFile(ctx, c.Out, d, opt)
	if err != nil {
		return done, cmp.Or(context.Cause(ctx), err)
	}
	kept := append([]string{}, left.Kept...)
	files := left.Files
	if files == nil {
		files = map[string]int64{}
	}
	return done, out.Encode(converted{"done", c.Out, done.Size, done.Stored, done.Skipped, done.Plain, done.Passed, done.Packed, done.Resumed, done.File, left.Free, files, kept, done.Digest})
}

// tell says what the copy is.
func (c convertCmd) tell(w io.Writer, done disk.Copied, left image.LeftOut) {
	if done.Resumed > 0 {
		fmt.Fprintf(w, "  gone on from %s\n", size(done.Resumed))
	}
	if done.Passed > 0 {
		fmt.Fprintf(w, "  %s in blocks that were taken over, %s compressed, %s stored as it is: a file of %s\n", size(done.Passed), size(done.Packed), size(done.Plain), size(done.File))
	}
	if done.Skipped > 0 {
		var names []string
		for _, name := range slices.Sorted(maps.Keys(left.Files)) {
			names = append(names, fmt.Sprintf("%s (%s)", name, size(left.Files[name])))
		}
		if left.Free > 0 {
			names = append([]string{"what NTFS has free"}, names...)
		}
		fmt.Fprintf(w, "  left out: %s of what the export stores: %s\n", size(done.Skipped), strings.Join(names, ", "))
	}
	for _, why := range left.Kept {
		fmt.Fprintln(w, "  copied in full:", image.Printable(why))
	}
	if done.Digest != "" {
		fmt.Printf("%s  %s\n", done.Digest, c.Out)
	}
}

// others are the disks of a machine but for one.
func others(disks []disk.Disk, but disk.Disk) []disk.Disk {
	return slices.DeleteFunc(slices.Clone(disks), func(d disk.Disk) bool { return d.Image == but.Image })
}

// choose is the disk to convert.
func (c convertCmd) choose(disks []disk.Disk) (disk.Disk, error) {
	switch {
	case c.Disk == 0 && len(disks) == 1:
		return disks[0], nil
	case c.Disk >= 1 && c.Disk <= len(disks):
		return disks[c.Disk-1], nil
	}
	var names []string
	for i, d := range disks {
		about := cmp.Or(d.Name, d.Format) // a bare disk has no name
		if d.Size() >= 0 {
			about += ", " + size(d.Size())
		}
		names = append(names, fmt.Sprintf("%d (%s)", i+1, about))
	}
	if c.Disk != 0 {
		return disk.Disk{}, fmt.Errorf("there is no disk %d, but: %s", c.Disk, strings.Join(names, ", "))
	}
	return disk.Disk{}, fmt.Errorf("say with --disk which disk: %s", strings.Join(names, ", "))
}
