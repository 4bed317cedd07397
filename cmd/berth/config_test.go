package main

import (
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// parsed is what a command line comes to.
func parsed(t *testing.T, args ...string) (*cli, error) {
	t.Helper()
	var c cli
	parser, err := newParser(&c)
	if err != nil {
		t.Fatal(err)
	}
	_, err = parser.Parse(args)
	return &c, err
}

func configFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "berth.json")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestFlagsEnvironmentAndFile(t *testing.T) {
	file := configFile(t, `{"region": "eu-west-1", "reserve": ["10.0.0.0/8", "192.168.0.0/16"], "eligible": false, "enable-delay": "3h", "s3-endpoint": "http://127.0.0.1:9000", "guidance": "from the file", "image-layout": "zstd"}`)
	t.Setenv("BERTH_GUIDANCE", "from the environment")
	c, err := parsed(t, "--config", file, "serve", "--region", "eu-north-1")
	if err != nil {
		t.Fatal(err)
	}
	s := c.Serve
	if s.Region != "eu-north-1" || s.Guidance != "from the environment" || s.Eligible || s.EnableDelay != 3*time.Hour || s.S3Endpoint != "http://127.0.0.1:9000" {
		t.Errorf("flag over environment over file: %+v", s)
	}
	if layout := s.desk(nil, nil, slog.New(slog.DiscardHandler)).ImageLayout; layout != "zstd" {
		t.Errorf("the desk's layout of images: %q", layout)
	}
	if _, err := parsed(t, "serve", "--image-layout", "raw"); err == nil || !strings.Contains(err.Error(), "image-layout") {
		t.Errorf("images as raw disks: %v", err)
	}
	if want := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("192.168.0.0/16")}; !slices.Equal(s.Reserve, want) {
		t.Errorf("reserve: %v", s.Reserve)
	}
}

// TestHelpTeaches holds that the help names what a flag is when it is not given.
func TestHelpTeaches(t *testing.T) {
	var c cli
	parser, err := newParser(&c)
	if err != nil {
		t.Fatal(err)
	}
	var help strings.Builder
	parser.Stdout = &help
	parser.Exit = func(int) { panic(t) } // help has been printed; without an exit parsing would go on
	func() {
		defer func() { recover() }() //nolint:errcheck // the panic above
		_, err = parser.Parse([]string{"serve", "--help"})
	}()
	for _, want := range []string{`--data=`, `--listen="127.0.0.1:7654"`, `--region="us-east-1"`, "--enable-delay=2s", `--profile="seed-2020"`, "--grace=30s", "--log-level=info", "/etc/berth.json", "admin.json"} {
		if !strings.Contains(help.String(), want) {
			t.Errorf("the help lacks %s:\n%s", want, help.String())
		}
	}
}

func TestConfigurationFileThatIsWrong(t *testing.T) {
	for text, want := range map[string]string{
		`{"regoin": "eu-west-1"}`:     `no flag "regoin"`,
		`{"region": {"a": "b"}}`:      "an object where a value belongs",
		`{"enable-delay": "a while"}`: "a while",
		`region: eu-west-1`:           "configuration file",
		`{}{"region": "eu-west-1"}`:   "there is more after the object",
		`{"eligible": true}, x`:       "there is more after the object",
	} {
		if _, err := parsed(t, "--config", configFile(t, text), "serve"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}
