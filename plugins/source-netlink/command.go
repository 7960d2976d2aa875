package sourcenetlink

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/sluice-project/sluice/core/plugin"
)

// maxIgnored is how long NEW events are ignored at most: a commit of millions of
// flows takes half of it.
const maxIgnored = 30 * time.Second

// Command implements plugin.Commander.
func (s *source) Command(_ context.Context, c plugin.Command, _ io.Writer) error {
	switch c.Name {
	case plugin.IgnoreNew:
		return s.ignoreNew(maxIgnored)
	case plugin.HearNew:
		_, err := s.hearNew()
		return err
	}
	return fmt.Errorf("unknown command %q: a netlink source knows %s and %s", c.Name, plugin.IgnoreNew, plugin.HearNew)
}

// ignoreNew has the kernel make no NEW events, until hearNew or, if that never
// comes, the limit: then what was missed is asked for. Where events of this
// node's own are wanted it does nothing.
func (s *source) ignoreNew(limit time.Duration) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.events == nil || s.closed || s.ignoring != nil || !s.start.DropOwn {
		return nil
	}
	s.ignoring = time.AfterFunc(limit, func() {
		ignored, err := s.hearNew()
		if err != nil {
			s.host.Logger().Error("flows that begin are not heard of: the poll finds them", "error", err)
		}
		if ignored {
			s.host.Signal(plugin.SignalOverrun, "nobody ended the time in which new flows were ignored")
		}
	})
	return s.events.HearNew(false)
}

// hearNew ends that, and says whether they were ignored until now. What began
// meanwhile is found by the replay that its caller asks for.
func (s *source) hearNew() (ignored bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ignoring == nil || s.closed {
		return false, nil
	}
	s.ignoring.Stop()
	s.ignoring = nil
	return true, s.events.HearNew(true)
}
