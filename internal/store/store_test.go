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

// What an earlier version left is there after its tables have been made anew.
func TestImportsOfAnEarlierVersionAreKept(t *testing.T) {
	for _, url := range []string{"sqlite:" + filepath.Join(t.TempDir(), "berth.db"), storetest.Start(t).Empty(t)} {
		db, err := open(url)
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		if err := migrateUp(t.Context(), db, "0002"); err != nil {
			t.Fatal(err)
		}
		for _, q := range []string{
			`INSERT INTO import_tasks (id, kind, bucket, object_key, format, status, disk_format, disk_bytes, snapshot_id, image_id, created_at) VALUES ('import-ami-1', 'image', 'b', 'k.ova', 'OVA', 'completed', 'OVA', 7, 'snap-1', 'ami-1', '2026-01-01 00:00:00')`,
			`INSERT INTO import_tasks (id, kind, bucket, object_key, status, image_id, created_at) VALUES ('import-ami-2', 'image', '', 'snap-1', 'deleted', 'ami-2', '2026-01-01 00:00:00')`,
			`INSERT INTO snapshots (id, task_id, size_bytes, created_at) VALUES ('snap-1', 'import-ami-1', 512, '2026-01-01 00:00:00')`,
			`INSERT INTO machine_images (id, task_id, snapshot_id, name, architecture, boot_mode, created_at) VALUES ('ami-1', 'import-ami-1', 'snap-1', 'n', 'x86_64', 'uefi', '2026-01-01 00:00:00')`,
			`INSERT INTO launch_permissions (image_id, user_id) VALUES ('ami-1', '000000000000')`,
		} {
			if _, err := db.ExecContext(t.Context(), q); err != nil {
				t.Fatal(err)
			}
		}
		if err := migrateUp(t.Context(), db, ""); err != nil {
			t.Fatal(err)
		}
		for q, want := range map[string]string{
			`SELECT bucket || '/' || object_key || ' ' || format || ' ' || file_bytes FROM import_sources WHERE task_id = 'import-ami-1'`: "b/k.ova OVA 7",
			`SELECT bucket || object_key || from_snapshot FROM import_sources WHERE task_id = 'import-ami-2'`:                             "snap-1",
			`SELECT format || ' ' || snapshot_id || ' ' || size_bytes FROM import_disks`:                                                  "OVA snap-1 512",
			`SELECT snapshot_id || ' ' || license_type FROM machine_images`:                                                               "snap-1 BYOL",
			`SELECT image_id FROM launch_permissions`:                                                                                     "ami-1",
		} {
			var got string
			if err := db.NewRaw(q).Scan(t.Context(), &got); err != nil || got != want {
				t.Errorf("%s: %q, %v; want %q", q, got, err, want)
			}
		}
		for _, q := range []string{`DELETE FROM snapshots`, `INSERT INTO launch_permissions (image_id, user_id) VALUES ('ami-none', '1')`} {
			if _, err := db.ExecContext(t.Context(), q); err == nil {
				t.Errorf("%s: the foreign key is gone", q)
			}
		}
	}
}
