package testbed

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// quietIPv6 makes addresses usable at once and keeps the kernel from
// configuring itself. "default" must be set before an interface exists.
var quietIPv6 = map[string]string{
	"net.ipv6.conf.all.accept_dad":               "0",
	"net.ipv6.conf.default.accept_dad":           "0",
	"net.ipv6.conf.default.dad_transmits":        "0",
	"net.ipv6.conf.all.accept_ra":                "0",
	"net.ipv6.conf.default.accept_ra":            "0",
	"net.ipv6.conf.all.keep_addr_on_down":        "1",
	"net.ipv6.conf.default.router_solicitations": "0",
}

// Sysctl sets a kernel variable of the namespace, named with dots.
func (n *Namespace) Sysctl(name, value string) error {
	return n.Do(func() error { return writeSysctl(name, value) })
}

// Sysctls sets several kernel variables of the namespace, in no given order.
func (n *Namespace) Sysctls(values map[string]string) error {
	return n.Do(func() error {
		for name, value := range values {
			if err := writeSysctl(name, value); err != nil {
				return err
			}
		}
		return nil
	})
}

// ReadSysctl reads a kernel variable of the namespace.
func (n *Namespace) ReadSysctl(name string) (value string, err error) {
	err = n.Do(func() error {
		value, err = readSysctl(name)
		return err
	})
	return value, err
}

// sysctlPath keeps to the thread's namespace: /proc/sys/net shows the one of
// the thread that opens it.
func sysctlPath(name string) string {
	return filepath.Join("/proc/sys", strings.ReplaceAll(name, ".", "/"))
}

func writeSysctl(name, value string) error {
	if err := os.WriteFile(sysctlPath(name), []byte(value), 0); err != nil {
		return fmt.Errorf("testbed: sysctl %s=%s: %w", name, value, err)
	}
	return nil
}

func readSysctl(name string) (string, error) {
	data, err := os.ReadFile(sysctlPath(name))
	if err != nil {
		return "", fmt.Errorf("testbed: sysctl %s: %w", name, err)
	}
	return strings.TrimSpace(string(data)), nil
}
