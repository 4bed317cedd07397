package live

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"unicode/utf16"
)

// SysprepError is Sysprep's failure, with what its log says of it.
type SysprepError struct {
	// Log is the log's file.
	Log string
	// Lines are the last lines of it that tell of an error or a failure, the oldest first; none where it has none.
	Lines []string
	// Exit is how the program itself ended; nil where it ended well and yet did not generalise.
	Exit error
}

func (e *SysprepError) Error() string {
	say := "Sysprep failed"
	if e.Exit != nil {
		say += ": " + e.Exit.Error()
	}
	if len(e.Lines) == 0 {
		return fmt.Sprintf("%s, and %s does not say why", say, e.Log)
	}
	return fmt.Sprintf("%s; the last of %s:\n%s", say, e.Log, strings.Join(e.Lines, "\n"))
}

func (e *SysprepError) Unwrap() error { return e.Exit }

const (
	// errorLines is how many lines of the log are shown: ten, as Amazon's checker does (facts §4.1).
	errorLines = 10
	// maxLog is how much of the end of a log is read, in bytes, maxLogLine how much of a line is shown.
	maxLog     = 256 << 10
	maxLogLine = 500
)

// errorsIn finds the last lines that tell of an error or a failure in what was written to a log after its first skip bytes. A log that
// has become shorter was begun anew.
func errorsIn(log io.ReaderAt, size, skip int64) ([]string, error) {
	if size < skip {
		skip = 0
	}
	from := max(skip, size-maxLog)
	wide, err := isUTF16(log, size)
	if err != nil {
		return nil, err
	}
	if wide {
		from &^= 1
	}
	b := make([]byte, size-from)
	if n, err := log.ReadAt(b, from); err != nil && n < len(b) {
		return nil, err
	}
	text := string(bytes.ToValidUTF8(b, []byte("?")))
	if wide {
		units := make([]uint16, len(b)/2)
		for i := range units {
			units[i] = uint16(b[2*i]) | uint16(b[2*i+1])<<8
		}
		text = string(utf16.Decode(units))
	}
	var lines []string
	for line := range strings.Lines(text) {
		line = strings.TrimRight(strings.TrimPrefix(line, "\ufeff"), "\r\n\x00 ")
		low := strings.ToLower(line)
		if !strings.Contains(low, "error") && !strings.Contains(low, "fail") {
			continue
		}
		if len(line) > maxLogLine {
			line = strings.ToValidUTF8(line[:maxLogLine], "") + "..."
		}
		lines = append(lines, line)
	}
	return lines[max(0, len(lines)-errorLines):], nil
}

// isUTF16 looks for the byte order mark.
func isUTF16(r io.ReaderAt, size int64) (bool, error) {
	if size < 2 {
		return false, nil
	}
	var bom [2]byte
	if _, err := r.ReadAt(bom[:], 0); err != nil {
		return false, err
	}
	return bom == [2]byte{0xff, 0xfe}, nil
}
