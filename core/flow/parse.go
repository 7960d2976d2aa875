package flow

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// A Text is what one line says of an event: the names of what it states with
// their values. Lines are as Event.AppendText writes them, and so as conntrack(8)
// prints events, with most of it left out as one likes:
//
//		[NEW] tcp SYN_SENT src=10.0.0.1 dst=192.0.2.80 sport=40000 dport=443
//		[UPDATE] udp 17 30 src=… dst=… sport=… dport=… src=… dst=… sport=… dport=… [ASSURED] mark=7
//		[DESTROY] icmp src=2001:db8::1 reply-src=2001:db8::2 zone=5
//
//	 1. The kind is one of [NEW], [UPDATE] and [DESTROY], or without the brackets
//	    and in lower case. The protocol is a name or a number, and may be followed
//	    by its number, and then the timeout; timeout= says it as well.
//	 2. Addresses and ports behind the second src= are the reply's; reply- before a
//	    name says so, too. mask- and master- are an expectation's.
//	 3. [ASSURED] and [UNREPLIED] are stated where they stand. What the kernel's
//	    time stamps and `sluice record --print` put before the kind is passed over,
//	    and so is use=.
type Text struct {
	names  []string
	values map[string]string
}

// The names of a Text that have no equals sign in the line.
const (
	textKind      = "kind"      // NEW, UPDATE, DESTROY
	textProtocol  = "protocol"  // a number
	textTimeout   = "timeout"   // seconds
	textState     = "state"     // as StateName
	textAssured   = "assured"   // "yes"
	textUnreplied = "unreplied" // "yes"
	textForeign   = "foreign"   // "yes"
	textExpect    = "expectation"
)

// values of a line that are read, by the kind of value.
var (
	textAddresses = []string{"src", "dst"}
	textNumbers   = map[string]int{ // bits
		"sport": 16, "dport": 16, "type": 8, "code": 8, "id": 16, "srckey": 16, "dstkey": 16, "packets": 64, "bytes": 64,
		"timeout": 32, "mark": 32, "zone": 16, "zone-orig": 16, "zone-reply": 16, "proto": 8, "class": 32, "replay": 64,
		"nat-sport": 16, "nat-dir": 8,
	}
	textWords = []string{"helper", "labels", "owner", "origin", "function"}
	// Names that belong to a tuple.
	textOfTuple = []string{"src", "dst", "sport", "dport", "type", "code", "id", "srckey", "dstkey", "packets", "bytes"}
	textTuples  = []string{"", "reply-", "mask-", "master-"}
	textIgnored = []string{"use", "secctx", "delta-time", "portid", "progname"}
)

// A TextError says what of a line is not understood.
type TextError struct {
	Column int // from 1, in bytes
	Reason string
}

func (e *TextError) Error() string { return fmt.Sprintf("column %d: %s", e.Column, e.Reason) }

const blanks = " \t"

// ParseText reads a line. Its error is a *TextError.
func ParseText(line string) (Text, error) {
	p := textParser{Text: Text{values: map[string]string{}}}
	for rest := strings.TrimLeft(line, blanks); rest != ""; {
		word, column := rest, len(line)-len(rest)+1
		if end := strings.IndexAny(rest, blanks); end >= 0 {
			word = rest[:end]
		}
		if err := p.word(word); err != nil {
			return Text{}, &TextError{column, err.Error()}
		}
		rest = strings.TrimLeft(rest[len(word):], blanks)
	}
	if len(p.names) == 0 {
		return Text{}, &TextError{1, "an empty line"}
	}
	return p.Text, nil
}

// A textParser is what was read of a line.
type textParser struct {
	Text
	tuple   string // prefix of the tuple at hand
	numbers int    // bare ones so far
}

func (p *textParser) set(name, value string) error {
	if old, twice := p.values[name]; twice && old != value {
		return fmt.Errorf("%s is stated twice: %s and %s", name, old, value)
	} else if !twice {
		p.names = append(p.names, name)
	}
	p.values[name] = value
	return nil
}

func (p *textParser) word(word string) error {
	if name, value, ok := strings.Cut(word, "="); ok {
		return p.pair(name, value)
	}
	bare := strings.TrimSuffix(strings.TrimPrefix(word, "["), "]")
	bracketed := len(bare) == len(word)-2
	switch upper := strings.ToUpper(bare); {
	case upper == "NEW" || upper == "UPDATE" || upper == "DESTROY":
		return p.set(textKind, upper)
	case bracketed && upper == "ASSURED":
		return p.set(textAssured, "yes")
	case bracketed && upper == "UNREPLIED":
		return p.set(textUnreplied, "yes")
	case bracketed && upper == "FOREIGN":
		return p.set(textForeign, "yes")
	case bracketed && strings.Trim(bare, "0123456789.") == "":
		return nil // a time stamp
	case bracketed:
		return fmt.Errorf("%s: known are [NEW], [UPDATE], [DESTROY], [ASSURED], [UNREPLIED] and [FOREIGN]", word)
	case upper == "PERMANENT" || upper == "INACTIVE" || upper == "USERSPACE":
		return p.set(strings.ToLower(upper), "yes")
	}
	return p.bare(word)
}

// bare reads a protocol, a number or a state.
func (p *textParser) bare(word string) error {
	protocol, known := p.values[textProtocol]
	if strings.Contains(word, ".") && strings.Trim(word, "0123456789.") == "" && !known {
		return nil // the time of a recording
	}
	if number, err := strconv.ParseUint(word, 10, 32); err == nil {
		return p.number(number, known)
	}
	if word == "unknown" && !known {
		return nil // its number follows
	}
	if !known {
		v, err := ParseProtocol(word)
		if err != nil {
			return err
		}
		return p.set(textProtocol, strconv.Itoa(int(v)))
	}
	states := &tcpStates
	if protocol == strconv.Itoa(int(SCTP)) {
		states = &sctpStates
	}
	v, err := states.parse(word)
	if err != nil {
		return err
	}
	return p.set(textState, states.name(v))
}

// number reads a protocol's number, a timeout, or a state without a name.
func (p *textParser) number(v uint64, known bool) error {
	text := strconv.FormatUint(v, 10)
	p.numbers++
	switch {
	case !known && v < 256:
		return p.set(textProtocol, text)
	case known && p.numbers == 1 && text == p.values[textProtocol]:
		return nil
	}
	if _, twice := p.values[textTimeout]; !twice {
		return p.set(textTimeout, text)
	}
	return p.set(textState, text)
}

// pair reads NAME=VALUE.
func (p *textParser) pair(name, value string) error {
	prefix, bare := "", name
	for _, tuple := range textTuples[1:] {
		if rest, ok := strings.CutPrefix(name, tuple); ok {
			prefix, bare = tuple, rest
		}
	}
	if slices.Contains(textOfTuple, bare) {
		if prefix == "" {
			prefix = p.implied(bare)
		}
		p.tuple = prefix
		name = prefix + bare
	} else {
		bare = name
	}
	value, err := textValue(bare, value)
	switch {
	case err != nil:
		return fmt.Errorf("%s=: %w", name, err)
	case slices.Contains(textIgnored, bare):
		return nil
	case bare == "proto": // only expectations have it
		if err := p.set(textExpect, "yes"); err != nil {
			return err
		}
		name = textProtocol
		p.tuple = ""
	}
	return p.set(name, value)
}

// implied is the tuple that a name without a prefix belongs to: the one at hand,
// until a second src= begins the reply.
func (p *textParser) implied(bare string) string {
	_, begun := p.values["src"]
	if bare == "src" && begun && p.tuple == "" {
		return "reply-"
	}
	return p.tuple
}

// textValue brings a value into its one form.
func textValue(name, value string) (string, error) {
	switch bits, number := textNumbers[name]; {
	case slices.Contains(textAddresses, name) || name == "owner" || name == "nat-src":
		if strings.Contains(value, "/") {
			prefix, err := netip.ParsePrefix(value)
			return prefix.Masked().String(), simple(err, "%q is no network prefix", value)
		}
		address, err := netip.ParseAddr(value)
		return address.Unmap().String(), simple(err, "%q is no IP address", value)
	case number:
		v, err := strconv.ParseUint(value, 0, bits)
		return strconv.FormatUint(v, 10), simple(err, "%q is no number that fits", value)
	case slices.Contains(textWords, name), slices.Contains(textIgnored, name):
		return value, nil
	}
	all := append(append([]string{}, textAddresses...), textWords...)
	for known := range textNumbers {
		all = append(all, known)
	}
	slices.Sort(all) // so that of two that are as near it is always the same one
	err := &NameError{What: "name", Name: name, Near: near(name, all)}
	if len(err.Near) == 0 {
		return "", fmt.Errorf("unknown name %q", name)
	}
	return "", err
}

func simple(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf(format, args...)
}

// Get returns what a line states under a name, as in "reply-dst".
func (t Text) Get(name string) (value string, ok bool) {
	value, ok = t.values[name]
	return value, ok
}

// TextOf returns all that can be stated of an event that is no mark, with its
// owner and origin.
func TextOf(e *Event, h *Header) (Text, error) {
	line := e.AppendText(nil)
	if h.Owner.IsValid() {
		line = append(append(line, " owner="...), h.Owner.String()...)
	}
	return ParseText(string(append(append(line, " origin="...), h.Origin.String()...)))
}

// Differences returns what t states and is otherwise in the other, as in "mark is
// 8, not 7". An address may be stated as a network that it is in. Nothing means
// that the other is as t says; what t does not state does not matter.
func (t Text) Differences(other Text) (found []string) {
	for _, name := range t.names {
		want, got := t.values[name], other.values[name]
		switch {
		case want == got, inPrefix(want, got), name == "zone" && want == "0" && got == "":
		case got == "" && want == "yes":
			found = append(found, "it is not "+name)
		case got == "":
			found = append(found, "there is no "+name)
		default:
			found = append(found, fmt.Sprintf("%s is %s, not %s", name, got, want))
		}
	}
	return found
}

func inPrefix(prefix, address string) bool {
	if !strings.Contains(prefix, "/") {
		return false
	}
	p, err := netip.ParsePrefix(prefix)
	a, err2 := netip.ParseAddr(address)
	return err == nil && err2 == nil && p.Contains(a)
}

// Event makes an event of what is stated. A kind that is not is New, a reply tuple
// that of a flow that nothing translates, and the flow is confirmed and has seen a
// reply unless it says [UNREPLIED]. Everything else that is not stated is not
// known.
func (t Text) Event() (e Event, err error) {
	if t.values[textExpect] != "" {
		return e, fmt.Errorf("an expectation can't be written: record it")
	}
	e.Kind = map[string]Kind{"UPDATE": Update, "DESTROY": Destroy}[t.values[textKind]]
	if e.Kind == 0 {
		e.Kind = New
	}
	if t.values[textProtocol] == "" {
		return e, fmt.Errorf("it names no protocol")
	}
	e.Protocol = uint8(t.uint(textProtocol))
	if e.Family, err = t.tuple("", e.Protocol, &e.Original); err != nil {
		return e, err
	}
	e.Reply = e.Original.Inverted(e.Protocol)
	if family, err := t.tuple("reply-", e.Protocol, &e.Reply); err != nil {
		return e, err
	} else if family != 0 && family != e.Family {
		return e, fmt.Errorf("its tuples are of two families")
	}
	e.Present, e.Status = HasReply|HasStatus, Confirmed
	if t.values[textUnreplied] == "" {
		e.Status |= SeenReply
	}
	if t.values[textAssured] != "" {
		e.Status |= Assured
	}
	e.Zone, e.ZoneOriginal, e.ZoneReply = uint16(t.uint("zone")), uint16(t.uint("zone-orig")), uint16(t.uint("zone-reply"))
	t.optional(&e.Flow)
	return e, t.tail(&e.Flow)
}

func (t Text) uint(name string) uint64 {
	v, _ := strconv.ParseUint(t.values[name], 10, 64)
	return v
}

// tuple fills in what is stated of a tuple and returns its family, 0 if it has no
// address.
func (t Text) tuple(prefix string, protocol uint8, to *Tuple) (family uint8, err error) {
	for name, field := range map[string]*[16]byte{"src": &to.Source, "dst": &to.Destination} {
		text := t.values[prefix+name]
		if text == "" {
			if prefix == "" {
				return 0, fmt.Errorf("it has no %s=", name)
			}
			continue
		}
		address, err := netip.ParseAddr(text)
		if err != nil {
			return 0, fmt.Errorf("%s%s=%s is no address", prefix, name, text)
		}
		bytes, of := Bytes(address)
		if family != 0 && family != of {
			return 0, fmt.Errorf("its addresses are of two families")
		}
		*field, family = bytes, of
	}
	for name, field := range map[string]*uint16{"sport": &to.SourcePort, "dport": &to.DestinationPort, "srckey": &to.SourcePort, "dstkey": &to.DestinationPort, "id": &to.SourcePort} {
		if _, ok := t.values[prefix+name]; ok {
			*field = uint16(t.uint(prefix + name))
		}
	}
	_, typ := t.values[prefix+"type"]
	_, code := t.values[prefix+"code"]
	if typ || code {
		if !typ {
			return family, fmt.Errorf("it has a %scode= without a %stype=", prefix, prefix)
		}
		to.DestinationPort = uint16(t.uint(prefix+"type"))<<8 | uint16(t.uint(prefix+"code"))
	} else if prefix == "" && (protocol == ICMP || protocol == ICMPv6) {
		to.DestinationPort = map[uint8]uint16{ICMP: 8, ICMPv6: 128}[protocol] << 8 // an echo
	}
	return family, nil
}

func (t Text) optional(f *Flow) {
	for name, field := range map[string]*uint32{textTimeout: &f.Timeout, "mark": &f.Mark} {
		if _, ok := t.values[name]; ok {
			*field = uint32(t.uint(name))
			f.Present |= map[string]Field{textTimeout: HasTimeout, "mark": HasMark}[name]
		}
	}
	if name, ok := t.values[textState]; ok {
		states := &tcpStates
		if f.Protocol == SCTP {
			states = &sctpStates
		}
		state, err := states.parse(name)
		if err != nil {
			state = uint8(t.uint(textState))
		}
		f.State, f.Present = state, f.Present|HasState
	}
}

// tail appends what is stated of the rarer attributes.
func (t Text) tail(f *Flow) error {
	if text, ok := t.values["labels"]; ok {
		var labels [16]byte
		for _, one := range strings.Split(text, ",") {
			bit, err := strconv.ParseUint(one, 10, 7)
			if err != nil {
				return fmt.Errorf("labels=%s: %q is no number from 0 to 127", text, one)
			}
			labels[bit/8] |= 1 << (bit % 8)
		}
		f.Tail = f.Tail.Append(AttrLabels, labels[:])
	}
	if helper, ok := t.values["helper"]; ok {
		f.Tail = f.Tail.Append(AttrHelper, []byte(helper))
	}
	return nil
}
