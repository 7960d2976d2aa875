package pipeline

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"

	"github.com/sluice-project/sluice/core/plugin"
	"github.com/sluice-project/sluice/core/trust"
)

// loadTrust reads the lock file of a runner, if there is one.
func (l *loader) loadTrust(r *Runner) {
	l.policy.File = l.lockFile(r)
	for _, text := range r.LockKeys {
		if key, err := trust.PublicKey(text); err == nil { // else its diagnostic is there already
			l.policy.Keys = append(l.policy.Keys, key)
		}
	}
	if l.policy.File == "" {
		return
	}
	lock, file, diags := trust.Read(l.policy.File)
	if file != nil {
		l.files[l.policy.File] = file
	}
	l.add(diags)
	l.policy.Lock, l.lockBroken = lock, diags.HasErrors()
}

// lockFile returns where a runner's lock file is looked for: where the block says,
// or beside the pipelines that were named first.
func (l *loader) lockFile(r *Runner) string {
	switch {
	case r.PluginLock != "":
		return r.PluginLock
	case len(l.options.Paths) == 0:
		return ""
	}
	first := l.options.Paths[0]
	if info, err := os.Stat(first); err != nil || !info.IsDir() {
		first = filepath.Dir(first)
	}
	return filepath.Join(first, trust.FileName)
}

// isTrusted says whether a stage's plugin may be executed, and notes by what.
func (l *loader) isTrusted(s *stageDraft, unlocked *hcl.Attribute) bool {
	if unlocked != nil {
		s.Unlocked = l.isUnlocked(s, unlocked)
	}
	if l.plugins.Bundled(s.Kind, s.Type) {
		return true
	}
	if l.runnerBroken {
		return false // what it says of plugins is not known
	}
	path, sum, err := l.plugins.Program(s.Kind, s.Type)
	if err != nil { // asking it would be to look again, and to find what nobody has judged
		l.add(hcl.Diagnostics{l.pluginError(s, err, &s.typeRange)})
		return false
	}
	if s.Unlocked {
		return true
	}
	s.SHA256 = sum
	why := l.policy.Judge(s.plugin(), sum)
	if why != "" && !l.lockBroken {
		l.add(hcl.Diagnostics{failure(untrusted(why), l.policy.Explain(why, s.plugin(), path, sum)+l.advice(why), &s.typeRange)})
	}
	return why == ""
}

func untrusted(why trust.Problem) string {
	switch why {
	case trust.Changed:
		return "Plugin changed"
	case trust.NotSigned:
		return "Plugin not signed"
	case trust.BadSignature:
		return "Signature not trusted"
	}
	return "Plugin not locked"
}

// advice says what to do about a program that is not trusted.
func (l *loader) advice(why trust.Problem) string {
	command := "sluice plugin lock"
	if why.Unsigned() {
		command += " --key FILE"
	}
	for _, path := range l.options.Paths {
		command += " -f " + path
	}
	if why == trust.Changed {
		return fmt.Sprintf(" It is not executed. If it was changed on purpose: %s", command)
	}
	return fmt.Sprintf(" It is not executed. If you trust it: %s. Or write unlocked = true into this block, and whatever lies there is executed.", command)
}

// isUnlocked evaluates a stage's attribute unlocked.
func (l *loader) isUnlocked(s *stageDraft, a *hcl.Attribute) bool {
	if l.bundled(s.Kind, s.Type) {
		l.add(hcl.Diagnostics{failure("Bundled plugin unlocked", fmt.Sprintf(
			"%s is a part of Sluice and never locked. Only a vendor's plugin can be unlocked.", s.label()), &a.NameRange)})
		return false
	}
	unlocked, diags := l.scope.boolean(a.Expr, unlockedName)
	l.add(diags)
	return unlocked
}

const unlockedName = "unlocked"

// A Use is a stage that runs a plugin.
type Use struct {
	Address  string
	Kind     plugin.Kind
	Type     string
	Unlocked bool
	Range    hcl.Range // of the type's label
}

// Plugin names the plugin, as in "filter-mark".
func (u Use) Plugin() string { return string(u.Kind) + "-" + u.Type }

// A Survey is what a configuration says about plugins.
type Survey struct {
	Runner Runner
	Policy trust.Policy
	Uses   []Use // in the order of the stages
}

// Plugins returns the names of the plugins in use, in order, and the first use of
// each.
func (s *Survey) Plugins() (names []string, first map[string]Use) {
	first = map[string]Use{}
	for _, u := range s.Uses {
		if _, known := first[u.Plugin()]; !known {
			first[u.Plugin()] = u
		}
	}
	return slices.Sorted(maps.Keys(first)), first
}

// Look reads which plugins a configuration uses, and executes none: what is
// within a stage's block is not looked at. It returns nil and at least one error
// among the diagnostics, or what it found. Of the options the catalog is not used;
// bundled says which plugins are a part of Sluice.
func Look(ctx context.Context, o Options, bundled func(plugin.Kind, string) bool) (*Survey, Files, hcl.Diagnostics) {
	l := newLoader(ctx, o)
	l.bundled = bundled
	sources, diags := readSources(o.Paths, o.Texts)
	l.add(diags)
	blocks := l.parse(sources)
	s := &Survey{}
	if blocks != nil {
		l.loadVariables(blocks["variable"])
		l.loadLocals(blocks["locals"])
		s.Runner = l.loadRunner(blocks["runner"])
		l.loadTrust(&s.Runner)
		for _, b := range blocks["pipeline"] {
			s.Uses = append(s.Uses, l.uses(b)...)
		}
	}
	s.Policy = l.policy
	if _, _, diags = l.result(nil); diags.HasErrors() {
		s = nil
	}
	return s, l.files, diags
}

// uses returns the uses of a pipeline's block.
func (l *loader) uses(b *hcl.Block) (uses []Use) {
	content, diags := b.Body.Content(pipelineSchema)
	l.add(diags)
	for _, block := range content.Blocks {
		if !namePattern.MatchString(block.Labels[0]) {
			continue // Load says so
		}
		content, _, diags := block.Body.PartialContent(commonSchema)
		l.add(diags)
		s := newStageDraft(b.Labels[0], block)
		if a := content.Attributes["name"]; a != nil {
			l.nameStage(s, a)
		}
		if a := content.Attributes[unlockedName]; a != nil {
			s.Unlocked = l.isUnlocked(s, a)
		}
		uses = append(uses, Use{Address: s.Address(), Kind: s.Kind, Type: s.Type, Unlocked: s.Unlocked, Range: s.typeRange})
	}
	return uses
}

// plugin names a stage's plugin, as in "filter-mark".
func (s *Stage) plugin() string { return strings.Join([]string{string(s.Kind), s.Type}, "-") }
