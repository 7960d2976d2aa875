package flow

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"net/netip"
	"strconv"
)

// A View is a flow as programs see it: what `sluice dump -o json` prints, one
// object a line. Fields of the flow that are not known are left out, so absent
// and zero stay different. Names and meaning of fields don't change; new ones
// may be added.
type View struct {
	Kind           string     `json:"kind,omitempty"` // of an Event: "new", "update", "destroy", "expect", "unexpect"
	Family         string     `json:"family"`         // "ipv4" or "ipv6"
	Protocol       string     `json:"protocol"`       // as ProtocolName
	ProtocolNumber uint8      `json:"protocol_number"`
	State          string     `json:"state,omitempty"`   // TCP and SCTP
	Timeout        *uint32    `json:"timeout,omitempty"` // seconds
	Original       TupleView  `json:"original"`
	Reply          *TupleView `json:"reply,omitempty"`
	Zone           uint16     `json:"zone"`
	ZoneOriginal   uint16     `json:"zone_original,omitempty"`
	ZoneReply      uint16     `json:"zone_reply,omitempty"`
	Status         []string   `json:"status,omitempty"` // as Status.Names
	Mark           *uint32    `json:"mark,omitempty"`
	ID             *uint32    `json:"id,omitempty"` // CTA_ID, of this node only

	// What NAT makes of the source and of the destination, where it does:
	// derived from the tuples.
	SourceNAT      *NATView `json:"source_nat,omitempty"`
	DestinationNAT *NATView `json:"destination_nat,omitempty"`

	WindowScale *[2]uint8        `json:"window_scale,omitempty"` // TCP: original, reply
	TCPFlags    *[2]uint8        `json:"tcp_flags,omitempty"`    // IP_CT_TCP_FLAG_*: original, reply
	Labels      string           `json:"labels,omitempty"`       // the 16 bytes in hexadecimal, label 0 in the first byte's lowest bit
	Helper      string           `json:"helper,omitempty"`
	Master      *MasterView      `json:"master,omitempty"`
	SeqAdj      *[2]SeqAdjView   `json:"sequence_adjustment,omitempty"` // original, reply
	Synproxy    *SynproxyView    `json:"synproxy,omitempty"`
	SCTPTags    *[2]uint32       `json:"sctp_tags,omitempty"` // original, reply
	Counters    *[2]CountersView `json:"counters,omitempty"`  // original, reply
	Timestamps  *TimestampsView  `json:"timestamps,omitempty"`

	// Of an expectation only. The expected tuple is Original.
	Mask        *TupleView       `json:"mask,omitempty"`
	Expectation *ExpectationView `json:"expectation,omitempty"`
	Function    string           `json:"function,omitempty"`

	// Unknown has attributes that this version has no field for: the type's
	// number and the value in hexadecimal.
	Unknown map[string]string `json:"unknown,omitempty"`
}

// A TupleView is one direction of a flow: addresses with ports, or with type,
// code and id of ICMP, or with the keys of GRE.
type TupleView struct {
	Source          netip.Addr `json:"source"`
	Destination     netip.Addr `json:"destination"`
	SourcePort      *uint16    `json:"source_port,omitempty"`
	DestinationPort *uint16    `json:"destination_port,omitempty"`
	ICMPType        *uint8     `json:"icmp_type,omitempty"`
	ICMPCode        *uint8     `json:"icmp_code,omitempty"`
	ICMPID          *uint16    `json:"icmp_id,omitempty"`
	SourceKey       *uint16    `json:"source_key,omitempty"`
	DestinationKey  *uint16    `json:"destination_key,omitempty"`
}

// A NATView is what an end of the flow is translated to; of ICMP the port is
// the echo id.
type NATView struct {
	Address netip.Addr `json:"address"`
	Port    uint16     `json:"port"`
}

// A MasterView is the original tuple of the flow whose helper expected this one.
type MasterView struct {
	Protocol string `json:"protocol"`
	Zone     uint16 `json:"zone"`
	TupleView
}

// A SeqAdjView is how a helper moved the sequence numbers of a direction.
type SeqAdjView struct {
	Position uint32 `json:"position"`
	Before   uint32 `json:"before"`
	After    uint32 `json:"after"`
}

// A SynproxyView is what the kernel's SYNPROXY keeps of a flow.
type SynproxyView struct {
	ISN   uint32 `json:"isn"`
	ITS   uint32 `json:"its"`
	TSOff uint32 `json:"tsoff"`
}

// A CountersView counts one direction.
type CountersView struct {
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
}

// A TimestampsView has nanoseconds since 1970; 0 is not known.
type TimestampsView struct {
	Start uint64 `json:"start"`
	Stop  uint64 `json:"stop"`
}

// An ExpectationView is what an expectation has beside its tuples.
type ExpectationView struct {
	Flags     []string `json:"flags"` // as ExpectFlags.Names
	Class     *uint32  `json:"class,omitempty"`
	NAT       *NATView `json:"nat,omitempty"`           // address and port before the translation
	Direction string   `json:"nat_direction,omitempty"` // of the master: "original" or "reply"
}

func (x *Expectation) view(family uint8) *ExpectationView {
	v := &ExpectationView{Flags: x.Flags.Names()}
	if x.HasClass {
		v.Class = &x.Class
	}
	if x.HasNAT {
		v.NAT = &NATView{Address(family, x.NAT.Source), x.NAT.SourcePort}
		v.Direction = [...]string{"original", "reply"}[x.NATDirection&1]
	}
	return v
}

// View returns the flow as programs see it.
func (f *Flow) View() View {
	v := View{
		Family: "ipv4", Protocol: ProtocolName(f.Protocol), ProtocolNumber: f.Protocol, State: f.StateName(),
		Original: viewTuple(f.Family, f.Protocol, f.Original),
		Zone:     f.Zone, ZoneOriginal: f.ZoneOriginal, ZoneReply: f.ZoneReply,
		SourceNAT: f.viewNAT(f.SourceNAT()), DestinationNAT: f.viewNAT(f.DestinationNAT()),
		Timeout: present(f, HasTimeout, f.Timeout), Mark: present(f, HasMark, f.Mark), ID: present(f, HasID, f.ID),
		WindowScale: present(f, HasWindowScale, f.WindowScale), TCPFlags: present(f, HasTCPFlags, f.TCPFlags),
	}
	if f.Family == IPv6 {
		v.Family = "ipv6"
	}
	if f.Has(HasReply) {
		t := viewTuple(f.Family, f.Protocol, f.Reply)
		v.Reply = &t
	}
	if f.Has(HasStatus) {
		v.Status = f.Status.Names()
	}
	for t, value := range f.Tail.All() {
		if !v.setAttribute(f, t, value) {
			if v.Unknown == nil {
				v.Unknown = map[string]string{}
			}
			v.Unknown[strconv.Itoa(int(t))] = hex.EncodeToString(value)
		}
	}
	return v
}

// present returns the field's value if the flow has it.
func present[T any](f *Flow, mask Field, value T) *T {
	if !f.Has(mask) {
		return nil
	}
	return &value
}

// setAttribute shows one attribute of the tail. It says false for those that
// have no field, or not the length that theirs has.
func (v *View) setAttribute(f *Flow, t Attr, b []byte) bool {
	le := binary.LittleEndian
	switch {
	case t == AttrLabels:
		v.Labels = hex.EncodeToString(b)
	case t == AttrHelper:
		v.Helper = printable(b)
	case t == AttrMaster && len(b) == masterSize:
		m, _ := f.Tail.Master()
		v.Master = &MasterView{ProtocolName(m.Protocol), m.Zone, viewTuple(m.Family, m.Protocol, m.Tuple)}
	case t == AttrSeqAdj && len(b) == 24:
		v.SeqAdj = &[2]SeqAdjView{
			{le.Uint32(b), le.Uint32(b[4:]), le.Uint32(b[8:])}, {le.Uint32(b[12:]), le.Uint32(b[16:]), le.Uint32(b[20:])},
		}
	case t == AttrSynproxy && len(b) == 12:
		v.Synproxy = &SynproxyView{le.Uint32(b), le.Uint32(b[4:]), le.Uint32(b[8:])}
	case t == AttrSCTPTags && len(b) == 8:
		v.SCTPTags = &[2]uint32{le.Uint32(b), le.Uint32(b[4:])}
	case t == AttrCounters && len(b) == 32:
		v.Counters = &[2]CountersView{{le.Uint64(b), le.Uint64(b[8:])}, {le.Uint64(b[16:]), le.Uint64(b[24:])}}
	case t == AttrExpectation && len(b) == expectationSize:
		x, _ := f.Tail.Expectation()
		v.Expectation = x.view(f.Family)
	case t == AttrFunction:
		v.Function = printable(b)
	case t == AttrTimestamps && len(b) == 16:
		v.Timestamps = &TimestampsView{le.Uint64(b), le.Uint64(b[8:])}
	default:
		return false
	}
	return true
}

func (f *Flow) viewNAT(t Translation, ok bool) *NATView {
	if !ok {
		return nil
	}
	return &NATView{Address(f.Family, t.Address), t.Port}
}

func viewTuple(family, protocol uint8, t Tuple) TupleView {
	v := TupleView{Source: Address(family, t.Source), Destination: Address(family, t.Destination)}
	switch protocol {
	case TCP, UDP, UDPLite, SCTP, DCCP:
		v.SourcePort, v.DestinationPort = &t.SourcePort, &t.DestinationPort
	case ICMP, ICMPv6:
		typ, code := uint8(t.DestinationPort>>8), uint8(t.DestinationPort)
		v.ICMPType, v.ICMPCode, v.ICMPID = &typ, &code, &t.SourcePort
	case GRE:
		v.SourceKey, v.DestinationKey = &t.SourcePort, &t.DestinationPort
	}
	return v
}

// MarshalJSON returns the flow's View as JSON.
func (f Flow) MarshalJSON() ([]byte, error) { return json.Marshal(f.View()) }

// MarshalJSON returns the View of the event's flow with its kind, or of a mark
// {"kind", "flags", "count"}.
func (e Event) MarshalJSON() ([]byte, error) {
	if e.IsMark() {
		return json.Marshal(struct {
			Kind  string    `json:"kind"`
			Flags SyncFlags `json:"flags"`
			Count uint64    `json:"count"`
		}{e.Kind.String(), e.Sync.Flags, e.Sync.Count})
	}
	return json.Marshal(e.View())
}

// View returns the flow or expectation as programs see it, with the event's
// kind.
func (e *Event) View() View {
	v := e.Flow.View()
	v.Kind = e.Kind.String()
	if e.IsExpectation() {
		v.Mask, v.Reply = v.Reply, nil
		v.SourceNAT, v.DestinationNAT = nil, nil // the second tuple is no reply
	}
	return v
}
