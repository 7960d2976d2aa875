package runner

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sluice-project/sluice/core/confine"
	"github.com/sluice-project/sluice/core/pipeline"
	"github.com/sluice-project/sluice/core/plugin"
)

// oneVendor returns a configuration with a vendor's filter, and where that lies.
func oneVendor(t *testing.T, text string) (Plugins, *pipeline.Configuration, string) {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "sluice-filter-acme")
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	s := stageOf(plugin.KindFilter, "acme", object{}, nil)
	return Plugins{Path: []string{dir}}, &pipeline.Configuration{Pipelines: []*pipeline.Pipeline{{Name: "p", Stages: []*pipeline.Stage{s}}}}, path
}

func TestImagesAreThoseThatAreLocked(t *testing.T) {
	p, config, path := oneVendor(t, "one")
	s := config.Pipelines[0].Stages[0]
	sum, err := confine.Sum(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		locked   string
		unlocked bool
		want     string
	}{
		{"", false, "is not locked"},
		{strings.Repeat("0", 64), false, "has the SHA-256 " + sum + ", and is locked to 0"},
		{sum, false, ""},
		{"", true, ""},
	} {
		s.SHA256, s.Unlocked = c.locked, c.unlocked
		m, err := p.imagesOf(config, nil)
		if got := errorText(err); !strings.Contains(got, c.want) || (c.want == "") != (err == nil) {
			t.Errorf("%+v: %v", c, err)
		}
		m.close()
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// A program stays what it was, is shared while it is the same, and is closed with the
// last graph that has it.
func TestImagesAreShared(t *testing.T) {
	p, config, path := oneVendor(t, "one")
	config.Pipelines[0].Stages[0].Unlocked = true
	first, err := p.imagesOf(config, nil)
	if err != nil {
		t.Fatal(err)
	}
	second, err := p.imagesOf(config, first)
	if err != nil || second["filter-acme"] != first["filter-acme"] {
		t.Fatal("the same program was copied twice", err)
	}
	if err := os.WriteFile(path, []byte("two"), 0o755); err != nil {
		t.Fatal(err)
	}
	third, err := p.imagesOf(config, second)
	if err != nil || third["filter-acme"] == first["filter-acme"] {
		t.Fatal("another program is taken for the same", err)
	}
	defer third.close()
	first.close()
	file, err := second["filter-acme"].open()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if text, err := io.ReadAll(io.NewSectionReader(file, 0, 10)); err != nil || !bytes.Equal(text, []byte("one")) {
		t.Errorf("%q, %v", text, err)
	}
	second.close()
	if _, err := second["filter-acme"].open(); err == nil {
		t.Error("what nobody has is still open")
	}
}

// What can't be named in a pipeline is no plugin, whatever it is called.
func TestFoundHaveNames(t *testing.T) {
	p, _, path := oneVendor(t, "one")
	for _, odd := range []string{".new", "\x1b[2J", " x", "~"} {
		if err := os.WriteFile(path+odd, nil, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if found := p.Found(); len(found) != 1 || found[0].Path != path {
		t.Errorf("found %q", found)
	}
}
