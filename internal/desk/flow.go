package desk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/dbos-inc/dbos-transact-golang/dbos"
	_ "github.com/dbos-inc/dbos-transact-golang/dbos/driver/sqlite" // DBOS on SQLite
)

// flow is durable work on one resource: a list of steps, each done at least once, in order, whatever crashes.
//
// The rules that make it so: the record is written first and says that work is wanted, the flow is started after; every
// step reads the record, may be repeated, and writes what it learnt on the record; what a step makes is found by the
// resource's id. flow_test.go crashes, fails and repeats every step of every flow in [flows].
type flow struct {
	name  string
	steps []step
	// fail writes on the resource that the work is over and why. It is the last thing that a flow does, and idempotent too.
	fail func(d *Desk, ctx context.Context, id string, f *failure) error
	// pending lists the work that the records ask for. The reconciler starts what is listed and has not been started.
	pending func(d *Desk, ctx context.Context) ([]work, error)
}

// step is one idempotent step of a flow. It returns a *failure (wrapped or not) when the work cannot succeed: that is
// final. Any other error is taken for passing trouble and the step is tried again, with growing pauses.
type step struct {
	name string
	run  func(d *Desk, ctx context.Context, id string) error
}

// work is one run of a flow: on which resource, and for the how-many-eth time (0 where a flow runs once for a resource).
type work struct {
	ID   string
	Turn int
}

// failure is the end of a flow that could not succeed: what the resource's owner is told. It is data, not an accident.
type failure struct {
	Code    string
	Message string
	// Details are further findings, code and text.
	Details []failure `json:",omitempty"`
}

func (f *failure) Error() string { return f.Code + ": " + f.Message }

// flows are all there are. The harness in flow_test.go fails for one that it does not exercise.
func flows() []*flow {
	return []*flow{
		&enableAccount,
		&importDisk,
		&ingestImage,
		&importCustomImage,
		&registerDirectory,
		&deregisterDirectory,
		&createWorkspace,
		&startWorkspace,
		&stopWorkspace,
		&rebootWorkspace,
		&terminateWorkspace,
	}
}

// StepHook is called before each step, and after it has had its effect but before that is recorded.
type StepHook func(flow, step string, done bool) error

const (
	// A step in passing trouble is tried again after pauses that double up to a minute, for about a day.
	stepRetries  = 1440
	stepPauseMax = time.Minute
	// flowVersion is the engine's application version: work in flight is only taken up by the same one. It changes when
	// steps are renamed, removed or reordered.
	flowVersion = "1"
)

// job is a flow's durable input.
type job struct {
	Flow string
	work
}

func (d *Desk) launchFlows(ctx context.Context) error {
	cfg := dbos.Config{
		AppName:            "berth",
		Logger:             d.log.With("part", "flows"),
		ApplicationVersion: flowVersion,
		ExecutorID:         "berth", // one process owns the data directory; it takes up what its own name left
	}
	// The engine keeps its tables apart from ours: a file of its own in SQLite, the schema "dbos" in PostgreSQL.
	if scheme, _, _ := cutURL(d.cfg.Database); scheme == "sqlite" {
		f, err := os.OpenFile(d.file("flows.db"), os.O_CREATE|os.O_RDWR, 0o600) // else the engine makes it for all to read
		if err != nil {
			return fmt.Errorf("desk: %w", err)
		}
		f.Close()
		cfg.DatabaseURL = "sqlite:" + f.Name()
	} else {
		cfg.DatabaseURL = d.cfg.Database
	}
	eng, err := dbos.NewContext(context.WithoutCancel(ctx), cfg)
	if err != nil {
		return fmt.Errorf("desk: flow engine: %w", err)
	}
	d.eng = eng
	dbos.RegisterWorkflow(eng, d.run, dbos.WithWorkflowName("flow"))
	if err := dbos.Launch(eng); err != nil {
		return fmt.Errorf("desk: flow engine: %w", err)
	}
	return d.reconcile(ctx)
}

// reconcile starts the work that records ask for and that no process has started: a crash came between the two.
func (d *Desk) reconcile(ctx context.Context) error {
	for _, f := range flows() {
		ws, err := f.pending(d, ctx)
		if err != nil {
			return fmt.Errorf("desk: pending %s: %w", f.name, err)
		}
		for _, w := range ws {
			h, err := d.launch(f, w)
			if err != nil {
				return err
			}
			s, err := h.GetStatus()
			if err != nil {
				return fmt.Errorf("desk: %s: %w", h.GetWorkflowID(), err)
			}
			if s.Status == dbos.WorkflowStatusMaxRecoveryAttemptsExceeded {
				d.log.Error("a flow that the service died of again and again is given up", "flow", f.name, "id", w.ID)
				if err := f.fail(d, ctx, w.ID, &failure{Code: "InternalError", Message: "Berth could not finish this: it ended each time that it was tried."}); err != nil {
					return fmt.Errorf("desk: %s: %w", h.GetWorkflowID(), err)
				}
			}
		}
	}
	return nil
}

// start starts a run of a flow that its record asks for already. The caller's request is done with that: where the engine
// does not take the work (it is being shut down), the reconciler starts it with the next process.
func (d *Desk) start(f *flow, w work) {
	if _, err := d.launch(f, w); err != nil {
		d.log.Warn("work waits for the next start", "flow", f.name, "id", w.ID, "err", err)
	}
}

// launch starts a run of a flow, once, however often it is called.
func (d *Desk) launch(f *flow, w work) (dbos.WorkflowHandle[string], error) {
	id := fmt.Sprintf("%s:%s:%d", f.name, w.ID, w.Turn)
	h, err := dbos.RunWorkflow(d.eng, d.run, job{f.name, w}, dbos.WithWorkflowID(id))
	if err != nil {
		return nil, fmt.Errorf("desk: starting %s: %w", id, err)
	}
	return h, nil
}

// run is the one workflow that the engine knows: it takes the steps of the flow that the job names.
func (d *Desk) run(ctx dbos.Context, j job) (string, error) {
	var f *flow
	for _, x := range flows() {
		if x.name == j.Flow {
			f = x
		}
	}
	if f == nil {
		return "", fmt.Errorf("desk: no flow %q", j.Flow)
	}
	log := d.log.With("flow", f.name, "id", j.ID)
	for _, s := range f.steps {
		bad, err := d.take(ctx, f.name, s.name, func(ctx context.Context) error { return s.run(d, ctx, j.ID) })
		if ctx.Err() != nil {
			return "", ctx.Err() // shutting down: this step is taken again by the next process
		}
		if err != nil { // retries are used up
			log.Error("step gave up", "step", s.name, "err", err)
			if bad = errDiskFull; !diskFull(err) { // the engine, too, writes down how a step ended
				bad = &failure{Code: "InternalError", Message: "Berth could not finish step " + s.name + ": " + err.Error()}
			}
		}
		if bad != nil {
			log.Info("failed", "step", s.name, "code", bad.Code, "why", bad.Message)
			_, err := d.take(ctx, f.name, "fail", func(ctx context.Context) error { return f.fail(d, ctx, j.ID, bad) })
			return bad.Code, err
		}
	}
	log.Info("done")
	return "done", nil
}

// take takes one step durably. What it returns as *failure is final; an error means that all retries failed.
func (d *Desk) take(ctx dbos.Context, flow, name string, run func(context.Context) error) (*failure, error) {
	return dbos.RunAsStep(ctx, func(ctx context.Context) (*failure, error) {
		begin := time.Now()
		err := d.hooked(flow, name, func() error { return run(ctx) })
		if d.cfg.Observe != nil {
			d.cfg.Observe(flow, name, time.Since(begin), err)
		}
		var final *failure
		if errors.As(err, &final) {
			return final, nil
		}
		if err != nil && ctx.Err() == nil {
			d.log.Warn("step will be tried again", "flow", flow, "step", name, "err", err)
		}
		return nil, err
	}, dbos.WithStepName(name), dbos.WithStepMaxRetries(stepRetries), dbos.WithStepBaseInterval(d.cfg.StepPause), dbos.WithStepMaxInterval(stepPauseMax), dbos.WithStepBackoffFactor(2))
}

func (d *Desk) hooked(flow, name string, run func() error) error {
	if d.cfg.StepHook == nil {
		return run()
	}
	if err := d.cfg.StepHook(flow, name, false); err != nil {
		return err
	}
	if err := run(); err != nil {
		return err
	}
	return d.cfg.StepHook(flow, name, true)
}
