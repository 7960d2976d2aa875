package trust

import (
	"crypto/ed25519"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/hcl/v2"
	"golang.org/x/sys/unix"
)

const someSum = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"

func twoEntries() map[string]Entry {
	return map[string]Entry{
		"sink-acme":   {Plugin: "sink-acme", SHA256: someSum, Signature: []byte("signature")},
		"filter-mark": {Plugin: "filter-mark", Path: `/a "b"/${c}`, SHA256: strings.Repeat("0", 64)},
	}
}

// What is written is read as it was, and is the same when it is written again.
func TestLockIsWrittenAndRead(t *testing.T) {
	lock := &Lock{Path: filepath.Join(t.TempDir(), FileName), Entries: twoEntries()}
	if changed, err := lock.Write(); !changed || err != nil {
		t.Fatal(changed, err)
	}
	text, err := os.ReadFile(lock.Path)
	if err != nil || !strings.HasPrefix(string(text), "# ") || strings.Index(string(text), "filter-mark") > strings.Index(string(text), "sink-acme") {
		t.Errorf("%v\n%s", err, text)
	}
	back, _, diags := Read(lock.Path)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	for _, e := range back.Sorted() {
		want := lock.Entries[e.Plugin]
		if e.Path != want.Path || e.SHA256 != want.SHA256 || string(e.Signature) != string(want.Signature) || e.Range.Start.Line == 0 {
			t.Errorf("%+v\nwant %+v", e, want)
		}
	}
	if len(back.Entries) != 2 {
		t.Errorf("%d entries", len(back.Entries))
	}
	if changed, err := back.Write(); changed || err != nil {
		t.Errorf("the same is written again: %v, %v", changed, err)
	}
	if left, _ := filepath.Glob(filepath.Dir(lock.Path) + "/*"); len(left) != 1 {
		t.Errorf("there are %q", left)
	}
}

// What can stand in a pipeline can be locked.
func TestNamesThatCanBeLocked(t *testing.T) {
	for name, want := range map[string]bool{
		"filter-Mark_2": true, "sink-_a": true, "source-1-2": true, "cache-" + strings.Repeat("x", 64): true,
		"cache-" + strings.Repeat("x", 65): false, "filter-": false, "filter--x": false, "other-x": false, "filter-x\n": false, "filter-a/b": false,
	} {
		lock := &Lock{Path: filepath.Join(t.TempDir(), FileName), Entries: map[string]Entry{name: {Plugin: name, SHA256: someSum}}}
		if _, err := lock.Write(); err != nil {
			t.Fatal(err)
		}
		if back, _, diags := Read(lock.Path); IsPlugin(name) != want || diags.HasErrors() == want || want && back.Entries[name].SHA256 != someSum {
			t.Errorf("%q: %v", name, diags)
		}
	}
}

// A lock file is a file, and not a long one.
func TestOddLockFiles(t *testing.T) {
	dir := t.TempDir()
	fifo, long := filepath.Join(dir, "fifo"), filepath.Join(dir, "long")
	if err := errors.Join(unix.Mkfifo(fifo, 0o644), os.WriteFile(long, []byte(strings.Repeat("#", maxFile+1)), 0o644)); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{fifo: "no regular file", dir: "no regular file", "/dev/zero": "no regular file", long: "more than 1048576 bytes"} {
		read := make(chan hcl.Diagnostics, 1)
		go func() { _, _, diags := Read(path); read <- diags }()
		select {
		case diags := <-read:
			if len(diags) != 1 || !strings.Contains(diags[0].Detail, want) {
				t.Errorf("%s: %v, want %q", path, diags, want)
			}
		case <-time.After(30 * time.Second):
			t.Fatalf("%s: it is still read", path)
		}
	}
}

func TestNoLockFile(t *testing.T) {
	if lock, file, diags := Read(filepath.Join(t.TempDir(), "none")); lock != nil || file != nil || diags != nil {
		t.Error(lock, file, diags)
	}
}

func TestBadLockFilesAreRefused(t *testing.T) {
	for text, want := range map[string]string{
		`plugin "filter-mark" {`:  "no closing brace",
		`plugin "filter-mark" {}`: `"sha256" is required`,
		`plugin "mark" {
  sha256 = "` + someSum + `"
}`: `"mark" is no plugin's name`,
		`plugin "filter-mark" {
  sha256 = "` + strings.ToUpper(someSum) + `"
}`: "64 hexadecimal digits",
		`plugin "filter-mark" {
  sha256    = "` + someSum + `"
  signature = "?"
}`: "no base64",
		strings.Repeat(`plugin "filter-mark" {
  sha256 = "`+someSum+`"
}
`, 2): "named twice",
		`pipeline "x" {}`: "not expected here",
	} {
		path := filepath.Join(t.TempDir(), FileName)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		_, _, diags := Read(path)
		if !diags.HasErrors() || !strings.Contains(diags.Error()+diags[0].Detail, want) {
			t.Errorf("%s\n%v\nwant %q", text, diags, want)
		}
	}
}

func TestPolicy(t *testing.T) {
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	_, other, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	lockWith := func(signature []byte) *Lock {
		return &Lock{Entries: map[string]Entry{"filter-mark": {Plugin: "filter-mark", SHA256: someSum, Signature: signature}}}
	}
	keys := []ed25519.PublicKey{make([]byte, ed25519.PublicKeySize), public}
	for name, c := range map[string]struct {
		policy      Policy
		plugin, sum string
		want        Problem
		says        string
	}{
		"no file":         {Policy{File: "/l"}, "filter-mark", someSum, NoLock, "no lock file /l"},
		"nowhere":         {Policy{}, "filter-mark", someSum, NoLock, "no lock file that"},
		"locked":          {Policy{File: "/l", Lock: lockWith(nil)}, "filter-mark", someSum, "", ""},
		"another plugin":  {Policy{File: "/l", Lock: lockWith(nil)}, "sink-mark", someSum, NotLocked, "does not name sink-mark"},
		"changed":         {Policy{File: "/l", Lock: lockWith(nil)}, "filter-mark", "00", Changed, "/l line 0 says " + someSum},
		"signed":          {Policy{File: "/l", Lock: lockWith(Sign(private, "filter-mark", someSum)), Keys: keys}, "filter-mark", someSum, "", ""},
		"not signed":      {Policy{File: "/l", Lock: lockWith(nil), Keys: keys}, "filter-mark", someSum, NotSigned, "lock_keys"},
		"another key":     {Policy{File: "/l", Lock: lockWith(Sign(other, "filter-mark", someSum)), Keys: keys}, "filter-mark", someSum, BadSignature, "none of lock_keys"},
		"of another":      {Policy{File: "/l", Lock: lockWith(Sign(private, "sink-mark", someSum)), Keys: keys}, "filter-mark", someSum, BadSignature, "none of"},
		"too short":       {Policy{File: "/l", Lock: lockWith([]byte("x")), Keys: keys}, "filter-mark", someSum, BadSignature, "none of"},
		"signed, changed": {Policy{File: "/l", Lock: lockWith(Sign(private, "filter-mark", someSum)), Keys: keys}, "filter-mark", "00", Changed, "/p has the SHA-256 00"},
	} {
		got := c.policy.Judge(c.plugin, c.sum)
		if says := c.policy.Explain(got, c.plugin, "/p", c.sum); got != c.want || !strings.Contains(says, c.says) {
			t.Errorf("%s: %q, %q; want %q, %q", name, got, says, c.want, c.says)
		}
	}
}

// The keys are those of openssl, both ways, and so are the signatures.
func TestKeysOfOpenSSL(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("openssl is not installed")
	}
	dir := t.TempDir()
	openssl := func(args ...string) string {
		t.Helper()
		cmd := exec.Command("openssl", args...)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("openssl %v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	openssl("genpkey", "-algorithm", "ed25519", "-out", "key")
	private, err := PrivateKey(filepath.Join(dir, "key"))
	if err != nil {
		t.Fatal(err)
	}
	text := openssl("pkey", "-in", "key", "-pubout")
	public, err := PublicKey(text)
	if err != nil || !public.Equal(private.Public()) {
		t.Fatal(err)
	}
	if line := Line(public); line != strings.Split(text, "\n")[1] {
		t.Errorf("%s\n%s", line, text)
	} else if again, err := PublicKey(line); err != nil || !again.Equal(public) {
		t.Error(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "message"), message("filter-mark", someSum), 0o600); err != nil {
		t.Fatal(err)
	}
	openssl("pkeyutl", "-sign", "-inkey", "key", "-rawin", "-in", "message", "-out", "signature")
	signature, err := os.ReadFile(filepath.Join(dir, "signature"))
	e := Entry{Plugin: "filter-mark", SHA256: someSum, Signature: signature}
	if err != nil || !e.SignedBy([]ed25519.PublicKey{public}) {
		t.Error("the signature of openssl does not hold", err)
	}
	openssl("genpkey", "-algorithm", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", "ec")
	openssl("pkey", "-in", "key", "-pubout", "-out", "pub")
	for file, want := range map[string]string{"ec": "not a key of ed25519", "pub": "name the private one", "message": "no key in PEM", "none": "no such file"} {
		if _, err := PrivateKey(filepath.Join(dir, file)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", file, err, want)
		}
	}
	secret, _ := os.ReadFile(filepath.Join(dir, "key"))
	for text, want := range map[string]string{
		string(secret): "private key", "?": "neither PEM", "AAAA": "no public key", openssl("pkey", "-in", "ec", "-pubout"): "not of ed25519",
	} {
		if _, err := PublicKey(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add((&Lock{Entries: twoEntries()}).Bytes())
	f.Add([]byte(`plugin "filter-x" {`))
	f.Fuzz(func(t *testing.T, text []byte) {
		path := filepath.Join(t.TempDir(), FileName)
		if err := os.WriteFile(path, text, 0o644); err != nil {
			t.Fatal(err)
		}
		lock, _, diags := Read(path)
		if diags.HasErrors() {
			return
		}
		again := filepath.Join(t.TempDir(), FileName)
		if err := os.WriteFile(again, lock.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
		if back, _, diags := Read(again); diags.HasErrors() || string(back.Bytes()) != string(lock.Bytes()) {
			t.Errorf("%v\n%s", diags, lock.Bytes())
		}
	})
}
