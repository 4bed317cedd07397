package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"berth/internal/check/report"
	"berth/internal/image"
)

// imagesCmd groups what there is to do about the disks that the service keeps.
type imagesCmd struct {
	Data   string `help:"The service's data folder: admin.json in it says where the service is, and has the key." default:".berth" type:"path" env:"BERTH_DATA"`
	Output string `help:"text or json: one object per line, about a disk each." enum:"text,json" default:"text" short:"o"`

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
		note := ""
		if s.Base != "" {
			note = "over " + s.Base
		}
		if s.Damage != "" {
			note = strings.TrimSpace(note + " DAMAGED")
		}
		text := fmt.Sprintf("%s %10s %s\n    a disk of %s, for %s", s.Digest, size(s.FileBytes), note, size(s.SizeBytes), strings.Join(s.References, ", "))
		for _, f := range s.Fixes {
			text += "\n    mended: " + image.Printable(f)
		}
		if err := c.Images.print(s, text); err != nil {
			return err
		}
	}
	if c.Images.Output == "json" { // the sum is of the lines
		return nil
	}
	if all.QuotaBytes > 0 {
		fmt.Printf("%s of %s\n", size(all.FileBytes), size(all.QuotaBytes))
	} else {
		fmt.Println(size(all.FileBytes))
	}
	return nil
}

type verifyImagesCmd struct {
	Digests []string `arg:"" optional:"" name:"digest" help:"Which; without any, all."`
}

func (x verifyImagesCmd) Run(ctx context.Context, c *cli) error {
	if len(x.Digests) == 0 {
		all, err := c.Images.all(ctx)
		if err != nil {
			return err
		}
		for _, s := range all.StoredImages {
			x.Digests = append(x.Digests, s.Digest)
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
	var out struct{ StoredImages []storedImage }
	if err := c.Images.call(ctx, "CollectStoredImages", map[string]any{}, &out); err != nil {
		return err
	}
	for _, s := range out.StoredImages {
		if err := c.Images.print(s, s.Digest+" removed, "+size(s.FileBytes)); err != nil {
			return err
		}
	}
	if len(out.StoredImages) == 0 && c.Images.Output == "text" {
		fmt.Println("Nothing to remove: all that is kept is for something.")
	}
	return nil
}
