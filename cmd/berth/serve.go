package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"berth/internal/awsapi"
	"berth/internal/compute"
	"berth/internal/compute/qemu"
	"berth/internal/desk"
	"berth/internal/s3"
)

type serveCmd struct {
	Data   string `help:"Folder for everything that the service keeps. It is made if it is not there." default:".berth" type:"path" env:"BERTH_DATA"`
	Listen string `help:"Address to listen on; port 0 takes any free one." default:"127.0.0.1:7654" env:"BERTH_LISTEN"`
	Region string `help:"The Region that this service is." default:"us-east-1" env:"BERTH_REGION"`

	Database string `help:"Where records are kept: sqlite:PATH or postgres://… Default: a SQLite file in the data folder." env:"BERTH_DATABASE" placeholder:"URL"`

	Account     string        `help:"The account's 12 digits. Default: made up at the first start. It cannot be changed later, nor can the Region." group:"account" env:"BERTH_ACCOUNT" placeholder:"DIGITS"`
	Eligible    bool          `help:"Whether the account may enable BYOL. Say no until your licence has been looked at." group:"account" default:"true" negatable:"" env:"BERTH_ELIGIBLE"`
	Guidance    string        `help:"What an account that is not eligible is told to do." group:"account" env:"BERTH_GUIDANCE" placeholder:"TEXT"`
	EnableDelay time.Duration `help:"How long enabling BYOL takes." group:"account" default:"2s" env:"BERTH_ENABLE_DELAY"`
	Graphics    bool          `help:"Whether Graphics and GraphicsPro images may be made." group:"account" env:"BERTH_GRAPHICS"`
	Profile     string        `help:"Whose requirements images must meet: ${profiles}." group:"account" default:"${profile}" env:"BERTH_PROFILE"`

	Reserve      []netip.Prefix `help:"Networks of your own that no management range may overlap, separated by commas." group:"network" env:"BERTH_RESERVE" placeholder:"CIDR"`
	HostNetworks bool           `help:"Whether this host's own routes are kept out of the management ranges too." group:"network" default:"true" negatable:"" env:"BERTH_HOST_NETWORKS"`

	S3Endpoint  string        `name:"s3-endpoint" help:"An S3-compatible endpoint from which ImportImage reads too: s3://bucket/key is looked for in the service's own buckets first." group:"imports" env:"BERTH_S3_ENDPOINT" placeholder:"URL"`
	S3AccessKey string        `name:"s3-access-key" help:"Access key id for it; without one, requests are not signed." group:"imports" env:"BERTH_S3_ACCESS_KEY" placeholder:"ID"`
	S3SecretKey awsapi.Secret `name:"s3-secret-key" help:"Its secret; better given in the environment." group:"imports" env:"BERTH_S3_SECRET_KEY" placeholder:"SECRET"`
	S3Buckets   []string      `name:"s3-buckets" help:"The endpoint's buckets that may be read, separated by commas; buckets of these names cannot be made here. Default: every bucket that the service does not have itself." group:"imports" env:"BERTH_S3_BUCKETS" placeholder:"BUCKET"`

	ImportHosts    []string       `help:"Hosts that ImportImage may fetch https:// URLs from, HOST or HOST:PORT, separated by commas. Redirects lead nowhere else, and private addresses are refused." group:"imports" env:"BERTH_IMPORT_HOSTS" placeholder:"HOST"`
	ImportNetworks []netip.Prefix `help:"Private networks of your own in which such hosts may be." group:"imports" env:"BERTH_IMPORT_NETWORKS" placeholder:"CIDR"`
	ImportCA       string         `name:"import-ca" help:"A file of certificate authorities (PEM) for them, besides the system's." type:"existingfile" group:"imports" env:"BERTH_IMPORT_CA" placeholder:"FILE"`
	ImportFolder   string         `help:"A folder that ImportImage may read file:///path URLs from; the path begins in the folder." type:"existingdir" group:"imports" env:"BERTH_IMPORT_FOLDER" placeholder:"FOLDER"`
	ImportTime     time.Duration  `help:"How long a stage of an import may take, besides what its bytes take at the least rate." group:"imports" default:"30m" env:"BERTH_IMPORT_TIME"`
	ImportRate     int64          `help:"The least rate, in bytes a second." group:"imports" default:"1048576" env:"BERTH_IMPORT_RATE"`
	ImageQuota     int64          `help:"How many GiB the disks that are kept may take together; 0: as many as there is room for." group:"imports" env:"BERTH_IMAGE_QUOTA" placeholder:"GIB"`
	KeepFree       int64          `help:"How many GiB of the data folder's file system imports leave free." group:"imports" default:"2" env:"BERTH_KEEP_FREE" placeholder:"GIB"`
	ImportWhole    bool           `help:"Keep all of imported machines' disks, also what NTFS has free and the contents of page files." group:"imports" env:"BERTH_IMPORT_WHOLE"`
	ImageLayout    string         `help:"How disks are kept that are imported from now on: fast (as they are), zstd (compressed; a boot reads it more slowly) or compact (the export's own compressed blocks: smallest and soonest done, slowest to boot from)." group:"imports" enum:"${layouts}" default:"${layout}" env:"BERTH_IMAGE_LAYOUT"`
	FixImages      bool           `help:"Whether ImportWorkspaceImage mends what a powered-off disk takes. berth images list tells which images were." group:"imports" env:"BERTH_FIX_IMAGES"`

	Accelerator string `help:"How desktops run: kvm, tcg (software emulation), or auto: kvm when a probe's guest runs with it." group:"machines" enum:"auto,kvm,tcg" default:"auto" env:"BERTH_ACCELERATOR"`
	OnExit      string `help:"What becomes of running desktops when the service ends: keep (they are found again at the next start) or power-off." group:"machines" enum:"keep,power-off" default:"keep" env:"BERTH_ON_EXIT"`

	Grace time.Duration `help:"How long a desktop that is asked to turn itself off may take before the plug is pulled." group:"machines" default:"30s" env:"BERTH_GRACE"`

	LogFormat string     `help:"text or json." group:"log" enum:"text,json" default:"text" env:"BERTH_LOG_FORMAT"`
	LogLevel  slog.Level `help:"debug, info, warn or error." group:"log" default:"info" env:"BERTH_LOG_LEVEL"`
}

// Help is shown by berth serve --help.
func (serveCmd) Help() string {
	return `Once it is ready the service writes admin.json into the data folder (for your eyes only): endpoint, region, accountId, accessKeyId and secretAccessKey. Scripts start from there:

  export AWS_ENDPOINT_URL=$(jq -r .endpoint .berth/admin.json)
  export AWS_REGION=$(jq -r .region .berth/admin.json)
  export AWS_ACCESS_KEY_ID=$(jq -r .accessKeyId .berth/admin.json)
  export AWS_SECRET_ACCESS_KEY=$(jq -r .secretAccessKey .berth/admin.json)
  aws workspaces describe-account

Exports that ImportImage takes come from several places at once: the service's own buckets (aws s3 cp, or a tus client at /uploads/); another S3-compatible endpoint (--s3-endpoint, --s3-buckets); https:// (--import-hosts); a folder of this host, file:///path (--import-folder).

(AWS CLI before 2.13 wants --endpoint-url instead of AWS_ENDPOINT_URL.)

/healthz says that the process lives, /readyz that it can serve, /metrics has figures for Prometheus. SIGTERM ends it cleanly; it may also be killed at any moment: work that was under way goes on at the next start.

The address is meant to be a loopback one, or behind a proxy that does TLS and keeps the Host header.`
}

// adminFile is what admin.json holds.
type adminFile struct {
	Endpoint        string `json:"endpoint"`
	Region          string `json:"region"`
	AccountID       string `json:"accountId"`
	AccessKeyID     string `json:"accessKeyId"`
	SecretAccessKey string `json:"secretAccessKey"`
}

func (c serveCmd) Run(ctx context.Context) error {
	if len(c.S3Buckets) > 0 && c.S3Endpoint == "" {
		return errors.New("--s3-buckets names buckets of --s3-endpoint, which is not given")
	}
	if err := os.MkdirAll(c.Data, 0o700); err != nil {
		return err
	}
	lock, err := lockFolder(c.Data)
	if err != nil {
		return err
	}
	defer lock.Close()
	log := c.logger()
	// An old admin.json must not be taken for this process's.
	if err := removeAdmin(c.Data); err != nil {
		return err
	}
	driver, err := qemu.New(qemu.Config{Dir: c.file("machines"), Log: log.With("part", "qemu"), Accelerator: c.Accelerator, GraceTime: c.Grace})
	if err != nil {
		return fmt.Errorf("%w (on Debian: apt-get install qemu-system-x86 qemu-utils)", err)
	}
	defer driver.Close()
	store, err := s3.Open(s3.StoreOptions{Dir: c.file("s3"), Log: log.With("part", "s3"), Reserved: c.S3Buckets})
	if err != nil {
		return err
	}
	defer store.Close()
	figures := newMetrics()
	cfg := c.desk(driver, store, log)
	if err := c.places(&cfg); err != nil {
		return err
	}
	if folder, ok := cfg.Folder.(*s3.Folder); ok {
		defer folder.Close()
	}
	cfg.Observe = figures.step
	d, err := desk.New(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() {
		if err := d.Close(); err != nil {
			log.Error("closing", "err", err)
		}
	}()
	key, fresh, err := d.AdminKey(ctx)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return err
	}
	endpoint := "http://" + l.Addr().String()
	handler, err := newDoors(d, store, driver, figures, log, endpoint)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug)}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	admin := adminFile{Endpoint: endpoint, Region: d.Region(), AccountID: d.AccountID(), AccessKeyID: key.ID, SecretAccessKey: key.Secret.Reveal()}
	if err := writeAdmin(c.file("admin.json"), admin); err != nil {
		return err
	}
	capabilities := driver.Capabilities()
	log.Info("ready", "endpoint", endpoint, "region", d.Region(), "account", d.AccountID(), "data", c.Data, "accelerator", capabilities.Accelerator, "why", capabilities.AcceleratorWhy)
	if fresh {
		fmt.Fprintf(os.Stderr, firstStart, endpoint, d.Region(), key.ID, c.file("admin.json"))
	}
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	log.Info("stopping")
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if err := server.Shutdown(grace); err != nil { // desktop sessions and long uploads do not end by themselves
		return server.Close()
	}
	return nil
}

const firstStart = `
An access key for the administrator has been made. To use it with the AWS CLI:

  export AWS_ENDPOINT_URL=%s AWS_REGION=%s
  export AWS_ACCESS_KEY_ID=%s
  export AWS_SECRET_ACCESS_KEY=…   (secretAccessKey in %s)
  aws workspaces describe-account

`

func (c serveCmd) file(name string) string { return filepath.Join(c.Data, name) }

func (c serveCmd) logger() *slog.Logger {
	opt := &slog.HandlerOptions{Level: c.LogLevel}
	if c.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(os.Stderr, opt))
	}
	return slog.New(slog.NewTextHandler(os.Stderr, opt))
}

func (c serveCmd) desk(driver compute.Driver, store *s3.Store, log *slog.Logger) desk.Config {
	cfg := desk.Config{
		DataDir: c.Data, Database: c.Database, Region: c.Region, AccountID: c.Account, Eligible: c.Eligible, Guidance: c.Guidance, EnableDelay: c.EnableDelay,
		ReservedNetworks: c.Reserve, GraphicsAllowed: c.Graphics, Profile: c.Profile, TerminatedFor: 30 * time.Second, PowerOffOnClose: c.OnExit == "power-off",
		StageTime: c.ImportTime, StageRate: c.ImportRate, ImageQuota: c.ImageQuota << 30, KeepFree: c.KeepFree << 30, Fix: c.FixImages, ImportWhole: c.ImportWhole, ImageLayout: c.ImageLayout,
		Objects: store, Driver: driver, Log: log.With("part", "desk"),
	}
	if c.HostNetworks {
		cfg.HostNetworks = hostNetworks
	}
	if c.S3Endpoint != "" {
		other := s3.NewExternal(s3.ExternalOptions{Endpoint: c.S3Endpoint, Region: c.Region, AccessKeyID: c.S3AccessKey, SecretAccessKey: c.S3SecretKey, PathStyle: true})
		cfg.Objects = s3.Buckets{Store: store, Other: other, Names: c.S3Buckets}
	}
	return cfg
}

// places sets where imports come from besides buckets.
func (c serveCmd) places(cfg *desk.Config) error {
	if len(c.ImportHosts) > 0 {
		web := s3.WebOptions{Hosts: c.ImportHosts, Private: c.ImportNetworks}
		if c.ImportCA != "" {
			pem, err := os.ReadFile(c.ImportCA)
			if err != nil {
				return err
			}
			pool, err := x509.SystemCertPool()
			if err != nil {
				return err
			}
			if !pool.AppendCertsFromPEM(pem) {
				return fmt.Errorf("%s has no certificate in PEM", c.ImportCA)
			}
			web.TLS = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
		}
		cfg.Web = s3.NewWeb(web)
	}
	if c.ImportFolder != "" {
		folder, err := s3.OpenFolder(c.ImportFolder)
		if err != nil {
			return err
		}
		cfg.Folder = folder
	}
	return nil
}

// lockFolder makes sure that one service at a time has the data folder.
func lockFolder(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("another berth serves from %s already", dir)
	}
	return f, nil
}

// removeAdmin removes a data folder's admin.json, if there is one.
func removeAdmin(data string) error {
	if err := os.Remove(filepath.Join(data, "admin.json")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// writeAdmin writes admin.json, whole or not at all.
func writeAdmin(path string, a adminFile) error {
	b, err := json.MarshalIndent(a, "", "  ")
	if err != nil {
		return err
	}
	tmp := path + ".new"
	if err := os.WriteFile(tmp, append(b, '\n'), 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

func newID() string { return uuid.NewString() }
