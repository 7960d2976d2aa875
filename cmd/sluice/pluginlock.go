package main

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/sluice-project/sluice/core/pipeline"
	"github.com/sluice-project/sluice/core/trust"
)

func (a *app) pluginLock() *cobra.Command {
	var c configuration
	var key string
	cmd := &cobra.Command{
		Use:   "lock -f FILE|DIR",
		Short: "Write which programs of vendors' plugins may run",
		Long: `Write the lock file of pipelines: the SHA-256 of each vendor's plugin that they use, as it lies in plugin_path now.
A runner executes no other program for these stages. Nothing is executed to write it.

The file is plugin_lock of the runner block, by default sluice.lock.hcl beside the pipelines that are named first. Plugins
that are not used any more are taken out. With --key each plugin is signed as well; a runner with lock_keys demands it.
A key is made by: openssl genpkey -algorithm ed25519 -out FILE`,
		Example: `  sluice plugin lock -f /etc/sluice
  sluice plugin lock -f /etc/sluice --key sluice.key`,
		Args: takes(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := c.check(); err != nil {
				return err
			}
			return a.lockPlugins(cmd.Context(), c, key)
		},
	}
	c.addFlags(cmd)
	cmd.Flags().StringVar(&key, "key", "", "a `file` with a private key of ed25519 to sign with, in PEM")
	return cmd
}

// A lockReport is what `sluice plugin lock` says.
type lockReport struct {
	File    string         `json:"file"`
	Written bool           `json:"written"` // it was another one before
	Key     string         `json:"key,omitempty"`
	Plugins []lockedPlugin `json:"plugins"`
}

type lockedPlugin struct {
	Name   string `json:"name"`
	Change string `json:"change"` // added, changed, signed, kept or removed
	SHA256 string `json:"sha256"`
	Path   string `json:"path"`
	Signed bool   `json:"signed"`
}

func (a *app) lockPlugins(ctx context.Context, c configuration, keyFile string) error {
	var key ed25519.PrivateKey
	if keyFile != "" {
		var err error
		if key, err = trust.PrivateKey(keyFile); err != nil {
			return usageError(err.Error())
		}
	}
	survey, err := a.look(ctx, c)
	if err != nil {
		return err
	}
	report, lock, err := lockOf(survey, key)
	if err != nil {
		return err
	}
	if len(lock.Entries) > 0 || survey.Policy.Lock != nil {
		if report.Written, err = lock.Write(); err != nil {
			return err
		}
	}
	if a.json() {
		err = a.printJSON(report)
	} else {
		err = a.showLock(report)
	}
	a.warnOfSignatures(survey, lock)
	return err
}

// lockOf makes the lock of what is used. Signatures that still hold are kept.
func lockOf(s *pipeline.Survey, key ed25519.PrivateKey) (*lockReport, *trust.Lock, error) {
	lock := &trust.Lock{Path: s.Policy.File, Entries: map[string]trust.Entry{}}
	report := &lockReport{File: lock.Path, Plugins: []lockedPlugin{}}
	if key != nil {
		report.Key = trust.Line(key.Public().(ed25519.PublicKey))
	}
	for _, u := range vendors(s) {
		p := judge(s, u.Kind, u.Type)
		if p.SHA256 == "" {
			return nil, nil, fmt.Errorf("%s: %s: %s", at(u.Range), u.Address, p.Detail)
		}
		e := trust.Entry{Plugin: p.Name, Path: p.Path, SHA256: p.SHA256}
		change := "added"
		if before, known := entry(s.Policy.Lock, p.Name); known {
			change = "changed"
			if before.SHA256 == e.SHA256 {
				change, e.Signature = "kept", before.Signature
			}
		}
		if key != nil {
			before := string(e.Signature)
			if e.Signature = trust.Sign(key, e.Plugin, e.SHA256); change == "kept" && before != string(e.Signature) {
				change = "signed"
			}
		}
		lock.Entries[e.Plugin] = e
		report.Plugins = append(report.Plugins, lockedPlugin{p.Name, change, p.SHA256, p.Path, e.Signature != nil})
	}
	for _, e := range unused(s) {
		report.Plugins = append(report.Plugins, lockedPlugin{e.Plugin, "removed", e.SHA256, e.Path, e.Signature != nil})
	}
	return report, lock, nil
}

func entry(l *trust.Lock, name string) (e trust.Entry, known bool) {
	if l != nil {
		e, known = l.Entries[name]
	}
	return e, known
}

func (a *app) showLock(r *lockReport) error {
	var table rows
	for _, p := range r.Plugins {
		table.row(p.Change, p.Name, short(p.SHA256), p.Path)
	}
	if err := table.write(a.stdout); err != nil {
		return err
	}
	what := r.File + " is up to date"
	switch {
	case len(r.Plugins) == 0:
		what = "the pipelines use no plugin of another vendor"
	case r.Written:
		what = "wrote " + r.File
	}
	if r.Key != "" && len(r.Plugins) > 0 {
		what += "\nsigned; a runner takes it with lock_keys = [\"" + r.Key + "\"]"
	}
	_, err := fmt.Fprintln(a.stdout, what)
	return err
}

// warnOfSignatures says what a runner will refuse all the same.
func (a *app) warnOfSignatures(s *pipeline.Survey, lock *trust.Lock) {
	policy := trust.Policy{File: lock.Path, Lock: lock, Keys: s.Policy.Keys}
	for _, e := range lock.Sorted() {
		if why := policy.Judge(e.Plugin, e.SHA256); why.Unsigned() {
			fmt.Fprintf(a.stderr, "sluice: %s: %s: a runner refuses it because of lock_keys: lock it with --key and the key of one of these\n",
				cmp.Or(e.Path, e.Plugin), why)
		}
	}
}
