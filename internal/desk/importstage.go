package desk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"syscall"
	"time"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"

	"berth/internal/s3"
)

// stage is a step of an import that takes its time and is seen from outside: it has a state, a share of the progress, and a
// time limit by the bytes that it works on. It can be given up by CancelImportTask at any moment, and always says what it
// waits for.
type stage struct {
	name, status, message string
	percent               int  // of the task, when it begins
	heavy                 bool // it needs memory and processors: few are at work at a time
	run                   func(d *Desk, ctx context.Context, r *importRecord) error
}

// step is the flow's step that the stage is.
func (s stage) step() step {
	return step{s.name, func(d *Desk, ctx context.Context, id string) error {
		if s.heavy {
			leave, err := d.turn(ctx, id)
			if err != nil {
				return err
			}
			defer leave()
		}
		r, err := d.enter(ctx, id, s)
		if err != nil {
			return err
		}
		working, done := d.supervised(ctx, r)
		defer done()
		err = s.run(d, working, r)
		var final *failure
		switch cause := context.Cause(working); {
		case err == nil, errors.As(err, &final):
			return err
		case errors.As(cause, &final): // cancelled, or out of time
			return cause
		case ctx.Err() != nil:
			return err
		case diskFull(err):
			return errDiskFull
		case errors.Is(err, syscall.EFBIG):
			return errFileTooLarge
		}
		// Passing trouble: the step is tried again until its time is over.
		if err := d.waits(ctx, id, trouble(err)); err != nil {
			return err
		}
		return err
	}}
}

var errDiskFull = &failure{Code: "ServerError", Message: "ServerError: Insufficient storage. [This service's disk is full. Free some of it (berth images gc), or give it more, and try again]"}

var errFileTooLarge = &failure{Code: "ServerError", Message: "ServerError: Insufficient storage. [A file would be larger than this service's file system, or a limit of its process (RLIMIT_FSIZE), lets it be. Lift that, and try again]"}

// diskFull reports that there was no room for a file, or for the records: SQLite's SQLITE_FULL (13), PostgreSQL's disk_full (53100).
func diskFull(err error) bool {
	var sqlite interface{ Code() int }
	var postgres interface{ SQLState() string }
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) ||
		errors.As(err, &sqlite) && sqlite.Code()&0xFF == 13 || errors.As(err, &postgres) && postgres.SQLState() == "53100"
}

// enter writes on the task's record that a stage begins, or goes on. It ends with the failure when the task was cancelled or
// the stage's time is over.
func (d *Desk) enter(ctx context.Context, id string, s stage) (*importRecord, error) {
	r, err := d.importTask(ctx, id)
	if err != nil {
		return nil, err
	}
	if r.CancelRequested {
		return nil, errCancelled
	}
	if r.Stage != s.name {
		r.Stage, r.StageSince, r.WaitsFor = s.name, d.now(), ""
	}
	r.SeenAt = d.now()
	if r.Kind == importsSnapshot && s.message == "preparing ami" {
		s.message = "preparing snapshot"
	}
	if err := d.advance(ctx, id, s.status, s.message, s.percent, r.WaitsFor); err != nil {
		return nil, err
	}
	if _, err := d.db.NewUpdate().Model(r).Column("stage", "stage_since", "seen_at").WherePK().Exec(ctx); err != nil {
		return nil, fmt.Errorf("desk: %w", err)
	}
	return r, r.late(d)
}

// heavyStages is how many heavy stages are at work at a time. One takes some 25 MiB, and all processors when it can.
const heavyStages = 3

// turn waits until a heavy stage may begin. Waiting does not count for the stage's time.
func (d *Desk) turn(ctx context.Context, id string) (leave func(), err error) {
	for told := false; ; told = true {
		select {
		case d.heavy <- struct{}{}:
			return func() { <-d.heavy }, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(superviseInterval):
		}
		if r, err := d.importTask(ctx, id); err != nil {
			return nil, err
		} else if r.CancelRequested {
			return nil, errCancelled
		}
		if told {
			continue
		}
		if err := d.waits(ctx, id, "other imports, for its turn"); err != nil {
			return nil, err
		}
	}
}

// Defaults of Config.StageTime and Config.StageRate. Amazon gives no such numbers; an import there "can take up to several
// hours". A line of 10 Mbit/s carries the least rate.
const (
	stageTime = 30 * time.Minute
	stageRate = 1 << 20 // bytes a second
)

// limit is how long the stage may take.
func (r *importRecord) limit(d *Desk) time.Duration {
	var bytes int64
	for _, s := range r.Sources {
		bytes += s.FileBytes
	}
	if r.Stage == "convert" {
		for _, x := range r.Disks {
			bytes += x.SizeBytes
		}
	}
	return d.cfg.StageTime + time.Duration(float64(bytes)/float64(d.cfg.StageRate)*float64(time.Second))
}

// stageWords say what an import does in each of its stages.
var stageWords = map[string]string{"stage": "fetching its files", "validate": "validating", "convert": "converting", "register": "preparing the image"}

// late is the failure of a stage whose time is over; nil while it is not.
func (r *importRecord) late(d *Desk) error {
	limit := r.limit(d)
	if d.now().Sub(r.StageSince) <= limit {
		return nil
	}
	why := ""
	if r.WaitsFor != "" {
		why = ", last waiting for: " + r.WaitsFor
	}
	return &failure{Code: "ServerError", Message: fmt.Sprintf("ServerError: The import has been %s for more than %s%s. [Import again when that is mended; an upload to this service need not be repeated]", stageWords[r.Stage], limit.Round(time.Second), why)}
}

// supervised is a context for a stage's work: it ends, with the failure as its cause, when the task is cancelled or its time is over.
func (d *Desk) supervised(ctx context.Context, r *importRecord) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	ended := make(chan struct{})
	id := r.ID
	go func() {
		defer close(ended)
		for tick := 1; ; tick++ {
			select {
			case <-ctx.Done():
				return
			case <-time.After(superviseInterval):
			}
			now, err := d.importTask(ctx, id)
			if err != nil {
				continue // the work itself will tell, if it lasts
			}
			if now.CancelRequested {
				cancel(errCancelled)
			} else if err := now.late(d); err != nil {
				cancel(err)
			} else if tick%10 == 0 {
				_, _ = d.db.NewUpdate().Model(now).Set("seen_at = ?", d.now()).WherePK().Exec(ctx) // it is written again soon
			}
		}
	}()
	return ctx, func() { cancel(nil); <-ended }
}

// superviseInterval is how often a stage is looked at.
const superviseInterval = 500 * time.Millisecond

// pauseImports takes the time in which no service ran out of the stages' time. It runs before any flow.
func (d *Desk) pauseImports(ctx context.Context) error {
	ws, err := importDisk.pending(d, ctx)
	if err != nil {
		return fmt.Errorf("desk: %w", err)
	}
	for _, w := range ws {
		r, err := d.importTask(ctx, w.ID)
		if err != nil {
			return err
		}
		if r.SeenAt.IsZero() { // of a version that did not tell
			r.StageSince, r.SeenAt = d.now(), d.now()
		} else if away := d.now().Sub(r.SeenAt); away > 0 {
			r.StageSince, r.SeenAt = r.StageSince.Add(away), d.now()
		}
		if _, err := d.db.NewUpdate().Model(r).Column("stage_since", "seen_at").WherePK().Exec(ctx); err != nil {
			return fmt.Errorf("desk: %w", err)
		}
	}
	return nil
}

// waits writes what a task waits for, for people.
func (d *Desk) waits(ctx context.Context, id, what string) error {
	if _, err := d.db.NewUpdate().Model((*importRecord)(nil)).Set("waits_for = ?", what).Set("seen_at = ?", d.now()).Where("id = ?", id).Exec(ctx); err != nil {
		return fmt.Errorf("desk: %w", err)
	}
	return nil
}

// advance writes how far a task is and what it waits for, unless it has been cancelled: then it ends with that failure. The
// percentage never falls, whatever is begun anew.
func (d *Desk) advance(ctx context.Context, id, status, message string, percent int, waits string) error {
	res, err := d.db.NewUpdate().Model((*importRecord)(nil)).Set("status = ?, status_message = ?, waits_for = ?, progress = CASE WHEN progress > ? THEN progress ELSE ? END", status, message, waits, percent, percent).
		Where("id = ? AND NOT cancel_requested", id).Exec(ctx)
	if err != nil {
		return fmt.Errorf("desk: %w", err)
	}
	if n, err := res.RowsAffected(); err != nil {
		return fmt.Errorf("desk: %w", err)
	} else if n == 0 {
		return errCancelled
	}
	return nil
}

// progress spreads a part of the work over percentages of the task, writing at most once in a second.
func (d *Desk) progress(ctx context.Context, id, status, message string, from, to int) func(fraction float64, waits string) error {
	var last time.Time
	return func(fraction float64, waits string) error {
		if now := time.Now(); now.Sub(last) >= time.Second {
			last = now
			return d.advance(ctx, id, status, message, from+int(fraction*float64(to-from)), waits)
		}
		return ctx.Err()
	}
}

// sourceError is trouble with the place that a file is fetched from.
type sourceError struct {
	source *importSource
	err    error
}

func (e *sourceError) Error() string { return "desk: " + e.source.String() + ": " + e.err.Error() }
func (e *sourceError) Unwrap() error { return e.err }

// trouble says for the task's owner what is waited for. It names nothing of this host.
func trouble(err error) string {
	var from *sourceError
	if !errors.As(err, &from) {
		return "trouble of this service's own, which its log tells more about"
	}
	var status *awshttp.ResponseError
	var answer *s3.StatusError
	var network net.Error
	var local syscall.Errno // a net.Error, too, when nothing of the network is around it
	var unknown *net.DNSError
	what := "it could not be read, or not be written here"
	switch {
	case errors.As(err, &status):
		what = fmt.Sprintf("its endpoint answered %d %s", status.HTTPStatusCode(), http.StatusText(status.HTTPStatusCode()))
	case errors.As(err, &answer):
		what = fmt.Sprintf("its host answered %d %s", answer.Status, http.StatusText(answer.Status))
	case errors.Is(err, s3.ErrPreconditionFailed):
		what = "it was changed while it was read"
	case errors.Is(err, s3.ErrStalled):
		what = "its endpoint has stopped sending"
	case errors.As(err, &unknown):
		what = "the address of its host is not found"
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		what = "its endpoint ends the connection"
	case errors.As(err, &network) && network.Timeout():
		what = "its endpoint does not answer in time"
	case errors.As(err, &network) && !(errors.As(err, &local) && network == net.Error(local)):
		what = "its endpoint cannot be reached"
	}
	return from.source.String() + ": " + what
}
