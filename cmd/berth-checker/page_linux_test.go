package main

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"net/http/cookiejar"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"berth/internal/phony/phonytest"
)

// unfit is a machine that Fix All Warnings makes fit.
const unfit = `Much that Fix All Warnings mends.
-- machine --
base = win10-2004-enterprise
-- registry.reg --
[HKEY_LOCAL_MACHINE\SYSTEM\ControlSet001\Services\SharedAccess\Parameters\FirewallPolicy\PublicProfile]
"EnableFirewall"=dword:00000001
[HKEY_LOCAL_MACHINE\SYSTEM\ControlSet001\Services\mountmgr]
"NoAutoMount"=dword:00000001
[HKEY_LOCAL_MACHINE\SYSTEM\ControlSet001\Control\TimeZoneInformation]
"RealTimeIsUniversal"=dword:00000000
[HKEY_LOCAL_MACHINE\SYSTEM\ControlSet001\Services\wuauserv]
"Start"=dword:00000003
[HKEY_LOCAL_MACHINE\SOFTWARE\Microsoft\Windows NT\CurrentVersion\Winlogon]
"AutoAdminLogon"="1"
"DefaultPassword"="hunter2"
`

// wineAs is a Wine that is a machine, with the program in C:\BYOL that reads what Wine cannot tell from a record.
func wineAs(t *testing.T, machine string) (w *wine, program string) {
	t.Helper()
	b, err := theBench()
	if err != nil {
		t.Fatal(err)
	}
	m := phonytest.Parse(t, machine)
	sys, _ := phonytest.Open(t, m)
	w = newWine(t)
	w.take(t, sys)
	w.record(t, m, sys)
	w.install(t, b.doubles, "windows/system32/Sysprep", "sysprep.exe")
	return w, w.install(t, b.recorded, "BYOL", "berth-checker.exe")
}

const (
	firewallKey = `HKLM\SYSTEM\CurrentControlSet\Services\SharedAccess\Parameters\FirewallPolicy\PublicProfile`
	winlogonKey = `HKLM\SOFTWARE\Microsoft\Windows NT\CurrentVersion\Winlogon`
	updateKey   = `HKLM\SYSTEM\CurrentControlSet\Services\wuauserv`
	heldKey     = `HKLM\SOFTWARE\Berth\Checker`
)

// sitting is the program as it runs in Wine and serves its page.
type sitting struct {
	cmd  *exec.Cmd
	url  string
	done chan error
}

// serve starts the program and waits for its page's address.
func (w *wine) serve(t *testing.T, program string, args ...string) *sitting {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	t.Cleanup(cancel)
	cmd := w.command(ctx, append([]string{program, "--no-browser"}, args...)...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s := &sitting{cmd: cmd, done: make(chan error, 1)}
	lines := bufio.NewScanner(out)
	for s.url == "" && lines.Scan() {
		s.url = regexp.MustCompile(`http://127\.0\.0\.1:\d+/enter/\w+`).FindString(lines.Text())
	}
	go func() {
		_, _ = io.Copy(io.Discard, out)
		s.done <- cmd.Wait()
	}()
	if s.url == "" {
		t.Fatal("the program shows no address: ", <-s.done)
	}
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			_ = cmd.Process.Kill()
		}
	})
	return s
}

// wait waits for the program's end.
func (s *sitting) wait(t *testing.T) {
	t.Helper()
	select {
	case err := <-s.done:
		if err != nil {
			t.Errorf("the program ended with %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the program does not end")
	}
}

// chromium starts a headless browser.
func chromium(t *testing.T) context.Context {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		t.Fatal("Chromium is needed (scripts/setup test installs it): ", err)
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.UserDataDir(t.TempDir()), chromedp.WindowSize(1100, 900))
	for _, flag := range []string{"headless", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking", "disable-component-update", "disable-sync"} {
		options = append(options, chromedp.Flag(flag, true))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewExecAllocator(ctx, options...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	return ctx
}

// shot keeps a picture of the page where BERTH_SHOTS names a folder.
func shot(t *testing.T, ctx context.Context, name string) {
	t.Helper()
	folder := os.Getenv("BERTH_SHOTS")
	if folder == "" {
		return
	}
	png, err := chromedp.Run(ctx, chromedp.CaptureScreenshot())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(folder, name+".png"), png, 0o600); err != nil {
		t.Fatal(err)
	}
}

// phaseIs waits for the page to be in a phase.
func phaseIs(p phase) chromedp.Action[chromedp.Void] {
	return chromedp.WaitVisible(chromedp.CSS(`body[data-phase="` + string(p) + `"]`))
}

// stateIs waits for a test's state.
func stateIs(code, state string) chromedp.Action[chromedp.Void] {
	return chromedp.WaitVisible(chromedp.CSS(`#tests li[data-code="` + code + `"][data-state="` + state + `"]`))
}

func text(t *testing.T, ctx context.Context, css string) string {
	t.Helper()
	s, err := chromedp.Run(ctx, chromedp.Text(chromedp.CSS(css)))
	if err != nil {
		t.Fatalf("%s: %v", css, err)
	}
	return s
}

// TestDialog goes through the document's Step 2 in a browser.
func TestDialog(t *testing.T) {
	w, program := wineAs(t, unfit)
	w.more = append(w.more, "SYSPREP_FAILS=1")
	s := w.serve(t, program)
	ctx := chromium(t)
	do := func(actions ...chromedp.Action[chromedp.Void]) {
		t.Helper()
		if err := chromedp.Do(ctx, actions...); err != nil {
			shot(t, ctx, "failed")
			t.Fatal(err)
		}
	}
	do(chromedp.Navigate(s.url), phaseIs(phaseReady), chromedp.WaitNotVisible(chromedp.CSS("#old")), stateIs("FirewallEnabled", toBeTested))
	shot(t, ctx, "1-start")
	if got := w.value(t, updateKey, "Start"); got != "0x3" {
		t.Errorf("before the tests Windows Update starts by %s", got)
	}

	// Tests that have ended are shown while others wait for the licence.
	if err := os.WriteFile(w.hold(), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	do(chromedp.Click(chromedp.CSS("#begin")), phaseIs(phaseChecking), stateIs("FirewallEnabled", warning), stateIs("OSNotSupported", passed), stateIs("ZeroRearmCount", checking))
	shot(t, ctx, "2-testing")
	if say := text(t, ctx, "#status"); !regexp.MustCompile(`^Testing: [1-9]\d* of \d+$`).MatchString(say) {
		t.Errorf("while it tests it says %q", say)
	}
	if err := os.Remove(w.hold()); err != nil {
		t.Fatal(err)
	}
	do(phaseIs(phaseChecked), stateIs("ZeroRearmCount", passed),
		stateIs("FirewallEnabled", warning), stateIs("AutoLogonEnabled", warning), stateIs("AutoMountDisabled", warning), stateIs("OSNotSupported", passed))
	shot(t, ctx, "3-tested")
	if got := w.value(t, updateKey, "Start"); got != "0x4" {
		t.Errorf("while the program runs Windows Update starts by %s", got)
	}
	do(chromedp.Click(chromedp.CSS(`[data-info="FirewallEnabled"]`)), chromedp.WaitVisible(chromedp.CSS(`li[data-code="FirewallEnabled"] .info pre`)))
	if info := text(t, ctx, `li[data-code="FirewallEnabled"] .info`); !strings.Contains(info, "netsh advfirewall set publicprofile state off") || !strings.Contains(info, "EnableFirewall = 1") || !strings.Contains(info, "collection") {
		t.Errorf("Info says %q", info)
	}
	shot(t, ctx, "4-info")

	// It asks, and lists what it would change; leaving it changes nothing.
	do(chromedp.Click(chromedp.CSS("#fix")), chromedp.WaitVisible(chromedp.CSS("#ask-fix[open]")))
	shot(t, ctx, "5-ask")
	if plan := text(t, ctx, "#plan"); !strings.Contains(plan, `PublicProfile\EnableFirewall to 0`) || !strings.Contains(plan, "NoAutoMount") || strings.Contains(plan, "hunter2") {
		t.Errorf("it would change %q", plan)
	}
	do(chromedp.Click(chromedp.CSS("#ask-fix [data-close]")), phaseIs(phaseChecked))
	if got := w.value(t, firewallKey, "EnableFirewall"); got != "0x1" {
		t.Errorf("before anybody agreed the firewall is %s", got)
	}
	do(chromedp.Click(chromedp.CSS("#fix")), chromedp.WaitVisible(chromedp.CSS("#ask-fix[open]")), chromedp.Click(chromedp.CSS("#fix-yes")),
		stateIs("FirewallEnabled", passed), stateIs("AutoLogonEnabled", passed), stateIs("RealTimeUniversalDisabled", passed),
		chromedp.WaitVisible(chromedp.CSS("#success")))
	shot(t, ctx, "6-success")
	if got := w.value(t, firewallKey, "EnableFirewall"); got != "0x0" {
		t.Errorf("the firewall is %s", got)
	}
	if got := w.value(t, winlogonKey, "AutoAdminLogon"); got != "0" {
		t.Errorf("AutoAdminLogon is %s", got)
	}
	if _, _, code := w.run(t, "reg", "query", winlogonKey, "/v", "DefaultPassword"); code == 0 {
		t.Error("the password of automatic sign-in is still there")
	}
	if success := text(t, ctx, "#success"); !strings.Contains(success, "Validation Successful") || !regexp.MustCompile(`System locale\s+en-US\s+User locale\s+en-US`).MatchString(success) {
		t.Errorf("it says %q", success)
	}
	logs, err := filepath.Glob(filepath.Join(w.path(t, "BYOL"), "BYOLPrevalidationlog*.txt"))
	if err != nil || len(logs) == 0 {
		t.Errorf("logs: %v, %v", logs, err)
	}
	if _, err := os.Stat(filepath.Join(w.path(t, "BYOL"), "ImageInfo.text")); err != nil {
		t.Error(err)
	}

	// Sysprep only with a snapshot; how it fails is shown.
	do(chromedp.Click(chromedp.CSS("#sysprep")), chromedp.WaitVisible(chromedp.CSS("#ask-sysprep[open]")), chromedp.WaitVisible(chromedp.CSS("#sysprep-yes[disabled]")),
		chromedp.Click(chromedp.CSS("#snapshot")), chromedp.Click(chromedp.CSS("#sysprep-yes:not([disabled])")), chromedp.WaitVisible(chromedp.CSS("#sysprep-log")))
	shot(t, ctx, "7-sysprep-failed")
	if log := text(t, ctx, "#sysprep-log"); !strings.Contains(log, "Contoso.Game_1.0.0.0_x64__8wekyb3d8bbwe") || !strings.Contains(log, `0x80073cf2.<b>&\x1b[2J`) || strings.Contains(log, "Nothing of note") {
		t.Errorf("the log is %q", log)
	}
	// It is told once, and that the tests had passed before does not stand beside it.
	do(chromedp.WaitNotVisible(chromedp.CSS("#troubles")), chromedp.WaitNotVisible(chromedp.CSS("#success")))
	if say := text(t, ctx, "#status"); say != "Sysprep failed" {
		t.Errorf("in the end it says %q", say)
	}
	do(chromedp.Click(chromedp.CSS("#close")), phaseIs(phaseCancelled))
	s.wait(t)
	if got := w.value(t, updateKey, "Start"); got != "0x4" {
		t.Errorf("after success Windows Update starts by %s", got)
	}
	if _, _, code := w.run(t, "reg", "query", `HKLM\SOFTWARE\Berth`); code == 0 {
		t.Error("something is left in the registry")
	}
}

// TestNewAccount: the page shows the password of the account that it made, when it is asked to, and the console keeps it out of what may
// be a file.
func TestNewAccount(t *testing.T) {
	t.Parallel()
	w, program := wineAs(t, accountless)
	const made = "The account WorkSpaces_BYOL was made."
	if _, stderr, code := w.run(t, program, "--yes", "--fix"); code != 1 || !strings.Contains(stderr, made+" Its password is shown in a console only") {
		t.Errorf("exit code %d\n%s", code, stderr) // Wine's accounts are not in its registry, so that the test still warns
	}
	s := w.serve(t, program)
	ctx := chromium(t)
	do := func(actions ...chromedp.Action[chromedp.Void]) {
		t.Helper()
		if err := chromedp.Do(ctx, actions...); err != nil {
			shot(t, ctx, "failed")
			t.Fatal(err)
		}
	}
	do(chromedp.Navigate(s.url), phaseIs(phaseReady), chromedp.Click(chromedp.CSS("#begin")), phaseIs(phaseChecked),
		chromedp.WaitNotVisible(chromedp.CSS("#secret")), chromedp.Click(chromedp.CSS("#fix")), chromedp.Click(chromedp.CSS("#fix-yes")),
		chromedp.WaitVisible(chromedp.CSS("#reveal")), phaseIs(phaseChecked), chromedp.WaitNotVisible(chromedp.CSS("#password")))
	do(chromedp.Click(chromedp.CSS("#reveal")), chromedp.WaitVisible(chromedp.CSS("#password")), chromedp.WaitNotVisible(chromedp.CSS("#reveal")))
	shot(t, ctx, "account")
	password := text(t, ctx, "#password")
	if len(password) != 20 {
		t.Errorf("the password is %q", password)
	}
	nothingWritten(t, w.path(t, "BYOL"), password)
	do(chromedp.Navigate(s.url), phaseIs(phaseChecked), chromedp.WaitNotVisible(chromedp.CSS("#secret")))
	do(chromedp.Click(chromedp.CSS("#close")), phaseIs(phaseCancelled))
	s.wait(t)
}

// TestSysprep: in the console, failing and then succeeding; what an earlier run left is not taken for this one's.
func TestSysprep(t *testing.T) {
	t.Parallel()
	w, program := wineAs(t, unfit)
	tag := filepath.Join(w.path(t, "windows/system32/Sysprep"), "Sysprep_succeeded.tag")
	if err := os.WriteFile(tag, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	w.more = append(w.more, "SYSPREP_FAILS=1")
	if _, stderr, code := w.run(t, program, "--yes", "--fix", "--sysprep"); code != exitTrouble || !strings.Contains(stderr, "Sysprep failed") || !strings.Contains(stderr, `0x80073cf2.<b>&\x1b[2J`) {
		t.Errorf("it fails: exit code %d\n%s", code, stderr)
	}
	w.more = w.more[:len(w.more)-1]
	if err := os.Remove(w.path(t, "windows/system32/Sysprep/Panther/setuperr.log")); err != nil { // a check of its own finds it
		t.Fatal(err)
	}
	out, stderr, code := w.run(t, program, "--yes", "--fix", "--sysprep", "--output", "json")
	if code != 0 || !strings.Contains(stderr, "Sysprep has succeeded") || !strings.Contains(out, `"fit": true`) {
		t.Errorf("exit code %d\n%.2000s\n%s", code, out, stderr)
	}
	answer, err := os.ReadFile(w.path(t, "windows/system32/Sysprep/Berth.xml"))
	if err != nil || !strings.Contains(string(answer), "<UILanguage>en-US</UILanguage>") || !strings.Contains(string(answer), "<InputLocale>0409:00000409</InputLocale>") {
		t.Errorf("the answer file is %s, %v", answer, err)
	}
}

// TestConsole: without a browser; the exit codes; nothing without a yes.
func TestConsole(t *testing.T) {
	t.Parallel()
	w, program := wineAs(t, unfit)
	if _, stderr, code := w.run(t, program, "--output", "text"); code != exitTrouble || !strings.Contains(stderr, "Begin the tests? [y/N]") {
		t.Errorf("without an answer: exit code %d, %s", code, stderr)
	}
	out, stderr, code := w.run(t, program, "--yes", "--output", "json")
	if code != 1 || !strings.Contains(out, `"code": "FirewallEnabled"`) || strings.Contains(stderr, "Validation Successful") {
		t.Errorf("unfit: exit code %d\n%.2000s\n%s", code, out, stderr)
	}
	// It was cancelled, so to speak: Windows Update is as it was.
	if got := w.value(t, updateKey, "Start"); got != "0x3" {
		t.Errorf("afterwards Windows Update starts by %s", got)
	}
	if out, stderr, code = w.run(t, program, "--yes", "--fix"); code != 0 || !strings.Contains(out, "FIT") || !strings.Contains(stderr, "Validation Successful") || !strings.Contains(stderr, "EnableFirewall to 0") {
		t.Errorf("fixed: exit code %d\n%s\n%s", code, out, stderr)
	}
	if got := w.value(t, updateKey, "Start"); got != "0x4" {
		t.Errorf("after success Windows Update starts by %s", got)
	}
	if _, stderr, code := w.run(t, program, "--remove-account"); code != 0 || !strings.Contains(stderr, "There is no account") { // Wine has none
		t.Errorf("--remove-account: exit code %d, %s", code, stderr)
	}
	if _, stderr, code := w.run(t, program, "--profile", "1999", "--yes"); code != exitTrouble || !strings.Contains(stderr, "no profile") {
		t.Errorf("a profile that does not exist: exit code %d, %s", code, stderr)
	}
}

// cluttered is a machine with what only a running Windows can remove.
const cluttered = `A PCoIP agent, and a package that a user has installed.
-- machine --
base = win10-2004-enterprise
-- registry.reg --
[HKEY_LOCAL_MACHINE\SYSTEM\ControlSet001\Services\PCoIPAgent]
"ObjectName"="LocalSystem"
"Start"=dword:00000002
"Type"=dword:00000010
[HKEY_LOCAL_MACHINE\SOFTWARE\WOW6432Node\Microsoft\Windows\CurrentVersion\Uninstall\PCoIP Standard Agent]
"DisplayName"="PCoIP Standard Agent"
[HKEY_LOCAL_MACHINE\SOFTWARE\Microsoft\Windows\CurrentVersion\Appx\AppxAllUserStore\S-1-5-21-1472583690-2846193057-3905172846-1001\Microsoft.SkypeApp_14.53.77.0_x64__kzf8qxf38zg5c]
-- files --
Program Files (x86)/Teradici/PCoIP Agent/uninst.exe = pe 386
`

// TestRemoval: a program's uninstaller is run, and a package is removed through PowerShell.
func TestRemoval(t *testing.T) {
	t.Parallel()
	w, program := wineAs(t, cluttered)
	b, err := theBench()
	if err != nil {
		t.Fatal(err)
	}
	w.install(t, b.doubles, "Program Files (x86)/Teradici/PCoIP Agent", "uninst.exe")
	w.install(t, b.doubles, "windows/system32/WindowsPowerShell/v1.0", "powershell.exe")
	out, stderr, code := w.run(t, program, "--yes", "--fix")
	if code != 0 || !strings.Contains(stderr, "uninstall PCoIP agent") || !strings.Contains(stderr, "remove the package Microsoft.SkypeApp_14.53.77.0_x64__kzf8qxf38zg5c") {
		t.Errorf("exit code %d\n%s\n%s", code, out, stderr)
	}
}

// TestLive runs the tests of windows/live that are for Windows.
func TestLive(t *testing.T) {
	t.Parallel()
	b, err := theBench()
	if err != nil {
		t.Fatal(err)
	}
	out, stderr, code := newWine(t).run(t, b.live, "-test.v")
	if code != 0 || !strings.Contains(out, "--- PASS: TestAccounts") {
		t.Errorf("exit code %d\n%s\n%s", code, out, stderr)
	}
}

// TestUpdatesAreRestored: on Ctrl-C, and at the next start after the program was killed.
func TestUpdatesAreRestored(t *testing.T) {
	t.Parallel()
	w, program := wineAs(t, unfit)
	begin := func(s *sitting) {
		t.Helper()
		jar, err := cookiejar.New(nil)
		if err != nil {
			t.Fatal(err)
		}
		client := &http.Client{Jar: jar}
		r, err := client.Get(s.url)
		if err != nil {
			t.Fatal(err)
		}
		r.Body.Close()
		base, _, _ := strings.Cut(s.url, "/enter/")
		r, err = client.Post(base+"/check", "application/json", strings.NewReader(`{"profile":"seed-2020","process":"BYOL_REGULAR"}`))
		if err != nil {
			t.Fatal(err)
		}
		r.Body.Close()
		if r.StatusCode >= 300 {
			t.Fatal(r.Status)
		}
		for end := time.Now().Add(30 * time.Second); w.value(t, updateKey, "Start") != "0x4"; {
			if time.Now().After(end) {
				t.Fatal("Windows Update is not turned off")
			}
		}
	}
	s := w.serve(t, program)
	begin(s)
	if _, stderr, code := w.run(t, program, "--yes"); code != exitTrouble || !strings.Contains(stderr, "another berth-checker") {
		t.Errorf("a second one: exit code %d, %s", code, stderr)
	}
	if err := interrupt(s.cmd); err != nil {
		t.Fatal(err)
	}
	s.wait(t)
	if got := w.value(t, updateKey, "Start"); got != "0x3" {
		t.Errorf("after Ctrl-C Windows Update starts by %s", got)
	}

	s = w.serve(t, program)
	begin(s)
	if err := s.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-s.done
	if got := w.value(t, updateKey, "Start"); got != "0x4" || w.value(t, heldKey, "WindowsUpdateStart") != "0x3" {
		t.Errorf("after it was killed Windows Update starts by %s", got)
	}
	w.serve(t, program)
	if got := w.value(t, updateKey, "Start"); got != "0x3" {
		t.Errorf("at the next start Windows Update starts by %s", got)
	}
	if _, _, code := w.run(t, "reg", "query", heldKey); code == 0 {
		t.Error("how it was is still written down")
	}
}
