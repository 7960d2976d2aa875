package plugin

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A Size is a number of bytes. In a pipeline it is a number, or a string with
// a unit: "512KiB", "2MiB", "1GiB", "64kB", "10MB".
type Size uint64

var sizeUnits = []struct {
	suffix string
	bytes  uint64
}{
	{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40},
	{"kB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}, {"B", 1},
}

// UnmarshalText reads a size with or without a unit.
func (s *Size) UnmarshalText(text []byte) error {
	number, unit := strings.TrimSpace(string(text)), uint64(1)
	for _, u := range sizeUnits {
		if rest, ok := strings.CutSuffix(number, u.suffix); ok {
			number, unit = strings.TrimSpace(rest), u.bytes
			break
		}
	}
	n, err := strconv.ParseUint(number, 10, 64)
	if err != nil || n > math.MaxUint64/unit {
		return fmt.Errorf("%q is no size: write a number of bytes, or a whole number with KiB, MiB, GiB, kB, MB or GB", text)
	}
	*s = Size(n * unit)
	return nil
}

// String writes the size with the largest binary unit that divides it.
func (s Size) String() string {
	for _, u := range []int{3, 2, 1, 0} {
		if unit := sizeUnits[u]; uint64(s) >= unit.bytes && uint64(s)%unit.bytes == 0 {
			return strconv.FormatUint(uint64(s)/unit.bytes, 10) + unit.suffix
		}
	}
	return strconv.FormatUint(uint64(s), 10)
}

// A Duration is a span of time; in a pipeline a string like "2ms", "180s" or
// "1h30m". It is never negative.
type Duration time.Duration

// UnmarshalText reads a duration with its unit.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil || v < 0 {
		return fmt.Errorf("%q is no duration: write a number with a unit, as in \"2ms\", \"15s\" or \"3m\"", text)
	}
	*d = Duration(v)
	return nil
}

// String writes the duration as time.Duration does, without trailing zero units.
func (d Duration) String() string {
	s := time.Duration(d).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// A Selection chooses all of something, none, or some by their names; in a
// pipeline true, false, or a list of strings. The zero Selection is none.
type Selection struct {
	All   bool
	Names []string
}

var errSelection = errors.New(`write true for all, false for none, or a list of names as in ["one", "other"]`)

// unmarshalValue reads a value of a pipeline.
func (s *Selection) unmarshalValue(value any) error {
	*s = Selection{}
	switch v := value.(type) {
	case bool:
		s.All = v
		return nil
	case []any:
		for _, name := range v {
			text, ok := name.(string)
			if !ok {
				return errSelection
			}
			s.Names = append(s.Names, text)
		}
		return nil
	}
	return errSelection
}

// None says whether nothing is chosen.
func (s Selection) None() bool { return !s.All && len(s.Names) == 0 }

// Has says whether the name is chosen.
func (s Selection) Has(name string) bool { return s.All || slices.Contains(s.Names, name) }

// String writes the selection as in a pipeline.
func (s Selection) String() string {
	if len(s.Names) == 0 {
		return strconv.FormatBool(s.All)
	}
	var quoted []string
	for _, name := range s.Names {
		quoted = append(quoted, strconv.Quote(name))
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}
