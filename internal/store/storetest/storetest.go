// Package storetest gives tests a PostgreSQL to hold the service against: databases on a server of the test's own, or on the
// one that BERTH_TEST_POSTGRES names. Start reading at [Start].
package storetest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // registers "pgx"
)

// variable names the environment variable with the URL of a server on which the tests may make databases.
const variable = "BERTH_TEST_POSTGRES"

// Postgres is a server. Its databases are the tests' own and go with them.
type Postgres struct {
	admin *sql.DB
	url   url.URL
	made  atomic.Int64
}

// Start finds the server that BERTH_TEST_POSTGRES names, or starts one from Debian's package in a folder of its own, on a
// Unix socket, for as long as the test runs. The test is skipped where there is neither.
func Start(t *testing.T) *Postgres {
	t.Helper()
	raw := os.Getenv(variable)
	if raw == "" {
		raw = launch(t)
	}
	u, err := url.Parse(raw)
	if err != nil {
		t.Fatalf("%s: %v", variable, err)
	}
	admin, err := sql.Open("pgx", raw)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { admin.Close() })
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if err = admin.PingContext(t.Context()); err == nil {
			return &Postgres{admin: admin, url: *u}
		}
		if time.Now().After(end) {
			t.Fatalf("PostgreSQL does not answer: %v", err)
		}
	}
}

// Empty makes an empty database and returns its URL.
func (p *Postgres) Empty(t *testing.T) string { return p.create(t, "template0") }

// Copy makes a copy of the database at a URL, to which nobody may be connected.
func (p *Postgres) Copy(t *testing.T, from string) string {
	u, err := url.Parse(from)
	if err != nil {
		t.Fatal(err)
	}
	return p.create(t, u.Path[1:])
}

func (p *Postgres) create(t *testing.T, template string) string {
	t.Helper()
	name := fmt.Sprintf("berth_test_%d_%d", os.Getpid(), p.made.Add(1))
	if _, err := p.admin.ExecContext(t.Context(), "CREATE DATABASE "+name+" TEMPLATE "+template); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := p.admin.ExecContext(context.WithoutCancel(t.Context()), "DROP DATABASE "+name+" WITH (FORCE)"); err != nil {
			t.Error(err)
		}
	})
	u := p.url
	u.Path = "/" + name
	return u.String()
}

// launch starts a server and returns its URL. PostgreSQL does not run as root; Debian's package makes the user postgres.
func launch(t *testing.T) string {
	t.Helper()
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err != nil || len(found) == 0 {
		t.Skipf("there is no PostgreSQL here: install Debian's package postgresql, or set %s", variable)
	}
	bin := filepath.Dir(slices.Max(found))
	dir, err := os.MkdirTemp("", "berth-postgres-") // a socket's path must be short, and postgres must get there
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	// It goes with us, also when we are killed. SIGQUIT is PostgreSQL's immediate shutdown.
	as := &syscall.SysProcAttr{Pdeathsig: syscall.SIGQUIT}
	if os.Getuid() == 0 {
		if as.Credential, err = postgres(); err != nil {
			t.Skip(err)
		}
		if err := os.Chown(dir, int(as.Credential.Uid), int(as.Credential.Gid)); err != nil {
			t.Fatal(err)
		}
	}
	data := filepath.Join(dir, "data")
	initdb := exec.CommandContext(t.Context(), filepath.Join(bin, "initdb"), "--pgdata", data, "--username", "berth", "--auth", "trust", "--encoding", "UTF8", "--locale", "C", "--no-sync", "--no-instructions")
	initdb.SysProcAttr, initdb.Dir = as, dir
	if out, err := initdb.CombinedOutput(); err != nil {
		t.Fatalf("initdb: %v\n%s", err, out)
	}
	server := exec.Command(filepath.Join(bin, "postgres"), "-D", data, "-k", dir, "-c", "listen_addresses=", "-c", "fsync=off", "-c", "max_connections=200")
	server.SysProcAttr, server.Dir = as, dir
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Process.Signal(syscall.SIGQUIT); err != nil {
			t.Error(err)
		}
		var exit *exec.ExitError
		if err := server.Wait(); err != nil && !errors.As(err, &exit) { // it says that it was asked to go at once
			t.Error(err)
		}
	})
	return (&url.URL{Scheme: "postgres", User: url.User("berth"), Path: "/postgres", RawQuery: url.Values{"host": {dir}}.Encode()}).String()
}

func postgres() (*syscall.Credential, error) {
	u, err := user.Lookup("postgres")
	if err != nil {
		return nil, err
	}
	uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
	gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, errors.Join(err1, err2)
}
