package flow

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
)

func differences(t Text, e *Event, h *Header) []string {
	is, err := TextOf(e, h)
	if err != nil {
		return []string{err.Error()}
	}
	return t.Differences(is)
}

// What is written reads back as it was.
func TestTextRoundTrip(t *testing.T) {
	for name, f := range flows() {
		e := Event{Kind: Update, Flow: f}
		text, err := ParseText(e.String())
		if err != nil {
			t.Errorf("%s: %s: %v", name, e.String(), err)
			continue
		}
		if found := differences(text, &e, &Header{}); found != nil {
			t.Errorf("%s: %s: %v", name, e.String(), found)
		}
		if name == "bare" || name == "sctp" { // no reply tuple; counters
			continue
		}
		again, err := text.Event()
		if err != nil || again.String() != e.String() {
			t.Errorf("%s: %v\n%s\n%s", name, err, e.String(), again.String())
		}
	}
	x := expectation()
	text, err := ParseText(x.String())
	if err != nil {
		t.Fatal(err)
	}
	if found := differences(text, &x, &Header{}); found != nil {
		t.Error(x.String(), found)
	}
	if _, err := text.Event(); err == nil {
		t.Error("an expectation was made of text")
	}
}

// Short lines are filled in.
func TestTextEvent(t *testing.T) {
	for line, want := range map[string]string{
		"tcp src=10.0.0.1 dst=10.0.0.2 sport=1 dport=2": "    [NEW] tcp      6 src=10.0.0.1 dst=10.0.0.2 sport=1 dport=2 src=10.0.0.2 dst=10.0.0.1 sport=2 dport=1",
		"destroy icmp src=10.0.0.1 dst=10.0.0.2":        "[DESTROY] icmp     1 src=10.0.0.1 dst=10.0.0.2 type=8 code=0 id=0 src=10.0.0.2 dst=10.0.0.1 type=0 code=0 id=0",
		"[UPDATE] tcp established timeout=5 src=10.0.0.1 dst=10.0.0.2 reply-dst=192.0.2.1 reply-dport=0x10 [ASSURED] mark=0x7 labels=1,9 zone=3": " [UPDATE] tcp      6 5 ESTABLISHED src=10.0.0.1 dst=10.0.0.2 sport=0 dport=0 " +
			"src=10.0.0.2 dst=192.0.2.1 sport=0 dport=16 [ASSURED] mark=7 zone=3 labels=1,9",
		"   12.000001  [NEW] udp 17 30 src=2001:db8::1 dst=2001:db8::2 [UNREPLIED] use=1": "    [NEW] udp      17 30 src=2001:db8::1 dst=2001:db8::2 sport=0 dport=0 [UNREPLIED] src=2001:db8::2 dst=2001:db8::1 sport=0 dport=0",
		"[1700000000.123456]\t[NEW] 50 src=10.0.0.1\tdst=10.0.0.2":                        "    [NEW] unknown  50 src=10.0.0.1 dst=10.0.0.2 src=10.0.0.2 dst=10.0.0.1",
	} {
		text, err := ParseText(line)
		if err != nil {
			t.Errorf("%s: %v", line, err)
			continue
		}
		if e, err := text.Event(); err != nil || e.String() != want {
			t.Errorf("%s: %v\n%s\n%s", line, err, e.String(), want)
		}
	}
}

// What is wrong is said, and where.
func TestTextErrors(t *testing.T) {
	for line, want := range map[string]string{
		"":                                "column 1: an empty line",
		"[NEWS] tcp":                      "column 1: [NEWS]: known are [NEW]",
		"new tcpp src=1.1.1.1":            `column 5: unknown protocol "tcpp": did you mean "tcp"?`,
		"new tcp ESTABLISHD":              `column 9: unknown TCP state "ESTABLISHD": did you mean "ESTABLISHED"?`,
		"new tcp src=1.1.1":               `column 9: src=: "1.1.1" is no IP address`,
		"new tcp src=1.1.1.1 sprt=3":      `column 21: sprt=: unknown name "sprt": did you mean "sport"?`,
		"new tcp src=1.1.1.1 sport=66000": `column 21: sport=: "66000" is no number that fits`,
		"new tcp mark=1 mark=2":           "column 16: mark is stated twice: 1 and 2",
		"new tcp bogusname=1":             `column 9: bogusname=: unknown name "bogusname"`,
	} {
		_, err := ParseText(line)
		var at *TextError
		if !errors.As(err, &at) || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q: %v", line, err)
		}
	}
	for line, want := range map[string]string{
		"new src=1.1.1.1 dst=1.1.1.2":                     "no protocol",
		"tcp src=1.1.1.1":                                 "no dst=",
		"tcp src=1.1.1.1 dst=::1":                         "two families",
		"tcp src=1.1.1.1 dst=1.1.1.2 reply-src=::1":       "two families",
		"tcp src=1.1.1.0/24 dst=1.1.1.2":                  "no address",
		"icmp src=1.1.1.1 dst=1.1.1.2 code=1":             "without a type=",
		"tcp src=1.1.1.1 dst=1.1.1.2 labels=200":          "no number from 0 to 127",
		"298 proto=6 src=1.1.1.1 dst=1.1.1.2 mask-src=::": "can't be written",
	} {
		text, err := ParseText(line)
		if err != nil {
			t.Errorf("%q: %v", line, err)
			continue
		}
		if _, err := text.Event(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", line, err)
		}
	}
}

// Only what is stated matters.
func TestTextDifferences(t *testing.T) {
	f := tcpFlow()
	e, h := Event{Kind: Update, Flow: f}, Header{Origin: Peer, Owner: netip.MustParseAddr("192.168.100.2")}
	for line, want := range map[string]string{
		"tcp":                        "",
		"[UPDATE] tcp src=10.0.0.1":  "",
		"src=10.0.0.0/8 dport=443":   "",
		"src=11.0.0.0/8":             "src is 10.0.0.1, not 11.0.0.0/8",
		"[NEW] tcp mark=8":           "kind is UPDATE, not NEW; mark is 7, not 8",
		"reply-dst=198.51.100.7":     "",
		"tcp [UNREPLIED]":            "it is not unreplied",
		"owner=192.168.100.2":        "",
		"owner=192.168.100.3":        "owner is 192.168.100.2, not 192.168.100.3",
		"origin=kernel":              "origin is peer, not kernel",
		"tcp FIN_WAIT helper=ftp":    "state is ESTABLISHED, not FIN_WAIT",
		"master-src=10.0.0.1 zone=5": "there is no master-src",
	} {
		text, err := ParseText(line)
		if err != nil {
			t.Errorf("%q: %v", line, err)
			continue
		}
		if got := strings.Join(differences(text, &e, &h), "; "); got != want {
			t.Errorf("%q: %s", line, got)
		}
	}
	plain := Event{Kind: New, Flow: plain(UDP, tuple("10.0.0.1", "10.0.0.2", 1, 2))}
	if text, _ := ParseText("udp zone=0"); differences(text, &plain, &Header{}) != nil {
		t.Error("zone 0 is the default one")
	}
}

func FuzzParseText(f *testing.F) {
	for _, one := range flows() {
		f.Add(one.String())
	}
	f.Add("[NEW] tcp 6 5 src=1.1.1.1 src=1.1.1.2 master-src=1.1.1.1 labels=1")
	f.Fuzz(func(t *testing.T, line string) {
		text, err := ParseText(line)
		if err != nil {
			return
		}
		e, err := text.Event()
		if err != nil {
			return
		}
		if _, err := ParseText(e.String()); err != nil {
			t.Fatalf("%q: %q: %v", line, e.String(), err)
		}
	})
}
