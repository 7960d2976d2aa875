package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/sluice-project/sluice/internal/testbed"
)

// settings are the command line.
type settings struct {
	binary, only, out, draw, doc string
	rounds, scale                int
}

func main() {
	var s settings
	flag.StringVar(&s.binary, "sluice", "bin/sluice", "the sluice binary")
	flag.IntVar(&s.rounds, "rounds", 3, "how often to measure each figure")
	flag.IntVar(&s.scale, "scale", 1, "divide the sizes of tables by this: for trying the benchmark itself")
	flag.StringVar(&s.only, "only", ".", "measure what this regular expression names: cpu, delay, commit, write-through, bulk, memory, ramp, idle, growth")
	flag.StringVar(&s.out, "out", "", "write result.json, result.md and pictures into this folder")
	flag.StringVar(&s.draw, "draw", "", "measure nothing: make table and pictures of this result.json anew")
	flag.StringVar(&s.doc, "doc", "", "write the generated parts of this document, from the result")
	flag.Parse()
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	if err := run(ctx, &s); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, s *settings) error {
	if s.rounds < 1 || s.scale < 1 || s.scale > smallestOne/10 {
		return fmt.Errorf("-rounds must be 1 or more, -scale from 1 to %d", smallestOne/10)
	}
	if s.draw != "" {
		r, err := readResult(s.draw)
		if err != nil {
			return err
		}
		return s.report(r, filepath.Dir(s.draw))
	}
	if s.doc != "" && s.out == "" {
		return errors.New("-doc needs -out: the folder of the pictures")
	}
	r, err := s.measure(ctx)
	if r == nil {
		return err
	}
	fmt.Print("\n", r.table())
	if s.out == "" {
		return err
	}
	return errors.Join(err, s.report(r, s.out))
}

// report writes what is made of a result.
func (s *settings) report(r *result, folder string) error {
	r.finish()
	if err := r.write(folder); err != nil || s.doc == "" {
		return err
	}
	return writeDocument(s.doc, folder, r)
}

// measure measures all that is wanted. What was measured before an error is
// returned with it.
func (s *settings) measure(ctx context.Context) (*result, error) {
	wanted, err := regexp.Compile(s.only)
	if err != nil {
		return nil, fmt.Errorf("-only: %w", err)
	}
	if err := ready(s.binary); err != nil {
		return nil, err
	}
	path, err := filepath.Abs(s.binary)
	if err != nil {
		return nil, err
	}
	restore, err := testbed.RaiseConntrackMax(4 << 20)
	if err != nil {
		return nil, err
	}
	defer restore()

	r := &result{Machine: thisMachine(ctx, path), Rounds: s.rounds, Scale: s.scale}
	for _, it := range items(s.scale) {
		if !wanted.MatchString(it.name) {
			continue
		}
		if err := it.run(ctx, path, s.rounds, r); err != nil {
			return r, err
		}
	}
	if len(r.Series) == 0 {
		return nil, fmt.Errorf("-only %s: names nothing that is measured", s.only)
	}
	r.finish()
	return r, nil
}

// remedies say what to do where a machine lacks something.
var remedies = []struct {
	need   testbed.Need
	remedy string
}{
	{testbed.Root, "run it as root"},
	{testbed.Netns, "install ip (Debian: iproute2); in a container, allow network namespaces (CAP_SYS_ADMIN)"},
	{testbed.Conntrack, "load the kernel's modules nf_conntrack and nf_conntrack_netlink"},
	{testbed.NFT, "install nft (Debian: nftables)"},
	{testbed.Conntrackd, "install conntrackd (Debian: conntrackd), and don't start its service"},
}

// ready says all that is missing and what to do about it.
func ready(binary string) error {
	var missing []string
	if info, err := os.Stat(binary); err != nil || info.Mode()&0o111 == 0 {
		missing = append(missing, fmt.Sprintf("no sluice at %s: run `make build`, or name it with -sluice", binary))
	}
	for _, r := range remedies {
		if err := testbed.Probe(r.need); err != nil {
			missing = append(missing, fmt.Sprintf("%v: %s", err, r.remedy))
			if r.need == testbed.Root {
				break // without it the others can't be told
			}
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return fmt.Errorf("this machine can't run it:\n  %s\n(`make setup` installs Debian's packages)", strings.Join(missing, "\n  "))
}

// run measures the item for all its systems in turn, in every round.
func (it *item) run(ctx context.Context, binary string, rounds int, r *result) error {
	if it.rounds > 0 {
		rounds = it.rounds
	}
	systems := it.systems(binary)
	for round := range rounds {
		for i := range systems {
			s := systems[(i+round)%len(systems)] // who comes first changes
			if ctx.Err() != nil {
				return errors.New("interrupted")
			}
			begin := time.Now()
			err := it.measure(s, func(figure, at string, v float64) {
				fmt.Printf("%-14s %-30s %-33s %-28s %12s %s\n", it.name, s.Name(), figure, at, number(v), units[figure])
				r.add(s.Name(), figure, at, v)
			})
			if err != nil {
				return fmt.Errorf("%s, %s: %w", it.name, s.Name(), err)
			}
			fmt.Printf("%-14s %-30s took %.1f s\n", it.name, s.Name(), time.Since(begin).Seconds())
		}
	}
	return nil
}
