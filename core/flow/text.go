package flow

import (
	"encoding/binary"
	"encoding/hex"
	"strconv"
)

// String returns the flow on one line as `conntrack -L` prints it, without
// use= and with the numbers of its labels where it has some:
//
//	tcp      6 431999 ESTABLISHED src=… dst=… sport=… dport=… src=… dst=… sport=… dport=… [ASSURED] mark=0 zone=5
func (f *Flow) String() string { return string(f.AppendText(nil)) }

// AppendText appends what String returns to p.
func (f *Flow) AppendText(p []byte) []byte {
	name := ProtocolName(f.Protocol)
	p = append(p, name...)
	for n := len(name); n < 8; n++ {
		p = append(p, ' ')
	}
	p = appendNumber(p, " ", uint64(f.Protocol))
	if f.Has(HasTimeout) {
		p = appendNumber(p, " ", uint64(f.Timeout))
	}
	if s := f.StateName(); s != "" {
		p = append(append(p, ' '), s...)
	}
	p = appendTuple(p, f.Family, f.Protocol, &f.Original)
	p = appendNonZero(p, " zone-orig=", f.ZoneOriginal)
	p = f.appendCounters(p, Original)
	if f.Has(HasStatus) && f.Status&SeenReply == 0 {
		p = append(p, " [UNREPLIED]"...)
	}
	if f.Has(HasReply) {
		p = appendTuple(p, f.Family, f.Protocol, &f.Reply)
		p = appendNonZero(p, " zone-reply=", f.ZoneReply)
		p = f.appendCounters(p, Reply)
	}
	return f.appendRest(p)
}

// appendRest appends what follows the tuples.
func (f *Flow) appendRest(p []byte) []byte {
	if f.Has(HasStatus) && f.Status&Assured != 0 {
		p = append(p, " [ASSURED]"...)
	}
	if f.Has(HasMark) {
		p = appendNumber(p, " mark=", uint64(f.Mark))
	}
	p = appendNonZero(p, " zone=", f.Zone)
	if helper, ok := f.Tail.Get(AttrHelper); ok {
		p = append(append(p, " helper="...), printable(helper)...)
	}
	if labels, ok := f.Tail.Get(AttrLabels); ok {
		p = appendLabels(p, labels)
	}
	return p
}

func (f *Flow) appendCounters(p []byte, direction int) []byte {
	v, ok := f.Tail.Get(AttrCounters)
	if !ok || len(v) != 32 {
		return p
	}
	v = v[16*direction:]
	p = appendNumber(p, " packets=", binary.LittleEndian.Uint64(v))
	return appendNumber(p, " bytes=", binary.LittleEndian.Uint64(v[8:]))
}

func appendTuple(p []byte, family, protocol uint8, t *Tuple) []byte {
	return appendPorts(appendAddresses(p, " src=", " dst=", family, t), protocol, t)
}

func appendAddresses(p []byte, source, destination string, family uint8, t *Tuple) []byte {
	p = Address(family, t.Source).AppendTo(append(p, source...))
	return Address(family, t.Destination).AppendTo(append(p, destination...))
}

// appendPorts appends what the protocol has in the place of ports.
func appendPorts(p []byte, protocol uint8, t *Tuple) []byte {
	switch protocol {
	case TCP, UDP, UDPLite, SCTP, DCCP:
		p = appendNumber(p, " sport=", uint64(t.SourcePort))
		p = appendNumber(p, " dport=", uint64(t.DestinationPort))
	case ICMP, ICMPv6:
		p = appendNumber(p, " type=", uint64(t.DestinationPort>>8))
		p = appendNumber(p, " code=", uint64(t.DestinationPort&0xff))
		p = appendNumber(p, " id=", uint64(t.SourcePort))
	case GRE:
		p = strconv.AppendUint(append(p, " srckey=0x"...), uint64(t.SourcePort), 16)
		p = strconv.AppendUint(append(p, " dstkey=0x"...), uint64(t.DestinationPort), 16)
	}
	return p
}

// appendLabels appends the numbers of the labels that are set, since their
// names are a file's on the machine that prints.
func appendLabels(p, labels []byte) []byte {
	before := " labels="
	for i := range 8 * len(labels) {
		if labels[i/8]&(1<<(i%8)) != 0 {
			p = appendNumber(p, before, uint64(i))
			before = ","
		}
	}
	return p
}

func appendNumber(p []byte, before string, v uint64) []byte {
	return strconv.AppendUint(append(p, before...), v, 10)
}

func appendNonZero(p []byte, before string, v uint16) []byte {
	if v == 0 {
		return p
	}
	return appendNumber(p, before, uint64(v))
}

// printable returns a helper's name, or its bytes in hexadecimal where they are
// no name: it may be a peer's bytes on an administrator's terminal.
func printable(name []byte) string {
	for _, c := range name {
		if c <= ' ' || c > '~' || c == '"' {
			return "0x" + hex.EncodeToString(name)
		}
	}
	return string(name)
}

// String returns the event on one line as `conntrack -E` prints it, as in
// " [UPDATE] tcp …"; marks as in "sync-end flags=2 count=17".
func (e *Event) String() string { return string(e.AppendText(nil)) }

// AppendText appends what String returns to p.
func (e *Event) AppendText(p []byte) []byte {
	switch e.Kind {
	case New:
		p = append(p, "    [NEW] "...)
	case Update:
		p = append(p, " [UPDATE] "...)
	case Destroy:
		p = append(p, "[DESTROY] "...)
	case Expect:
		return e.AppendExpectation(append(p, "    [NEW] "...))
	case Unexpect:
		return e.AppendExpectation(append(p, "[DESTROY] "...))
	default:
		p = append(p, e.Kind.String()...)
		p = appendNumber(p, " flags=", uint64(e.Sync.Flags))
		return appendNumber(p, " count=", e.Sync.Count)
	}
	return e.Flow.AppendText(p)
}
