package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/sluice-project/sluice/core/control"
	"github.com/sluice-project/sluice/core/flow"
	"github.com/sluice-project/sluice/core/plugin"
	"github.com/sluice-project/sluice/core/recording"
)

// A record is the flags of `sluice record`.
type record struct {
	to, from, print string
	input           bool
	anonymize       bool
	events          uint64
	size            string
	length          time.Duration
}

func (a *app) record() *cobra.Command {
	var r record
	cmd := &cobra.Command{
		Use:   "record --to FILE STAGE|--from FILE [CONDITION]...",
		Short: "Write the events that leave a stage to a file",
		Long: `Write the events that leave a stage or, of a sink or with --input, enter it to a file, with their times. The file is for
tests of pipelines (sluice test), for source replay, and for who looks for a fault. Conditions choose events, as they do
for tap.

It never holds the stage up. At most 32 MiB a second are copied for it, some 300,000 events; what is left out is
counted, said at the end, and stands in the file. A recording ends when it is interrupted, or by --events, --for or
--size, whichever comes first; if it is cut off otherwise, what was written a second before is whole.

--print shows a recording, with -o json one object a line. --from makes another recording of one: of chosen events, of
its beginning, or with --anonymize. That replaces addresses by others, the same by the same and networks by networks,
and leaves out the node's name and attributes that are not known. Ports, marks, labels, times and the names of stages
stay.`,
		Example: `  sluice record --to flows.rec local.source.netlink
  sluice record --to web.rec --for 10m --anonymize local.cache.memory protocol=tcp destination=192.0.2.0/24
  sluice record --print flows.rec
  sluice record --from flows.rec --to report.rec --anonymize`,
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case r.print != "" && (r.to != "" || r.from != ""):
				return usageError("--print goes with no --to or --from")
			case r.print != "":
				return a.printRecording(r.print, args)
			case r.to == "":
				return usageError("name the file to write with --to, or one to read with --print")
			}
			return a.recordTo(cmd.Context(), r, args)
		},
		ValidArgsFunction: a.completeStages,
	}
	flags := cmd.Flags()
	flags.StringVar(&r.to, "to", "", "the `file` to write; it must not exist")
	flags.StringVar(&r.from, "from", "", "a recorded `file` to take the events from, instead of a stage")
	flags.StringVar(&r.print, "print", "", "a recorded `file` to print")
	flags.BoolVar(&r.input, "input", false, "what enters the stage instead of what leaves it")
	flags.BoolVar(&r.anonymize, "anonymize", false, "replace addresses")
	flags.Uint64Var(&r.events, "events", 0, "end after so many events; 0 for never")
	flags.DurationVar(&r.length, "for", 0, "end after so long; 0 for never")
	flags.StringVar(&r.size, "size", "256MiB", "end when the file is so large; 0 for never")
	return cmd
}

// openRecording opens a recording. What is wrong with it is said with its name.
func openRecording(path string) (*os.File, *recording.Reader, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	reader, err := recording.NewReader(file)
	if err != nil {
		file.Close()
		return nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	return file, reader, nil
}

func (a *app) printRecording(path string, args []string) error {
	conditions, err := flow.ParseConditions(args)
	if err != nil {
		return usageError(err.Error())
	}
	file, reader, err := openRecording(path)
	if err != nil {
		return err
	}
	defer file.Close()
	printer := recording.Printer{Out: a.stdout, JSON: a.json(), Conditions: conditions}
	if err := printer.Print(reader); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// options makes what is copied, of the flags and the conditions.
func (r *record) options(conditions []string) (c recording.Copy, err error) {
	var size plugin.Size
	if err := size.UnmarshalText([]byte(r.size)); err != nil || size > 1<<62 {
		return c, usageError("--size: " + fmt.Sprintf("%q is no size: write one as in 64MiB", r.size))
	}
	if r.length < 0 {
		return c, usageError("--for is a time, as in 10m")
	}
	c = recording.Copy{Events: r.events, Size: int64(size), For: r.length}
	if c.Conditions, err = flow.ParseConditions(conditions); err != nil {
		return c, usageError(err.Error())
	}
	if r.anonymize {
		c.Anonymizer, err = recording.NewAnonymizer()
	}
	return c, err
}

func (a *app) recordTo(ctx context.Context, r record, args []string) error {
	stage := ""
	if r.from == "" {
		if len(args) == 0 || strings.Contains(args[0], "=") {
			return usageError("name the stage to record, or a recording with --from")
		}
		stage, args = args[0], args[1:]
	}
	c, err := r.options(args)
	if err != nil {
		return err
	}
	if r.from != "" {
		return a.recordAgain(r, c, args)
	}
	return a.recordStage(ctx, r, c, stage, args)
}

// recordAgain makes a recording of another one.
func (a *app) recordAgain(r record, c recording.Copy, conditions []string) error {
	file, reader, err := openRecording(r.from)
	if err != nil {
		return err
	}
	defer file.Close()
	about := reader.About
	about.Conditions = append(about.Conditions, conditions...)
	return a.write(r.to, about, c, func(w *recording.Writer) (string, error) {
		reason, err := c.Run(w, reader)
		if err == nil && reason == "" {
			reason = "with the recording that it is from: " + reader.End().Reason
		}
		if errors.Is(err, recording.ErrCutShort) || errors.Is(err, recording.ErrMalformed) {
			reason = "the recording that it is from is damaged from here on"
		}
		if err != nil {
			err = fmt.Errorf("%s: %w", r.from, err)
		}
		return reason, err
	})
}

// recordStage records a stage that runs.
func (a *app) recordStage(ctx context.Context, r record, c recording.Copy, stage string, conditions []string) error {
	about, err := a.aboutNode(ctx)
	if err != nil {
		return err
	}
	about.Stage, about.Edge, about.Conditions = stage, "output", conditions
	words := []string{"format=recording"}
	if r.input || strings.Contains(stage, "."+string(plugin.KindSink)+".") {
		words, about.Edge = append(words, "edge=input"), "input"
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if r.length > 0 {
		ctx, cancel = context.WithTimeout(ctx, r.length)
		defer cancel()
	}
	out, in := io.Pipe()
	defer out.Close()
	go func() {
		in.CloseWithError(a.client().Dump(ctx, control.DumpRequest{Target: stage, What: control.DumpTap, Args: words}, in))
	}()
	reader := recording.NewLiveReader(out)
	// The first frame is empty: its time is 0.
	if _, err := reader.Read(); err != nil {
		return err
	}
	about.Started = a.now()
	return a.write(r.to, about, c, func(w *recording.Writer) (string, error) {
		reason, err := c.Run(w, reader)
		switch {
		case reason != "":
			return reason, err
		case errors.Is(ctx.Err(), context.DeadlineExceeded):
			return fmt.Sprintf("after %v", r.length), nil
		case ctx.Err() != nil:
			return "interrupted", nil
		case err == nil:
			err = errors.New("the stage has ended")
		}
		return "broken off: " + err.Error(), err
	})
}

// aboutNode says where and when.
func (a *app) aboutNode(ctx context.Context) (about recording.About, err error) {
	status, err := a.client().Status(ctx)
	if err != nil {
		return about, err
	}
	about = recording.About{Node: status.Node, Sluice: status.Version}
	var boot unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &boot) == nil {
		about.SinceBoot = time.Duration(boot.Nano())
	}
	id, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	release, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	about.Boot, about.Kernel = strings.TrimSpace(string(id)), strings.TrimSpace(string(release))
	return about, nil
}

// write makes the file, has it filled, ends it and says what is in it. The file
// holds addresses: others may not read it.
func (a *app) write(path string, about recording.About, c recording.Copy, fill func(*recording.Writer) (string, error)) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer file.Close()
	if c.Anonymizer != nil {
		about = c.Anonymizer.About(about)
	}
	w, err := recording.NewWriter(file, about)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	reason, failed := fill(w)
	if err := errors.Join(w.Close(reason, 0), file.Close()); err != nil {
		return errors.Join(failed, fmt.Errorf("%s: %w", path, err))
	}
	end := w.SoFar()
	if a.json() {
		err = a.printJSON(end)
	} else {
		_, err = fmt.Fprintf(a.stdout, "%s: %s\n", path, end.String())
	}
	return errors.Join(failed, err)
}
