package vendor

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/sluice-project/sluice/core/plugintest/kit"
	"github.com/sluice-project/sluice/internal/testbed"
)

var shell = regexp.MustCompile("(?ms)^```sh\n(.*?)^```$")

// guideCommands are the commands of docs/plugins.md, in their order, with folders
// of the test's.
func guideCommands(t *testing.T) (commands []string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "docs/plugins.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, block := range shell.FindAllStringSubmatch(string(text), -1) {
		for line := range strings.Lines(block[1]) {
			line = strings.NewReplacer("../sluice", root, "/usr/lib/sluice/plugins", t.TempDir()).Replace(line)
			commands = append(commands, strings.TrimSpace(line))
		}
	}
	if len(commands) < 9 {
		t.Fatalf("only these commands: %q", commands)
	}
	return commands
}

// The guide's commands work in a fresh folder, one after another, as a vendor would
// type them. Only the pipeline's run needs privilege.
func TestGuide(t *testing.T) {
	dir, bin := t.TempDir(), t.TempDir()
	if err := os.Symlink(binary, filepath.Join(bin, "sluice")); err != nil {
		t.Fatal(err)
	}
	env := append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "GOWORK=off", "GOPROXY=off", "GOFLAGS=-mod=readonly")
	command := func(line string) *exec.Cmd {
		cmd := exec.Command("sh", "-c", "exec "+line)
		cmd.Dir, cmd.Env = dir, env
		return cmd
	}
	for _, line := range guideCommands(t) {
		if folder, ok := strings.CutPrefix(line, "cd "); ok {
			dir = filepath.Join(dir, folder)
			continue
		}
		if strings.HasPrefix(line, "sluice run ") {
			runGuide(t, command(line))
			continue
		}
		out, err := command(line).CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", line, err, out)
		}
		if strings.HasPrefix(line, "sluice status") && !regexp.MustCompile(`filter\.mark +running`).Match(out) {
			t.Errorf("%s\n%s", line, out)
		}
	}
}

// runGuide begins to run the pipeline in a namespace of its own.
func runGuide(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	testbed.Require(t)
	testbed.MustLeaveNothing(t)
	run := testbed.MustNamespace(t, "guide").MustStartCmd(t, cmd)
	if err := run.AwaitOutput(patience, "all stages run"); err != nil {
		t.Fatalf("%v\n%s", err, run.Output())
	}
	t.Cleanup(func() {
		if err := run.Wait(patience); err != nil {
			t.Errorf("after the guide's last command: %v\n%s", err, run.Output())
		}
	})
}

// The guide's table of checks is the kit's own.
func TestGuideListsTheChecks(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "docs/plugins.md"))
	if err != nil {
		t.Fatal(err)
	}
	table := ""
	for _, c := range kit.Checks() {
		table += fmt.Sprintf("| %s | %s", c.Name, c.Claim)
		if len(c.Kinds) > 0 {
			table += fmt.Sprintf(" (%s)", strings.Join(c.Kinds, ", "))
		}
		table += " |\n"
	}
	if !strings.Contains(string(text), table) {
		t.Errorf("docs/plugins.md does not have the table of checks as it is:\n%s", table)
	}
}
