package sinkmulticast

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/sluice-project/sluice/core/flow"
	"github.com/sluice-project/sluice/core/plugin"
	"github.com/sluice-project/sluice/internal/notrack"
)

// requestResync is the command by which this node asks the others for all that
// they have.
const requestResync = "request-resync"

// Sink implements plugin.Sink.
type Sink struct {
	config Config
	host   plugin.Host
	stop   chan struct{} // closed: the keeper ends
	ended  chan struct{} // closed: it has

	count counters

	mu      sync.Mutex // of everything below
	socket  *socket
	link    link
	encoder *notrack.Encoder
	packer  *notrack.Packer
	event   flow.Event
	group   []byte // the message that is being built; used again
	replay  replay
	trouble trouble
	stuck   bool      // the link runs, and yet the socket can't send on it
	last    time.Time // when datagrams were last sent, or tried to be
	greeted time.Time // when the last Hello was
}

// A replay is what became so far of the replay that is being sent.
type replay struct {
	id       uint64
	received uint64 // records that reached this stage
	sent     uint64 // messages in datagrams that the kernel took
	lost     bool   // a datagram of it was not
}

// Open opens the socket and begins to keep the node alive in the group.
func (s *Sink) Open(_ context.Context, host plugin.Host) (err error) {
	s.host = host
	s.trouble.init()
	if s.link, err = openLink(s.config.Interface); err != nil {
		return fmt.Errorf("sink multicast: %w", err)
	}
	if s.socket, err = openSocket(&s.config, &s.link); err != nil {
		s.link.close()
		return fmt.Errorf("sink multicast: open socket: %w", err)
	}
	if s.config.SendBuffer > 0 && s.socket.sendBuffer < int(s.config.SendBuffer) {
		host.Logger().Warn("send buffer smaller than configured: raise net.core.wmem_max or grant CAP_NET_ADMIN",
			"bytes", s.socket.sendBuffer, "configured", s.config.SendBuffer)
	}
	s.packer = notrack.NewPacker(0, notrack.NewSequencer(uint32(time.Now().Unix())))
	s.resize()
	host.Logger().Info("sending", "group", s.config.Group, "port", s.config.Port, "interface", s.config.Interface,
		"address", s.socket.address, "mtu", s.link.mtu)
	s.stop, s.ended = make(chan struct{}), make(chan struct{})
	go s.keep()
	return nil
}

// resize adapts datagrams to the link's MTU.
func (s *Sink) resize() {
	room := notrack.Room(s.link.mtu, s.config.Group.Unmap().Is6())
	s.packer.SetRoom(room)
	s.encoder = notrack.NewEncoder(notrack.Settings{
		ByteOrders:  notrack.ByteOrders{ReversedNAT: s.config.PeerVersion.ReversesNAT()},
		Peer:        s.config.PeerVersion,
		Timeout:     s.config.SendTimeout,
		WindowScale: s.config.WindowScale,
		Room:        room,
	})
}

// Close ends the keeper and closes the socket.
func (s *Sink) Close() error {
	close(s.stop)
	<-s.ended
	s.mu.Lock()
	defer s.mu.Unlock()
	s.link.close()
	return s.socket.close()
}

// Write sends a batch. What can't be sent is counted, and repaired by a replay
// that the runner is asked for.
func (s *Sink) Write(b *flow.Batch) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.packer.SetReplay(b.Replay)
	for c := b.Cursor(); c.Next(&s.event); {
		switch s.event.Kind {
		case flow.SyncBegin:
			s.replay = replay{id: b.Replay}
			s.add(notrack.AppendSync(s.group[:0], b.Replay, flow.SyncBegin, s.event.Sync))
		case flow.SyncEnd:
			s.flush()
			s.end(b, s.event.Sync)
		default:
			s.flow(b)
		}
	}
	s.flush()
	return nil
}

// flow adds the message about the event to the datagrams.
func (s *Sink) flow(b *flow.Batch) {
	replayed := b.Replay != 0 && b.Replay == s.replay.id
	if replayed {
		s.replay.received++
	}
	group, err := s.encoder.AppendFlow(s.group[:0], &s.event)
	switch {
	case errors.Is(err, notrack.ErrZone):
		s.count.zones.Add(1)
	case err != nil || !s.add(group):
		s.count.tooLong.Add(1)
	case replayed:
		s.replay.sent++
	}
}

// add adds a group of messages to the datagrams, and keeps its memory.
func (s *Sink) add(group []byte) bool {
	s.group = group
	return s.packer.Append(group)
}

// end ends a replay. The mark goes out only if every record arrived here and
// left again: what it does not name, the peers' caches sweep.
func (s *Sink) end(b *flow.Batch, end flow.Sync) {
	r := &s.replay
	report := plugin.Report{Replay: b.Replay, Owner: b.Owner}
	switch {
	case r.id != b.Replay:
		report.Failed = "its begin did not arrive at the sink"
	case r.received != end.Count:
		report.Failed = fmt.Sprintf("%d of its %d flows arrived at the sink", r.received, end.Count)
	default:
		end.Count = r.sent
		s.add(notrack.AppendSync(s.group[:0], b.Replay, flow.SyncEnd, end))
		s.flush()
		if r.lost {
			report.Failed = "not all of it could be sent on the link"
		}
	}
	if report.Failed == "" {
		s.count.replays.Add(1)
		report.Counts = []plugin.Count{{Name: "sent", Value: r.sent}}
	} else {
		s.count.replaysFailed.Add(1)
	}
	s.replay = replay{}
	s.host.Done(report)
}

// Command carries out request-resync.
func (s *Sink) Command(_ context.Context, c plugin.Command, out io.Writer) error {
	if c.Name != requestResync {
		return fmt.Errorf("sink multicast: command %q: there is only %s", c.Name, requestResync)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.packer.SetReplay(0)
	s.add(notrack.AppendResync(s.group[:0], notrack.Resync{Asks: s.socket.address}))
	if err := s.flush(); err != nil {
		return fmt.Errorf("sink multicast: %s: %w", requestResync, err)
	}
	s.count.requests.Add(1)
	if c.JSON {
		_, err := fmt.Fprintf(out, "{\"asked\":%q}\n", s.config.Group)
		return err
	}
	_, err := fmt.Fprintf(out, "asked the nodes of %v\n", s.config.Group)
	return err
}
