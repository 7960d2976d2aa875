package trust

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"regexp"
	"slices"

	"github.com/google/renameio/v2"
	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/gohcl"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/hashicorp/hcl/v2/hclwrite"
	"github.com/zclconf/go-cty/cty"
	"golang.org/x/sys/unix"
)

// FileName is what a lock file is named that lies beside the pipelines.
const FileName = "sluice.lock.hcl"

// Suffix ends the names of lock files, which are no pipelines.
const Suffix = ".lock.hcl"

// An Entry is what a lock file says of one plugin.
type Entry struct {
	Plugin    string    // as in "filter-mark"
	Path      string    // where it lay when it was locked: for people
	SHA256    string    // of the program, 64 hexadecimal digits
	Signature []byte    // see Sign; nil: none
	Range     hcl.Range // the block's header; zero before it is in a file
}

// A Lock is a lock file's content.
type Lock struct {
	Path    string
	Entries map[string]Entry // by Plugin
}

// A block is an Entry as it is written.
type block struct {
	Plugin    string    `hcl:"plugin,label"`
	Path      string    `hcl:"path,optional"`
	SHA256    string    `hcl:"sha256"`
	Signature string    `hcl:"signature,optional"`
	Range     hcl.Range `hcl:",def_range"`
}

// pluginName matches what stages of a pipeline can name.
var pluginName = regexp.MustCompile(`^(source|filter|cache|sink)-[A-Za-z0-9_][A-Za-z0-9_-]{0,63}$`)

// IsPlugin says whether it can be a plugin's name, as in "filter-mark".
func IsPlugin(name string) bool { return pluginName.MatchString(name) }

// maxFile is the longest lock file that is read, in bytes.
const maxFile = 1 << 20

// Read reads a lock file. One that does not exist is nil, without a diagnostic.
// The file is for diagnostics to quote.
func Read(path string) (*Lock, *hcl.File, hcl.Diagnostics) {
	text, err := readFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, hcl.Diagnostics{{Severity: hcl.DiagError, Summary: "Unreadable lock file",
			Detail: fmt.Sprintf("What plugins are locked to can't be read: %v.", err)}}
	}
	file, diags := hclsyntax.ParseConfig(text, path, hcl.InitialPos)
	if diags.HasErrors() {
		return nil, file, diags
	}
	var content struct {
		Plugins []block `hcl:"plugin,block"`
	}
	if diags = gohcl.DecodeBody(file.Body, nil, &content); diags.HasErrors() {
		return nil, file, diags
	}
	lock := &Lock{Path: path, Entries: map[string]Entry{}}
	for _, b := range content.Plugins {
		e, diag := b.entry()
		if _, twice := lock.Entries[e.Plugin]; twice && diag == nil {
			diag = b.wrong("Duplicate plugin", fmt.Sprintf("The plugin %q is named twice.", e.Plugin))
		}
		if diag != nil {
			diags = append(diags, diag)
			continue
		}
		lock.Entries[e.Plugin] = e
	}
	return lock, file, diags
}

// readFile reads a file, and nothing that may have no end.
func readFile(path string) ([]byte, error) {
	file, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if info, err := file.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(err, fmt.Errorf("%s is no regular file", path))
	}
	text, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	if err == nil && len(text) > maxFile {
		err = fmt.Errorf("%s has more than %d bytes", path, maxFile)
	}
	return text, err
}

func (b *block) entry() (e Entry, diag *hcl.Diagnostic) {
	e = Entry{Plugin: b.Plugin, Path: b.Path, SHA256: b.SHA256, Range: b.Range}
	if !pluginName.MatchString(b.Plugin) {
		return e, b.wrong("Invalid name", fmt.Sprintf("%q is no plugin's name, as in filter-mark.", b.Plugin))
	}
	if sum, err := hex.DecodeString(b.SHA256); err != nil || len(sum) != 32 || hex.EncodeToString(sum) != b.SHA256 {
		return e, b.wrong("Invalid SHA-256", fmt.Sprintf("A SHA-256 has 64 hexadecimal digits, of a to f in lower case; that of %s has not.", b.Plugin))
	}
	if b.Signature == "" {
		return e, nil
	}
	var err error
	if e.Signature, err = base64.StdEncoding.DecodeString(b.Signature); err != nil {
		return e, b.wrong("Invalid signature", fmt.Sprintf("The signature of %s is no base64: %v.", b.Plugin, err))
	}
	return e, nil
}

func (b *block) wrong(summary, detail string) *hcl.Diagnostic {
	return &hcl.Diagnostic{Severity: hcl.DiagError, Summary: summary, Detail: detail, Subject: &b.Range}
}

const header = `# The programs of other vendors' plugins that the pipelines beside this file may run.
# Written by ` + "`sluice plugin lock`" + `: run it again when a plugin was changed on purpose.

`

// Sorted returns the entries by their plugins' names.
func (l *Lock) Sorted() (entries []Entry) {
	for _, name := range slices.Sorted(maps.Keys(l.Entries)) {
		entries = append(entries, l.Entries[name])
	}
	return entries
}

// Bytes returns the file's text: the same for the same entries.
func (l *Lock) Bytes() []byte {
	file := hclwrite.NewEmptyFile()
	for i, e := range l.Sorted() {
		if i > 0 {
			file.Body().AppendNewline()
		}
		body := file.Body().AppendNewBlock("plugin", []string{e.Plugin}).Body()
		if e.Path != "" {
			body.SetAttributeValue("path", cty.StringVal(e.Path))
		}
		body.SetAttributeValue("sha256", cty.StringVal(e.SHA256))
		if e.Signature != nil {
			body.SetAttributeValue("signature", cty.StringVal(base64.StdEncoding.EncodeToString(e.Signature)))
		}
	}
	return append([]byte(header), hclwrite.Format(file.Bytes())...)
}

// Write writes the file, whole or not at all, and says whether it was another one
// before.
func (l *Lock) Write() (changed bool, err error) {
	text := l.Bytes()
	if before, err := os.ReadFile(l.Path); err == nil && bytes.Equal(before, text) {
		return false, nil
	}
	return true, renameio.WriteFile(l.Path, text, 0o644, renameio.WithExistingPermissions())
}
