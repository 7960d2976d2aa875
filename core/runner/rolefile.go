package runner

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// A keptRole is what a role file holds: the role outlives the runner, but not
// the boot, after which the kernel's table is empty and another node is primary.
type keptRole struct {
	Role    string    `json:"role"`
	Carries bool      `json:"carries"`
	Since   time.Time `json:"since"`
	Boot    string    `json:"boot"`
}

// restoreRole takes the role that an earlier life of this runner had.
func (r *Runner) restoreRole() {
	path := r.options.RoleFile
	if path == "" {
		return
	}
	kept, err := readRole(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return
	case err != nil:
		r.log.Warn("the role of before is not known", "file", path, "error", err)
		return
	case kept.Boot != bootID():
		return
	}
	r.role.last, r.role.carry = kept.Role, kept.Carries
	r.log.Info("role kept from before the start", "role", kept.Role, "since", kept.Since)
}

func readRole(path string) (kept keptRole, err error) {
	info, err := os.Lstat(path)
	if err != nil {
		return kept, err
	}
	// The folder may be everybody's.
	if !info.Mode().IsRegular() || !ours(info) || info.Size() > 4096 {
		return kept, errors.New("it is no file of this runner's")
	}
	text, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(text, &kept)
	}
	switch kept.Role {
	case "", "primary", "backup", "fault":
	default:
		err = errors.Join(err, fmt.Errorf("%q is no role", kept.Role))
	}
	return kept, err
}

// keepRole writes the role down. What can't be written is logged: the role is
// taken all the same.
func (r *Runner) keepRole() {
	path := r.options.RoleFile
	if path == "" {
		return
	}
	kept := keptRole{Role: r.role.get(), Carries: r.role.carries(), Since: time.Now(), Boot: bootID()}
	if err := writeRole(path, kept); err != nil {
		r.log.Warn("the role is not kept over a restart", "error", err)
	}
}

// writeRole replaces the file as a whole, whatever is there.
func writeRole(path string, kept keptRole) error {
	text, err := json.Marshal(kept)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".role-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(append(text, '\n'))
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

func ours(info fs.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(stat.Uid) == os.Geteuid()
}

// bootID is another after each boot.
func bootID() string {
	id, _ := os.ReadFile("/proc/sys/kernel/random/boot_id") // without it no role is kept
	return string(bytes.TrimSpace(id))
}
