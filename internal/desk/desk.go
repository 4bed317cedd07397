// Package desk is the service: Amazon's operations, on Amazon's types, for Windows that is your own.
//
// One file per resource holds its record, its operations and its flows (long ones beside it): account.go, importtask.go and
// importflow.go, machineimage.go, snapshot.go, workspaceimage.go, bundle.go, directory.go, user.go, workspace.go and workspaceflow.go. The operations are the methods of four doors: [Desk]
// (WorkSpaces), [EC2], [STS] and [Berth] (what AWS has no operation for). Each is a plain method on the SDK's types, or on
// types of the SDK's manner where importing the SDK's package would cost minutes of compiling (EC2).
//
// Refusals are smithy API errors, failures are wrapped Go errors. Long work is a flow (flow.go): durable, every step idempotent.
// desk does not know HTTP, signatures or flags. Start reading at [New].
package desk

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/dbos-inc/dbos-transact-golang/dbos"
	"github.com/uptrace/bun"

	"berth/internal/compute"
	"berth/internal/image"
	"berth/internal/s3"
	"berth/internal/store"
)

// Config is what a Desk is made of. Only DataDir, Region, Objects and Driver are required.
type Config struct {
	// DataDir holds the database, the images and the work in progress.
	DataDir string
	// Database is a URL for store.Open; default "sqlite:DataDir/berth.db".
	Database string
	Region   string
	// AccountID is the account's 12 digits; default: made up at the first start. Neither it nor the Region can be changed later.
	AccountID string

	// Eligible says whether the account may enable BYOL at all; Guidance is what one who may not is told to do.
	Eligible bool
	Guidance string
	// EnableDelay is how long enabling BYOL takes ("may take several hours" at AWS).
	EnableDelay time.Duration
	// ReservedNetworks are the admin's own networks: no management range may overlap them. HostNetworks tells the networks
	// that this host has routes to, for the same purpose; nil means none.
	ReservedNetworks []netip.Prefix
	HostNetworks     func() ([]netip.Prefix, error)
	// GraphicsAllowed is Amazon's allow-list for Graphics and GraphicsPro images.
	GraphicsAllowed bool
	// TerminatedFor is how long a WorkSpace is shown as TERMINATED before it is forgotten; WatchInterval is how often machines
	// are looked after; default 5 seconds.
	TerminatedFor time.Duration
	WatchInterval time.Duration
	// PowerOffOnClose turns the desktops off when the service ends; at the next start those that should run are started again.
	PowerOffOnClose bool
	// Profile is the check profile that images must meet; default "seed-2020".
	Profile string

	// Objects is where ImportImage finds what is in buckets: uploads, and with s3.Buckets those of another endpoint as well.
	Objects s3.Source
	// Web and Folder are where it finds what is named by an https or a file URL; nil: such URLs are refused.
	Web, Folder s3.Place
	// StageTime and StageRate, in bytes a second, limit how long a stage of an import may take: the time, and what its bytes
	// take at the rate. Defaults are stageTime and stageRate.
	StageTime time.Duration
	StageRate int64
	// ImageQuota is how many bytes the stored disks may take together; 0: as many as there is room for.
	ImageQuota int64
	// Fix says whether ImportWorkspaceImage mends what it can: the changes that a powered-off disk takes.
	Fix bool
	// ImportWhole keeps all of a machine's disks, also what NTFS has free and page files.
	ImportWhole bool
	// ImageLayout is one of image.Layouts: how disks are kept that are imported from now on; default image.DefaultLayout. A
	// disk that is kept already stays as it is.
	ImageLayout string
	// KeepFree is how many bytes of the data folder's file system imports leave free.
	KeepFree int64
	// Driver runs the desktops.
	Driver compute.Driver

	Log *slog.Logger
	// Now and Rand are the clock and the source of ids and secrets; default time.Now and crypto/rand.
	Now  func() time.Time
	Rand func(b []byte)
	// StepHook is called before and after each step of each flow. Tests crash and fail the service there. StepPause is the
	// first pause before a step in passing trouble is tried again; default 1 second.
	StepHook  StepHook
	StepPause time.Duration
	// Observe is told how each step of a flow went, for metrics.
	Observe func(flow, step string, d time.Duration, err error)
}

// Desk is the service. Its exported methods of the shape (ctx, *XInput) (*XOutput, error) are the WorkSpaces operations.
type Desk struct {
	cfg Config
	db  *bun.DB
	eng dbos.Context
	log *slog.Logger

	storing   sync.Mutex    // see storedRecord
	reserving sync.Mutex    // see reserve
	heavy     chan struct{} // one for each heavy stage at work
	free      func(folder string) (int64, error)

	stopWatch context.CancelFunc
	watching  sync.WaitGroup
}

// New opens the data directory, migrates the database, and takes up the work that an earlier process left.
// Close ends it; work in progress then waits for the next New.
func New(ctx context.Context, cfg Config) (*Desk, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Rand == nil {
		cfg.Rand = func(b []byte) { rand.Read(b) } // never fails (crypto/rand)
	}
	if cfg.StepPause == 0 {
		cfg.StepPause = time.Second
	}
	if cfg.WatchInterval == 0 {
		cfg.WatchInterval = 5 * time.Second
	}
	if cfg.StageTime == 0 {
		cfg.StageTime = stageTime
	}
	if cfg.StageRate == 0 {
		cfg.StageRate = stageRate
	}
	if cfg.Profile == "" {
		cfg.Profile = "seed-2020"
	}
	if cfg.ImageLayout == "" {
		cfg.ImageLayout = image.DefaultLayout
	}
	if _, ok := image.Layouts[cfg.ImageLayout]; !ok {
		return nil, fmt.Errorf("desk: no layout of disks is called %q", cfg.ImageLayout)
	}
	if cfg.Database == "" {
		cfg.Database = "sqlite:" + filepath.Join(cfg.DataDir, "berth.db")
	}
	for _, dir := range []string{"stored", "imports"} {
		if err := os.MkdirAll(filepath.Join(cfg.DataDir, dir), 0o700); err != nil {
			return nil, fmt.Errorf("desk: %w", err)
		}
	}
	db, err := store.Open(ctx, cfg.Database)
	if err != nil {
		return nil, err
	}
	d := &Desk{cfg: cfg, db: db, log: cfg.Log, heavy: make(chan struct{}, heavyStages), free: freeBytes}
	if err := d.open(ctx); err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

func (d *Desk) open(ctx context.Context) error {
	if err := d.identify(ctx); err != nil {
		return err
	}
	if err := d.adopt(ctx); err != nil {
		return err
	}
	if err := d.sweep(ctx); err != nil {
		return err
	}
	if _, err := d.collect(ctx); err != nil {
		return err
	}
	if err := d.ensureImages(ctx); err != nil {
		return err
	}
	if err := d.pauseImports(ctx); err != nil {
		return err
	}
	if err := d.launchFlows(ctx); err != nil {
		return err
	}
	var watch context.Context
	watch, d.stopWatch = context.WithCancel(context.WithoutCancel(ctx))
	d.watching.Go(func() { d.watch(watch) })
	return nil
}

// sweep removes files that no record knows: what a crash left between a file and its record. It runs before any flow.
func (d *Desk) sweep(ctx context.Context) error {
	for _, kind := range []struct{ dir, known string }{
		{"imports", "SELECT id FROM import_tasks WHERE status NOT IN ('completed', 'deleted') UNION SELECT id FROM workspace_images WHERE state = 'PENDING'"},
	} {
		var known []string
		if err := d.db.NewRaw(kind.known).Scan(ctx, &known); err != nil {
			return fmt.Errorf("desk: %w", err)
		}
		entries, err := os.ReadDir(d.file(kind.dir))
		if err != nil {
			return fmt.Errorf("desk: %w", err)
		}
		for _, e := range entries {
			if slices.Contains(known, e.Name()) {
				continue
			}
			d.log.Info("removing a file that no record knows", "file", filepath.Join(kind.dir, e.Name()))
			if err := os.RemoveAll(d.file(kind.dir, e.Name())); err != nil {
				return fmt.Errorf("desk: %w", err)
			}
		}
	}
	return nil
}

// Close stops taking steps and waits for those under way; what is not finished goes on at the next New.
func (d *Desk) Close() error {
	var errs []error
	if d.stopWatch != nil {
		d.stopWatch()
		d.watching.Wait()
	}
	if d.eng != nil {
		if err := dbos.Shutdown(d.eng, 20*time.Second); err != nil {
			errs = append(errs, fmt.Errorf("desk: stopping flows: %w", err))
		}
	}
	if d.cfg.PowerOffOnClose && d.eng != nil {
		errs = append(errs, d.powerOff(context.Background()))
	}
	errs = append(errs, d.db.Close())
	return errors.Join(errs...)
}

// Ready tells whether the service can serve: its database answers.
func (d *Desk) Ready(ctx context.Context) error { return d.db.PingContext(ctx) }

// AccountID is the account that this service is.
func (d *Desk) AccountID() string { return d.cfg.AccountID }

// Region is the Region that this service is.
func (d *Desk) Region() string { return d.cfg.Region }

func (d *Desk) now() time.Time { return d.cfg.Now().UTC().Truncate(time.Millisecond) }

// file is a path in the data directory.
func (d *Desk) file(elem ...string) string {
	return filepath.Join(append([]string{d.cfg.DataDir}, elem...)...)
}

const (
	hexDigits   = "0123456789abcdef"
	lowerDigits = "0123456789abcdefghijklmnopqrstuvwxyz"
	upperDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
)

// random makes n characters of an alphabet, without bias.
func (d *Desk) random(alphabet string, n int) string {
	out := make([]byte, 0, n)
	buf := make([]byte, 2*n)
	limit := byte(256 / len(alphabet) * len(alphabet) & 0xff) // 0 means 256: every byte will do
	for len(out) < n {
		d.cfg.Rand(buf)
		for _, b := range buf {
			if (limit == 0 || b < limit) && len(out) < n {
				out = append(out, alphabet[int(b)%len(alphabet)])
			}
		}
	}
	return string(out)
}

func (d *Desk) digits(n int) string { return "1" + d.random("0123456789", n-1) }

// ec2ID makes an id as EC2's: prefix and 17 hexadecimal digits.
func (d *Desk) ec2ID(prefix string) string { return prefix + d.random(hexDigits, 17) }

// workspacesID makes an id as WorkSpaces': prefix and 9 lower-case letters or digits.
func (d *Desk) workspacesID(prefix string) string { return prefix + d.random(lowerDigits, 9) }
