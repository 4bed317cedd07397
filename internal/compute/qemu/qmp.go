package qemu

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// monitor is a connection to a QEMU's monitor, in the QEMU Machine Protocol: one JSON object on a line, commands answered by
// id, events in between (QEMU, docs/interop/qmp-spec). QEMU serves one connection at a time; the next one waits.
type monitor struct {
	conn net.Conn
	done chan struct{} // closed when the connection has ended

	write sync.Mutex // one command at a time on the wire

	mu       sync.Mutex
	last     uint64 // id of the last command
	waiting  map[string]chan message
	shutdown string // the reason of the last SHUTDOWN event
	err      error  // why the connection ended
}

// message is anything that QEMU says.
type message struct {
	QMP    json.RawMessage `json:"QMP"` // the greeting
	Return json.RawMessage `json:"return"`
	Error  *monitorError   `json:"error"`
	Event  string          `json:"event"`
	Data   struct {
		Reason string `json:"reason"`
	} `json:"data"`
	ID string `json:"id"`
}

// monitorError is QEMU's refusal of a command.
type monitorError struct {
	Command string `json:"-"`
	Class   string `json:"class"`
	Desc    string `json:"desc"`
}

func (e *monitorError) Error() string {
	return fmt.Sprintf("QEMU refused %s: %s (%s)", e.Command, e.Desc, e.Class)
}

var errHungUp = errors.New("QEMU closed its monitor")

// nobodyListens says of an error of a QEMU's socket that there is no QEMU behind it yet, or no longer. Its process may be seen
// for some more milliseconds then.
func nobodyListens(err error) bool {
	for _, e := range []error{errHungUp, syscall.ENOENT, syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.EPIPE} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// maxLine is the longest line, in bytes, taken from QEMU. The longest answer asked for here lists a machine's few block nodes.
const maxLine = 4 << 20

// parseMessage reads one line. A line that is none of QMP's messages is an error.
func parseMessage(line []byte) (message, error) {
	var m message
	if err := json.Unmarshal(line, &m); err != nil {
		return message{}, fmt.Errorf("QMP: %w in %.200q", err, line)
	}
	if m.QMP == nil && m.Return == nil && m.Error == nil && m.Event == "" {
		return message{}, fmt.Errorf("QMP: no greeting, return, error or event: %.200q", line)
	}
	return m, nil
}

// dialIn connects to a unix socket by its name in a folder. The name of a socket is limited to 107 bytes (unix(7)), which a
// folder's path may exceed; the way through /proc/self/fd is always short.
func dialIn(ctx context.Context, folder, name string) (net.Conn, error) {
	dir, err := os.Open(folder)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", filepath.Join("/proc/self/fd", strconv.Itoa(int(dir.Fd())), name))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(folder, name), err)
	}
	return conn, nil
}

// dialMonitor connects to the monitor in a machine's folder and gets it ready for commands.
func dialMonitor(ctx context.Context, folder string) (*monitor, error) {
	conn, err := dialIn(ctx, folder, monitorSocket)
	if err != nil {
		return nil, err
	}
	m := &monitor{conn: conn, done: make(chan struct{}), waiting: map[string]chan message{}}
	greeted := make(chan struct{})
	go m.read(greeted)
	select {
	case <-greeted:
		_, err = m.do(ctx, "qmp_capabilities", nil)
	case <-m.done:
		err = m.ended()
	case <-ctx.Done():
		err = fmt.Errorf("waiting for QEMU's greeting: %w", context.Cause(ctx))
	}
	if err != nil {
		m.close()
		return nil, err
	}
	return m, nil
}

// read takes what QEMU says until the connection ends.
func (m *monitor) read(greeted chan<- struct{}) {
	defer close(m.done)
	lines := bufio.NewScanner(m.conn)
	lines.Buffer(make([]byte, 0, 4096), maxLine)
	for lines.Scan() {
		said, err := parseMessage(lines.Bytes())
		if err != nil {
			m.fail(err)
			return
		}
		switch {
		case said.QMP != nil:
			if greeted == nil {
				m.fail(errors.New("QMP: greeted twice"))
				return
			}
			close(greeted)
			greeted = nil
		case said.Event == "SHUTDOWN":
			m.mu.Lock()
			m.shutdown = said.Data.Reason
			m.mu.Unlock()
		case said.Event == "":
			m.mu.Lock()
			waiting := m.waiting[said.ID]
			delete(m.waiting, said.ID)
			m.mu.Unlock()
			if waiting != nil { // else its caller has gone
				waiting <- said
			}
		}
	}
	if err := lines.Err(); err != nil {
		m.fail(err)
	} else {
		m.fail(errHungUp)
	}
}

func (m *monitor) fail(err error) {
	m.mu.Lock()
	m.err = err
	m.mu.Unlock()
	m.conn.Close()
}

// ended is why the connection ended; only once done is closed.
func (m *monitor) ended() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.err
}

// shutdownReason is QEMU's reason for its last SHUTDOWN event: "guest-shutdown", "host-qmp-quit", ... or "".
func (m *monitor) shutdownReason() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.shutdown
}

// do runs a command and gives its answer. A command whose ctx ends may still be carried out.
func (m *monitor) do(ctx context.Context, command string, arguments any) (json.RawMessage, error) {
	answer := make(chan message, 1)
	m.mu.Lock()
	m.last++
	id := strconv.FormatUint(m.last, 10)
	m.waiting[id] = answer
	m.mu.Unlock()
	defer func() {
		m.mu.Lock()
		delete(m.waiting, id)
		m.mu.Unlock()
	}()
	line, err := json.Marshal(struct {
		Execute   string `json:"execute"`
		Arguments any    `json:"arguments,omitempty"`
		ID        string `json:"id"`
	}{command, arguments, id})
	if err != nil {
		return nil, err
	}
	if err := m.send(ctx, append(line, '\n')); err != nil {
		<-m.done // the connection is closed, and the reader knows best why
		if ctx.Err() == nil {
			err = m.ended()
		}
		return nil, fmt.Errorf("%s: %w", command, err)
	}
	select {
	case said := <-answer:
		if said.Error != nil {
			said.Error.Command = command
			return nil, said.Error
		}
		return said.Return, nil
	case <-m.done:
		return nil, fmt.Errorf("%s: %w", command, m.ended())
	case <-ctx.Done():
		return nil, fmt.Errorf("%s: %w", command, context.Cause(ctx))
	}
}

// send writes one line whole: half a command would spoil the next one, so a write that is cut off ends the connection.
func (m *monitor) send(ctx context.Context, line []byte) error {
	m.write.Lock()
	defer m.write.Unlock()
	stop := context.AfterFunc(ctx, func() { _ = m.conn.SetWriteDeadline(time.Unix(1, 0)) })
	_, err := m.conn.Write(line)
	if !stop() || err != nil {
		// The deadline was, or may yet be, set in the past.
		m.conn.Close()
		return errors.Join(context.Cause(ctx), err)
	}
	return nil
}

func (m *monitor) close() { m.conn.Close() }
