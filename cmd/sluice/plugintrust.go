package main

import (
	"cmp"
	"context"
	"debug/buildinfo"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/hashicorp/hcl/v2"

	"github.com/sluice-project/sluice/core/confine"
	"github.com/sluice-project/sluice/core/pipeline"
	"github.com/sluice-project/sluice/core/plugin"
	"github.com/sluice-project/sluice/core/trust"
)

// A trustedPlugin is what list and verify say about a plugin.
type trustedPlugin struct {
	Name    string   `json:"name"` // as in filter-mark
	Kind    string   `json:"kind"`
	Type    string   `json:"type"`
	Origin  string   `json:"origin"` // bundled or vendor
	Version string   `json:"version,omitempty"`
	Path    string   `json:"path,omitempty"`
	SHA256  string   `json:"sha256,omitempty"`
	Lock    string   `json:"lock,omitempty"`     // locked, signed, unlocked, a trust.Problem, or missing; "": nobody asked
	Detail  string   `json:"detail,omitempty"`   // what is wrong
	UsedBy  []string `json:"used_by,omitempty"`  // addresses of stages
	Free    []string `json:"unlocked,omitempty"` // those of them that say unlocked = true
}

// The values of trustedPlugin.Lock beside trust.Problem.
const (
	lockedState   = "locked"
	signedState   = "signed"
	unlockedState = "unlocked"
	missingState  = "missing"
)

// faulty says whether a runner refuses the plugin.
func (p *trustedPlugin) faulty() bool { return p.Detail != "" }

// look reads which plugins the files use. What is wrong with the files is shown.
func (a *app) look(ctx context.Context, c configuration) (*pipeline.Survey, error) {
	survey, files, diags := pipeline.Look(ctx, pipeline.Options{
		Paths: c.paths, Variables: c.variables, VariableFiles: c.variableFiles,
	}, pluginsOf(pipeline.Runner{}).Bundles)
	if err := pipeline.WriteText(a.stderr, files, diags); err != nil {
		return nil, err
	}
	if survey == nil {
		return nil, invalid(pipeline.Judge(files, diags))
	}
	return survey, nil
}

// judge says of a vendor's plugin what a runner of the survey would.
func judge(s *pipeline.Survey, kind plugin.Kind, typ string) trustedPlugin {
	p := trustedPlugin{Name: string(kind) + "-" + typ, Kind: string(kind), Type: typ, Origin: "vendor"}
	for _, u := range s.Uses {
		if u.Plugin() == p.Name {
			p.UsedBy = append(p.UsedBy, u.Address)
			if u.Unlocked {
				p.Free = append(p.Free, u.Address)
			}
		}
	}
	if err := p.identify(s, kind, typ); err != nil {
		p.Lock, p.Detail = missingState, upperFirst(err.Error())+"."
		return p
	}
	why := s.Policy.Judge(p.Name, p.SHA256)
	switch {
	case why == "" && len(s.Policy.Keys) > 0:
		p.Lock = signedState
	case why == "":
		p.Lock = lockedState
	case len(p.UsedBy) > 0 && len(p.Free) == len(p.UsedBy):
		p.Lock = unlockedState
	default:
		p.Lock, p.Detail = string(why), s.Policy.Explain(why, p.Name, p.Path, p.SHA256)
	}
	return p
}

// identify finds the program and takes its hash. Nothing is executed.
func (p *trustedPlugin) identify(s *pipeline.Survey, kind plugin.Kind, typ string) (err error) {
	if p.Path, err = pluginsOf(s.Runner).Locate(kind, typ); err != nil {
		if errors.Is(err, pipeline.ErrUnknownPlugin) {
			return fmt.Errorf("there is no executable sluice-%s in %s", p.Name, strings.Join(s.Runner.PluginPath, " or "))
		}
		return err
	}
	p.Version = versionOf(p.Path)
	p.SHA256, err = confine.Sum(p.Path)
	return err
}

// versionOf returns the version that the go command put into a program; "": it is
// of another language, or of no release. The program may be a hostile one, for
// which the readers of its format are not made: they may panic.
func versionOf(path string) (version string) {
	defer func() {
		if recover() != nil {
			version = ""
		}
	}()
	info, err := buildinfo.ReadFile(path)
	if err != nil || info.Main.Version == "(devel)" || !isWord(info.Main.Version) {
		return ""
	}
	return info.Main.Version
}

// isWord says whether a version can be shown: it is as the program says.
func isWord(version string) bool {
	return len(version) <= 128 && !strings.ContainsFunc(version, func(r rune) bool { return r <= ' ' || r > '~' })
}

// vendors returns the plugins of the survey that are not bundled, by name.
func vendors(s *pipeline.Survey) (uses []pipeline.Use) {
	names, first := s.Plugins()
	bundled := pluginsOf(s.Runner)
	for _, name := range names {
		if u := first[name]; !bundled.Bundles(u.Kind, u.Type) {
			uses = append(uses, u)
		}
	}
	return uses
}

func upperFirst(text string) string { return strings.ToUpper(text[:1]) + text[1:] }

// at points at a place in the user's files.
func at(r hcl.Range) string { return fmt.Sprintf("%s:%d", r.Filename, r.Start.Line) }

// unused returns what the lock names and nothing uses.
func unused(s *pipeline.Survey) (entries []trust.Entry) {
	if s.Policy.Lock == nil {
		return nil
	}
	_, first := s.Plugins()
	for _, e := range s.Policy.Lock.Sorted() {
		if _, used := first[e.Plugin]; !used {
			entries = append(entries, e)
		}
	}
	return entries
}

// short is as much of a SHA-256 as people are shown.
func short(sum string) string { return sum[:min(12, len(sum))] }

// rows are a table that is not cut: paths are for copying.
type rows [][]string

// row adds a row; what is empty is a dash.
func (r *rows) row(cells ...string) {
	for i, c := range cells {
		cells[i] = cmp.Or(c, "-")
	}
	*r = append(*r, cells)
}

func (r rows) write(to io.Writer) error {
	w := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	for _, row := range r {
		fmt.Fprintln(w, strings.Join(row, "\t"))
	}
	return w.Flush()
}
