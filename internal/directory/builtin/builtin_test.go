package builtin

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/uptrace/bun"

	"berth/internal/directory"
	"berth/internal/store"
)

func domain(t *testing.T, ids ...string) (*bun.DB, []*Domain) {
	t.Helper()
	db, err := store.Open(t.Context(), "sqlite:"+filepath.Join(t.TempDir(), "berth.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	var ds []*Domain
	for _, id := range ids {
		if _, err := db.ExecContext(t.Context(), "INSERT INTO directories (id, name, created_at) VALUES (?, ?, ?)", id, id+".example.com", time.Now()); err != nil {
			t.Fatal(err)
		}
		ds = append(ds, New(db, id, time.Now))
	}
	return db, ds
}

func TestSignIn(t *testing.T) {
	_, ds := domain(t, "d-1", "d-2")
	d, other, ctx := ds[0], ds[1], t.Context()
	if _, err := d.Create(ctx, directory.User{Name: "Alice", DisplayName: "Alice A"}, "correct horse"); err != nil {
		t.Fatal(err)
	}
	u, err := d.SignIn(ctx, "ALICE", "correct horse")
	if err != nil || u.Name != "alice" || u.DisplayName != "Alice A" {
		t.Errorf("the right password: %+v, %v", u, err)
	}
	for name, try := range map[string]func() (directory.User, error){
		"wrong password":  func() (directory.User, error) { return d.SignIn(ctx, "alice", "correct hors") },
		"no password":     func() (directory.User, error) { return d.SignIn(ctx, "alice", "") },
		"nobody":          func() (directory.User, error) { return d.SignIn(ctx, "bob", "correct horse") },
		"other directory": func() (directory.User, error) { return other.SignIn(ctx, "alice", "correct horse") },
		"a novel":         func() (directory.User, error) { return d.SignIn(ctx, "alice", strings.Repeat("x", 1<<20)) },
	} {
		if u, err := try(); !errors.Is(err, directory.ErrSignIn) || u.Name != "" {
			t.Errorf("%s: %+v, %v", name, u, err)
		}
	}
	if err := d.SetPassword(ctx, "Alice", "battery staple"); err != nil {
		t.Fatal(err)
	}
	if _, err := d.SignIn(ctx, "alice", "correct horse"); !errors.Is(err, directory.ErrSignIn) {
		t.Errorf("the old password: %v", err)
	}
	if _, err := d.SignIn(ctx, "alice", "battery staple"); err != nil {
		t.Errorf("the new password: %v", err)
	}
	if err := d.Delete(ctx, "alice"); err != nil {
		t.Fatal(err)
	}
	if _, err := d.SignIn(ctx, "alice", "battery staple"); !errors.Is(err, directory.ErrSignIn) {
		t.Errorf("a user who is gone: %v", err)
	}
}

func TestDisabledUserCannotSignIn(t *testing.T) {
	db, ds := domain(t, "d-1")
	if _, err := ds[0].Create(t.Context(), directory.User{Name: "alice"}, "correct horse"); err != nil {
		t.Fatal(err)
	}
	if _, err := db.ExecContext(t.Context(), "UPDATE users SET enabled = FALSE"); err != nil {
		t.Fatal(err)
	}
	if _, err := ds[0].SignIn(t.Context(), "alice", "correct horse"); !errors.Is(err, directory.ErrSignIn) {
		t.Errorf("a disabled user: %v", err)
	}
}

func TestRefusals(t *testing.T) {
	_, ds := domain(t, "d-1")
	d, ctx := ds[0], t.Context()
	create := func(name, password string) error {
		_, err := d.Create(ctx, directory.User{Name: name}, password)
		return err
	}
	if err := create("alice", "correct horse"); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, password string
		want           error
	}{
		{"ALICE", "correct horse", directory.ErrExists},
		{"", "correct horse", directory.ErrName},
		{"a b", "correct horse", directory.ErrName},
		{"../x", "correct horse", directory.ErrName},
		{strings.Repeat("a", 64), "correct horse", directory.ErrName},
		{"bob", "1234567", directory.ErrPassword},
		{"bob", strings.Repeat("x", 129), directory.ErrPassword},
		{"bob", "correct\xff horse", directory.ErrPassword},
	} {
		if err := create(c.name, c.password); !errors.Is(err, c.want) {
			t.Errorf("Create(%q, %q): %v, want %v", c.name, c.password, err, c.want)
		}
	}
	if err := d.SetPassword(ctx, "bob", "correct horse"); !errors.Is(err, directory.ErrNoUser) {
		t.Errorf("SetPassword: %v", err)
	}
	if err := d.Delete(ctx, "bob"); !errors.Is(err, directory.ErrNoUser) {
		t.Errorf("Delete: %v", err)
	}
	if _, err := d.User(ctx, "bob"); !errors.Is(err, directory.ErrNoUser) {
		t.Errorf("User: %v", err)
	}
}

func TestStoredPasswords(t *testing.T) {
	db, ds := domain(t, "d-1")
	for _, name := range []string{"alice", "bob"} {
		if _, err := ds[0].Create(t.Context(), directory.User{Name: name}, "correct horse"); err != nil {
			t.Fatal(err)
		}
	}
	var stored []string
	if err := db.NewRaw("SELECT password FROM users").Scan(t.Context(), &stored); err != nil {
		t.Fatal(err)
	}
	for _, s := range stored {
		if !strings.HasPrefix(s, "$argon2id$v=19$m=65536,t=3,p=4$") || strings.Contains(s, "horse") {
			t.Errorf("stored: %s", s)
		}
	}
	if stored[0] == stored[1] {
		t.Error("the same password is stored in the same way twice: no salt")
	}
	for _, bad := range []string{"", "plain", "$argon2i$v=19$m=65536,t=3,p=4$AAAA$AAAA", "$argon2id$v=16$m=65536,t=3,p=4$AAAA$AAAA", "$argon2id$v=19$m=4294967295,t=3,p=4$AAAA$AAAA",
		"$argon2id$v=19$m=65536,t=3,p=4$!$AAAAAAAAAAAAAAAAAAAAAA", "$argon2id$v=19$m=65536,t=3,p=4$AAAA$AAAA"} {
		if ok, err := matches(bad, "correct horse"); ok || err == nil {
			t.Errorf("a stored %q matches: %v, %v", bad, ok, err)
		}
	}
}
