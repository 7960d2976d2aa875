package kit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2/hclsyntax"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/sluice-project/sluice/core/flow"
	"github.com/sluice-project/sluice/core/pipeline"
	"github.com/sluice-project/sluice/core/plugin"
	"github.com/sluice-project/sluice/core/plugin/stagepb"
)

// The checks of the control connection.

func (s *session) handshake() error {
	stage, err := s.launch()
	if err != nil {
		return err
	}
	defer s.end(stage)
	d := s.description
	if !slices.Contains([]plugin.Kind{plugin.KindSource, plugin.KindFilter, plugin.KindCache, plugin.KindSink}, plugin.Kind(d.Kind)) {
		s.description = nil
		return fmt.Errorf("it says that it is a %q: a plugin is a source, a filter, a cache or a sink", d.Kind)
	}
	if wrong := pipeline.CheckName(d.Type); wrong != "" {
		return fmt.Errorf("it says that its type is %q. %s", d.Type, wrong)
	}
	if d.Summary == "" {
		return errors.New("its description has no summary, which people read in lists of plugins")
	}
	return nil
}

// loadBlock decodes the block that was given, as a pipeline's.
func (s *session) loadBlock() error {
	stage, err := s.launch()
	if err != nil {
		return err
	}
	defer s.end(stage)
	if pipeline.CheckSchema(s.description.Schema) != nil {
		s.config, s.traits = []byte("{}"), &stagepb.Traits{}
		return nil // the check of the schema says so
	}
	name := s.options.BlockName
	if name == "" {
		name = "block"
	}
	config, traits, files, diags := pipeline.LoadBlock(s.ctx, name, s.options.Block, s.description.Schema,
		func(ctx context.Context, json []byte) (*stagepb.Configured, error) {
			ctx, cancel := context.WithTimeout(ctx, s.options.Patience)
			defer cancel()
			return stage.Configure(ctx, &stagepb.Configuration{Json: json})
		})
	if diags.HasErrors() {
		return &BlockError{files, diags}
	}
	if traits.Kernel && !s.options.Kernel && s.description.Kind == string(plugin.KindSink) {
		return ErrKernel
	}
	s.config, s.traits = config, traits
	return nil
}

func (s *session) schema() error {
	if err := pipeline.CheckSchema(s.description.Schema); err != nil {
		return err
	}
	if err := checkNames("", s.description.Schema); err != nil {
		return err
	}
	stage, err := s.launch()
	if err != nil {
		return err
	}
	defer s.end(stage)
	ctx, cancel := context.WithTimeout(s.ctx, s.options.Patience)
	defer cancel()
	again, err := stage.Describe(ctx, &stagepb.DescribeRequest{})
	if err != nil {
		return err
	}
	if !proto.Equal(again, s.description) {
		return errors.New("it describes itself otherwise when asked again")
	}
	return nil
}

// checkNames checks what the names of a schema and its blocks are.
func checkNames(at string, schema *stagepb.Schema) error {
	seen := map[string]bool{}
	check := func(name, doc string) error {
		switch {
		case !hclsyntax.ValidIdentifier(name):
			return fmt.Errorf("%q can't be written in a pipeline: it is no identifier", at+name)
		case seen[name]:
			return fmt.Errorf("there are two %q", at+name)
		case doc == "":
			return fmt.Errorf("%q has no doc: one sentence for people, with the unit", at+name)
		}
		seen[name] = true
		return nil
	}
	for _, a := range schema.GetAttributes() {
		if err := check(a.Name, a.Doc); err != nil {
			return err
		}
		if a.Required && a.Default != "" {
			return fmt.Errorf("%q is required and has a default", at+a.Name)
		}
	}
	for _, b := range schema.GetBlocks() {
		if err := check(b.Name, "-"); err != nil {
			return err
		}
		if err := checkNames(at+b.Name+".", b.Schema); err != nil {
			return err
		}
	}
	return nil
}

// diagnose configures a process and returns what it found wrong.
func (s *session) diagnose(stage *Stage, config any) ([]*stagepb.Diagnostic, error) {
	text, isText := config.(string)
	if !isText {
		raw, err := json.Marshal(config)
		if err != nil {
			return nil, err
		}
		text = string(raw)
	}
	ctx, cancel := context.WithTimeout(s.ctx, s.options.Patience)
	defer cancel()
	reply, err := stage.Configure(ctx, &stagepb.Configuration{Json: []byte(text)})
	if err != nil {
		return nil, fmt.Errorf("configure with %s: %s", text, status.Convert(err).Message())
	}
	for _, d := range reply.Diagnostics {
		if d.Summary == "" || d.Detail == "" {
			return nil, fmt.Errorf("of %s it says %q, %q: a diagnostic has a summary and a detail", text, d.Summary, d.Detail)
		}
	}
	return reply.Diagnostics, nil
}

// object returns the configuration for a change.
func (s *session) object() map[string]any {
	object := map[string]any{}
	_ = json.Unmarshal(s.config, &object) // the pipeline's decoder wrote it
	return object
}

func (s *session) configure() error {
	stage, err := s.launch()
	if err != nil {
		return err
	}
	defer s.end(stage)
	nulls := s.object()
	for _, a := range s.description.Schema.Attributes {
		if _, given := nulls[a.Name]; !given && !a.Required {
			nulls[a.Name] = nil
		}
	}
	for _, config := range []any{s.object(), nulls, s.object()} {
		found, err := s.diagnose(stage, config)
		if err != nil {
			return err
		}
		if len(found) > 0 {
			text, _ := json.Marshal(config)
			return fmt.Errorf("it refuses %s: %s: %s", text, found[0].Summary, found[0].Detail)
		}
	}
	return nil
}

func (s *session) refuse() error {
	stage, err := s.launch()
	if err != nil {
		return err
	}
	defer s.end(stage)
	for _, text := range []string{"", "no JSON", "[]"} {
		if found, err := s.diagnose(stage, text); err != nil || len(found) == 0 {
			return cmpError(err, fmt.Errorf("it accepts %q, which is no JSON object", text))
		}
	}
	unknown := s.object()
	unknown["no_such_attribute"] = 1
	if found, err := s.diagnose(stage, unknown); err != nil || len(found) == 0 {
		return cmpError(err, errors.New(`it accepts the attribute "no_such_attribute"`))
	}
	for _, a := range s.description.Schema.Attributes {
		if err := s.refuseAttribute(stage, a); err != nil {
			return err
		}
	}
	for _, b := range s.description.Schema.Blocks {
		if err := s.refuseValue(stage, b.Name, "no block"); err != nil {
			return err
		}
	}
	if found, err := s.diagnose(stage, s.object()); err != nil || len(found) > 0 {
		return cmpError(err, errors.New("after it refused others it refuses its own configuration"))
	}
	return nil
}

func cmpError(err, otherwise error) error {
	if err != nil {
		return err
	}
	return otherwise
}

// refuseAttribute tries an attribute with a wrong value, and without a required
// one.
func (s *session) refuseAttribute(stage *Stage, a *stagepb.Attribute) error {
	if wrong, known := wrongValue(a); known {
		if err := s.refuseValue(stage, a.Name, wrong); err != nil {
			return err
		}
	}
	if !a.Required {
		return nil
	}
	without := s.object()
	delete(without, a.Name)
	found, err := s.diagnose(stage, without)
	if err != nil {
		return err
	}
	for _, d := range found {
		if strings.Contains(d.Summary+d.Detail, a.Name) || points(d, a.Name) {
			return nil
		}
	}
	return fmt.Errorf("without the required attribute %q it says nothing of it", a.Name)
}

// wrongValue returns a value that does not fit an attribute.
func wrongValue(a *stagepb.Attribute) (value any, known bool) {
	switch {
	case a.Format == "address", a.Format == "prefix", a.Format == "duration":
		if strings.HasPrefix(a.Type, "list(") {
			return []string{"no such thing"}, true
		}
		return "no such thing", true
	case a.Format == "size", a.Format == "selection":
		return map[string]any{"no": "such thing"}, true
	case a.Type == "any":
		return nil, false
	}
	return map[string]any{"no": map[string]any{"such": "thing"}}, true
}

func (s *session) refuseValue(stage *Stage, name string, value any) error {
	wrong := s.object()
	wrong[name] = value
	found, err := s.diagnose(stage, wrong)
	if err != nil {
		return err
	}
	text, _ := json.Marshal(value)
	if len(found) == 0 {
		return fmt.Errorf("it accepts %s = %s", name, text)
	}
	for _, d := range found {
		if points(d, name) {
			return nil
		}
	}
	return fmt.Errorf("it refuses %s = %s, but no diagnostic's path begins with %q, so the administrator is not shown the line", name, text, name)
}

func points(d *stagepb.Diagnostic, name string) bool {
	return len(d.Path) > 0 && d.Path[0].GetName() == name
}

// early calls what needs a started stage, and starts before it is configured.
func (s *session) early() error {
	stage, err := s.launch()
	if err != nil {
		return err
	}
	defer s.end(stage)
	ctx, cancel := context.WithTimeout(s.ctx, s.options.Patience)
	defer cancel()
	calls := map[string]func() error{
		"Start":      func() error { r, err := stage.Start(ctx, &stagepb.StartRequest{}); return startError(r, err) },
		"Statistics": func() error { _, err := stage.Statistics(ctx, &stagepb.Empty{}); return err },
		"Replay":     func() error { _, err := stage.Replay(ctx, &stagepb.ReplayRequest{Id: 1}); return err },
		"Drain":      func() error { _, err := stage.StageClient.Drain(ctx, &stagepb.Empty{}); return err },
	}
	for _, name := range slices.Sorted(maps.Keys(calls)) {
		err := calls[name]()
		if err == nil {
			return fmt.Errorf("it answers %s, though it is not configured and started", name)
		}
		if code := status.Code(err); code == codes.Unavailable || code == codes.DeadlineExceeded {
			return fmt.Errorf("it does not survive %s before it is configured and started: %w", name, err)
		}
	}
	if _, err := stage.Describe(ctx, &stagepb.DescribeRequest{}); err != nil {
		return fmt.Errorf("after calls that came too early it describes itself no more: %w", err)
	}
	return nil
}

// startError is the error of a start, wherever it is.
func startError(r *stagepb.Started, err error) error {
	if err == nil && r.Error != "" {
		return errors.New(r.Error)
	}
	return err
}

func (s *session) commands() error {
	stage, err := s.collected()
	if err != nil {
		return err
	}
	defer s.end(stage)
	names := s.traits.Commands
	if len(names) > 0 && stage.sent == 0 && plugin.Kind(s.description.Kind) == plugin.KindCache {
		if err := s.dump(stage); err != nil {
			return err
		}
	}
	_, err = stage.Ask(&stagepb.CommandRequest{Name: "no-such-command"})
	if err == nil && !slices.Contains(names, "no-such-command") {
		return errors.New(`it carries out a command "no-such-command"`)
	}
	if code := status.Code(err); code == codes.Unavailable || code == codes.DeadlineExceeded {
		return fmt.Errorf(`it does not survive a command that it does not know: %w%s`, err, stage.wrote())
	}
	_, err = stage.Numbers()
	return err
}

// dump has a cache dump what it holds, and forget it.
func (s *session) dump(stage *Stage) error {
	const flows = 10
	if err := stage.FeedEvents(Events(0, flows, flow.New)...); err != nil {
		return err
	}
	if err := stage.AwaitRead(); err != nil {
		return err
	}
	lines := func() (n int, err error) {
		out, err := stage.Ask(&stagepb.CommandRequest{Name: "dump", Json: true})
		if err != nil {
			return 0, fmt.Errorf("dump: %w", err)
		}
		for line := range strings.Lines(string(out)) {
			if !json.Valid([]byte(line)) {
				return 0, fmt.Errorf("dump with JSON: this is no JSON: %.100s", line)
			}
			n++
		}
		return n, nil
	}
	if !slices.Contains(s.traits.Commands, "dump") {
		return nil
	}
	if n, err := lines(); err != nil || n != flows {
		return cmpError(err, fmt.Errorf("it was told of %d flows and dumps %d lines", flows, n))
	}
	if !slices.Contains(s.traits.Commands, "flush") {
		return nil
	}
	if _, err := stage.Ask(&stagepb.CommandRequest{Name: "flush"}); err != nil {
		return fmt.Errorf("flush: %w", err)
	}
	if n, err := lines(); err != nil || n != 0 {
		return cmpError(err, fmt.Errorf("after a flush it dumps %d lines", n))
	}
	return nil
}

// logObserved is how long a stage that has nothing to do is listened to.
const logObserved = 500 * time.Millisecond

// log looks at what all processes wrote.
func (s *session) log() error {
	if plugin.Kind(s.description.Kind) != plugin.KindSource && s.lines == 0 {
		stage, err := s.collected()
		if err == nil { // whatever else is wrong, other checks say
			_ = stage.FeedEvents(Events(0, 3000, flow.Update)...)
			_ = stage.AwaitRead()
			for begun := time.Now(); time.Since(begun) < logObserved && stage.DroppedLines() == 0; {
				time.Sleep(10 * time.Millisecond)
			}
			s.end(stage)
		}
	}
	if s.lines > 0 {
		return fmt.Errorf("%d lines of its log were more than a runner takes, which is 200 a second after 2000 at once: log what changes, not what passes", s.lines)
	}
	return nil
}
