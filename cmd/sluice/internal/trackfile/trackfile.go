// Package trackfile keeps a file that keepalived watches (track_file): 0 while
// this node is in sync, 1 while it is not. With a negative weight there, a node
// that lacks flows is not the one that takes over, and one that comes back does
// not take the addresses before it has the flows.
//
// What in sync means is the runner's business. This package decides when the
// file says so: at once when the node is in sync, but only after a while when it
// is not, since losses are repaired in a moment and an election costs more.
// A node that carries the traffic stays where it is: its own table is the truth.
package trackfile

import (
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/google/renameio/v2"
)

// patience is how long a node may be out of sync before the file says so: the
// repair of a loss takes a second or two, a restart with its replays a few.
const patience = 10 * time.Second

// What the file says.
const (
	inSync    = "0\n"
	outOfSync = "1\n"
)

// A File is the file of one runner.
type File struct {
	path  string
	log   *slog.Logger
	said  string
	since time.Time // since when the node has been out of sync; zero: it is not
}

// Open takes the file as an earlier life of the runner left it, or makes it and
// says there that the node is not in sync.
func Open(path string, log *slog.Logger) (*File, error) {
	f := &File{path: path, log: log}
	if text, err := os.ReadFile(path); err == nil && (string(text) == inSync || string(text) == outOfSync) {
		f.said = string(text)
		return f, nil
	}
	return f, f.write(outOfSync)
}

// Judge makes the file say how the node is: missing says why it is not in sync, if
// it is not. It is called again and again, with the time.
func (f *File) Judge(now time.Time, missing []string, primary bool) {
	if len(missing) == 0 || primary {
		f.since = time.Time{}
		f.say(inSync, "")
		return
	}
	if f.since.IsZero() {
		f.since = now
	}
	if now.Sub(f.since) >= patience {
		f.say(outOfSync, strings.Join(missing, "; "))
	}
}

// End leaves the file saying that the node is not in sync, unless it carries the
// traffic: then a restart is no reason to elect another.
func (f *File) End(primary bool) {
	if !primary {
		f.say(outOfSync, "the runner ends")
	}
}

func (f *File) say(what, why string) {
	if f.said == what {
		return
	}
	if err := f.write(what); err != nil {
		f.log.Error("track_file not written", "error", err)
		return
	}
	if what == inSync {
		f.log.Info("in sync, says the track_file", "path", f.path)
	} else {
		f.log.Warn("not in sync, says the track_file", "path", f.path, "reason", why)
	}
}

// write replaces the file: keepalived never reads half a line.
func (f *File) write(what string) error {
	if err := renameio.WriteFile(f.path, []byte(what), 0o644, renameio.IgnoreUmask()); err != nil {
		return err
	}
	f.said = what
	return nil
}
