package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/sluice-project/sluice/cmd/sluice/internal/console"
	"github.com/sluice-project/sluice/core/control"
	"github.com/sluice-project/sluice/core/pipeline"
)

// Exit statuses.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

// An app is the command line with what it reads and writes, which tests
// replace.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	getenv         func(string) string
	now            func() time.Time

	socket, output string // global flags
	understood     bool   // flags and arguments were: what fails from here on is no usage error
}

func newApp(stdin io.Reader, stdout, stderr io.Writer) *app {
	return &app{stdin: stdin, stdout: stdout, stderr: stderr, getenv: os.Getenv, now: time.Now}
}

// execute runs one command line and returns the exit status.
func (a *app) execute(ctx context.Context, args []string) int {
	root := a.root()
	root.SetArgs(twoDashes(args))
	cmd, err := root.ExecuteContextC(ctx)
	var usage usageError
	switch {
	case err == nil:
		return exitDone
	case errors.Is(err, errReported):
		return exitFailed
	case errors.As(err, &usage), !a.understood:
		fmt.Fprintf(a.stderr, "sluice: %s\nusage: %s\n", oneLine(err), cmd.UseLine())
		return exitUsage
	}
	fmt.Fprintf(a.stderr, "sluice: %s\n", oneLine(err))
	return exitFailed
}

// A usageError says what is wrong with a command line.
type usageError string

func (u usageError) Error() string { return string(u) }

// errReported ends a command whose failure has been shown already.
var errReported = errors.New("failed")

// oneLine joins the lines of errors that were joined. What else a terminal would obey
// is left out: a plugin or a peer may have said it.
func oneLine(err error) string {
	text := strings.Join(strings.FieldsFunc(err.Error(), func(r rune) bool { return r == '\n' }), "; ")
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) && r != '\t' {
			return '?'
		}
		return r
	}, text)
}

// twoDashes lets the long flags that hands know from Terraform be written with
// one dash.
func twoDashes(args []string) []string {
	known := []string{"-var", "-var-file", "-check", "-diff", "-write", "-config", "-junit", "-sdk", "-run", "-key"}
	args = append([]string{}, args...) // never nil, for which cobra reads os.Args
	for i, arg := range args {
		if arg == "--" {
			break
		}
		if name, _, _ := strings.Cut(arg, "="); slices.Contains(known, name) {
			args[i] = "-" + arg
		}
	}
	return args
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "sluice COMMAND",
		Short: "Replicate and process the connection-tracking state of Linux firewalls",
		Long: `Sluice runs pipelines of plugins over the connection-tracking state of a Linux
firewall: it captures flow events, filters and caches them, replicates them to
peers, and puts the peers' flows into the kernel when this firewall takes over.`,
		DisableFlagsInUseLine: true,
		SilenceErrors:         true,
		SilenceUsage:          true,
		PersistentPreRunE:     a.checkGlobals,
		Args:                  a.rootArgs,
		RunE:                  func(*cobra.Command, []string) error { return usageError("no command; `sluice help` lists them") },
	}
	root.SetIn(a.stdin)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	flags := root.PersistentFlags()
	flags.StringVarP(&a.output, "output", "o", "text", "`format` of what is printed: text or json")
	flags.StringVar(&a.socket, "socket", "", "the runner's control socket (default $SLUICE_SOCKET, or "+defaultSocket()+")")
	_ = root.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"text", "json"}, cobra.ShellCompDirectiveNoFileComp))
	// As cobra has it, but without the second line of usage where there is a first.
	root.SetUsageTemplate(strings.Replace(root.UsageTemplate(),
		"{{if .HasAvailableSubCommands}}\n", "{{if and .HasAvailableSubCommands (not .Runnable)}}\n", 1))
	a.addCommands(root)
	return root
}

func (a *app) addCommands(root *cobra.Command) {
	const pipelines, state, node = "pipelines", "state", "node"
	root.AddGroup(
		&cobra.Group{ID: pipelines, Title: "Pipelines:"},
		&cobra.Group{ID: node, Title: "A running node:"},
		&cobra.Group{ID: state, Title: "Its flows:"},
	)
	for group, commands := range map[string][]*cobra.Command{
		pipelines: {a.run(), a.validate(), a.plan(), a.format(), a.test(), a.importConfig(), a.graph(), a.plugin()},
		node:      {a.status(), a.top(), a.tap(), a.record(), a.role(), a.reload(), a.reopen(), a.stop(), a.conntrackd()},
		state:     {a.dump(), a.stats(), a.flush(), a.commit(), a.bulk(), a.resync(), a.requestResync(), a.purge()},
		"":        {a.version(), a.pluginExec()},
	} {
		for _, c := range commands {
			c.GroupID = group
			c.DisableFlagsInUseLine = true
			root.AddCommand(c)
		}
	}
}

func (a *app) checkGlobals(cmd *cobra.Command, _ []string) error {
	if name := cmd.Name(); name != runName && name != pluginExecName && name != conntrackdName { // those have their own ways with signals
		ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, unix.SIGTERM)
		context.AfterFunc(ctx, stop)
		cmd.SetContext(ctx)
	}
	if a.output != "text" && a.output != "json" {
		return usageError(fmt.Sprintf("there is no format %q: write -o text or -o json", a.output))
	}
	a.understood = true
	return nil
}

// rootArgs refuses commands that there are not.
func (a *app) rootArgs(root *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	text := fmt.Sprintf("there is no command %q", args[0])
	root.SuggestionsMinimumDistance = 2
	if near := slices.Sorted(slices.Values(root.SuggestionsFor(args[0]))); len(near) > 0 {
		text += ": did you mean " + strings.Join(near, " or ") + "?"
	}
	return usageError(text)
}

// takes returns a check of the number of arguments; what says what they are.
// most is -1 for any number.
func takes(least, most int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < least:
			return usageError("name " + what)
		case most == 0 && len(args) > 0:
			return usageError(fmt.Sprintf("%s takes no argument %q", cmd.Name(), args[0]))
		case most > 0 && len(args) > most:
			return usageError(fmt.Sprintf("%q is one argument too many: name %s", args[most], what))
		}
		return nil
	}
}

func defaultSocket() string { return pipeline.DefaultRunner().Control.Path }

// client returns a client of the runner that was chosen.
func (a *app) client() *control.Client {
	for _, path := range []string{a.socket, a.getenv("SLUICE_SOCKET")} {
		if path != "" {
			return control.NewClient(path)
		}
	}
	return control.NewClient(defaultSocket())
}

// act has the runner carry out a command and shows its steps.
func (a *app) act(ctx context.Context, r control.Request) error {
	steps := a.steps()
	return steps.End(a.client().Do(ctx, r, steps.Step))
}

// steps shows the steps of a command in the format that was chosen.
func (a *app) steps() console.Steps {
	if a.json() {
		return console.JSONSteps(a.stdout)
	}
	return console.TextSteps(a.stdout, a.color(), a.now)
}

func (a *app) json() bool { return a.output == "json" }

// printJSON writes v for programs.
func (a *app) printJSON(v any) error {
	e := json.NewEncoder(a.stdout)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// color says whether what is printed goes to a terminal that shows colours and
// a person who wants them (https://no-color.org).
func (a *app) color() bool {
	return a.getenv("NO_COLOR") == "" && a.getenv("TERM") != "dumb" && a.terminal()
}

// terminal says whether what is printed goes to a terminal.
func (a *app) terminal() bool {
	f, ok := a.stdout.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}
