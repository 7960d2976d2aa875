package runner

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sluice-project/sluice/core/control"
	"github.com/sluice-project/sluice/core/pipeline"
	"github.com/sluice-project/sluice/core/plan"
	"github.com/sluice-project/sluice/core/plugin/stagepb"
)

// reloadBook keeps how the last reload ended.
type reloadBook struct {
	mu   sync.Mutex
	last control.ReloadStatus
}

// LastReload returns how the last reload ended, and how many did well and not
// since the start. Its time is zero if there was none.
func (r *Runner) LastReload() control.ReloadStatus {
	r.reloads.mu.Lock()
	defer r.reloads.mu.Unlock()
	return r.reloads.last
}

// note keeps how a reload ended, of a runner that was started at a time.
func (b *reloadBook) note(s control.ReloadStatus, started time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s.Good, s.Bad, s.Loaded = b.last.Good, b.last.Bad, b.last.Loaded
	if s.Loaded.IsZero() {
		s.Loaded = started
	}
	if s.Error == "" {
		s.Good++
		s.Loaded = s.Time
	} else {
		s.Bad++
	}
	b.last = s
}

// errPartial marks the error of a reload that left something behind.
var errPartial = errors.New("the reload was taken back")

// Reload reads the configuration again and has the runner go over to it: what did
// not change goes on as it is. After an error nothing has changed, but what it
// says. The outcome is logged, and stays visible in Status. It is carried through
// whatever becomes of ctx.
func (r *Runner) Reload(ctx context.Context) error {
	return r.reload(steps{ctx, func(control.Step) {}})
}

func (r *Runner) reload(do steps) error {
	r.reloading.Lock() // one at a time: the second sees what the first has made
	defer r.reloading.Unlock()
	if !r.ready.Load() || r.running.Err() != nil {
		return errors.New("reload: the runner starts or ends")
	}
	begin := time.Now()
	if r.options.Reloading != nil {
		defer r.options.Reloading()()
	}
	do = steps{r.running, do.report} // an end that is asked for ends a reload, too
	p, err := r.reloadOnce(do)
	outcome := control.ReloadStatus{Time: begin, Elapsed: time.Since(begin), Result: control.ReloadDone}
	if err != nil {
		outcome.Result, outcome.Error = control.ReloadFailed, strings.TrimPrefix(err.Error(), "reload: ")
		if errors.Is(err, errPartial) {
			outcome.Result = control.ReloadPartial
		}
	} else {
		outcome.Changes = changesOf(p)
	}
	r.reloads.note(outcome, r.started)
	if err != nil {
		r.log.Error("reload failed", "result", outcome.Result, "error", err, "elapsed", outcome.Elapsed)
		return err
	}
	r.log.Info("reloaded", "changes", strings.Join(outcome.Changes, "; "), "elapsed", outcome.Elapsed)
	return nil
}

// unchanged marks an error after which all is as it was.
func unchanged(err error) error { return fmt.Errorf("reload: nothing is changed: %w", err) }

func (r *Runner) reloadOnce(do steps) (*control.Plan, error) {
	if r.options.Load == nil {
		return nil, unchanged(errNoLoad)
	}
	var next *pipeline.Configuration
	err := do.step("check", "", func() (_ []control.Count, err error) {
		next, err = r.options.Load(do.ctx)
		return nil, err
	})
	if err != nil {
		return nil, unchanged(errors.Unwrap(err))
	}
	p := r.compare(next)
	if err := refusal(p); err != nil {
		return nil, err
	}
	if !p.Changes() {
		r.keepPlaces(next)
		do.report(control.Step{Name: "reload", Note: "nothing to change"})
		return p, nil
	}
	return p, r.apply(do, p, next)
}

// Plan implements control.Backend. The configuration is one in JSON, or nothing.
func (r *Runner) Plan(ctx context.Context, configuration []byte) (*control.Plan, error) {
	next := &pipeline.Configuration{}
	switch {
	case len(configuration) > 0:
		if err := json.Unmarshal(configuration, next); err != nil {
			return nil, fmt.Errorf("plan: configuration: %w", err)
		}
	case r.options.Load == nil:
		return nil, errNoLoad
	default:
		var err error
		if next, err = r.options.Load(ctx); err != nil {
			return nil, fmt.Errorf("plan: %w", err)
		}
	}
	for _, p := range next.Pipelines {
		if p == nil || len(p.Stages) == 0 || slices.Contains(p.Stages, nil) {
			return nil, errors.New("plan: configuration: a pipeline without stages")
		}
	}
	return r.compare(next), nil
}

// errNoLoad says that there is nothing to read again.
var errNoLoad = errors.New("this runner can't read its configuration again: restart it")

// compare returns what leads to a configuration.
func (r *Runner) compare(next *pipeline.Configuration) *control.Plan {
	g := r.graph()
	return plan.Compare(g.config, next, g.facts, r.pluginsFor(next).facts(next))
}

// refusal returns an error if the plan can't be carried out.
func refusal(p *control.Plan) error {
	var why []string
	for _, s := range p.Refused() {
		why = append(why, fmt.Sprintf("%s: %s", s.Name, s.Refused))
	}
	if len(why) == 0 {
		return nil
	}
	return unchanged(errors.New(strings.Join(why, "; ")))
}

// changesOf names what a plan changes, in few words.
func changesOf(p *control.Plan) (changes []string) {
	for _, s := range p.Settings {
		changes = append(changes, "runner "+s.Name)
	}
	for _, s := range p.Stages {
		if s.Action != control.Keep {
			changes = append(changes, strings.TrimSuffix(string(s.Action)+" "+s.Address+": "+reasonsOf(s), ": "))
		}
	}
	return changes
}

// reasonsOf joins the reasons of a stage.
func reasonsOf(s control.StagePlan) string {
	var reasons []string
	for _, one := range s.Reasons {
		reasons = append(reasons, one.Attribute+one.Text)
	}
	return strings.Join(reasons, ", ")
}

// keepPlaces takes over a configuration in which nothing changes but what
// nothing depends on, as the places in files that messages name.
func (r *Runner) keepPlaces(next *pipeline.Configuration) {
	if w, err := r.wire(next, r.stageAt); err == nil {
		w.install(r)
	}
}

// stageAt returns the stage at an address, or nil.
func (r *Runner) stageAt(address string) *stage {
	stages := r.graph().stages
	if i := slices.IndexFunc(stages, func(s *stage) bool { return s.address == address }); i >= 0 {
		return stages[i]
	}
	return nil
}

// apply goes over to a configuration. Until the switch begins nothing has
// changed, and until it has passed the last thing that can fail all of it can be
// taken back.
func (r *Runner) apply(do steps, p *control.Plan, next *pipeline.Configuration) error {
	begin, commit := time.Now(), func() {}
	if r.options.Reconfigure != nil && len(p.Settings) > 0 {
		var err error
		if commit, err = r.options.Reconfigure(next.Runner); err != nil {
			return unchanged(err)
		}
	}
	s, err := r.newSwitchover(p, next)
	if err == nil {
		err = s.prepare(do.ctx)
	}
	prepared := time.Now()
	if err == nil {
		err = s.run(do.ctx)
	}
	switch {
	case errors.Is(err, errPartial):
		return fmt.Errorf("reload: %w", err)
	case err != nil:
		return unchanged(err)
	}
	do.report(control.Step{Name: "start", Counts: []control.Count{{Name: "processes", Value: uint64(len(s.candidates))}}, Elapsed: prepared.Sub(begin)})
	do.report(control.Step{Name: "switch", Elapsed: time.Since(prepared)})
	commit()
	r.adjust(p)
	r.tell(do, p)
	r.replayPlanned(do, p)
	return nil
}

// tell reports what became of each stage.
func (r *Runner) tell(do steps, p *control.Plan) {
	for _, s := range p.Settings {
		do.report(control.Step{Name: "runner", Stage: s.Name, Note: s.Old + " to " + s.New})
	}
	for _, s := range p.Stages {
		if s.Action != control.Keep {
			do.report(control.Step{Name: string(s.Action), Stage: s.Address, Note: reasonsOf(s)})
		}
	}
}

// replayPlanned asks for the replays that the changes need, and does not wait for
// them: peers may take a minute to answer.
func (r *Runner) replayPlanned(do steps, p *control.Plan) {
	for _, one := range p.Replays {
		from := r.stageAt(one.Stage)
		if from == nil || from.replays == nil {
			continue // never: the plan is of this graph
		}
		if one.Down {
			r.replayDown(from, "reload")
		} else {
			var into *stage
			if one.Into != "" {
				into = r.stageAt(one.Into)
			}
			from.replays.request(into, 0, "reload", false)
		}
		do.report(control.Step{Name: "replay", Stage: one.Stage, Note: strings.TrimSpace("begun " + one.Into)})
	}
}

// adjust has the stages that go on follow the settings of the runner.
func (r *Runner) adjust(p *control.Plan) {
	changed := func(name string) bool {
		return slices.ContainsFunc(p.Settings, func(s control.SettingPlan) bool { return strings.HasPrefix(s.Name, name) })
	}
	if changed("scheduler") {
		r.setScheduler()
	}
	if !changed("log.level") || r.options.Level == nil {
		return
	}
	for _, s := range r.graph().stages {
		if err := s.adjust(r.options.Level.Level()); err != nil {
			r.log.Warn("stage keeps its log level until it is started again", "stage", s.address, "error", err)
		}
	}
}

func (s *stage) adjust(level slog.Level) error {
	p := s.process()
	if p == nil {
		return nil // it starts with the new one
	}
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	_, err := p.Adjust(ctx, &stagepb.AdjustRequest{LogLevel: level.String()})
	return err
}
