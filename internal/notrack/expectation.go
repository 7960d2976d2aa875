package notrack

import (
	"bytes"
	"encoding/binary"

	"github.com/sluice-project/sluice/core/flow"
)

// Attributes of expectations by number; three groups of four are tuples.
const (
	expMaster   = 0 // IPv4, IPv6, protocol, ports of the master's tuple
	expExpected = 4 // the same of the expected tuple
	expMask     = 8 // the same of its mask
	expTimeout  = 12
	expFlags    = 13
	expClass    = 14
	expNATIPv4  = 15
	expNATPort  = 16
	expNATProto = 17
	expNATDir   = 18
	expHelper   = 19
	expFunction = 20
	expHighest  = expFunction

	expFunctionMax = 32
)

var expLengths = [expHighest + 1]uint8{
	12, 36, 5, 8, 12, 36, 5, 8, 12, 36, 5, 8,
	expTimeout: 8, expFlags: 8, expClass: 8,
	expNATIPv4: 12, expNATPort: 8, expNATProto: 5, expNATDir: 8,
}

// expOrder is the order in which conntrackd sends them.
var expOrder = [...]int{
	0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11,
	expTimeout, expFlags, expClass, expNATIPv4, expNATProto, expNATPort, expNATDir, expHelper, expFunction,
}

// An ExpectedTuple is one of the three tuples of an expectation.
type ExpectedTuple struct {
	flow.Tuple
	Protocol uint8
}

// Expected is a flow that a helper waits for, as the wire has it.
type Expected struct {
	Kind    flow.Kind
	Present uint32 // bit n: attribute n is there

	Master, Tuple, Mask ExpectedTuple

	Timeout, Flags, Class uint32

	NAT          ExpectedTuple // saved address and port, and twice a zero
	NATDirection uint32

	Helper   [helperMax]byte // with NUL
	Function [expFunctionMax]byte
}

func (e *Expected) has(number int) bool { return e.Present&(1<<number) != 0 }

// AppendExpected appends the message about e: what is Present, in conntrackd's
// order.
func AppendExpected(p []byte, e *Expected) []byte {
	at := len(p)
	p = append(p, wireVersion<<4|(typeExpNew+flowType(e.Kind)), 0, 0, 0, 0, 0, 0, 0)
	for _, number := range expOrder {
		if e.has(number) {
			p = e.append(p, number)
		}
	}
	return endMessage(p, at)
}

func (e *Expected) append(p []byte, number int) []byte {
	if number < expTimeout {
		t := [...]*ExpectedTuple{&e.Master, &e.Tuple, &e.Mask}[number/4]
		switch number % 4 {
		case 0:
			return appendAddresses(p, number, number, flow.IPv4, &t.Tuple)
		case 1:
			return appendAddresses(p, number, number, flow.IPv6, &t.Tuple)
		case 2:
			return append8(p, number, t.Protocol)
		}
		return appendPorts(p, number, &t.Tuple)
	}
	switch number {
	case expTimeout:
		return append32(p, number, e.Timeout)
	case expFlags:
		return append32(p, number, e.Flags)
	case expClass:
		return append32(p, number, e.Class)
	case expNATIPv4:
		return appendAddresses(p, number, number, flow.IPv4, &e.NAT.Tuple)
	case expNATProto:
		return append8(p, number, e.NAT.Protocol)
	case expNATPort:
		return appendPorts(p, number, &e.NAT.Tuple)
	case expNATDir:
		return append32(p, number, e.NATDirection)
	case expHelper:
		return appendString(p, number, untilNUL(e.Helper[:helperNameMax]))
	}
	return appendString(p, number, untilNUL(e.Function[:expFunctionMax-attrHeader-1]))
}

func untilNUL(s []byte) []byte {
	if n := bytes.IndexByte(s, 0); n >= 0 {
		return s[:n]
	}
	return s
}

// decode reads the message p, whose header is good, overwriting all of e.
func (e *Expected) decode(p []byte, strict bool, c *Counters) bool {
	*e = Expected{Kind: kinds[p[0]&0xf-typeExpNew]}
	p = p[headerSize:]
	for len(p) > attrHeader {
		size, number := int(binary.BigEndian.Uint16(p)), int(binary.BigEndian.Uint16(p[2:]))
		if size < attrHeader || size > len(p) {
			return false
		}
		switch {
		case number > expHighest:
			if strict {
				return false
			}
			c.UnknownAttributes++
		case !expLengthGood(number, size):
			return false
		default:
			e.Present |= 1 << number
			e.set(number, p[attrHeader:size])
		}
		p = p[min(padded(size), len(p)):]
	}
	return true
}

func expLengthGood(number, size int) bool {
	switch number {
	case expHelper:
		return size <= helperMax
	case expFunction:
		return size <= expFunctionMax
	}
	return size == int(expLengths[number])
}

func (e *Expected) set(number int, v []byte) {
	if number < expTimeout {
		[...]*ExpectedTuple{&e.Master, &e.Tuple, &e.Mask}[number/4].set(number%4, v)
		return
	}
	switch number {
	case expTimeout:
		e.Timeout = binary.BigEndian.Uint32(v)
	case expFlags:
		e.Flags = binary.BigEndian.Uint32(v)
	case expClass:
		e.Class = binary.BigEndian.Uint32(v)
	case expNATIPv4:
		e.NAT.set(0, v)
	case expNATProto:
		e.NAT.set(2, v)
	case expNATPort:
		e.NAT.set(3, v)
	case expNATDir:
		e.NATDirection = binary.BigEndian.Uint32(v)
	case expHelper:
		e.Helper = [helperMax]byte{}
		copy(e.Helper[:helperNameMax], v)
	case expFunction:
		e.Function = [expFunctionMax]byte{}
		copy(e.Function[:expFunctionMax-1], v)
	}
}

// set sets part of a tuple: 0 IPv4 addresses, 1 IPv6, 2 protocol, 3 ports.
func (t *ExpectedTuple) set(part int, v []byte) {
	switch part {
	case 0:
		t.Source, t.Destination = [16]byte{}, [16]byte{}
		copy(t.Source[:], v[:4])
		copy(t.Destination[:], v[4:])
	case 1:
		t.Source, t.Destination = [16]byte(v), [16]byte(v[16:])
	case 2:
		t.Protocol = v[0]
	case 3:
		readPorts(v, &t.Tuple)
	}
}
