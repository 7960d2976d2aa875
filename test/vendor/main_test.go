package vendor

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluice-project/sluice/test/node"
)

// patience bounds waits for conditions.
const patience = 60 * time.Second

// root is the repository's, binary the sluice under test, plugins a folder for
// what is built.
var root, binary, plugins string

func TestMain(m *testing.M) {
	os.Exit(node.WithBinary(func(path string) int {
		var err error
		binary = path
		if root, err = filepath.Abs("../.."); err == nil {
			plugins, err = os.MkdirTemp("", "sluice-vendor-")
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(plugins)
		return m.Run()
	}))
}

// sluice runs the binary and returns its status and what it wrote.
func sluice(t *testing.T, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	cmd := exec.Command(binary, args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

// hostile returns the path of a hostile plugin, which is built once.
func hostile(t *testing.T, name string) string {
	t.Helper()
	built := buildHostile()
	if built.err != nil {
		t.Fatal(built.err)
	}
	path := filepath.Join(plugins, "sluice-"+name)
	if err := os.Link(built.path, path); err != nil && !errors.Is(err, os.ErrExist) {
		t.Fatal(err)
	}
	return path
}

type program struct {
	path string
	err  error
}

var buildHostile = sync.OnceValue(func() program {
	return build(root, "-o", filepath.Join(plugins, "hostile"), "./test/vendor/hostile")
})

// build runs go build in a folder; the second argument is what it makes.
func build(dir string, args ...string) program {
	cmd := exec.Command("go", append([]string{"build"}, args...)...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off", "GOPROXY=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		return program{err: fmt.Errorf("go build %v: %w\n%s", args, err, out)}
	}
	return program{path: args[1]}
}

// buildProtocol1 builds the frozen plugin with the versions of libraries that
// Sluice itself has.
var buildProtocol1 = sync.OnceValue(func() program {
	mod, err := os.ReadFile(filepath.Join(root, "go.mod"))
	sum, sumErr := os.ReadFile(filepath.Join(root, "go.sum"))
	if err = errors.Join(err, sumErr); err != nil {
		return program{err: err}
	}
	text := strings.Replace(string(mod), "module github.com/sluice-project/sluice", "module example.com/sluice-filter-protocol1", 1)
	modfile := filepath.Join(plugins, "protocol1.mod")
	err = errors.Join(os.WriteFile(modfile, []byte(text), 0o644), os.WriteFile(filepath.Join(plugins, "protocol1.sum"), sum, 0o644))
	if err != nil {
		return program{err: err}
	}
	return build(filepath.Join(root, "test/vendor/testdata/protocol1"), "-o", filepath.Join(plugins, "sluice-filter-protocol1"), "-modfile", modfile, ".")
})

// pythonFilter returns the path of the example in Python, built as its README says.
func pythonFilter(t *testing.T) string {
	t.Helper()
	built := buildPython()
	if built.err != nil {
		t.Fatal(built.err)
	}
	return built.path
}

var buildPython = sync.OnceValue(func() program {
	return zipapp(filepath.Join(root, "examples/filter-python/ports"), filepath.Join(plugins, "sluice-filter-ports"))
})

// zipapp packs a folder of Python into one executable file.
func zipapp(folder, to string) program {
	cmd := exec.Command("/usr/bin/python3", "-m", "zipapp", folder, "-p", "/usr/bin/python3", "-o", to)
	if out, err := cmd.CombinedOutput(); err != nil {
		return program{err: fmt.Errorf("zipapp: %w\n%s", err, out)}
	}
	return program{path: to}
}

// grpcio says whether the Python example can run here.
func grpcio(t *testing.T) {
	t.Helper()
	if err := hasGRPC(); err != nil {
		t.Skip(err)
	}
}

var hasGRPC = sync.OnceValue(func() error {
	if out, err := exec.Command("/usr/bin/python3", "-c", "import grpc, google.protobuf").CombinedOutput(); err != nil {
		return fmt.Errorf("no gRPC for Python: apt install python3-grpcio python3-protobuf (%s)", bytes.TrimSpace(out))
	}
	return nil
})
