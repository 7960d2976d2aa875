package main

import (
	"encoding/xml"
	"errors"
	"flag"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files")

// sample is a result with every kind of row, made up.
func sample() *result {
	r := &result{
		Machine: machine{Date: "2026-01-02", CPU: "Example CPU", Cores: 2, Kernel: "6.18.0", Go: "go1.26", Conntrackd: "1.4.7", Commit: "0123abc"},
		Rounds:  3, Scale: 1,
	}
	each := func(system, figure, at string, values ...float64) {
		for _, v := range values {
			r.add(system, figure, at, v)
		}
	}
	for i, at := range []string{"6000 events/s", "30000 events/s", "57000 events/s"} {
		f := float64(i)
		each(nameConntrackd, figSender, at, 24-f, 26-f, 25-f)
		each(nameSluice, figSender, at, 20-8*f, 22-8*f, 21-8*f)
		each(nameOrdinary, figSender, at, 12-f)
		each(nameSluiceOrdinary, figSender, at, 22-8*f)
		each(nameConntrackd, figReceiver, at, 14-f, 13-f, 12-f)
		each(nameSluice, figReceiver, at, 2.1, 2.2, 2.3)
	}
	each(nameKernel, figCommit, "500000 flows", 220000)
	each(nameConntrackd, figCommit, "500000 flows", 76000, 75000, 77000)
	each(nameSluice, figCommit, "500000 flows", 150000, 180000, 170000)
	each(nameConntrackd, figWriteThrough, "", 30000)
	each(nameSluice, figWriteThrough, "", 60000)
	each(nameKernel, figRate, "", 200000)
	each(nameConntrackd, figRate, "", 90000)
	each(nameSluice, figRate, "", 150000)
	each(nameConntrackd, figRateLost, "", 12)
	each(nameSluice, figRateLost, "", 0)
	each(nameSluice, figBulkLost, "500000 flows", 0)
	each(nameConntrackd, figP50, atQuiet, 0.2)
	each(nameConntrackd, figP99, atQuiet, 2)
	each(nameSluice, figP50, atQuiet, 0.3)
	each(nameSluice, figP99, atQuiet, 3)
	each(nameSluice, figP50, atQuiet+notWaiting, 0.35)
	each(nameSluice, figP99, atQuiet+notWaiting, 0.9)
	each(nameSluice, figIdleCPU, "", 0.3)
	for i, at := range []string{"10000 flows", "2000000 flows"} {
		each(nameConntrackd, figCPUBySize, at, 20+10*float64(i))
		each(nameSluice, figCPUBySize, at, 5+5*float64(i))
		each(nameSluice, figMemoryBySize, at, 150)
	}
	r.finish()
	return r
}

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		values []float64
		want   float64
	}{
		{[]float64{3}, 3},
		{[]float64{9, 1, 5}, 5},
		{[]float64{4, 1, 2, 100}, 3},
	} {
		given := append([]float64(nil), c.values...)
		if got := median(c.values); got != c.want {
			t.Errorf("median of %v: %v, want %v", c.values, got, c.want)
		}
		if !cmp.Equal(given, c.values) {
			t.Errorf("median has changed its argument: %v", c.values)
		}
	}
}

func TestNumber(t *testing.T) {
	for v, want := range map[float64]string{
		0: "0", 0.12345: "0.123", 1.2345: "1.23", 12.345: "12.3", 123.45: "123", 76543.2: "76543", -2.5: "-2.50",
		math.Inf(1): "–",
	} {
		if got := number(v); got != want {
			t.Errorf("number(%v) = %q, want %q", v, got, want)
		}
	}
}

// The report of the sample is as it was looked at.
func TestTable(t *testing.T) {
	r := sample()
	golden(t, "testdata/table.golden", r.heading()+"\n"+r.table()+"\n"+r.missedList())
}

func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("%s: -want +got (go test -update writes it):\n%s", file, d)
	}
}

func TestVerdicts(t *testing.T) {
	for _, c := range []struct {
		target              target
		ours, theirs, limit float64
		verdict             string
	}{
		{target{ratio: true, must: 0.4, aim: 0.2}, 2, 10, 0, "✓ aim met"},
		{target{ratio: true, must: 0.4, aim: 0.2}, 3, 10, 0, "✓ met"},
		{target{ratio: true, must: 0.4, aim: 0.2}, 5, 10, 0, "✗ **missed**"},
		{target{ratio: true, higher: true, must: 2, aim: none, ofLimit: 0.8}, 25, 10, 30, "✓ aim met"},
		{target{ratio: true, higher: true, must: 2, aim: none, ofLimit: 0.8}, 25, 10, 60, "✓ met"},
		{target{ratio: true, higher: true, must: 2, aim: none, ofLimit: 0.8}, 15, 10, 60, "✗ **missed**"},
		{target{must: 0, aim: none}, 0, 9, 0, "✓ met"},
		{target{must: 0, aim: none}, 1, 9, 0, "✗ **missed**"},
		{target{must: none, aim: 1, ratio: true}, 5, 1, 0, "aim not met"},
	} {
		r := &result{Scale: 1}
		r.add(nameSluice, "f", "at", c.ours)
		r.add(nameConntrackd, "f", "at", c.theirs)
		if c.limit > 0 {
			r.add(nameKernel, "f", "at", c.limit)
		}
		w := r.row("f", "at", &c.target)
		if got := w.verdict(); got != c.verdict {
			t.Errorf("%+v: %v of %v: %q, want %q", c.target, c.ours, c.theirs, got, c.verdict)
		}
	}
}

// Every target judges a figure that is measured, at a name that it is measured at.
func TestTargetsAreMeasured(t *testing.T) {
	for _, scale := range []int{1, 20} {
		big, translated := flows(bigTable/scale), flows(bigSNAT/scale)+withSNAT
		places := map[string]bool{
			"": true, perSecond(1000): true, perSecond(5000): true, perSecond(9500): true, big: true, translated: true,
			atQuiet: true, atLoad: true, atQuiet + notWaiting: true, atLoad + notWaiting: true,
			growthAt(smallestOne/scale, largestOne/scale): true,
		}
		for _, target := range targets(scale) {
			if !places[target.at] || target.figure == "" {
				t.Errorf("nothing is measured at %q: %+v", target.at, target)
			}
		}
	}
	if atLoad != perSecond(loadRate) {
		t.Errorf("delays are measured at %s and named %s", perSecond(loadRate), atLoad)
	}
}

func TestClimb(t *testing.T) {
	type outcome struct {
		made  float64
		whole bool
	}
	for name, c := range map[string]struct {
		first, last int
		step        func(rate, try int) outcome
		want        float64
		steps       int
	}{
		"loses at 125": {100, 1000, func(rate, _ int) outcome { return outcome{float64(rate), rate < 125} }, 100, 1 + tries},
		"loses once at 125, the machine was busy": {100, 125, func(rate, try int) outcome {
			return outcome{float64(rate), rate < 125 || try > 0}
		}, 125, 3},
		"the load can't be made": {100, 1000, func(int, int) outcome { return outcome{130, true} }, 130, 2 + tries},
		"the load could not be made once": {100, 125, func(rate, try int) outcome {
			if try == 0 {
				return outcome{50, true}
			}
			return outcome{float64(rate), true}
		}, 125, 4},
		"passes all":     {100, 150, func(rate, _ int) outcome { return outcome{float64(rate), true} }, 125, 2},
		"never anything": {100, 1000, func(rate, _ int) outcome { return outcome{float64(rate), false} }, 0, tries},
	} {
		steps, tried := 0, map[int]int{}
		got, err := climb(c.first, c.last, func(rate int) (float64, bool, error) {
			o := c.step(rate, tried[rate])
			tried[rate]++
			steps++
			return min(o.made, float64(rate)), o.whole, nil
		})
		if err != nil || got != c.want || steps != c.steps {
			t.Errorf("%s: %v in %d steps (%v), want %v in %d", name, got, steps, err, c.want, c.steps)
		}
	}
	broken := errors.New("broken")
	if _, err := climb(1, 2, func(int) (float64, bool, error) { return 0, false, broken }); !errors.Is(err, broken) {
		t.Errorf("a step's error is lost: %v", err)
	}
}

const blank = `# Title

By hand.

<!-- begin figures: generated by test/bench -->
old
<!-- end figures -->
<!-- begin pictures: generated by test/bench -->
<!-- end pictures -->
<!-- begin missed: generated by test/bench -->
<!-- end missed -->

## Where the time goes
`

func TestDocument(t *testing.T) {
	r := sample()
	once, err := document(blank, "pictures", r)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"By hand.", "| sender CPU | 30000 events/s |", "![CPU an event by rate, sender and receiver](pictures/cpu.svg)",
		"### sender CPU, 6000 events/s\n\nNot looked into yet.", "- **sender CPU, 6000 events/s**: 0.840 × conntrackd's, and must be ≤ 0.6 ×."} {
		if !strings.Contains(once, part) {
			t.Errorf("no %q in:\n%s", part, once)
		}
	}
	if strings.Contains(once, "\nold\n") {
		t.Error("what was generated before is still there")
	}
	explained := strings.Replace(once, "Not looked into yet.", "It is the wake-ups.", 1)
	twice, err := document(explained, "pictures", r)
	if d := cmp.Diff(explained, twice); err != nil || d != "" {
		t.Errorf("made again it is another one (%v):\n%s", err, d)
	}
	if _, err := document("no markers", "", r); err == nil {
		t.Error("a document without markers is taken")
	}
}

// What is written can be read, and pictures are drawn of what was read.
func TestWriteAndDraw(t *testing.T) {
	folder := t.TempDir()
	if err := sample().write(folder); err != nil {
		t.Fatal(err)
	}
	r, err := readResult(filepath.Join(folder, "result.json"))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(sample(), r); d != "" {
		t.Errorf("read back: %s", d)
	}
	for _, p := range pictures {
		text, err := os.ReadFile(filepath.Join(folder, p.name+".svg"))
		if err != nil {
			t.Error(err)
			continue
		}
		texts := textsOf(t, p.name, string(text))
		for _, want := range []string{"Sluice", "conntrackd"} {
			if !strings.Contains(texts, want) {
				t.Errorf("%s: no text %q: %s", p.name, want, texts)
			}
		}
	}
}

// textsOf is all that a picture has as text, which scales and can be read aloud.
func textsOf(t *testing.T, name, svg string) string {
	var all strings.Builder
	inside := false
	for d := xml.NewDecoder(strings.NewReader(svg)); ; {
		token, err := d.Token()
		if err == io.EOF {
			return all.String()
		}
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		switch e := token.(type) {
		case xml.StartElement:
			inside = e.Name.Local == "text"
		case xml.EndElement:
			inside = false
		case xml.CharData:
			if inside {
				all.Write(e)
				all.WriteByte('\n')
			}
		}
	}
}

func TestReadResultRefuses(t *testing.T) {
	file := filepath.Join(t.TempDir(), "x.json")
	for _, text := range []string{"", "{}", "[]", `{"scale": 1}`} {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := readResult(file); err == nil {
			t.Errorf("%q is taken for a result", text)
		}
	}
}

func TestMachine(t *testing.T) {
	for cpuinfo, want := range map[string]string{
		"processor\t: 0\nmodel name\t: Example 9000 @ 2.1GHz\n": "Example 9000 @ 2.1GHz",
		"processor\t: 0\nModel\t\t: Board Rev 1\n":              "Board Rev 1",
	} {
		if got := cpuModel(cpuinfo); got != want {
			t.Errorf("cpuModel(%q) = %q, want %q", cpuinfo, got, want)
		}
	}
	if got := version("Connection tracking userspace daemon v1.4.7. Licensed under GPLv2.\n(C) 2006-2009"); got != "1.4.7" {
		t.Errorf("version %q", got)
	}
	if got := version(""); got != "unknown" {
		t.Errorf("no version is %q", got)
	}
}
