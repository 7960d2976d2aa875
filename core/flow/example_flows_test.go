package flow

import (
	"encoding/binary"
	"net/netip"
)

// address returns the 16-byte form of s.
func address(s string) [16]byte {
	b, _ := Bytes(netip.MustParseAddr(s))
	return b
}

func tuple(source, destination string, sport, dport uint16) Tuple {
	return Tuple{address(source), address(destination), sport, dport}
}

// plain returns a flow without translation.
func plain(protocol uint8, t Tuple) Flow {
	f := Flow{Family: IPv4, Protocol: protocol, Original: t, Reply: t.Inverted(protocol), Present: HasReply | HasStatus | HasTimeout}
	f.Status, f.Timeout = Confirmed, 30
	if t.Source[4] != 0 || t.Source[15] != 0 {
		f.Family = IPv6
	}
	return f
}

func words(v ...uint32) (b []byte) {
	for _, w := range v {
		b = binary.LittleEndian.AppendUint32(b, w)
	}
	return b
}

func longs(v ...uint64) (b []byte) {
	for _, w := range v {
		b = binary.LittleEndian.AppendUint64(b, w)
	}
	return b
}

// tcpFlow is the flow of docs/batch.md: TCP with source NAT, a mark and labels.
func tcpFlow() Flow {
	f := plain(TCP, tuple("10.0.0.1", "192.0.2.80", 40001, 443))
	f.Reply.Destination, f.Reply.DestinationPort = address("198.51.100.7"), 50123
	f.Present |= HasState | HasMark | HasID | HasWindowScale | HasTCPFlags
	f.Status = SeenReply | Assured | Confirmed | SrcNAT | SrcNATDone | DstNATDone
	f.State, f.Timeout, f.Mark, f.ID, f.Zone = TCPEstablished, 431999, 7, 0xcafe0001, 5
	f.WindowScale, f.TCPFlags = [2]uint8{7, 10}, [2]uint8{0x23, 0x23}
	f.Tail = f.Tail.Append(AttrLabels, []byte{2, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0}).Append(AttrHelper, []byte("ftp"))
	return f
}

// flows are of every protocol and with every attribute, by name.
func flows() map[string]Flow {
	m := map[string]Flow{
		"tcp":  tcpFlow(),
		"udp":  plain(UDP, tuple("10.0.0.1", "10.0.0.2", 53, 53)),
		"icmp": plain(ICMP, tuple("10.0.0.1", "10.0.0.2", 99, 8<<8)),
		"gre":  plain(GRE, tuple("10.0.0.1", "10.0.0.2", 0x1f, 0x2a)),
		"esp":  plain(50, tuple("10.0.0.1", "10.0.0.2", 0, 0)),
		"v6":   plain(ICMPv6, tuple("2001:db8::1", "2001:db8::2", 5, 128<<8)),
		"bare": {Family: IPv4, Protocol: TCP, Original: tuple("10.0.0.1", "10.0.0.2", 1, 2)},
	}
	sctp := plain(SCTP, tuple("10.0.0.1", "10.0.0.2", 3, 4))
	sctp.State, sctp.Present = SCTPEstablished, sctp.Present|HasState
	sctp.ZoneOriginal, sctp.ZoneReply = 4, 6
	sctp.Tail = sctp.Tail.Append(AttrSCTPTags, words(0x11223344, 0x55667788)).
		Append(AttrCounters, longs(1, 100, 2, 200)).
		Append(AttrTimestamps, longs(1700000000000000000, 0))
	m["sctp"] = sctp
	related := plain(TCP, tuple("10.0.0.2", "10.0.0.1", 20, 5001))
	related.State, related.Present = TCPSynSent, related.Present|HasState
	related.Tail = related.Tail.AppendMaster(&Master{IPv4, TCP, 5, tuple("10.0.0.1", "10.0.0.2", 40000, 21)}).
		Append(AttrSeqAdj, words(1, 2, 3, 4, 5, 6)).
		Append(AttrSynproxy, words(7, 8, 9)).
		Append(9999, []byte{1, 2, 3})
	m["related"] = related
	return m
}

// expectation is what the kernel expects after PASV of an FTP session.
func expectation() Event {
	f := Flow{Family: IPv4, Protocol: TCP, Original: tuple("10.0.0.1", "10.0.0.2", 0, 38611), Present: HasReply | HasTimeout | HasID}
	f.Reply = tuple("255.255.255.255", "255.255.255.255", 0, 0xffff)
	f.Timeout, f.ID, f.Zone = 298, 0xcafe0002, 5
	f.Tail = f.Tail.AppendMaster(&Master{IPv4, TCP, 5, tuple("10.0.0.1", "10.0.0.2", 40000, 21)}).
		AppendExpectation(&Expectation{
			Flags: ExpectPermanent, Class: 1, HasClass: true,
			HasNAT: true, NATDirection: Reply, NATProtocol: TCP, NAT: tuple("192.168.1.7", "0.0.0.0", 38000, 0),
		}).
		Append(AttrHelper, []byte("ftp")).Append(AttrFunction, []byte("nat-follow-master"))
	return Event{Kind: Expect, Flow: f}
}
