// Package store opens Berth's database, SQLite or PostgreSQL, and keeps its tables current.
//
// It holds no business rule: records and queries live in desk, one file per resource. Start reading at [Open]; the tables are
// in migrations/, numbered, applied in order, each once.
package store

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	_ "github.com/jackc/pgx/v5/stdlib" // registers "pgx"
	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect/pgdialect"
	"github.com/uptrace/bun/dialect/sqlitedialect"
	"github.com/uptrace/bun/migrate"
	_ "modernc.org/sqlite" // registers "sqlite"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Open opens the database at rawURL, "sqlite:PATH" or "postgres://…", and migrates it to the newest schema. A SQLite file is
// made with mode 0600: it holds secret keys.
func Open(ctx context.Context, rawURL string) (*bun.DB, error) {
	db, err := open(rawURL)
	if err != nil {
		return nil, err
	}
	if err := migrateUp(ctx, db, ""); err != nil {
		db.Close()
		return nil, err
	}
	return db, nil
}

func open(rawURL string) (*bun.DB, error) {
	switch scheme, path, _ := strings.Cut(rawURL, ":"); scheme {
	case "sqlite":
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			return nil, fmt.Errorf("store: %w", err)
		}
		f.Close()
		abs, err := filepath.Abs(path)
		if err != nil {
			return nil, fmt.Errorf("store: %w", err)
		}
		// Immediate transactions: a reader that turns writer half-way would fail with SQLITE_BUSY instead of waiting.
		q := url.Values{"_txlock": {"immediate"}, "_pragma": {"busy_timeout(10000)", "journal_mode(WAL)", "foreign_keys(1)", "synchronous(FULL)"}}
		db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Path: abs, RawQuery: q.Encode()}).String())
		if err != nil {
			return nil, fmt.Errorf("store: %w", err)
		}
		return bun.NewDB(db, sqlitedialect.New()), nil
	case "postgres", "postgresql":
		// Logs show a URL without the password that stands before the host; elsewhere they would not know it.
		if u, err := url.Parse(rawURL); err == nil && u.Query().Has("password") {
			return nil, errors.New("store: give the database's password as postgres://user:password@host/…, or in PGPASSWORD, not as a parameter")
		}
		db, err := sql.Open("pgx", rawURL)
		if err != nil {
			return nil, fmt.Errorf("store: %w", err)
		}
		return bun.NewDB(db, pgdialect.New()), nil
	default:
		return nil, fmt.Errorf("store: database URL must begin with sqlite: or postgres:, not %q", scheme)
	}
}

// migrateUp applies the migrations up to the one of a number; "" is all of them.
func migrateUp(ctx context.Context, db *bun.DB, last string) error {
	sub, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	ms := migrate.NewMigrations()
	if err := ms.Discover(sub); err != nil {
		return fmt.Errorf("store: reading migrations: %w", err)
	}
	if last != "" {
		all := ms.Sorted()
		ms = migrate.NewMigrations()
		for _, m := range all {
			if m.Name <= last {
				ms.Add(m)
			}
		}
	}
	// A migration that dies half-way must not be taken for done.
	m := migrate.NewMigrator(db, ms, migrate.WithMarkAppliedOnSuccess(true))
	if err := m.Init(ctx); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	if _, err := m.Migrate(ctx); err != nil {
		return fmt.Errorf("store: migrating: %w", err)
	}
	return nil
}
