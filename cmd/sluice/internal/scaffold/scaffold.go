package scaffold

import (
	"bytes"
	"cmp"
	"embed"
	"errors"
	"fmt"
	"go/format"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"text/template"

	"golang.org/x/mod/modfile"
	"golang.org/x/mod/module"
	"golang.org/x/mod/semver"

	"github.com/sluice-project/sluice/core/plugin"
)

//go:embed all:templates
var templates embed.FS

// sdk is the module that a plugin is written with.
const sdk = "github.com/sluice-project/sluice"

// A Plugin is what to make.
type Plugin struct {
	Kind    plugin.Kind
	Name    string   // of the type
	Module  string   // its path; "": as the executable is named
	Version string   // of Sluice, as "v1.2.3"; any other is left for `go mod tidy` to choose
	SDK     string   // a checkout of Sluice to build with; "": the released module
	Bundled []string // names of plugins that are taken, as in "filter-basic"
}

// Executable is the name that runners look for.
func (p Plugin) Executable() string { return "sluice-" + string(p.Kind) + "-" + p.Name }

var namePattern = regexp.MustCompile(`^[a-z][a-z0-9]*(-[a-z0-9]+)*$`)

// maxName leaves room for the kind in a file's name, and in a column of status.
const maxName = 40

// Check says what is wrong with the kind, the name or the module's path.
func (p Plugin) Check() error {
	if !slices.Contains([]plugin.Kind{plugin.KindSource, plugin.KindFilter, plugin.KindCache, plugin.KindSink}, p.Kind) {
		return fmt.Errorf("there is no kind %q: a plugin is a source, a filter, a cache or a sink", p.Kind)
	}
	short := strings.TrimPrefix(strings.TrimPrefix(p.Name, "sluice-"), string(p.Kind)+"-")
	switch {
	case short != p.Name && namePattern.MatchString(short):
		return fmt.Errorf("name it %s: its executable is then sluice-%s-%s by itself", short, p.Kind, short)
	case !namePattern.MatchString(p.Name):
		return fmt.Errorf("%q is no name for a plugin: write lower-case letters, digits and single hyphens, a letter first, as in %s", p.Name, cmp.Or(suggestion(p.Name), "mark"))
	case len(p.Name) > maxName:
		return fmt.Errorf("the name has %d characters: at most %d, please", len(p.Name), maxName)
	case slices.Contains(p.Bundled, string(p.Kind)+"-"+p.Name):
		return fmt.Errorf("there is a bundled %s %q, which a runner takes first: choose another name", p.Kind, p.Name)
	}
	if err := module.CheckImportPath(p.module()); err != nil {
		return fmt.Errorf("%q is no path for a module: %w", p.module(), err)
	}
	return nil
}

// suggestion makes a name of what was written, or "".
func suggestion(name string) string {
	name = strings.Trim(regexp.MustCompile(`[^a-z0-9]+`).ReplaceAllString(strings.ToLower(name), "-"), "-0123456789")
	if !namePattern.MatchString(name) {
		return ""
	}
	return name
}

func (p Plugin) module() string { return cmp.Or(p.Module, p.Executable()) }

// Write makes the folder and returns the files in it. On error nothing is left of
// what it made.
func Write(dir string, p Plugin) (files []string, err error) {
	if err := p.Check(); err != nil {
		return nil, err
	}
	contents, err := p.render()
	if err != nil {
		return nil, err
	}
	if entries, err := os.ReadDir(dir); err == nil && len(entries) > 0 {
		return nil, fmt.Errorf("%s is there already and not empty: name another folder with --dir", dir)
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	for name, content := range contents {
		file := filepath.Join(dir, name)
		if err = os.MkdirAll(filepath.Dir(file), 0o755); err == nil {
			err = os.WriteFile(file, content, 0o644)
		}
		if err != nil {
			return nil, errors.Join(err, os.RemoveAll(dir))
		}
		files = append(files, name)
	}
	slices.Sort(files)
	return files, nil
}

// render returns the files by their names.
func (p Plugin) render() (map[string][]byte, error) {
	files := map[string][]byte{}
	for _, root := range []string{"templates/all", "templates/" + string(p.Kind)} {
		err := fs.WalkDir(templates, root, func(file string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			name := strings.TrimSuffix(strings.TrimPrefix(file, root+"/"), ".tmpl")
			name = strings.ReplaceAll(name, "dot-", ".")
			files[name], err = p.file(file)
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	var err error
	files["go.mod"], files["go.sum"], err = p.goMod()
	if len(files["go.sum"]) == 0 {
		delete(files, "go.sum")
	}
	return files, err
}

// file fills one template in.
func (p Plugin) file(name string) ([]byte, error) {
	text, err := templates.ReadFile(name)
	if err != nil {
		return nil, err
	}
	// The delimiters are none that Go, HCL or GitHub's workflows use.
	t, err := template.New(path.Base(name)).Delims("<<", ">>").Parse(string(text))
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	err = t.Execute(&out, map[string]any{
		"Kind": p.Kind, "Name": p.Name, "Executable": p.Executable(),
		"Title": strings.ToUpper(p.Executable()[:1]) + p.Executable()[1:], "Tidy": p.SDK == "",
	})
	if err != nil || !strings.HasSuffix(name, ".go.tmpl") {
		return out.Bytes(), err
	}
	return format.Source(out.Bytes())
}

// goMod returns go.mod and, with a checkout of Sluice, the go.sum that goes with
// it, so that nothing need be downloaded that Sluice was not built with.
func (p Plugin) goMod() (mod, sum []byte, err error) {
	file := &modfile.File{}
	if err := file.AddModuleStmt(p.module()); err != nil {
		return nil, nil, err
	}
	if p.SDK == "" {
		err = file.AddGoStmt(goVersion)
		if err == nil && semver.Canonical(p.Version) == p.Version && semver.Prerelease(p.Version) == "" && p.Version != "" {
			err = file.AddRequire(sdk, p.Version)
		}
		return p.formatted(file, nil, err)
	}
	theirs, err := p.sdkMod()
	if err != nil {
		return nil, nil, err
	}
	if err := errors.Join(file.AddGoStmt(theirs.Go.Version), file.AddRequire(sdk, "v0.0.0"), file.AddReplace(sdk, "", p.SDK, "")); err != nil {
		return nil, nil, err
	}
	for _, r := range theirs.Require {
		file.AddNewRequire(r.Mod.Path, r.Mod.Version, true)
	}
	sum, err = os.ReadFile(filepath.Join(p.SDK, "go.sum"))
	return p.formatted(file, sum, err)
}

// goVersion is the language's that a plugin needs.
const goVersion = "1.26"

// sdkMod reads the go.mod of the checkout.
func (p Plugin) sdkMod() (*modfile.File, error) {
	name := filepath.Join(p.SDK, "go.mod")
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("%s is no checkout of Sluice: %w", p.SDK, err)
	}
	file, err := modfile.Parse(name, text, nil)
	if err != nil {
		return nil, err
	}
	if file.Module == nil || file.Module.Mod.Path != sdk || file.Go == nil {
		return nil, fmt.Errorf("%s is no checkout of Sluice: its go.mod is of another module", p.SDK)
	}
	return file, nil
}

func (p Plugin) formatted(file *modfile.File, sum []byte, err error) ([]byte, []byte, error) {
	if err != nil {
		return nil, nil, err
	}
	file.Cleanup()
	text, err := file.Format()
	return text, sum, err
}
