package sourcenetlink

import (
	"fmt"
	"slices"
	"time"

	"github.com/sluice-project/sluice/core/flow"
	"github.com/sluice-project/sluice/internal/ctnl"
)

const (
	// masterPause is how long after an expectation its master is read. The
	// helper changes the packet, and with it the sequence numbers, right after
	// it has made the expectation.
	masterPause = 2 * time.Millisecond
	// maxMasters bounds how many are read at once; more are not read.
	maxMasters = 256
)

// masters are flows to read once more: a helper that expects a connection may
// have written another address, of another length, into the packet that
// announced it, and the kernel tells of the sequence numbers that this moved by
// no event. A firewall that takes over without knowing breaks the connection.
type masters struct {
	waiting []flow.Flow
	getter  *ctnl.Getter // opened when first used
}

// note takes in an expectation that a packet caused.
func (m *masters) note(e *flow.Event) {
	master, ok := e.Tail.Master()
	if e.Kind != flow.Expect || !ok || len(m.waiting) == maxMasters {
		return
	}
	f := flow.Flow{Family: master.Family, Protocol: master.Protocol, Zone: e.Zone, Original: master.Tuple}
	if !slices.ContainsFunc(m.waiting, func(w flow.Flow) bool { return w.Original == f.Original && w.Zone == f.Zone && w.Family == f.Family }) {
		m.waiting = append(m.waiting, f)
	}
}

func (m *masters) close() {
	if m.getter != nil {
		_ = m.getter.Close() // nothing is lost by it
	}
}

// readMasters sends those of the masters that wait whose sequence numbers have
// moved, as updates. Their NEW events came before the expectations, and whatever
// ended meanwhile is not found.
func (s *source) readMasters() error {
	if err := s.events.Pause(masterPause); err != nil {
		return fmt.Errorf("wait for events: %w", err)
	}
	waiting := s.masters.waiting
	s.masters.waiting = s.masters.waiting[:0]
	if s.masters.getter == nil {
		getter, err := ctnl.OpenGetter()
		if err != nil {
			return err
		}
		s.masters.getter = getter
	}
	s.reset(flow.Kernel) // nothing is gathered, and the last event may have been an own one
	for i := range waiting {
		e, err := s.masters.getter.Get(&waiting[i])
		if err != nil {
			s.host.Logger().Warn("the master of an expectation can't be read", "error", err)
			return nil
		}
		if e == nil || !e.Tail.Has(flow.AttrSeqAdj) {
			continue
		}
		s.event = *e
		s.event.Kind = flow.Update
		if err := s.add(); err != nil {
			return err
		}
	}
	return s.flush()
}
