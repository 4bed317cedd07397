// Package builtin is the directory that Berth keeps itself: users in the service's database, passwords as argon2id hashes.
//
// It is for people without an Active Directory, and for trying things out. Start reading at [New].
package builtin

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"database/sql"
	"encoding/base64"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/uptrace/bun"
	"golang.org/x/crypto/argon2"

	"berth/internal/directory"
)

// Domain is one built-in directory.
type Domain struct {
	db  bun.IDB
	id  string
	now func() time.Time
}

var _ directory.Domain = (*Domain)(nil)

// New is the built-in directory with an id, kept in db's table users.
func New(db bun.IDB, id string, now func() time.Time) *Domain { return &Domain{db, id, now} }

// In is the same directory, read and written within a transaction.
func (d *Domain) In(tx bun.IDB) *Domain { return &Domain{tx, d.id, d.now} }

type userRecord struct {
	bun.BaseModel `bun:"table:users"`
	DirectoryID   string    `bun:"directory_id,pk"`
	Name          string    `bun:"name,pk"` // lower case
	DisplayName   string    `bun:"display_name"`
	Email         string    `bun:"email"`
	Password      string    `bun:"password"`
	Enabled       bool      `bun:"enabled"`
	CreatedAt     time.Time `bun:"created_at"`
}

func (r *userRecord) user() directory.User {
	return directory.User{Name: r.Name, DisplayName: r.DisplayName, Email: r.Email, Enabled: r.Enabled, Created: r.CreatedAt}
}

// userName is what Windows takes as a logon name, less what would need quoting somewhere. 63 is the service model's limit.
var userName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)

// Create makes a user. ErrName, ErrPassword, ErrExists.
func (d *Domain) Create(ctx context.Context, u directory.User, password string) (directory.User, error) {
	if !userName.MatchString(u.Name) {
		return directory.User{}, directory.ErrName
	}
	hash, err := newHash(password)
	if err != nil {
		return directory.User{}, err
	}
	r := &userRecord{DirectoryID: d.id, Name: strings.ToLower(u.Name), DisplayName: u.DisplayName, Email: u.Email, Password: hash, Enabled: true, CreatedAt: d.now()}
	res, err := d.db.NewInsert().Model(r).On("CONFLICT (directory_id, name) DO NOTHING").Exec(ctx)
	if err != nil {
		return directory.User{}, fmt.Errorf("directory: %w", err)
	}
	if n, err := res.RowsAffected(); err != nil {
		return directory.User{}, fmt.Errorf("directory: %w", err)
	} else if n == 0 {
		return directory.User{}, directory.ErrExists
	}
	return r.user(), nil
}

// SetPassword gives a user another password. ErrNoUser, ErrPassword.
func (d *Domain) SetPassword(ctx context.Context, name, password string) error {
	hash, err := newHash(password)
	if err != nil {
		return err
	}
	return d.change(ctx, d.db.NewUpdate().Model((*userRecord)(nil)).Set("password = ?", hash).Where("directory_id = ? AND name = ?", d.id, strings.ToLower(name)))
}

// Delete removes a user. ErrNoUser.
func (d *Domain) Delete(ctx context.Context, name string) error {
	return d.change(ctx, d.db.NewDelete().Model((*userRecord)(nil)).Where("directory_id = ? AND name = ?", d.id, strings.ToLower(name)))
}

func (d *Domain) change(ctx context.Context, q interface {
	Exec(ctx context.Context, dest ...any) (sql.Result, error)
}) error {
	res, err := q.Exec(ctx)
	if err != nil {
		return fmt.Errorf("directory: %w", err)
	}
	if n, err := res.RowsAffected(); err != nil {
		return fmt.Errorf("directory: %w", err)
	} else if n == 0 {
		return directory.ErrNoUser
	}
	return nil
}

// Users lists the users by name.
func (d *Domain) Users(ctx context.Context) ([]directory.User, error) {
	var rs []userRecord
	if err := d.db.NewSelect().Model(&rs).Where("directory_id = ?", d.id).Order("name").Scan(ctx); err != nil {
		return nil, fmt.Errorf("directory: %w", err)
	}
	us := make([]directory.User, len(rs))
	for i := range rs {
		us[i] = rs[i].user()
	}
	return us, nil
}

// User implements directory.Domain.
func (d *Domain) User(ctx context.Context, name string) (directory.User, error) {
	r, err := d.record(ctx, name)
	if err != nil {
		return directory.User{}, err
	}
	return r.user(), nil
}

func (d *Domain) record(ctx context.Context, name string) (*userRecord, error) {
	var r userRecord
	err := d.db.NewSelect().Model(&r).Where("directory_id = ? AND name = ?", d.id, strings.ToLower(name)).Scan(ctx)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, directory.ErrNoUser
	}
	if err != nil {
		return nil, fmt.Errorf("directory: %w", err)
	}
	return &r, nil
}

// SignIn implements directory.Domain.
func (d *Domain) SignIn(ctx context.Context, name, password string) (directory.User, error) {
	r, err := d.record(ctx, name)
	switch {
	case errors.Is(err, directory.ErrNoUser):
		r = &userRecord{Password: nobody} // the work is done all the same, so that time does not tell who exists
	case err != nil:
		return directory.User{}, err
	}
	select { // each check takes memoryKiB of memory: not too many at once
	case turns <- struct{}{}:
		defer func() { <-turns }()
	case <-ctx.Done():
		return directory.User{}, ctx.Err()
	}
	ok, err := matches(r.Password, password)
	if err != nil {
		return directory.User{}, err
	}
	if !ok || !r.Enabled {
		return directory.User{}, directory.ErrSignIn
	}
	return r.user(), nil
}

// The parameters of argon2id: the second choice that RFC 9106 recommends (section 4), for servers short of memory.
const (
	passes    = 3
	memoryKiB = 64 * 1024
	lanes     = 4
	saltBytes = 16
	hashBytes = 32
)

var (
	turns = make(chan struct{}, 2)
	// nobody is a hash that no password is known for: its salt and hash are zeros.
	nobody = phc(make([]byte, saltBytes), make([]byte, hashBytes))
)

func newHash(password string) (string, error) {
	if n := utf8.RuneCountInString(password); n < 8 || n > 128 || !utf8.ValidString(password) {
		return "", directory.ErrPassword
	}
	salt := make([]byte, saltBytes)
	rand.Read(salt)
	return phc(salt, argon2.IDKey([]byte(password), salt, passes, memoryKiB, lanes, hashBytes)), nil
}

// phc is a hash in the PHC string format: $argon2id$v=19$m=65536,t=3,p=4$salt$hash.
func phc(salt, hash []byte) string {
	b := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, memoryKiB, passes, lanes, b.EncodeToString(salt), b.EncodeToString(hash))
}

// matches checks a password against a hash, with the parameters that the hash was made with.
func matches(hash, password string) (bool, error) {
	var version, m, t, p int
	parts := strings.Split(hash, "$")
	if len(parts) != 6 || parts[1] != "argon2id" {
		return false, errors.New("directory: a stored password is not an argon2id hash")
	}
	if _, err := fmt.Sscanf(parts[2], "v=%d", &version); err != nil || version != argon2.Version {
		return false, fmt.Errorf("directory: a stored password has argon2 version %q", parts[2])
	}
	if _, err := fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &m, &t, &p); err != nil || m < 8 || m > 1<<21 || t < 1 || t > 64 || p < 1 || p > 255 {
		return false, fmt.Errorf("directory: a stored password has argon2 parameters %q", parts[3])
	}
	salt, err1 := base64.RawStdEncoding.DecodeString(parts[4])
	want, err2 := base64.RawStdEncoding.DecodeString(parts[5])
	if err1 != nil || err2 != nil || len(want) < 16 {
		return false, errors.New("directory: a stored password cannot be decoded")
	}
	if len(password) > 4*128 { // longer than any that could be set; not worth hashing
		return false, nil
	}
	got := argon2.IDKey([]byte(password), salt, uint32(t), uint32(m), uint8(p), uint32(len(want)))
	return subtle.ConstantTimeCompare(got, want) == 1, nil
}
