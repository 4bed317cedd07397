package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"berth/internal/check/report"
	"berth/internal/image"
)

// imagesCmd groups what there is to do about the disks that the service keeps.
type imagesCmd struct {
	Data   string `help:"The service's data folder: admin.json in it says where the service is, and has the key." default:".berth" type:"path" env:"BERTH_DATA"`
	Output string `help:"text or json: one object per line, about a disk each; the last of list is the sum." enum:"text,json" default:"text" short:"o"`

	List   listImagesCmd   `cmd:"" help:"List the disks that are kept, what they take, and what they are kept for."`
	Verify verifyImagesCmd `cmd:"" help:"Read disks whole and hold them against their digests. Ends with 1 when one is damaged."`
	GC     gcImagesCmd     `cmd:"" name:"gc" help:"Remove disks that nothing refers to. The service does so itself when something is deleted."`
}

// storedImage is a disk that is kept, as the service tells it and --output json does.
type storedImage struct {
	Digest     string   `json:"digest"`
	Base       string   `json:"base,omitempty"`   // the digest of the one that it is laid over
	Damage     string   `json:"damage,omitempty"` // what the last verification found
	SizeBytes  int64    `json:"sizeBytes"`        // virtual
	FileBytes  int64    `json:"fileBytes"`        // that it takes
	References []string `json:"references,omitempty"`
	Fixes      []string `json:"fixes,omitempty"`
}

// print writes a disk's object, or else its text.
func (x imagesCmd) print(s storedImage, text string) error {
	if x.Output == "json" {
		return report.WriteJSON(os.Stdout, s, "")
	}
	_, err := fmt.Println(text)
	return err
}

func (x imagesCmd) call(ctx context.Context, operation string, in map[string]any, out any) error {
	c, err := dial(x.Data)
	if err != nil {
		return err
	}
	c.http.Timeout = 24 * time.Hour // a disk is read whole
	return c.berth(ctx, operation, in, out)
}

func (x imagesCmd) all(ctx context.Context) (out struct {
	StoredImages          []storedImage
	FileBytes, QuotaBytes int64
}, err error) {
	return out, x.call(ctx, "ListStoredImages", map[string]any{}, &out)
}

type listImagesCmd struct{}

func (listImagesCmd) Run(ctx context.Context, c *cli) error {
	all, err := c.Images.all(ctx)
	if err != nil {
		return err
	}
	for _, s := range all.StoredImages {
		if err := c.Images.print(s, s.text()); err != nil {
			return err
		}
	}
	sum := storedSum{len(all.StoredImages), all.FileBytes, all.QuotaBytes}
	if c.Images.Output == "json" {
		return report.WriteJSON(os.Stdout, sum, "")
	}
	_, err = fmt.Println(sum)
	return err
}

// text is a disk in a few lines: a digest nearly fills one.
func (s storedImage) text() string {
	lines := []string{s.Digest, fmt.Sprintf("%s, of a disk of %s, for %s", size(s.FileBytes), size(s.SizeBytes), strings.Join(s.References, ", "))}
	if s.Base != "" {
		lines = append(lines, "over "+s.Base)
	}
	for _, f := range s.Fixes {
		lines = append(lines, "mended: "+image.Printable(f))
	}
	if s.Damage != "" {
		lines = append(lines, "DAMAGED: "+image.Printable(s.Damage))
	}
	return strings.Join(lines, "\n    ")
}

// storedSum is the last object of berth images list --output json.
type storedSum struct {
	Images     int   `json:"images"`
	TotalBytes int64 `json:"totalBytes"`
	QuotaBytes int64 `json:"quotaBytes"` // 0: there is none
}

func (s storedSum) String() string {
	switch {
	case s.Images == 0:
		return "Nothing is kept."
	case s.QuotaBytes > 0:
		return fmt.Sprintf("%s together, of a quota of %s", size(s.TotalBytes), size(s.QuotaBytes))
	}
	return size(s.TotalBytes) + " together"
}

type verifyImagesCmd struct {
	Digests []string `arg:"" optional:"" name:"digest" help:"Which, with those that they are laid over; without any, all."`
}

func (x verifyImagesCmd) Run(ctx context.Context, c *cli) error {
	all, err := c.Images.all(ctx)
	if err != nil {
		return err
	}
	if len(x.Digests) == 0 {
		for _, s := range all.StoredImages {
			x.Digests = append(x.Digests, s.Digest)
		}
	}
	// A guest reads of the one under it what an overlay does not have.
	for _, s := range all.StoredImages {
		if s.Base != "" && slices.Contains(x.Digests, s.Digest) && !slices.Contains(x.Digests, s.Base) {
			x.Digests = append(x.Digests, s.Base)
		}
	}
	damaged := false
	for _, digest := range x.Digests {
		var out struct{ StoredImage storedImage }
		if err := c.Images.call(ctx, "VerifyStoredImage", map[string]any{"Digest": digest}, &out); err != nil {
			return err
		}
		state := "sound"
		if d := out.StoredImage.Damage; d != "" {
			damaged, state = true, "DAMAGED: "+image.Printable(d)
		}
		if err := c.Images.print(out.StoredImage, digest+" "+state); err != nil {
			return err
		}
	}
	if damaged {
		return exitCode(1)
	}
	return nil
}

type gcImagesCmd struct{}

func (gcImagesCmd) Run(ctx context.Context, c *cli) error {
	var out struct {
		StoredImages []storedImage
		Files        []string
	}
	if err := c.Images.call(ctx, "CollectStoredImages", map[string]any{}, &out); err != nil {
		return err
	}
	for _, s := range out.StoredImages {
		if err := c.Images.print(s, s.Digest+" removed, "+size(s.FileBytes)); err != nil {
			return err
		}
	}
	for _, name := range out.Files {
		if c.Images.Output == "json" {
			if err := report.WriteJSON(os.Stdout, removedFile{name}, ""); err != nil {
				return err
			}
		} else if _, err := fmt.Println(image.Printable(name), "removed: a file that was no disk's"); err != nil {
			return err
		}
	}
	if len(out.StoredImages)+len(out.Files) == 0 && c.Images.Output == "text" {
		fmt.Println("Nothing to remove: all that is kept is for something.")
	}
	return nil
}

// removedFile is a file that berth images gc removed and that was no disk's, for --output json.
type removedFile struct {
	File string `json:"file"`
}
