package desk

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/uptrace/bun"
)

// snapshotRecord is an imported disk.
type snapshotRecord struct {
	bun.BaseModel `bun:"table:snapshots"`
	ID            string    `bun:"id,pk"`
	TaskID        string    `bun:"task_id"`
	Description   string    `bun:"description"`
	SizeBytes     int64     `bun:"size_bytes"` // virtual size
	Digest        string    `bun:"digest"`     // of the stored disk that it is
	CreatedAt     time.Time `bun:"created_at"`
}

func (d *Desk) snapshot(ctx context.Context, id string) (*snapshotRecord, error) {
	return recordOf[snapshotRecord](ctx, d.db, "snapshot", "id", id)
}

// noVolume is what EC2 says of a snapshot that was made of no volume ("arbitrary volume ID", EC2's model).
const noVolume = "vol-ffffffff"

// DescribeSnapshots lists imported disks, newest first. They are there when their import has ended, and complete.
func (e *EC2) DescribeSnapshots(ctx context.Context, in *DescribeSnapshotsInput) (*DescribeSnapshotsOutput, error) {
	d := e.d
	var rs []snapshotRecord
	if err := d.db.NewSelect().Model(&rs).Order("created_at DESC", "id").Scan(ctx); err != nil {
		return nil, fmt.Errorf("desk: %w", err)
	}
	rs, err := asked(rs, in.SnapshotIDs, func(r snapshotRecord) string { return r.ID }, noSnapshot)
	if err != nil {
		return nil, err
	}
	if err := knownFilters(snapshotFilter, in.Filters); err != nil {
		return nil, err
	}
	// This account's are the only ones here, and nobody else may restore them.
	for _, users := range [][]string{in.OwnerIDs, in.RestorableByUserIDs} {
		if len(users) > 0 && !slices.Contains(users, "self") && !slices.Contains(users, d.cfg.AccountID) {
			rs = nil
		}
	}
	var all []EC2Snapshot
	for _, r := range rs {
		s := EC2Snapshot{SnapshotID: aws.String(r.ID), Description: optional(r.Description), OwnerID: aws.String(d.cfg.AccountID), Status: aws.String("completed"), Progress: aws.String("100%"),
			StartTime: aws.Time(r.CreatedAt), CompletionTime: aws.Time(r.CreatedAt), StorageTier: aws.String("standard"), VolumeID: aws.String(noVolume), VolumeSize: gibOf(r.SizeBytes)}
		if passes(snapshotFilter, &s, in.Filters) {
			all = append(all, s)
		}
	}
	page, next, err := ec2Page(all, in.MaxResults, in.NextToken, func(s EC2Snapshot) string { return *s.SnapshotID })
	return &DescribeSnapshotsOutput{Snapshots: page, NextToken: next}, err
}

// snapshotFilters are the filters of DescribeSnapshots that EC2's model documents, but for tag:KEY.
var snapshotFilters = map[string]func(s *EC2Snapshot) []string{
	"description":   func(s *EC2Snapshot) []string { return had(s.Description) },
	"encrypted":     func(s *EC2Snapshot) []string { return []string{strconv.FormatBool(s.Encrypted)} },
	"owner-alias":   func(*EC2Snapshot) []string { return nil },
	"owner-id":      func(s *EC2Snapshot) []string { return had(s.OwnerID) },
	"progress":      func(s *EC2Snapshot) []string { return had(s.Progress) },
	"snapshot-id":   func(s *EC2Snapshot) []string { return had(s.SnapshotID) },
	"start-time":    func(s *EC2Snapshot) []string { return []string{s.StartTime.UTC().Format("2006-01-02T15:04:05.000Z")} },
	"status":        func(s *EC2Snapshot) []string { return had(s.Status) },
	"storage-tier":  func(s *EC2Snapshot) []string { return had(s.StorageTier) },
	"tag-key":       func(*EC2Snapshot) []string { return nil },
	"transfer-type": func(*EC2Snapshot) []string { return nil },
	"volume-id":     func(s *EC2Snapshot) []string { return had(s.VolumeID) },
	"volume-size":   func(s *EC2Snapshot) []string { return []string{strconv.FormatInt(s.VolumeSize, 10)} },
}

// snapshotFilter is what a filter looks at; nil when there is no such filter. Snapshots have no tags.
func snapshotFilter(name string) func(s *EC2Snapshot) []string {
	if strings.HasPrefix(name, "tag:") {
		name = "tag-key"
	}
	return snapshotFilters[name]
}

func noSnapshot(id string) error {
	return refused("InvalidSnapshot.NotFound", "The snapshot '%s' does not exist.", id)
}
