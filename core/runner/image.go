package runner

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/sluice-project/sluice/core/confine"
	"github.com/sluice-project/sluice/core/control"
	"github.com/sluice-project/sluice/core/pipeline"
)

// An image is a vendor's program as it was when a configuration was read: a sealed
// copy, whose SHA-256 was taken while it was made. All processes of the plugin
// execute it, those that are started after a crash included, whatever lies on the
// disk by then.
type image struct {
	path, sum string

	mu   sync.Mutex
	file *os.File // nil: closed
	uses int      // graphs that have it
}

func openImage(path string) (*image, error) {
	file, sum, err := confine.OpenImage(path)
	if err != nil {
		return nil, err
	}
	return &image{path: path, sum: sum, file: file, uses: 1}, nil
}

// open returns a descriptor for a process that is to be started.
func (i *image) open() (*os.File, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.file == nil {
		return nil, errors.New("its program is another one by now")
	}
	fd, err := unix.FcntlInt(i.file.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("copy of %s: %w", i.path, err)
	}
	return os.NewFile(uintptr(fd), i.path), nil
}

// share says that one more graph has it.
func (i *image) share() *image {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.uses++
	return i
}

func (i *image) close() {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.uses--; i.uses == 0 {
		i.file.Close()
		i.file = nil
	}
}

// images are those of a graph's plugins, by name as in "filter-mark".
type images map[string]*image

func (m images) close() {
	for _, i := range m {
		i.close()
	}
}

// imagesOf opens the programs of the vendors' plugins that a configuration uses,
// and refuses what is not locked. Of those that the graph before has the same are
// taken over.
func (p Plugins) imagesOf(config *pipeline.Configuration, before images) (_ images, err error) {
	all := images{}
	defer func() {
		if err != nil {
			all.close()
		}
	}()
	for _, l := range config.Pipelines {
		for _, s := range l.Stages {
			if p.bundled(s.Kind, s.Type) {
				continue
			}
			name := string(s.Kind) + "-" + s.Type
			i := all[name]
			if i == nil {
				i, err = p.imageOf(s, before[name])
			}
			if errors.Is(err, pipeline.ErrUnknownPlugin) {
				err = nil
				continue // its start says so
			}
			if err == nil {
				all[name] = i
				err = i.check(s)
			}
			if err != nil {
				return nil, fmt.Errorf("%s: %w", s.Address(), err)
			}
		}
	}
	return all, nil
}

func (p Plugins) imageOf(s *pipeline.Stage, before *image) (*image, error) {
	path, _, err := p.command(s.Kind, s.Type, "")
	if err != nil {
		return nil, err
	}
	i, err := openImage(path)
	if err != nil || before == nil || before.path != i.path || before.sum != i.sum {
		return i, err
	}
	i.close()
	return before.share(), nil
}

// check says whether a stage may execute it. It is what whoever read the
// configuration has checked; the file may have changed since.
func (i *image) check(s *pipeline.Stage) error {
	switch {
	case s.Unlocked || s.SHA256 == i.sum:
		return nil
	case s.SHA256 == "":
		return fmt.Errorf("%s is not locked", i.path)
	}
	return fmt.Errorf("%s has the SHA-256 %s, and is locked to %s", i.path, i.sum, s.SHA256)
}

// image returns the program of the stage at a place; nil: it is bundled.
func (p *place) image() *image { return p.graph.images[string(p.conf.Kind)+"-"+p.conf.Type] }

// programStatus tells of the program of a vendor's stage; nil: it is bundled.
func (p *place) programStatus() *control.Program {
	i := p.image()
	if i == nil {
		return nil
	}
	status := &control.Program{Path: i.path, SHA256: i.sum, Lock: "locked"}
	if p.conf.Unlocked {
		status.Lock = "unlocked"
	}
	return status
}

// program returns what to execute for the stage at a place: of a vendor's, the
// image, wherever the file has gone.
func (p *place) program(address string) (path string, args []string, _ *image, err error) {
	if i := p.image(); i != nil {
		return i.path, []string{i.path, address}, i, nil
	}
	path, args, err = p.graph.plugins.command(p.conf.Kind, p.conf.Type, address)
	if err == nil && path != ownExecutable {
		err = fmt.Errorf("%s was not there when the configuration was read", path)
	}
	return path, args, nil, err
}

// warnUnlocked says at every start of a stage whose program nothing vouches for
// that it is so.
func (p *place) warnUnlocked(log *slog.Logger) {
	if i := p.image(); i != nil && p.conf.Unlocked {
		log.Warn("a vendor's program is executed that no lock file vouches for: the stage says unlocked = true",
			"stage", p.conf.Address(), "path", i.path, "sha256", i.sum)
	}
}
