package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sluice-project/sluice/core/pipeline"
)

func (a *app) pluginList() *cobra.Command {
	var c configuration
	cmd := &cobra.Command{
		Use:   "list [-f FILE|DIR]",
		Short: "Show which plugins there are",
		Long: `Show the plugins that there are: the bundled ones, and those of other vendors in plugin_path, with their version, where
they are from, whether the lock file of the pipelines vouches for them, and the beginning of their SHA-256. Nothing is executed.

Without -f the default plugin_path is looked at, and no lock file. The version is what the go command put into a program.`,
		Example: `  sluice plugin list
  sluice plugin list -f /etc/sluice -o json`,
		Args: takes(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.listPlugins(cmd.Context(), c) },
	}
	c.addFlags(cmd)
	return cmd
}

func (a *app) listPlugins(ctx context.Context, c configuration) error {
	survey := &pipeline.Survey{Runner: pipeline.DefaultRunner()}
	if len(c.paths) > 0 {
		var err error
		if survey, err = a.look(ctx, c); err != nil {
			return err
		}
	}
	all := pluginsIn(survey)
	if len(c.paths) == 0 {
		for i := range all {
			all[i].Lock, all[i].Detail = "", ""
		}
	}
	if a.json() {
		return a.printJSON(struct {
			Plugins []trustedPlugin `json:"plugins"`
		}{all})
	}
	var table rows
	table.row("KIND", "TYPE", "VERSION", "FROM", "LOCK", "SHA-256", "PATH")
	for _, p := range all {
		table.row(p.Kind, p.Type, p.Version, p.Origin, p.Lock, short(p.SHA256), p.Path)
	}
	return table.write(a.stdout)
}

// pluginsIn returns the plugins that there are: bundled ones first, then those that
// were found, then those that are used and missing.
func pluginsIn(s *pipeline.Survey) (all []trustedPlugin) {
	seen := map[string]bool{}
	for _, name := range bundledNames() {
		kind, typ, _ := strings.Cut(name, "-")
		p := trustedPlugin{Name: name, Kind: kind, Type: typ, Origin: "bundled", Version: thisBuild().Version}
		for _, u := range s.Uses {
			if u.Plugin() == name {
				p.UsedBy = append(p.UsedBy, u.Address)
			}
		}
		all = append(all, p)
	}
	for _, f := range pluginsOf(s.Runner).Found() {
		p := judge(s, f.Kind, f.Type)
		seen[p.Name] = true
		all = append(all, p)
	}
	for _, u := range vendors(s) {
		if !seen[u.Plugin()] {
			all = append(all, judge(s, u.Kind, u.Type))
		}
	}
	return all
}

func (a *app) pluginVerify() *cobra.Command {
	var c configuration
	cmd := &cobra.Command{
		Use:   "verify -f FILE|DIR",
		Short: "Compare vendors' plugins with the lock file",
		Long: `Compare the vendors' plugins that pipelines use with their lock file, as a runner would, and name each that it would
refuse. Nothing is executed. The exit status is 0 if there is none, 1 if there is one.`,
		Example: `  sluice plugin verify -f /etc/sluice`,
		Args:    takes(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := c.check(); err != nil {
				return err
			}
			return a.verifyPlugins(cmd.Context(), c)
		},
	}
	c.addFlags(cmd)
	return cmd
}

// A verification is what `sluice plugin verify` says.
type verification struct {
	File    string          `json:"file"`
	Valid   bool            `json:"valid"`
	Plugins []trustedPlugin `json:"plugins"`
	Unused  []string        `json:"unused,omitempty"` // what the lock names besides
}

func (a *app) verifyPlugins(ctx context.Context, c configuration) error {
	survey, err := a.look(ctx, c)
	if err != nil {
		return err
	}
	v := verification{File: survey.Policy.File, Valid: true, Plugins: []trustedPlugin{}}
	for _, u := range vendors(survey) {
		p := judge(survey, u.Kind, u.Type)
		v.Valid = v.Valid && !p.faulty()
		v.Plugins = append(v.Plugins, p)
	}
	for _, e := range unused(survey) {
		v.Unused = append(v.Unused, e.Plugin)
	}
	if a.json() {
		err = a.printJSON(v)
	} else {
		err = a.showVerification(v)
	}
	if err == nil && !v.Valid {
		err = errReported
	}
	return err
}

func (a *app) showVerification(v verification) error {
	var table rows
	for _, p := range v.Plugins {
		note := p.Path
		switch {
		case p.faulty():
			note = p.Detail
		case p.Lock == unlockedState:
			note = fmt.Sprintf("%s (unlocked = true in %s)", p.Path, strings.Join(p.Free, ", "))
		}
		table.row(p.Lock, p.Name, note)
	}
	for _, name := range v.Unused {
		table.row("unused", name, "in "+v.File)
	}
	if len(v.Plugins) == 0 {
		table.row("the pipelines use no plugin of another vendor")
	}
	return table.write(a.stdout)
}
