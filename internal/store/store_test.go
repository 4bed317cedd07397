package store

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"berth/internal/store/storetest"
)

func TestOpenMigratesOnceAndKeepsTheFilePrivate(t *testing.T) {
	ctx := context.Background()
	path := filepath.Join(t.TempDir(), "berth.db")
	for range 2 { // the second time finds everything in place
		db, err := Open(ctx, "sqlite:"+path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := db.ExecContext(ctx, `INSERT INTO settings (key, value) VALUES ('k', 'v') ON CONFLICT (key) DO NOTHING`); err != nil {
			t.Fatal(err)
		}
		db.Close()
	}
	fi, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if fi.Mode().Perm() != 0o600 {
		t.Errorf("database mode %v, want 0600", fi.Mode().Perm())
	}
}

func TestForeignKeysHold(t *testing.T) {
	ctx := context.Background()
	db, err := Open(ctx, "sqlite:"+filepath.Join(t.TempDir(), "berth.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.ExecContext(ctx, `INSERT INTO launch_permissions (image_id, user_id) VALUES ('ami-none', '1')`); err == nil {
		t.Error("a launch permission for an image that does not exist was accepted")
	}
}

func TestConcurrentWritersWait(t *testing.T) {
	ctx := context.Background()
	db, err := Open(ctx, "sqlite:"+filepath.Join(t.TempDir(), "berth.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range 10 {
				if _, err := db.ExecContext(ctx, `INSERT INTO settings (key, value) VALUES (?, '0') ON CONFLICT (key) DO UPDATE SET value = settings.value || '1'`, string(rune('a'+i))); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func TestOpenRefusesOtherURLs(t *testing.T) {
	for _, url := range []string{"mysql://x", "postgres://u@localhost/x?password=secret"} {
		if _, err := Open(context.Background(), url); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", url, err)
		}
	}
}

func TestPostgres(t *testing.T) {
	ctx := t.Context()
	url := storetest.Start(t).Empty(t)
	for range 2 { // the second time finds everything in place
		db, err := Open(ctx, url)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := db.ExecContext(ctx, `INSERT INTO settings (key, value) VALUES ('k', 'v') ON CONFLICT (key) DO NOTHING`); err != nil {
			t.Error(err)
		}
		if _, err := db.ExecContext(ctx, `INSERT INTO launch_permissions (image_id, user_id) VALUES ('ami-none', '1')`); err == nil {
			t.Error("a launch permission for an image that does not exist was accepted")
		}
		db.Close()
	}
}
