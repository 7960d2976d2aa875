package main

import (
	"encoding/binary"
	"fmt"
	"net"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-project/sluice/core/flow"
	"github.com/sluice-project/sluice/internal/notrack"
	"github.com/sluice-project/sluice/internal/testbed"
)

// A listener sees what arrives at the peer's end of the sync link, and when.
type listener struct {
	fd   int
	ends atomic.Bool
	done chan struct{}
	seen map[int]time.Time // by connection: the first datagram that names it
}

func listen(fw *testbed.Firewall) (*listener, error) {
	l := &listener{done: make(chan struct{}), seen: map[int]time.Time{}}
	err := fw.Do(func() (err error) {
		link, err := net.InterfaceByName(testbed.SyncLink)
		if err != nil {
			return err
		}
		protocol := binary.NativeEndian.Uint16([]byte{unix.ETH_P_IP >> 8, unix.ETH_P_IP & 0xff})
		if l.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, int(protocol)); err != nil {
			return err
		}
		for _, o := range [][3]int{{unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64 << 20}, {unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1}} {
			if err := unix.SetsockoptInt(l.fd, o[0], o[1], o[2]); err != nil {
				return err
			}
		}
		if err := unix.SetsockoptTimeval(l.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 100000}); err != nil {
			return err
		}
		return unix.Bind(l.fd, &unix.SockaddrLinklayer{Protocol: protocol, Ifindex: link.Index})
	})
	if err != nil {
		return nil, fmt.Errorf("bench: listen on the sync link: %w", err)
	}
	go l.run()
	return l, nil
}

func (l *listener) run() {
	defer close(l.done)
	buf, control := make([]byte, 65536), make([]byte, 256)
	var decoder notrack.Decoder
	var m notrack.Message
	for !l.ends.Load() {
		n, cn, _, _, err := unix.Recvmsg(l.fd, buf, control, 0)
		if err != nil || n < 28 {
			continue
		}
		at := arrival(control[:cn])
		decoder.Reset(buf[28:n], nil)
		for decoder.Next(&m) {
			if m.Kind != notrack.Flow {
				continue
			}
			if i, ok := connectionOf(&m.Event.Flow); ok {
				if _, known := l.seen[i]; !known {
					l.seen[i] = at
				}
			}
		}
	}
}

// arrival is the kernel's time stamp of a packet.
func arrival(control []byte) time.Time {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return time.Time{}
	}
	for _, m := range messages {
		if m.Header.Type == unix.SO_TIMESTAMPNS && len(m.Data) >= 16 {
			return time.Unix(int64(binary.NativeEndian.Uint64(m.Data)), int64(binary.NativeEndian.Uint64(m.Data[8:])))
		}
	}
	return time.Time{}
}

// connectionOf is the number of the generator's connection that a flow is.
func connectionOf(f *flow.Flow) (int, bool) {
	a := f.Original.Source
	if a[0] != 10 || a[1]>>4 != 5 {
		return 0, false
	}
	host := int(a[1]&0xf)<<16 | int(a[2])<<8 | int(a[3])
	return host<<15 | int(f.Original.SourcePort-1024), true
}

func (l *listener) Close() {
	l.ends.Store(true)
	<-l.done
	unix.Close(l.fd)
}

// delay measures the time from a connection's first packet to the datagram that
// names it, on the peer's end of the link.
func delay(rate int, coalesce, at string) measurement {
	return func(s system, add func(figure, at string, v float64)) error {
		return onPair(s, options{Coalesce: coalesce}, func(p *pair) error {
			l, err := listen(p.fw2)
			if err != nil {
				return err
			}
			p.generator.sent = map[int]time.Time{}
			known, n := p.generator.next, max(200, 3*rate)
			if _, err := p.generator.Connect(n, rate); err != nil {
				l.Close()
				return err
			}
			err = p.awaitExternal(known + n)
			l.Close()
			if err != nil {
				return err
			}
			var delays []float64
			for i, sent := range p.generator.sent {
				if seen, ok := l.seen[i]; ok {
					delays = append(delays, seen.Sub(sent).Seconds()*1000)
				}
			}
			if len(delays) < n*9/10 {
				return fmt.Errorf("bench: %d of %d connections were seen on the link", len(delays), n)
			}
			slices.Sort(delays)
			add(figP50, at, delays[len(delays)/2])
			add(figP99, at, delays[len(delays)*99/100])
			return nil
		})
	}
}
