package service

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-project/sluice/core/control"
)

// pipelines is a configuration with every kind of stage, and what needs privilege.
const pipelines = `
runner {
  metrics {
    listen = "127.0.0.1:9783"
  }
}
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
	packages := buildPackages(t)
	m.copy(packages["deb"], "/tmp/sluice.deb")
	m.copy(packages["rpm"], "/tmp/sluice.rpm")
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
	for _, path := range []string{"contrib/prometheus/sluice.rules.yml", "contrib/grafana/sluice.json", "pictures/page.png"} {
		if !m.has("/usr/share/doc/sluice/" + path) {
			t.Errorf("the package lacks %s", path)
		}
	}
	if out := m.run("man", "--warnings", "-l", "/usr/share/man/man1/sluice.1.gz"); !strings.Contains(out, "FILES") {
		t.Error(out)
	}
	m.reload("")
	m.prometheus()
	m.instance()

	// An upgrade, here to the same version, restarts it.
	before := m.run("systemctl", "show", "-P", "MainPID", "sluice")
	m.run("dpkg", "-i", "/tmp/sluice.deb")
	if after := m.run("systemctl", "show", "-P", "MainPID", "sluice"); after == before || strings.TrimSpace(after) == "0" {
		t.Errorf("after the upgrade it runs as %s, before as %s", after, before)
	}
	m.run("sluice", "status")

	files := m.run("dpkg", "-L", "sluice")
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
	m.rpm(files)
}

// rpm installs the RPM instead, and removes it; the Debian package had files. It
// checks no dependencies: rpm knows nothing of what dpkg installed.
func (m *machine) rpm(files string) {
	m.t.Helper()
	if !m.has("/usr/bin/rpm") {
		m.t.Log("rpm is not installed: the RPM is not tried")
		return
	}
	m.run("rpm", "-i", "--nodeps", "/tmp/sluice.rpm")
	if diff := cmp.Diff(m.files(files), m.files(m.run("rpm", "-ql", "sluice"))); diff != "" {
		m.t.Errorf("files (-deb +rpm):\n%s", diff)
	}
	m.run("systemctl", "enable", "--now", "sluice")
	before := m.run("systemctl", "show", "-P", "MainPID", "sluice")
	m.run("rpm", "-U", "--nodeps", "--replacepkgs", "/tmp/sluice.rpm")
	if after := m.run("systemctl", "show", "-P", "MainPID", "sluice"); after == before || strings.TrimSpace(after) == "0" {
		m.t.Errorf("after the RPM's upgrade it runs as %s, before as %s", after, before)
	}
	m.run("rpm", "-e", "--nodeps", "sluice")
	if out, err := m.try("systemctl", "is-active", "sluice"); err == nil {
		m.t.Errorf("without the RPM it runs: %s", out)
	}
	for _, path := range []string{"/usr/sbin/sluice", "/usr/lib/sluice", "/etc/systemd/system/multi-user.target.wants/sluice.service"} {
		if m.has(path) {
			m.t.Errorf("the RPM leaves %s", path)
		}
	}
}

// files returns what are no directories of a list, where either kind of package
// has them.
func (m *machine) files(list string) (files []string) {
	for path := range strings.FieldsSeq(list) {
		info, err := os.Lstat(m.root + path)
		if err == nil && info.IsDir() || strings.HasSuffix(path, "/changelog.Debian.gz") {
			continue
		}
		files = append(files, strings.Replace(path, "/zsh/vendor-completions/", "/zsh/site-functions/", 1))
	}
	slices.Sort(files)
	return files
}

// known is what systemd before 253 says, and goes on.
var known = regexp.MustCompile(`(?m)^.*sluice@?\.service:[0-9]+: (Failed to parse service type, ignoring: notify-reload|Unknown key 'ReloadSignal' in section \[Service\], ignoring\.)\n`)

// stage is a stage's line of `sluice status`.
var stage = regexp.MustCompile(`(?m)^  \S+ +running +[0-9]+ `)

// reload has systemd reload a runner: once each time, and it fails if that did.
// What of the unit's instances follows the @ of its name, if anything.
func (m *machine) reload(instance string) {
	m.t.Helper()
	unit, dir, socket := "sluice", "/etc/sluice", "/run/sluice/control.sock"
	if instance != "" {
		unit, dir, socket = "sluice@"+instance, dir+"/"+instance, "/run/sluice-"+instance+"/control.sock"
	}
	ended := func(good, bad uint64, result string) {
		m.t.Helper()
		var status control.Status
		if err := json.Unmarshal([]byte(m.run("sluice", "--socket", socket, "status", "-o", "json")), &status); err != nil {
			m.t.Fatal(err)
		}
		if r := status.Reload; r == nil || r.Good != good || r.Bad != bad || r.Result != result {
			m.t.Errorf("%s: after %d good reloads and %d bad ones: %+v", unit, good, bad, r)
		}
	}
	m.write(dir+"/more.hcl", "pipeline \"more\" {\n  source \"netlink\" {}\n  cache \"memory\" {}\n  sink \"log\" {\n    path = \"/dev/null\"\n  }\n}\n")
	m.run("systemctl", "reload", unit)
	ended(1, 0, "done")
	m.write(dir+"/more.hcl", "pipeline \"more\" {\n")
	if out, err := m.try("systemctl", "reload", unit); err == nil {
		m.t.Errorf("systemctl reload %s did not fail: %s", unit, out)
	}
	ended(1, 1, "failed")
	m.run("systemctl", "is-active", unit)
	m.run("rm", dir+"/more.hcl")
	m.run("systemctl", "reload", unit)
	ended(2, 1, "done")
}

// prometheus has the Prometheus of this machine, if there is one, run what the
// package has for it: it scrapes the service, and loads the alerts.
func (m *machine) prometheus() {
	m.t.Helper()
	if !m.has("/usr/bin/prometheus") {
		m.t.Log("prometheus is not installed: nothing scrapes the service")
		return
	}
	const address = "127.0.0.1:9090"
	m.write("/etc/hosts", "127.0.0.1 localhost fw1.example fw2.example\n")
	const dir = "/usr/share/doc/sluice/contrib/prometheus/"
	m.write(dir+"test.yml", "global: {scrape_interval: 1s}\n"+m.read(dir+"prometheus.yml"))
	m.run("systemd-run", "--unit=scraper", "prometheus", "--config.file="+dir+"test.yml",
		"--storage.tsdb.path=/tmp/prometheus", "--web.listen-address="+address)
	for query, want := range map[string]string{
		"sluice_ready": `instance="fw1.example:9783"`,
		`sluice_config_reloads_total{result="done"}`: "=> 2 @",
		"count(sluice_stage_answered == 1)":          "=> 8 @",
	} {
		m.await(want, "promtool", "query", "instant", "http://"+address, query)
	}
	if out := m.run("curl", "-s", "http://"+address+"/api/v1/rules"); !strings.Contains(out, `"SluiceNotReady"`) {
		m.t.Errorf("the alerts are not loaded: %s", out)
	}
	m.run("systemctl", "stop", "scraper")
	m.run("rm", dir+"test.yml")
}

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
	m.reload("branch")
	m.run("systemctl", "stop", "sluice@branch")
	m.run("sluice", "status") // the other one is there
}

// buildPackages builds both kinds of package.
func buildPackages(t *testing.T) map[string]string {
	t.Helper()
	dir, packages := t.TempDir(), map[string]string{}
	if out, err := exec.Command("../../packaging/build", dir+"/dist").CombinedOutput(); err != nil {
		t.Fatalf("packaging/build: %v: %s", err, out)
	}
	for _, kind := range []string{"deb", "rpm"} {
		found, err := filepath.Glob(dir + "/dist/*." + kind)
		if err != nil || len(found) != 1 {
			t.Fatal(kind, found, err)
		}
		packages[kind] = found[0]
	}
	return packages
}
