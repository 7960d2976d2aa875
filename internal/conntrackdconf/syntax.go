package conntrackdconf

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// A syntax says how a directive is written. Its text, as it stands in the
// table, in the documentation and in diagnostics, is also what the parser works
// by: the name; then each argument, an optional one in [ ], alternatives
// separated by |, in capitals what stands for a value; then, of a block, { } if
// directives stand in it and { VALUE... } if it is a list of values. [{ … }]
// is a block that takes the place of the argument before it.
type syntax struct {
	text string
	name string
	args []argument

	block, list, instead bool
	items                []string // alternatives of a list's values
}

type argument struct {
	alternatives []string
	optional     bool
}

func newSyntax(text string) syntax {
	s := syntax{text: text}
	head, body, block := strings.Cut(text, "{")
	s.block = block
	if trimmed, ok := strings.CutSuffix(head, "["); ok {
		head, s.instead = trimmed, true
	}
	if items, _, list := strings.Cut(body, "..."); list {
		s.list, s.items = true, strings.Split(strings.TrimSpace(items), "|")
	}
	words := strings.Fields(head)
	s.name = words[0]
	optional := false // an optional group may be of several words
	for _, w := range words[1:] {
		optional = optional || strings.HasPrefix(w, "[")
		s.args = append(s.args, argument{strings.Split(strings.Trim(w, "[]"), "|"), optional})
		optional = optional && !strings.HasSuffix(w, "]")
	}
	return s
}

// matches says whether a word is one of the alternatives.
func matches(alternatives []string, word string) bool {
	return slices.ContainsFunc(alternatives, func(a string) bool { return fits(a, word) })
}

// fits says whether a word is the value that an alternative stands for.
func fits(alternative, word string) bool {
	switch alternative {
	case "NUMBER", "SECONDS", "BYTES":
		_, err := strconv.ParseUint(word, 10, 64)
		return err == nil
	case "INTEGER":
		_, err := strconv.ParseInt(word, 10, 64)
		return err == nil
	case "PATH":
		return strings.HasPrefix(word, "/")
	case "IPV4", "IPV6":
		a, err := netip.ParseAddr(word)
		return err == nil && a.Is4() == (alternative == "IPV4")
	case "IPV4/BITS", "IPV6/BITS":
		p, err := netip.ParsePrefix(word)
		return err == nil && p.Addr().Is4() == strings.HasPrefix(alternative, "IPV4")
	case "FACILITY":
		return word == "daemon" || len(word) == 6 && strings.HasPrefix(word, "local") && word[5] >= '0' && word[5] <= '7'
	case "MODE":
		return slices.Contains(modes, strings.ToUpper(word))
	case "STATE":
		return slices.Contains(states, word)
	case "NAME", "PROTOCOL", "HELPER":
		return word != ""
	case "on", "off", "yes", "no":
		return strings.EqualFold(alternative, word)
	}
	return alternative == word
}

// The modes, with those that were renamed; and the TCP states.
var (
	modes  = []string{"NOTRACK", "FTFW", "ALARM", "NACK", "PERSISTENT"}
	states = []string{"SYN_SENT", "SYN_RECV", "ESTABLISHED", "FIN_WAIT", "CLOSE_WAIT", "LAST_ACK", "TIME_WAIT",
		"CLOSE", "CLOSED", "LISTEN", "for", "TCP"}
)

// meaning says what a placeholder stands for, where that is not plain.
var meaning = map[string]string{
	"NUMBER": "NUMBER is a whole number without a unit", "SECONDS": "SECONDS is a whole number without a unit",
	"BYTES": "BYTES is a whole number without a unit", "INTEGER": "INTEGER is a whole number",
	"PATH":      "PATH is absolute, and not in quotes",
	"IPV4":      "IPV4 is an address as 192.0.2.1",
	"IPV6":      "IPV6 is an address as 2001:db8::1",
	"IPV4/BITS": "IPV4/BITS a network as 192.0.2.0/24",
	"IPV6/BITS": "IPV6/BITS a network as 2001:db8::/32",
	"FACILITY":  "FACILITY is daemon or local0 to local7",
	"MODE":      "MODE is NOTRACK, FTFW or ALARM",
	"STATE":     "STATE is " + strings.Join(states[:len(states)-2], ", "),
}

// explain says how a directive is written, as a sentence or two.
func (s *syntax) explain() string {
	text := "Write `" + s.text + "`"
	var about []string
	for _, a := range s.args {
		for _, word := range a.alternatives {
			if m := meaning[word]; m != "" {
				about = append(about, m)
			}
		}
	}
	for _, word := range s.items {
		if m := meaning[word]; m != "" {
			about = append(about, m)
		}
	}
	if len(about) > 0 {
		text += ": " + strings.Join(about, ", ")
	}
	return text + "."
}
