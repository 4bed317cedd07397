package check

import (
	"fmt"
	"path"
	"strings"

	"berth/internal/windows"
)

// sysprepChecks are the checks on what Sysprep needs and what it has left.
var sysprepChecks = []Check{
	{
		Code: "AlreadyGeneralized", ReportAs: "UnknownError", Level: Fail, DecidedIn: OnDisk,
		Title:      "Windows is set up and has not been generalized",
		Source:     "document, Step 2 (the snapshot before Sysprep is what is exported); facts §4.3",
		Evaluation: "ImageState must be IMAGE_STATE_COMPLETE.",
		Remedy: steps(
			"Export the snapshot that was taken before Sysprep was run. Without one: start the machine, go through its set-up, create WorkSpaces_BYOL again, and shut down."),
		judge: judgeGeneralized,
	},
	{
		Code: "SysprepUnusable", ReportAs: "UnknownError", Level: Fail, DecidedIn: OnDisk,
		Title:      "Sysprep is there and may be run",
		Source:     "document, Step 2; facts §4.3",
		Evaluation: "sysprep.exe and ActionFiles/Generalize.xml must be there, and GeneralizationState must be 7 or absent.",
		Remedy: steps(
			"Bring missing files back:",
			"  sfc /scannow",
			"Where Sysprep was broken off (GeneralizationState is not 7), find out why first; it is in C:\\Windows\\System32\\Sysprep\\Panther\\setuperr.log. Go back to a snapshot from before that run."),
		judge: judgeSysprep,
	},
	{
		Code: "UnknownError", ReportAs: "UnknownError", Level: Warn, DecidedIn: OnDisk,
		Title:      "No earlier run of Sysprep has failed on this machine",
		Source:     "document, Step 2 (roll back when Sysprep fails); facts §4.2 (service side)",
		Evaluation: "setuperr.log of Sysprep must be absent or hold no line of a run that failed; other errors stand in the logs of runs that succeeded.",
		Remedy: steps(
			"Read what failed, mend it, and go back to the snapshot from before that run. Or, when it is mended, take the old logs away and run Sysprep once more on a snapshot:",
			"  notepad C:\\Windows\\System32\\Sysprep\\Panther\\setuperr.log",
			"  cmd /c rmdir /s /q C:\\Windows\\System32\\Sysprep\\Panther"),
		judge: judgeSysprepErrors,
	},
	{
		Code: "BYOLCheckerFailed", ReportAs: "UnknownError", Level: Warn, DecidedIn: OnDisk,
		Title:      "Amazon's BYOL Checker, where it was run, was satisfied",
		Source:     "document, Step 2; facts §4.1, §4.3",
		Applies:    "machines on which it was run; before the export; ingestion does not refuse an image for it",
		Evaluation: `status of SOFTWARE\Amazon\BYOLChecker must be success.`,
		Remedy:     "Mend what is found here and, if you want its word, run BYOL Checker once more. It need not have been run: these checks are its own and more.",
		judge:      judgeChecker,
	},
}

const (
	sysprepFolder = "Windows/System32/Sysprep"
	sysprepErrors = sysprepFolder + "/Panther/setuperr.log"
	// imageComplete is the ImageState of a Windows that is set up.
	imageComplete = "IMAGE_STATE_COMPLETE"
	// mayGeneralize is the GeneralizationState with which Sysprep may be run (facts §4.3).
	mayGeneralize = 7
	// maxLog bounds what is read of a log of Sysprep, in bytes. Those of failed runs have a few kilobytes.
	maxLog = 4 << 20
	// maxLogLines bounds the lines that are kept of it, maxLogLine their length in bytes.
	maxLogLines, maxLogLine = 5, 200
)

// sysprep reads Sysprep's traces.
func (r *reader) sysprep(f *Facts) {
	f.ImageState = value(r, windows.Software, `Microsoft\Windows\CurrentVersion\Setup\State`, "ImageState", always, "", text)
	f.GeneralizationState = value(r, windows.SystemHive, `Setup\Status\SysprepStatus`, "GeneralizationState", optional, mayGeneralize, number)
	var absent traces
	for _, name := range []string{sysprepFolder + "/sysprep.exe", sysprepFolder + "/ActionFiles/Generalize.xml"} {
		there := r.exists(name)
		there.Value = !there.Value
		absent.add(path.Base(name), there)
	}
	f.SysprepMissing = absent.known()
	f.SysprepErrors = r.sysprepErrors()
	f.CheckerStatus = value(r, windows.Software, `Amazon\BYOLChecker`, "status", optional, "", text)
}

// sysprepFailures are in the lines of setuperr.log, lower case, of a Sysprep that has failed. Other lines of errors come from
// runs that succeeded, too.
var sysprepFailures = []string{
	"winmain:hit failure", "failure occurred while executing", "failed while validating", "but not provisioned for all users", "failed to remove apps",
	"failed to remove staged package", "failed to generalize", "fatal error",
}

// sysprepErrors reads why an earlier Sysprep failed, the last lines.
func (r *reader) sysprepErrors() Known[[]string] {
	at := inFile(sysprepErrors)
	b, err := r.head(sysprepErrors, maxLog)
	switch {
	case err != nil:
		return unread[[]string](at, why(err))
	case b == nil:
		return read([]string(nil), at.plus(" is absent"))
	}
	if len(b) > 1 && b[0] == 0xff && b[1] == 0xfe { // UTF-16
		s, err := utf16Log(b[2:])
		if err != nil {
			return unread[[]string](at, why(err))
		}
		b = []byte(s)
	}
	var found []string
	for line := range strings.Lines(string(b)) {
		low := strings.ToLower(line)
		for _, failure := range sysprepFailures {
			if strings.Contains(low, failure) {
				line = strings.TrimSpace(line)
				found = append(found, strings.Clone(line[:min(len(line), maxLogLine)]))
				break
			}
		}
		if len(found) > maxLogLines {
			found = found[1:]
		}
	}
	if len(found) == 0 {
		return read(found, at.plus(" tells of no failure"))
	}
	var seen []Evidence
	for _, line := range found {
		seen = append(seen, at.plus(": "+printable(line)))
	}
	return read(found, seen...)
}

// utf16Log decodes a log, which is longer than a text in the registry may be.
func utf16Log(b []byte) (string, error) {
	var s strings.Builder
	for len(b) > 0 {
		n := min(len(b), maxText)
		part, err := utf16Text(b[:n])
		if err != nil {
			return "", err
		}
		s.WriteString(part)
		b = b[n:]
	}
	return s.String(), nil
}

func judgeGeneralized(f *Facts, _ Params) Verdict {
	if v, no := missing(f.ImageState); no {
		return v
	}
	if !strings.EqualFold(f.ImageState.Value, imageComplete) {
		return unmet(fmt.Sprintf("Windows is not set up, or was generalized: its state is %s, not %s.", printable(f.ImageState.Value), imageComplete), f.ImageState)
	}
	return pass("Windows is set up and has not been generalized.", f.ImageState)
}

func judgeSysprep(f *Facts, _ Params) Verdict {
	on := []fact{f.SysprepMissing, f.GeneralizationState}
	switch {
	case len(f.SysprepMissing.Value) > 0:
		return unmet("Of Sysprep these are missing: "+names(f.SysprepMissing.Value)+".", on...)
	case f.GeneralizationState.OK() && f.GeneralizationState.Value != mayGeneralize:
		return unmet(fmt.Sprintf("Sysprep was broken off or has run: GeneralizationState is %d, and it may be run at %d only.", f.GeneralizationState.Value, mayGeneralize), on...)
	}
	if v, no := missing(on...); no {
		return v
	}
	return pass("Sysprep is there and may be run.", on...)
}

func judgeSysprepErrors(f *Facts, _ Params) Verdict {
	if v, no := missing(f.SysprepErrors); no {
		return v
	}
	if lines := f.SysprepErrors.Value; len(lines) > 0 {
		return unmet("Sysprep has failed here before: "+printable(lines[0]), f.SysprepErrors)
	}
	return pass("No run of Sysprep has left an error.", f.SysprepErrors)
}

func judgeChecker(f *Facts, p Params) Verdict {
	if p.Ingestion {
		return notRefused(f.CheckerStatus)
	}
	if v, no := missing(f.CheckerStatus); no {
		return v
	}
	switch status := f.CheckerStatus.Value; {
	case strings.EqualFold(status, "success"):
		return pass("Amazon's BYOL Checker was run and was satisfied.", f.CheckerStatus)
	case status == "":
		return notApplicable("Amazon's BYOL Checker was not run. These checks are its own and more.", f.CheckerStatus)
	default:
		return unmet("Amazon's BYOL Checker was run and ended with "+printable(status)+".", f.CheckerStatus)
	}
}
