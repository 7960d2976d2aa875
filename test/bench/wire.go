package main

import (
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/net/ipv4"

	"github.com/sluice-project/sluice/core/flow"
	"github.com/sluice-project/sluice/internal/notrack"
	"github.com/sluice-project/sluice/internal/testbed"
)

// A replicator sends flows to the group as a third node would, at a set pace:
// so both systems get the same datagrams, and only one node is measured.
type replicator struct {
	conn    *net.UDPConn
	packet  *ipv4.PacketConn
	encoder *notrack.Encoder
	packer  *notrack.Packer
}

var syncGroup = &net.UDPAddr{IP: net.IPv4(225, 0, 0, 50), Port: notrack.DefaultPort}

func newReplicator(fw *testbed.Firewall) (*replicator, error) {
	r := &replicator{
		encoder: notrack.NewEncoder(notrack.Settings{Timeout: true, NoExtension: true}),
		packer:  notrack.NewPacker(notrack.Room(1500, false), notrack.NewSequencer(uint32(time.Now().Unix()))),
	}
	err := fw.Do(func() error {
		link, err := net.InterfaceByName(testbed.SyncLink)
		if err != nil {
			return err
		}
		if r.conn, err = net.ListenUDP("udp4", &net.UDPAddr{IP: fw.Sync.V4.Addr().AsSlice()}); err != nil {
			return err
		}
		r.packet = ipv4.NewPacketConn(r.conn)
		return r.packet.SetMulticastInterface(link)
	})
	if err != nil {
		return nil, fmt.Errorf("bench: replicator: %w", err)
	}
	return r, nil
}

// Send sends the flows from to to-1 of a series as new, at most rate a second.
func (r *replicator) Send(shape testbed.Synthetic, from, to, rate int) error {
	begin, first := time.Now(), from
	var message []byte
	for from < to {
		r.packer.Reset()
		for end := min(to, from+rate/500+1); from < end; from++ {
			e := syntheticEvent(shape, from)
			var err error
			if message, err = r.encoder.AppendFlow(message[:0], &e); err != nil {
				return err
			}
			r.packer.Append(message)
		}
		r.packer.Flush()
		for i := range r.packer.Len() {
			if _, err := r.conn.WriteToUDP(r.packer.Datagram(i), syncGroup); err != nil {
				return fmt.Errorf("bench: send to the group: %w", err)
			}
		}
		due := time.Duration(from-first) * time.Second / time.Duration(rate)
		time.Sleep(due - time.Since(begin))
	}
	return nil
}

func (r *replicator) Close() error { return r.conn.Close() }

// syntheticEvent is flow i of a series as a peer tells it.
func syntheticEvent(shape testbed.Synthetic, i int) flow.Event {
	s := shape.Flow(i)
	f := flow.Flow{Family: flow.IPv4, Protocol: s.Proto, Status: flow.Status(s.Status), Timeout: 3600}
	f.Present = flow.HasReply | flow.HasStatus | flow.HasTimeout
	if !shape.UDP {
		f.State, f.Present = uint8(s.TCP), f.Present|flow.HasState
	}
	f.Original, f.Reply = tuple(&s.Orig), tuple(&s.Reply)
	return flow.Event{Kind: flow.New, Flow: f}
}

func tuple(t *testbed.Tuple) (r flow.Tuple) {
	r.Source, _ = flow.Bytes(t.Src)
	r.Destination, _ = flow.Bytes(t.Dst)
	r.SourcePort, r.DestinationPort = t.SrcPort, t.DstPort
	return r
}

// natAddress is what the flows with source translation are translated to.
var natAddress = netip.MustParseAddr("10.79.2.1")
