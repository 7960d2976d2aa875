package conntrackdcli

import (
	"fmt"
	"strings"

	"github.com/sluice-project/sluice/core/flow"
)

// appendExpectation appends an expectation as conntrackd -i expect prints it.
func (e *Entry) appendExpectation(p []byte) []byte {
	p = fmt.Appendf(p, "proto=%d ", e.ProtocolNumber)
	p = appendTuple(p, "src=", "dst=", "", &e.Original)
	p = appendTuple(p, "mask-src=", "mask-dst=", "", e.Mask)
	if e.Master != nil {
		p = appendTuple(p, "master-src=", "master-dst=", "", &e.Master.TupleView)
	}
	p = appendNonZero(p, "zone=", e.Zone)
	if x := e.Expectation; x != nil {
		if len(x.Flags) > 0 {
			p = fmt.Appendf(p, "%s ", strings.Join(x.Flags, ","))
		}
		if x.Class != nil {
			p = fmt.Appendf(p, "class=%d ", *x.Class)
		}
	}
	if e.Helper != "" {
		p = fmt.Appendf(p, "helper=%s ", e.Helper)
	}
	return fmt.Appendf(p, "[active since %ds]\n", e.Active)
}

// appendExpectationXML appends an expectation as conntrackd -i expect -x prints
// it: each layer has the expected tuple, the mask and the master.
func (e *Entry) appendExpectationXML(p []byte) []byte {
	tuples := []struct {
		name  string
		tuple *flow.TupleView
	}{{"expected", &e.Original}, {"mask", e.Mask}}
	if e.Master != nil {
		tuples = append(tuples, struct {
			name  string
			tuple *flow.TupleView
		}{"master", &e.Master.TupleView})
	}
	p = append(append(p, "<flow>"...), layer3(e.Original.Source)...)
	for _, t := range tuples {
		p = fmt.Appendf(p, "<%s>", t.name)
		p = appendAddressesXML(p, t.tuple)
		p = fmt.Appendf(p, "</%s>", t.name)
	}
	p = fmt.Appendf(p, `</layer3><layer4 protonum="%d" protoname="%s">`, e.ProtocolNumber, protocolName(e.ProtocolNumber))
	for _, t := range tuples {
		p = fmt.Appendf(p, "<%s>", t.name)
		p = appendPortsXML(p, t.tuple)
		p = fmt.Appendf(p, "</%s>", t.name)
	}
	p = append(p, "</layer4><meta>"...)
	if e.Helper != "" {
		p = fmt.Appendf(p, "<helper-name>%s</helper-name>", escape(e.Helper))
	}
	if e.Expectation != nil && e.Expectation.Class != nil {
		p = fmt.Appendf(p, "<class>%d</class>", *e.Expectation.Class)
	}
	if e.Zone != 0 {
		p = fmt.Appendf(p, "<zone>%d</zone>", e.Zone)
	}
	return append(p, "</meta></flow>\n"...)
}
