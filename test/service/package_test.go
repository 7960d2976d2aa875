package service

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// pipelines is a configuration with every kind of stage, and what needs privilege.
const pipelines = `
pipeline "local" {
  source "netlink" {}
  filter "basic" {
    protocol {
      accept = ["tcp", "udp"]
    }
  }
  cache "memory" {}
  sink "multicast" {
    group     = "225.0.0.50"
    interface = "lan"
  }
  sink "log" {
    path = "/var/log/sluice/flows.log"
  }
}
pipeline "peers" {
  source "multicast" {
    group           = "225.0.0.50"
    interface       = "lan"
    request_resync  = false
  }
  cache "memory" {
    hold = true
  }
  sink "kernel" {
    scope = "local"
  }
}
`

// network is what the pipelines need.
const network = `
ip link set lo up
ip link add lan type veth peer name other
ip addr add 10.9.9.1/24 dev lan
ip link set lan up
ip link set other up
nft 'add table ip filter; add chain ip filter output { type filter hook output priority 0; }; add rule ip filter output ct state new accept'
`

// What an operator does: install, look, write a pipeline, start, use, upgrade,
// remove.
func TestPackage(t *testing.T) {
	if testing.Short() {
		t.Skip("builds a package")
	}
	m := boot(t)
	m.copy(buildPackage(t), "/tmp/sluice.deb")
	m.run("dpkg", "-i", "/tmp/sluice.deb")
	m.run("sh", "-ec", network)
	m.run("getent", "group", "sluice")

	if m.run("systemctl", "start", "sluice"); strings.Contains(m.run("systemctl", "show", "-P", "ActiveState", "sluice"), "\nactive") {
		t.Error("it runs without a pipeline")
	}
	m.write("/etc/systemd/system/sluice.service.d/test.conf", "[Service]\nStandardError=append:/run/log\nWatchdogSec=1\n")
	m.write("/etc/sluice/node.hcl", pipelines)
	m.run("systemctl", "daemon-reload")
	m.run("systemctl", "start", "sluice")
	defer func() {
		if t.Failed() {
			t.Log(m.read("/run/log"))
		}
	}()
	m.await(`Status: "role none given; in sync"`, "systemctl", "status", "sluice")
	if out := m.run("sluice", "status"); len(stage.FindAllString(out, -1)) != 8 {
		t.Error(out)
	}
	if log := m.read("/run/log"); strings.Contains(log, "level=WARN") || strings.Contains(log, "level=ERROR") {
		t.Error("it does not live with what the unit denies it")
	}
	m.run("sluice", "role", "primary")
	if out := m.run("systemd-analyze", "verify", "--man=no", "sluice.service", "sluice@branch.service"); known.ReplaceAllString(out, "") != "" {
		t.Error(out)
	}
	if out := m.run("man", "--warnings", "-l", "/usr/share/man/man1/sluice.1.gz"); !strings.Contains(out, "FILES") {
		t.Error(out)
	}
	m.instance()

	// An upgrade, here to the same version, restarts it.
	before := m.run("systemctl", "show", "-P", "MainPID", "sluice")
	m.run("dpkg", "-i", "/tmp/sluice.deb")
	if after := m.run("systemctl", "show", "-P", "MainPID", "sluice"); after == before || strings.TrimSpace(after) == "0" {
		t.Errorf("after the upgrade it runs as %s, before as %s", after, before)
	}
	m.run("sluice", "status")

	m.run("dpkg", "-P", "sluice")
	if out, err := m.try("systemctl", "is-active", "sluice"); err == nil {
		t.Errorf("without the package it runs: %s", out)
	}
	for _, path := range []string{"/usr/sbin/sluice", "/usr/lib/sluice", "/var/log/sluice", "/etc/logrotate.d/sluice", "/run/sluice/control.sock"} {
		if m.has(path) {
			t.Errorf("%s is left", path)
		}
	}
	if m.read("/etc/sluice/node.hcl") != pipelines {
		t.Error("the administrator's file is gone")
	}
}

// known is what systemd before 253 says, and goes on.
var known = regexp.MustCompile(`(?m)^.*sluice@?\.service:[0-9]+: Failed to parse service type, ignoring: notify-reload\n`)

// stage is a stage's line of `sluice status`.
var stage = regexp.MustCompile(`(?m)^  \S+ +running +[0-9]+ `)

// instance runs a second runner, in a network namespace.
func (m *machine) instance() {
	m.t.Helper()
	m.run("ip", "netns", "add", "branch")
	m.write("/etc/sluice/branch/node.hcl", "pipeline \"local\" {\n  source \"netlink\" {}\n  cache \"memory\" {}\n  sink \"kernel\" {}\n}\n")
	m.run("systemctl", "start", "sluice@branch")
	if out := m.run("sluice", "--socket", "/run/sluice-branch/control.sock", "status"); len(stage.FindAllString(out, -1)) != 3 {
		m.t.Error(out)
	}
	pid := strings.TrimSpace(m.run("systemctl", "show", "-P", "MainPID", "sluice@branch"))
	if out := m.run("ip", "netns", "identify", pid); strings.TrimSpace(out) != "branch" {
		m.t.Errorf("it runs in the namespace %q", out)
	}
	m.run("systemctl", "stop", "sluice@branch")
	m.run("sluice", "status") // the other one is there
}

// buildPackage builds the Debian package.
func buildPackage(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if out, err := exec.Command("../../packaging/build", dir+"/dist", "deb").CombinedOutput(); err != nil {
		t.Fatalf("packaging/build: %v: %s", err, out)
	}
	found, err := filepath.Glob(dir + "/dist/*.deb")
	if err != nil || len(found) != 1 {
		t.Fatal(found, err)
	}
	return found[0]
}
