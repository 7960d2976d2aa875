package e2e

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sluice-project/sluice/core/control"
	"github.com/sluice-project/sluice/internal/testbed"
)

// The example pipelines run as they are written, on a host with the link and
// the address that they name. Its /tmp, /run and /var are its own.
func TestExamplesRunAsTheyAre(t *testing.T) {
	testbed.Require(t)
	files, err := filepath.Glob("../../pipelines/*.hcl")
	files = slices.DeleteFunc(files, func(file string) bool { return strings.HasSuffix(file, ".test.hcl") })
	if err != nil || len(files) < 2 {
		t.Fatalf("examples: %v, %v", files, err)
	}
	sockets := map[string]string{"primary-backup.hcl": "/tmp/sync.sock", "active-active.hcl": "/run/sluice/control.sock"}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			testbed.MustLeaveNothing(t)
			host, other := testbed.MustNamespace(t, "host"), testbed.MustNamespace(t, "other")
			if err := testbed.Cable(host, "eth2", other, "eth2"); err != nil {
				t.Fatal(err)
			}
			if err := host.AddAddr("eth2", netip.MustParsePrefix("192.168.100.100/24")); err != nil {
				t.Fatal(err)
			}
			file, err := filepath.Abs(file)
			if err != nil {
				t.Fatal(err)
			}
			// The binary and the file may lie below what is covered.
			script := `exec 3<"$0" 4<"$1" && for d in /tmp /run /var/log; do mount -t tmpfs none $d || exit 1; done &&
				mkdir -p /run/lock /run/sluice && cat <&4 >/run/example.hcl &&
				exec /proc/self/fd/3 run -f /run/example.hcl`
			process := host.MustStartCmd(t, exec.Command("unshare", "-m", "sh", "-c", script, binary, file))
			root := fmt.Sprintf("/proc/%d/root", process.Pid())
			client := control.NewClient(root + sockets[filepath.Base(file)])
			testbed.Eventually(t, patience, func() error {
				if !process.Running() {
					t.Fatalf("it ended:\n%s%s", process.Output(), logFile(root))
				}
				status, err := client.Status(context.Background())
				if err != nil {
					return err
				}
				for _, p := range status.Pipelines {
					for _, s := range p.Stages {
						if s.State != "running" {
							return fmt.Errorf("%s is %s", s.Address, s.State)
						}
					}
				}
				if len(status.Pipelines) != 2 {
					t.Errorf("%d pipelines", len(status.Pipelines))
				}
				return nil
			})
			if text := process.Output() + logFile(root); strings.Contains(text, "level=WARN") || strings.Contains(text, "level=ERROR") {
				t.Errorf("it complains:\n%s", text)
			}
			if err := process.Stop(patience); err != nil {
				t.Errorf("stop: %v\n%s", err, process.Output())
			}
		})
	}
}

// logFile reads what the example with a log file has written there.
func logFile(root string) string {
	text, err := os.ReadFile(root + "/var/log/sluice.log")
	if err != nil {
		return ""
	}
	return string(text)
}
