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
	"syscall"
	"time"

	"github.com/sluice-project/sluice/internal/testbed"
)

func main() {
	var (
		binary = flag.String("sluice", "bin/sluice", "the sluice binary")
		rounds = flag.Int("rounds", 3, "how often to measure each figure")
		scale  = flag.Int("scale", 1, "divide the sizes of tables by this: for trying the benchmark itself")
		only   = flag.String("only", ".", "measure what this regular expression names")
		out    = flag.String("out", "", "write result.json, result.md and pictures into this folder")
	)
	flag.Parse()
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	if err := run(ctx, *binary, *rounds, *scale, *only, *out); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, binary string, rounds, scale int, only, out string) error {
	wanted, err := regexp.Compile(only)
	if err != nil {
		return fmt.Errorf("-only: %w", err)
	}
	if err := testbed.Probe(testbed.Kernel, testbed.Conntrackd); err != nil {
		return fmt.Errorf("this machine can't run it: %w", err)
	}
	path, err := filepath.Abs(binary)
	if err != nil {
		return err
	}
	restore, err := testbed.RaiseConntrackMax(4 << 20)
	if err != nil {
		return err
	}
	defer restore()

	result := newResult(rounds)
	for _, it := range items(scale) {
		if !wanted.MatchString(it.name) {
			continue
		}
		if err := it.run(ctx, path, rounds, result); err != nil {
			return errors.Join(err, result.write(out))
		}
	}
	fmt.Println()
	fmt.Print(result.table())
	return result.write(out)
}

// run measures the item for both systems in turn, in every round.
func (it *item) run(ctx context.Context, binary string, rounds int, result *result) error {
	if it.rounds > 0 {
		rounds = it.rounds
	}
	systems := []system{conntrackd{}, sluice{binary}}
	if it.limit {
		systems = []system{kernel{}}
	}
	for round := range rounds {
		for i := range systems {
			s := systems[(i+round)%len(systems)] // who comes first changes
			if it.only != "" && s.Name() != it.only {
				continue
			}
			if ctx.Err() != nil {
				return errors.New("interrupted")
			}
			begin := time.Now()
			err := it.measure(s, func(figure, at string, v float64) {
				fmt.Printf("%-14s %-11s %-24s %-26s %12.3f\n", it.name, s.Name(), figure, at, v)
				result.add(s.Name(), figure, at, v)
			})
			if err != nil {
				return fmt.Errorf("%s, %s: %w", it.name, s.Name(), err)
			}
			fmt.Printf("%-14s %-11s took %.1f s\n", it.name, s.Name(), time.Since(begin).Seconds())
		}
	}
	return nil
}

// kernel stands for the kernel alone where a figure is its limit.
type kernel struct{ system }

func (kernel) Name() string { return "kernel" }
