package qemu

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

const greeting = `{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": ""}, "capabilities": ["oob"]}}`

// fakeQEMU listens in a folder as QEMU's monitor and answers each command by talk, whose lines are sent as they are.
func fakeQEMU(t *testing.T, greeting string, talk func(id, command string) string) (folder string) {
	t.Helper()
	folder = t.TempDir()
	l, err := net.Listen("unix", filepath.Join(folder, monitorSocket))
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	t.Cleanup(group.Wait)
	t.Cleanup(func() { l.Close() })
	group.Go(func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		io.WriteString(conn, greeting+"\n")
		for lines := bufio.NewScanner(conn); lines.Scan(); {
			var asked struct{ Execute, ID string }
			if err := json.Unmarshal(lines.Bytes(), &asked); err != nil {
				t.Errorf("the monitor was sent %q: %v", lines.Bytes(), err)
				return
			}
			answer := talk(asked.ID, asked.Execute)
			if answer == "hang up" {
				return
			}
			io.WriteString(conn, answer)
		}
	})
	return folder
}

func ok(id string) string { return fmt.Sprintf("{\"return\": {}, \"id\": %q}\n", id) }

func dialed(t *testing.T, folder string) *monitor {
	t.Helper()
	m, err := dialMonitor(t.Context(), folder)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.close)
	return m
}

func TestMonitor(t *testing.T) {
	var first string
	m := dialed(t, fakeQEMU(t, greeting, func(id, command string) string {
		switch command {
		case "first": // answered after the second
			first = id
			return `{"event": "RESET", "data": {"guest": false}}` + "\n"
		case "second":
			return fmt.Sprintf("{\"return\": 2, \"id\": %q}\n{\"return\": 1, \"id\": %q}\n", id, first)
		case "refused":
			return fmt.Sprintf(`{"error": {"class": "GenericError", "desc": "no"}, "id": %q}`+"\n", id)
		case "event":
			return `{"event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-shutdown"}}` + "\n" + ok(id)
		}
		return ok(id)
	}))
	var group sync.WaitGroup
	started := make(chan struct{})
	group.Go(func() {
		close(started)
		if answer, err := m.do(t.Context(), "first", nil); err != nil || string(answer) != "1" {
			t.Errorf("first = %s, %v", answer, err)
		}
	})
	<-started
	for { // until the first is on its way
		m.mu.Lock()
		n := len(m.waiting)
		m.mu.Unlock()
		if n == 1 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	time.Sleep(10 * time.Millisecond)
	if answer, err := m.do(t.Context(), "second", nil); err != nil || string(answer) != "2" {
		t.Errorf("second = %s, %v", answer, err)
	}
	group.Wait()
	var refusal *monitorError
	if _, err := m.do(t.Context(), "refused", nil); !errors.As(err, &refusal) || refusal.Command != "refused" || refusal.Desc != "no" {
		t.Errorf("refused: %v", err)
	}
	if _, err := m.do(t.Context(), "event", nil); err != nil || m.shutdownReason() != "guest-shutdown" {
		t.Errorf("reason %q, %v", m.shutdownReason(), err)
	}
}

// TestMonitorEnds: whatever QEMU does, no caller is left waiting, and the error says what happened.
func TestMonitorEnds(t *testing.T) {
	for name, c := range map[string]struct {
		greeting, answer, says string
	}{
		"greeting is no JSON":   {"hello", "", "QMP: invalid character"},
		"greeting is no QMP":    {`{"hello": 1}`, "", "no greeting"},
		"greeted twice":         {greeting + "\n" + greeting, "", "greeted twice"},
		"hangs up":              {greeting, "hang up", "closed its monitor"},
		"answers nonsense":      {greeting, "[1]\n", "QMP: json"},
		"answers without end":   {greeting, strings.Repeat("x", maxLine+1), "token too long"},
		"answers another":       {greeting, ok("999"), "deadline exceeded"},
		"does not answer":       {greeting, "", "deadline exceeded"},
		"answers and breaks it": {greeting, "{\"return\": {}, \"id\": \"1\"}\n{{\n", "QMP: invalid character"},
	} {
		t.Run(name, func(t *testing.T) {
			folder := fakeQEMU(t, c.greeting, func(_, _ string) string { return c.answer })
			ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
			defer cancel()
			m, err := dialMonitor(ctx, folder)
			for err == nil { // it may get through the first command
				_, err = m.do(ctx, "query-status", nil)
			}
			if m != nil {
				defer m.close()
			}
			if !strings.Contains(err.Error(), c.says) {
				t.Errorf("error %q, want %q", err, c.says)
			}
		})
	}
}

// TestMonitorManyCallers: each gets its own answer.
func TestMonitorManyCallers(t *testing.T) {
	m := dialed(t, fakeQEMU(t, greeting, func(id, command string) string {
		return fmt.Sprintf("{\"return\": %q, \"id\": %q}\n", command, id)
	}))
	var group sync.WaitGroup
	for i := range 50 {
		group.Go(func() {
			name := fmt.Sprint("command-", i)
			if answer, err := m.do(t.Context(), name, nil); err != nil || string(answer) != fmt.Sprintf("%q", name) {
				t.Errorf("%s = %s, %v", name, answer, err)
			}
		})
	}
	group.Wait()
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.waiting) != 0 {
		t.Errorf("%d callers are remembered that have gone", len(m.waiting))
	}
}

func FuzzParseMessage(f *testing.F) {
	for _, seed := range []string{
		greeting, ok("1"), `{"error": {"class": "GenericError", "desc": "no"}, "id": "7"}`,
		`{"event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-shutdown"}, "timestamp": {"seconds": 1, "microseconds": 2}}`,
		`{"event": "BLOCK_IO_ERROR", "data": {"reason": 5}}`, `{"error": null}`, `{"id": 1, "return": 1}`, `null`, `[]`, ``, "\xff", `{"return":` + strings.Repeat("[", 20000),
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		m, err := parseMessage(line)
		if err == nil && m.QMP == nil && m.Return == nil && m.Error == nil && m.Event == "" {
			t.Errorf("%q is accepted and says nothing", line)
		}
		if err != nil && len(err.Error()) > 2000 {
			t.Errorf("an error of %d bytes", len(err.Error()))
		}
	})
}

func TestPrintable(t *testing.T) {
	if got := printable([]byte("one\r\n\n two\x1b[31m\xff\n")); got != "one;  two; [31m?" {
		t.Errorf("printable = %q", got)
	}
}
