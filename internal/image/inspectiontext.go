package image

import (
	"bufio"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

const (
	textWidth  = 80 // columns
	labelWidth = 16 // columns, with the two blanks before
)

// Printable makes text from a disk safe to show on a terminal: what does not print (escapes, line breaks, characters that turn the
// direction of writing) is written as \x1b or \u{202e}, bytes that are not UTF-8 as \xff, and a backslash stays one.
func Printable(s string) string {
	clean := true
	for i := 0; i < len(s) && clean; i++ {
		clean = s[i] >= 0x20 && s[i] < 0x7f
	}
	if clean {
		return s
	}
	var b strings.Builder
	for i, r := range s {
		_, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case unicode.IsPrint(r):
			b.WriteRune(r)
		case r < 0x100:
			fmt.Fprintf(&b, `\x%02x`, r)
		default:
			fmt.Fprintf(&b, `\u{%x}`, r)
		}
	}
	return b.String()
}

// Size shows a count of bytes for people: "50 MiB", "64.00 GiB".
func Size(n int64) string {
	const kib, mib, gib = 1 << 10, 1 << 20, 1 << 30
	switch {
	case n < kib:
		return fmt.Sprintf("%d bytes", n)
	case n < mib:
		return fmt.Sprintf("%.0f KiB", float64(n)/kib)
	case n < gib:
		return fmt.Sprintf("%.0f MiB", float64(n)/mib)
	}
	return fmt.Sprintf("%.2f GiB", float64(n)/gib)
}

// WriteText writes the inspection for people, in 80 columns. Whatever comes from the disk is made harmless for terminals.
func (i *Inspection) WriteText(w io.Writer) error {
	t := &textWriter{w: bufio.NewWriter(w)}
	t.container(&i.Container)
	for n := range i.Disks {
		t.disk(n, &i.Disks[n])
	}
	for n := range i.Windows {
		t.windows(n, len(i.Windows), &i.Windows[n])
	}
	if i.NoWindows != "" {
		t.heading("Windows")
		t.item("", i.NoWindows)
	}
	t.heading("Suspicious")
	if len(i.Suspicious) == 0 {
		t.item("", "Nothing.")
	}
	for _, s := range i.Suspicious {
		text := s.Text
		if s.Where != "" {
			text = strings.ToUpper(s.Where[:1]) + s.Where[1:] + ": " + text
		}
		t.bullet(text)
	}
	if len(i.Warnings) > 0 {
		t.heading("Notes")
		for _, text := range i.Warnings {
			t.bullet(text)
		}
	}
	return t.w.Flush() // errors of writing stick to it
}

type textWriter struct {
	w     *bufio.Writer
	began bool
}

func (t *textWriter) heading(s string) {
	if t.began {
		_ = t.w.WriteByte('\n')
	}
	t.began = true
	t.wrap("", "  ", s)
}

func (t *textWriter) item(label, text string) {
	if label == "" {
		t.wrap("  ", "  ", text)
		return
	}
	t.wrap(fmt.Sprintf("  %-*s", labelWidth-2, label), strings.Repeat(" ", labelWidth), text)
}

func (t *textWriter) bullet(text string) { t.wrap("  - ", "    ", text) }

// wrap writes text after first, broken at blanks before column 80; the lines that follow begin with rest. A word that is longer than
// a line is cut.
func (t *textWriter) wrap(first, rest, text string) {
	line, width, begin := first, utf8.RuneCountInString(first), true
	for _, word := range strings.Fields(Printable(text)) {
		for {
			n := utf8.RuneCountInString(word)
			room := textWidth - width
			if !begin {
				room--
			}
			if n <= room {
				if !begin {
					line += " "
					width++
				}
				line += word
				width += n
				begin = false
				break
			}
			if begin { // alone, and too long
				runes := []rune(word)
				line += string(runes[:room])
				word = string(runes[room:])
			}
			_, _ = fmt.Fprintln(t.w, line)
			line, width, begin = rest, utf8.RuneCountInString(rest), true
		}
	}
	_, _ = fmt.Fprintln(t.w, strings.TrimRight(line, " "))
}

// shown is a known fact's value, or why it is not known.
func shown[T any](f Fact[T], show func(T) string) string {
	if f.Value == nil {
		return "not known: " + f.Unknown
	}
	return show(*f.Value)
}

func plain(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func moment(at time.Time) string { return at.UTC().Format("2006-01-02 15:04 UTC") }

func plural(n int, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %ss", n, one)
}

func (t *textWriter) container(c *Container) {
	t.heading("File")
	t.item("Format", c.Format)
	switch c.Integrity {
	case Verified:
		t.item("Manifest", "verified: all digests agree")
	case Unverified:
		t.item("Manifest", "not verified (--verify compares its digests)")
	case Broken:
		t.item("Manifest", "DAMAGED: "+c.IntegrityWhy)
	case NoManifest:
		t.item("Manifest", "none: whether the file is whole cannot be told")
	}
	h := c.Hardware
	if h == nil {
		return
	}
	parts := []string{plural(h.NICs, "network adapter"), plural(h.CDROMs, "CD drive")}
	if h.MemoryMB > 0 {
		parts = append([]string{Size(h.MemoryMB << 20)}, parts...)
	}
	if h.VCPUs > 0 {
		parts = append([]string{plural(h.VCPUs, "CPU")}, parts...)
	}
	for _, s := range []string{h.Firmware, h.OSType} {
		if s != "" {
			parts = append(parts, s)
		}
	}
	t.item("Machine", plain(h.Name)+": "+strings.Join(parts, ", "))
	for _, name := range h.CDImages {
		t.item("CD", name)
	}
}

func (t *textWriter) disk(n int, d *Disk) {
	head := fmt.Sprintf("Disk %d: %s", n, Size(d.SizeBytes))
	if d.Name != "" {
		head += ", " + d.Name
	}
	head += ", " + d.Format
	if d.SubFormat != "" {
		head += " " + d.SubFormat
	}
	head += " of " + Size(d.FileBytes)
	if d.Scheme == "" {
		head += ", no partition table"
	} else {
		head += ", " + string(d.Scheme)
	}
	if d.SectorSize != 512 {
		head += fmt.Sprintf(", sectors of %d bytes", d.SectorSize)
	}
	t.heading(head)
	for _, p := range d.Partitions {
		words := []string{fmt.Sprintf("%-9s %10s", plain(p.Role), Size(p.LengthBytes)), " " + plain(p.FileSystem)}
		line := strings.Join(words, " ")
		if v := p.Volume; v != nil {
			line += ", " + Size(v.FreeBytes) + " free"
			if v.Label != "" {
				line += fmt.Sprintf(", %q", Printable(v.Label))
			}
			if v.Dirty {
				line += ", dirty"
			}
		}
		if p.Bootable {
			line += ", bootable"
		}
		// A row of a table keeps its blanks.
		label := fmt.Sprintf("  %2d  ", p.Number)
		if cut := []rune(label + Printable(line)); len(cut) > textWidth {
			_, _ = fmt.Fprintln(t.w, string(cut[:textWidth-3])+"...")
		} else {
			_, _ = fmt.Fprintln(t.w, string(cut))
		}
		if p.Error != "" {
			t.wrap("      ", "      ", p.Error)
		}
	}
	if len(d.Partitions) == 0 {
		t.item("", "Nothing that is understood.")
	}
}

// Title is what people call this Windows: "Windows 11 Enterprise 23H2 (build 22631.1)".
func (w *Windows) Title() string {
	name := "Windows"
	if w.ProductName.Value != nil {
		name = *w.ProductName.Value
	}
	if w.Build.Value == nil {
		return name
	}
	const firstWindows11 = 22000 // its ProductName still says 10
	if *w.Build.Value >= firstWindows11 {
		name = strings.Replace(name, "Windows 10", "Windows 11", 1)
	}
	if w.Version.Value != nil && *w.Version.Value != "" {
		name += " " + *w.Version.Value
	}
	build := fmt.Sprint(*w.Build.Value)
	if w.Revision.Value != nil {
		build += fmt.Sprintf(".%d", *w.Revision.Value)
	}
	return name + " (build " + build + ")"
}

func (t *textWriter) windows(n, of int, w *Windows) {
	head := "Windows"
	if of > 1 {
		head = fmt.Sprintf("Windows %d of %d", n+1, of)
	}
	t.heading(fmt.Sprintf("%s, on disk %d, partition %d: %s", head, w.Disk, w.Partition, w.Title()))
	same := func(s string) string { return plain(s) }
	t.item("Host name", shown(w.HostName, same))
	t.item("Version", shown(w.Version, same))
	t.item("Build", shown(w.Build, func(b int) string {
		return fmt.Sprintf("%d, update level (UBR) %s", b, shown(w.Revision, func(u uint32) string { return fmt.Sprint(u) }))
	}))
	t.item("Edition", shown(w.Edition, same)+" ("+shown(w.ProductType, same)+")")
	t.item("Processor", shown(w.Architecture, same))
	t.item("Firmware", shown(w.Firmware, same))
	t.item("Language", "set up in "+shown(w.InstallLanguage, same)+", shown in "+shown(w.DisplayLanguages, func(l []string) string { return plain(strings.Join(l, ", ")) }))
	t.item("Time zone", shown(w.TimeZone, same))
	t.item("Installed", shown(w.Installed, moment))
	t.item("Shut down", shown(w.LastShutdown, moment)+"; hibernation: "+shown(w.Hibernation, same))
	t.item("Setup", shown(w.Setup, same))
	t.item("C:", shown(w.Volume, func(v Volume) string { return Size(v.FreeBytes) + " of " + Size(v.SizeBytes) + " free" }))
	t.list("Users", w.Users.Value == nil, w.Users.Unknown, users2text(w.Users))
	t.list("Programs", w.Programs.Value == nil, w.Programs.Unknown, programs2text(w.Programs))
	t.list("Disk drivers", w.Storage.Value == nil, w.Storage.Unknown, storage2text(w.Storage))
	t.list("Network", w.Network.Value == nil, w.Network.Unknown, network2text(w.Network))
	t.list("Support for", w.Support.Value == nil, w.Support.Unknown, support2text(w.Support))
	var hives []string
	for _, h := range w.Hives {
		text := h.Name + " " + h.State
		switch {
		case h.State == "replayed":
			text += fmt.Sprintf(" (%d log entries)", h.Replayed)
		case h.Why != "":
			text += " (" + h.Why + ")"
		}
		hives = append(hives, text)
	}
	t.item("Hives", strings.Join(hives, ", "))
}

// list writes what a fact lists, one on a line.
func (t *textWriter) list(label string, isUnknown bool, why string, lines []string) {
	switch {
	case isUnknown:
		t.item(label, "not known: "+why)
	case len(lines) == 0:
		t.item(label, "none")
	}
	for _, line := range lines {
		t.item(label, line)
		label = " "
	}
}

// each maps what a fact lists to lines.
func each[T any](f Fact[[]T], line func(T) string) []string {
	if f.Value == nil {
		return nil
	}
	lines := make([]string, len(*f.Value))
	for i, v := range *f.Value {
		lines[i] = line(v)
	}
	return lines
}

func users2text(f Fact[[]User]) []string {
	return each(f, func(u User) string {
		line := fmt.Sprintf("%s (RID %d)", u.Name, u.RID)
		if u.Administrator {
			line += ", administrator"
		}
		if !u.Enabled {
			line += ", disabled"
		}
		return line
	})
}

func programs2text(f Fact[[]Program]) []string {
	return each(f, func(p Program) string {
		line := p.Name
		if p.Version != "" {
			line += " " + p.Version
		}
		if p.Publisher != "" {
			line += ", " + p.Publisher
		}
		if p.Bits == 32 {
			line += " (32-bit)"
		}
		return line
	})
}

func storage2text(f Fact[[]StorageDriver]) []string {
	var boot, later []string
	if f.Value == nil {
		return nil
	}
	for _, d := range *f.Value {
		if d.AtBoot {
			boot = append(boot, d.Service)
		} else {
			later = append(later, d.Service)
		}
	}
	var lines []string
	if len(boot) > 0 {
		lines = append(lines, "at boot: "+strings.Join(boot, ", "))
	}
	if len(later) > 0 {
		lines = append(lines, "switched off for want of a device: "+strings.Join(later, ", "))
	}
	return lines
}

// network2text lists devices; the adapters that Windows makes up itself (WAN Miniport and the like) are only counted.
func network2text(f Fact[[]NetworkAdapter]) []string {
	if f.Value == nil {
		return nil
	}
	var lines []string
	made := 0
	for _, a := range *f.Value {
		bus, _, hasBus := strings.Cut(strings.ToLower(a.ComponentID), `\`)
		if a.ComponentID != "" && (!hasBus || bus == "root" || strings.HasPrefix(bus, "{")) {
			made++
			continue
		}
		line := plain(a.Description)
		if a.ComponentID != "" {
			line += " (" + a.ComponentID + ")"
		}
		lines = append(lines, line)
	}
	if made > 0 {
		lines = append(lines, fmt.Sprintf("and %d that Windows makes up itself", made))
	}
	return lines
}

func support2text(f Fact[[]Support]) []string {
	if f.Value == nil {
		return nil
	}
	var lines []string
	for _, state := range []struct{ driver, text string }{{"boot", "at boot"}, {"installed", "installed"}, {"available", "comes with Windows"}, {"absent", "no driver"}} {
		var names []string
		for _, s := range *f.Value {
			if s.Driver == state.driver {
				names = append(names, s.Hardware)
			}
		}
		if len(names) > 0 {
			lines = append(lines, state.text+": "+strings.Join(names, ", "))
		}
	}
	return lines
}
