package runner

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	pluginrunner "github.com/hashicorp/go-plugin/runner"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"

	"github.com/sluice-project/sluice/core/confine"
	"github.com/sluice-project/sluice/core/plugin"
	"github.com/sluice-project/sluice/core/plugin/stagepb"
)

const (
	// startTimeout bounds every step from the fork to the first answer.
	startTimeout = 15 * time.Second
	// callTimeout bounds a control call that a healthy stage answers at once.
	callTimeout = 5 * time.Second
	// maxMessage is the largest control message that is read, in bytes.
	// go-plugin's own limit is 2 GiB.
	maxMessage = 4 << 20
	// streamGrace is how long what a dead process wrote is read: a child of its
	// own may have inherited its streams and hold them open for ever.
	streamGrace = time.Second
)

// A process is one running plugin: a child with a control connection. The
// runner owns start, wait, kill and standard error; go-plugin has the handshake
// and the connection.
type process struct {
	stagepb.StageClient
	name    string
	cmd     atomic.Pointer[exec.Cmd] // once started
	spawned chan struct{}            // closed when it was started, or never will be
	exited  chan struct{}            // closed when the child was waited for
	err     error                    // how it ended; read after exited
	stderr  *stderrLog
	reason  atomic.Pointer[string] // why the runner killed it; nil if it did not

	config      processConfig
	hello       atomic.Pointer[string] // the first line that it wrote: go-plugin's handshake
	description *stagepb.Description   // once started

	handover  *os.File // the runner's end of the socket for descriptors; nil if it has no edges
	client    *goplugin.Client
	socketDir string // removed once connected, so that no kill leaves it behind
}

// processConfig says what to start.
type processConfig struct {
	name  string   // for messages and ps(1)
	path  string   // of the executable
	args  []string // with args[0]
	kind  plugin.Kind
	typ   string // that it must say it is
	netns string
	files []*os.File     // inherited from descriptor 4 on
	rules *confine.Rules // nil: it is not confined
	image *image         // of a vendor's plugin: what is executed; nil: what lies at path
	log   *slog.Logger
	level slog.Leveler
}

// ownExecutable is this process's, also when the file was replaced.
const ownExecutable = "/proc/self/exe"

// firstFile is the number that a child sees its first inherited file under:
// behind the standard streams and the lifeline.
const firstFile = 4

// startProcess starts a plugin and connects to it. No step takes longer than
// startTimeout, whatever the plugin does; on error nothing is left of it.
func startProcess(ctx context.Context, s *spawner, c processConfig) (*process, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	p := &process{name: c.name, config: c, spawned: make(chan struct{}), exited: make(chan struct{}), stderr: newStderrLog(c.log)}
	p.client = goplugin.NewClient(&goplugin.ClientConfig{
		HandshakeConfig:  plugin.Handshake,
		VersionedPlugins: plugin.ClientPlugins(),
		AllowedProtocols: []goplugin.Protocol{goplugin.ProtocolGRPC},
		GRPCDialOptions:  []grpc.DialOption{grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage))},
		SkipHostEnv:      true,
		UnixSocketConfig: &goplugin.UnixSocketConfig{TempDir: s.sockets.path},
		StartTimeout:     startTimeout,
		Logger:           hclog.NewNullLogger(),
		RunnerFunc: func(_ hclog.Logger, cmd *exec.Cmd, socketDir string) (pluginrunner.Runner, error) {
			p.socketDir = socketDir
			return &child{ctx: ctx, p: p, spawner: s, config: c, env: cmd.Env}, nil
		},
	})
	connected := make(chan error, 1)
	go func() { connected <- p.connect(ctx) }()
	var err error
	select {
	case err = <-connected:
	case <-ctx.Done():
		err = ctx.Err()
		select { // until then the caller's files are in use, and there may be nobody to kill yet
		case <-p.spawned:
		case <-connected:
		}
	}
	if err != nil {
		p.kill()
		err = p.explain(err)
		if tail := p.stderr.tail(); tail != "" {
			err = fmt.Errorf("%w; it wrote: %s", err, tail)
		}
		return nil, fmt.Errorf("start %s: %w", c.name, err)
	}
	return p, nil
}

// connect does the handshake and makes the first call, after which the socket's
// file is not needed any more: one connection is all there will ever be.
func (p *process) connect(ctx context.Context) error {
	protocol, err := p.client.Client()
	if err != nil {
		return err
	}
	raw, err := protocol.Dispense(plugin.ServiceName)
	if err != nil {
		return err
	}
	p.StageClient = raw.(stagepb.StageClient)
	if p.description, err = p.Describe(ctx, &stagepb.DescribeRequest{}); err != nil {
		return fmt.Errorf("describe: %w", plain(err))
	}
	if err := p.checkDescription(); err != nil {
		return err
	}
	return os.RemoveAll(p.socketDir)
}

// killFor ends the process now, and keeps why for whoever asks how it ended.
func (p *process) killFor(reason string) {
	p.reason.CompareAndSwap(nil, &reason)
	p.kill()
}

// kill ends the process now and frees what the client holds.
func (p *process) kill() {
	if cmd := p.cmd.Load(); cmd != nil {
		_ = cmd.Process.Kill() // by pidfd: never another process of that number
		<-p.exited
	}
	// Kill waits for goroutines that end with the process, and has no deadline
	// of its own: nobody waits for it.
	go p.client.Kill()
}

// crashed says whether the process ended by itself, and not by a signal: what it
// wrote then says why.
func (p *process) crashed() bool {
	var exit *exec.ExitError
	return errors.As(p.err, &exit) && exit.Exited()
}

func (p *process) hasExited() bool {
	select {
	case <-p.exited:
		return true
	default:
		return false
	}
}

// pid returns the process's id, or 0 before it was started.
func (p *process) pid() int {
	if cmd := p.cmd.Load(); cmd != nil {
		return cmd.Process.Pid
	}
	return 0
}

// child implements go-plugin's Runner over a process that we start ourselves.
type child struct {
	ctx     context.Context // of the start
	p       *process
	spawner *spawner
	config  processConfig
	env     []string
	stdout  io.ReadCloser // the handshake's line
	image   *os.File      // of a vendor's plugin: what is executed
}

func (c *child) Start(context.Context) error {
	p := c.p
	defer close(p.spawned)
	cmd := exec.Command(c.config.path)
	cmd.Args = c.config.args
	level := slog.LevelInfo
	if c.config.level != nil {
		level = c.config.level.Level()
	}
	cmd.Env = append(c.env,
		"PATH="+os.Getenv("PATH"), "TZ="+os.Getenv("TZ"), "GOTRACEBACK=single",
		plugin.EnvLifeline+"="+strconv.Itoa(firstFile-1),
		plugin.EnvLogLevel+"="+level.String())
	cmd.ExtraFiles = append([]*os.File{c.spawner.lifeline}, c.config.files...)
	theirs, err := c.openHandover(cmd)
	if err != nil {
		close(p.exited)
		return err
	}
	defer theirs.Close()
	sockets, err := c.socketDirectory(cmd)
	if err != nil {
		p.handover.Close()
		close(p.exited)
		return err
	}
	defer sockets.Close()
	defer c.image.Close() // harmless on nil
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return err
	}
	if err := c.spawner.start(c.ctx, cmd, c.config.netns); err != nil {
		os.RemoveAll(p.socketDir) // go-plugin forgets it if there never was a process
		p.handover.Close()
		close(p.exited)
		return err
	}
	line, lineWriter := io.Pipe()
	c.stdout = line
	streams := make(chan struct{}, 2)
	go func() { p.firstLine(stdout, lineWriter); streams <- struct{}{} }()
	go func() { p.stderr.read(stderr); streams <- struct{}{} }()
	go func() {
		p.err = wait(cmd.Process)
		// Closing ends the readers, whoever holds the other end.
		timer := time.AfterFunc(streamGrace, func() { stdout.Close(); stderr.Close() })
		<-streams
		<-streams
		timer.Stop()
		stdout.Close()
		stderr.Close()
		lineWriter.Close()
		p.handover.Close()
		close(p.exited)
	}()
	p.cmd.Store(cmd)
	return nil
}

// socketDirectory lets the child make its socket: in a directory that it reaches
// by a descriptor, so that the way there may be closed to its user.
func (c *child) socketDirectory(cmd *exec.Cmd) (*os.File, error) {
	var rules confine.Rules
	if c.config.rules != nil {
		rules = *c.config.rules
	}
	if c.ownUser() {
		err := errors.Join(os.Chown(c.p.socketDir, -1, rules.Group), os.Chmod(c.p.socketDir, 0o770))
		if err != nil {
			return nil, err
		}
	}
	dir, err := os.Open(c.p.socketDir)
	if err != nil {
		return nil, err
	}
	rules.Directory = firstFile - 1 + len(cmd.ExtraFiles)
	cmd.ExtraFiles = append(cmd.ExtraFiles, dir)
	cmd.Env = append(cmd.Env, goplugin.EnvUnixSocketDir+"=/proc/self/fd/"+strconv.Itoa(rules.Directory))
	if c.config.rules == nil {
		return dir, nil
	}
	if c.config.image == nil && c.config.path != ownExecutable {
		dir.Close() // without an image the rules are those of this executable
		return nil, fmt.Errorf("%s: no copy was made of it", c.config.path)
	}
	if c.config.image != nil {
		if c.image, err = c.config.image.open(); err != nil {
			dir.Close()
			return nil, err
		}
		rules.Image = rules.Directory + 1
		cmd.ExtraFiles = append(cmd.ExtraFiles, c.image)
	}
	return dir, rules.Apply(cmd)
}

// ownUser says whether the process has another user than the runner.
func (c *child) ownUser() bool { return c.config.rules != nil && c.config.rules.User != confine.Keep }

// openHandover gives a stage with edges the socket over which it can be given
// others: see rewire. It returns the child's end, which is nil if it gets none.
func (c *child) openHandover(cmd *exec.Cmd) (theirs *os.File, err error) {
	if len(c.config.files) == 0 {
		return nil, nil
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("handover socket: %w", err)
	}
	c.p.handover, theirs = os.NewFile(uintptr(fds[0]), "handover"), os.NewFile(uintptr(fds[1]), "handover")
	cmd.Env = append(cmd.Env, plugin.EnvHandover+"="+strconv.Itoa(firstFile-1+len(cmd.ExtraFiles)))
	cmd.ExtraFiles = append(cmd.ExtraFiles, theirs)
	return theirs, nil
}

// wait waits for a process. cmd.Wait would close its streams at once, and what
// it wrote last, which says why it ended, would be lost.
func wait(p *os.Process) error {
	state, err := p.Wait()
	if err == nil && !state.Success() {
		return &exec.ExitError{ProcessState: state}
	}
	return err
}

// firstLine passes the handshake on and throws the rest away: go-plugin's own
// reader stops at a long line, and the plugin would then block on a full pipe.
func (p *process) firstLine(stdout io.Reader, to io.Writer) {
	r := bufio.NewReaderSize(stdout, 4096)
	line, err := r.ReadSlice('\n')
	hello := strings.TrimSpace(string(line))
	p.hello.Store(&hello)
	if err == nil {
		_, _ = to.Write(line)
	}
	_, _ = io.Copy(io.Discard, r)
}

func (c *child) Diagnose(context.Context) string { return "" }
func (c *child) Name() string                    { return c.config.name }
func (c *child) Stdout() io.ReadCloser           { return c.stdout }

// Stderr gives go-plugin nothing but the end: its own parser of log lines can
// be made to panic. Ours reads the lines.
func (c *child) Stderr() io.ReadCloser { return untilExit{c.p.exited} }

type untilExit struct{ exited <-chan struct{} }

func (u untilExit) Read([]byte) (int, error) { <-u.exited; return 0, io.EOF }
func (u untilExit) Close() error             { return nil }

func (c *child) Wait(context.Context) error {
	<-c.p.exited
	os.RemoveAll(c.p.socketDir)
	return c.p.err
}

func (c *child) Kill(context.Context) error {
	cmd := c.p.cmd.Load()
	if cmd == nil {
		return nil
	}
	if err := cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}

func (c *child) ID() string {
	if c.p.cmd.Load() == nil {
		return ""
	}
	return strconv.Itoa(c.p.pid())
}

// PluginToHost returns the socket that a plugin names: the runner connects to
// nothing but sockets in the directory that it made for the plugin's.
func (c *child) PluginToHost(network, address string) (string, string, error) {
	path := filepath.Join(c.p.socketDir, filepath.Base(address))
	info, err := os.Lstat(path)
	switch {
	case network != "unix":
		return "", "", fmt.Errorf("it listens on %q, not on a Unix socket", network)
	case err != nil:
		return "", "", fmt.Errorf("its socket: %w", err)
	case info.Mode().Type() != os.ModeSocket:
		return "", "", errors.New("what it listens on is no socket")
	}
	if c.ownUser() { // connecting is writing, which a root without CAP_DAC_OVERRIDE may do to what it owns
		if err := os.Lchown(path, os.Getuid(), -1); err != nil {
			return "", "", fmt.Errorf("its socket: %w", err)
		}
	}
	return network, path, nil
}

func (c *child) HostToPlugin(network, address string) (string, string, error) {
	return network, address, nil
}
