package console

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-project/sluice/core/control"
)

// Count writes a number exactly up to 99999, and with three digits and a unit
// of thousands from there on: 12345, 123k, 1.23M.
func Count(n uint64) string {
	if n < 100_000 {
		return strconv.FormatUint(n, 10)
	}
	return scaled(float64(n), 1000, []string{"", "k", "M", "G", "T", "P", "E"})
}

// Bytes writes a number of bytes in binary units: 512B, 18.2MiB.
func Bytes(n uint64) string {
	if n == 0 {
		return "0"
	}
	return scaled(float64(n), 1024, []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"})
}

// scaled writes three digits and the unit that fits.
func scaled(v, step float64, units []string) string {
	i := 0
	for v >= 999.5 && i < len(units)-1 {
		v /= step
		i++
	}
	precision := 2
	switch {
	case i == 0 || v >= 99.95:
		precision = 0
	case v >= 9.995:
		precision = 1
	}
	return strconv.FormatFloat(v, 'f', precision, 64) + units[i]
}

// Age writes a span of time that people wait for or look back on, with the two
// units that matter: 12s, 3m05s, 2h03m, 5d04h.
func Age(d time.Duration) string {
	s := int64(max(d, 0) / time.Second)
	switch {
	case s < 60:
		return fmt.Sprintf("%ds", s)
	case s < 3600:
		return fmt.Sprintf("%dm%02ds", s/60, s%60)
	case s < 86400:
		return fmt.Sprintf("%dh%02dm", s/3600, s/60%60)
	default:
		return fmt.Sprintf("%dd%02dh", s/86400, s/3600%24)
	}
}

// Elapsed writes how long something took: 36µs, 412ms, 1.23s, 2m03s.
func Elapsed(d time.Duration) string {
	switch {
	case d < time.Millisecond:
		return fmt.Sprintf("%dµs", d/time.Microsecond)
	case d < time.Second:
		return fmt.Sprintf("%dms", d/time.Millisecond)
	case d < time.Minute:
		return fmt.Sprintf("%.2fs", d.Seconds())
	}
	return Age(d)
}

// seconds writes CPU time.
func seconds(s float64) string {
	if s < 60 {
		return fmt.Sprintf("%.1fs", s)
	}
	return Age(time.Duration(s * float64(time.Second)))
}

// Counts writes numbers with their names: "12031 flows, 3 failed".
func Counts(counts []control.Count) string {
	var parts []string
	for _, c := range counts {
		parts = append(parts, strconv.FormatUint(c.Value, 10)+" "+strings.ReplaceAll(c.Name, "_", " "))
	}
	return strings.Join(parts, ", ")
}
