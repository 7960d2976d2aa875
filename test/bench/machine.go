package main

import (
	"context"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A machine is where and with what a result was measured.
type machine struct {
	Date       string `json:"date"`
	CPU        string `json:"cpu"`
	Cores      int    `json:"cores"`
	Kernel     string `json:"kernel"`
	Go         string `json:"go"`
	Conntrackd string `json:"conntrackd"`
	Commit     string `json:"commit"` // of Sluice
}

func thisMachine(ctx context.Context, binary string) machine {
	var u unix.Utsname
	_ = unix.Uname(&u)
	info, _ := os.ReadFile("/proc/cpuinfo")
	return machine{
		Date:       time.Now().UTC().Format(time.DateOnly),
		CPU:        cpuModel(string(info)),
		Cores:      runtime.NumCPU(),
		Kernel:     unix.ByteSliceToString(u.Release[:]),
		Go:         runtime.Version(),
		Conntrackd: version(output(ctx, "conntrackd", "-v")),
		Commit:     commitOf(ctx, binary),
	}
}

// commitOf is the commit of the binary: what `make build` put into it, or else
// that of the work tree.
func commitOf(ctx context.Context, binary string) string {
	if f := strings.Fields(output(ctx, binary, "version")); len(f) > 1 && f[1] != "devel" && f[1] != "unknown" {
		return f[1]
	}
	return strings.TrimSpace(output(ctx, "git", "describe", "--always", "--dirty"))
}

// output is what a program prints, "" if there is none.
func output(ctx context.Context, name string, args ...string) string {
	if path, err := exec.LookPath("/usr/sbin/" + name); err == nil {
		name = path
	}
	out, _ := exec.CommandContext(ctx, name, args...).CombinedOutput()
	return string(out)
}

// cpuModel is the processor's name in /proc/cpuinfo: "model name" on x86; other
// architectures have others, or none.
func cpuModel(cpuinfo string) string {
	for _, key := range []string{"model name", "Model", "cpu model", "CPU part"} {
		for line := range strings.Lines(cpuinfo) {
			name, value, ok := strings.Cut(line, ":")
			if ok && strings.TrimSpace(name) == key {
				return strings.TrimSpace(value)
			}
		}
	}
	return runtime.GOARCH
}

var versionPattern = regexp.MustCompile(`[0-9]+(\.[0-9]+)+`)

// version finds the version in what a program says of itself.
func version(text string) string {
	if v := versionPattern.FindString(text); v != "" {
		return v
	}
	return "unknown"
}
