package desk

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"berth/internal/phony"
)

func TestPartsOfTwoInstallationsDoNotStart(t *testing.T) {
	f := newFixture(t, func(c *Config) { c.AccountID = "111122223333" })
	task := f.imported(f.upload(sample(t, phony.Base, "qcow2")))
	file := f.storedFile(f.digest(*task.SnapshotDetails[0].SnapshotID))
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		change func(*Config)
		says   string
	}{
		"another account":       {func(c *Config) { c.AccountID = "444455556666" }, "111122223333"},
		"no account's number":   {func(c *Config) { c.AccountID = "1111-2222" }, "12 digits"},
		"another Region":        {func(c *Config) { c.Region = "us-west-2" }, "eu-west-1"},
		"no profile":            {func(c *Config) { c.Profile = "seed-1995" }, "seed-1995"},
		"another database":      {func(c *Config) { c.Database = "sqlite:" + filepath.Join(t.TempDir(), "other.db") }, "belong together"},
		"another data folder":   {func(c *Config) { c.Database, c.DataDir = "sqlite:"+filepath.Join(c.DataDir, "berth.db"), t.TempDir() }, "belong together"},
		"the same, not renamed": {func(c *Config) { c.AccountID = "" }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := f.cfg
			c.change(&cfg)
			d, err := New(context.Background(), cfg)
			if err == nil {
				defer d.Close()
			}
			if c.says == "" && err != nil || c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)) {
				t.Errorf("New: %v, want %q", err, c.says)
			}
			if err == nil && d.AccountID() != "111122223333" {
				t.Errorf("account %s", d.AccountID())
			}
		})
	}
	// Whatever was tried, nothing is swept away.
	if _, err := os.Stat(file); err != nil {
		t.Error(err)
	}
}
