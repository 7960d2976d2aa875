package testbed

import (
	"bufio"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// ParseFlows reads flows in the text of conntrack(8) -L and of conntrackd -i and
// -e, one a line. What is not printed is zero: so is the reply tuple of all flows
// of conntrackd -e, and of the status only StatusSeenReply and StatusAssured are
// known. Compare with Printed.
func ParseFlows(text string) (Table, error) {
	table := make(Table)
	lines := bufio.NewScanner(strings.NewReader(text))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if line == "" {
			continue
		}
		f, err := parseFlow(line)
		if err != nil {
			return nil, fmt.Errorf("testbed: parse flow %q: %w", line, err)
		}
		table.Add(f)
	}
	return table, lines.Err()
}

// Printed compares what every text that ParseFlows reads tells.
var Printed = Comparison{Fields: FieldTCP | FieldMark | FieldStatus, Status: StatusSeenReply | StatusAssured}

// parseFlow reads "name number [timeout] [STATE] key=value… [FLAG]…". Values of
// the original direction come before those of the reply.
func parseFlow(line string) (Flow, error) {
	words := strings.Fields(line)
	if len(words) > 2 && (words[0] == "ipv4" || words[0] == "ipv6") {
		words = words[2:] // the long form begins with family and number
	}
	if len(words) < 3 {
		return Flow{}, fmt.Errorf("too short")
	}
	proto, err := strconv.ParseUint(words[1], 10, 8)
	if err != nil {
		return Flow{}, fmt.Errorf("protocol: %w", err)
	}
	f := Flow{Key: Key{Proto: uint8(proto)}, TCP: NoTCPState, Status: StatusSeenReply}
	tuple := &f.Orig
	for _, word := range words[2:] {
		if strings.HasPrefix(word, "src=") && f.Orig.Src.IsValid() {
			tuple = &f.Reply
		}
		if err := f.word(tuple, word); err != nil {
			return Flow{}, fmt.Errorf("%q: %w", word, err)
		}
	}
	if !f.Orig.Src.IsValid() || !f.Orig.Dst.IsValid() {
		return Flow{}, fmt.Errorf("no addresses")
	}
	return f, nil
}

// word applies one word of a line; words that mean nothing here are skipped.
func (f *Flow) word(tuple *Tuple, word string) error {
	if name, value, pair := strings.Cut(word, "="); pair {
		return f.value(tuple, name, value)
	}
	switch {
	case word == "[UNREPLIED]":
		f.Status &^= StatusSeenReply
	case word == "[ASSURED]":
		f.Status |= StatusAssured
	case f.Orig.Src.IsValid(): // "[active", "since", "3s]"
	case f.Proto == unix.IPPROTO_TCP && slices.Contains(tcpStates, word):
		f.TCP = TCPState(slices.Index(tcpStates, word))
	default:
		if timeout, err := strconv.ParseUint(word, 10, 32); err == nil {
			f.Timeout = uint32(timeout)
		}
	}
	return nil
}

func (f *Flow) value(tuple *Tuple, name, value string) (err error) {
	switch name {
	case "src":
		tuple.Src, err = netip.ParseAddr(value)
	case "dst":
		tuple.Dst, err = netip.ParseAddr(value)
	case "sport":
		tuple.SrcPort, err = number[uint16](value)
	case "dport":
		tuple.DstPort, err = number[uint16](value)
	case "srckey": // of GRE
		tuple.SrcPort, err = number[uint16](value)
	case "dstkey":
		tuple.DstPort, err = number[uint16](value)
	case "zone-orig":
		f.Orig.Zone, err = number[uint16](value)
	case "zone-reply":
		f.Reply.Zone, err = number[uint16](value)
	case "type":
		tuple.ICMPType, err = number[uint8](value)
	case "code":
		tuple.ICMPCode, err = number[uint8](value)
	case "id":
		tuple.ICMPID, err = number[uint16](value)
	case "zone":
		f.Zone, err = number[uint16](value)
	case "mark":
		f.Mark, err = number[uint32](value)
	case "helper":
		f.Helper = value
	}
	return err
}

func number[T uint8 | uint16 | uint32](text string) (T, error) {
	n, err := strconv.ParseUint(text, 0, 32)
	if err == nil && uint64(T(n)) != n {
		err = strconv.ErrRange
	}
	return T(n), err
}
