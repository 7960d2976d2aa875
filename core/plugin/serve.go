package plugin

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"sync"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"

	"github.com/sluice-project/sluice/core/plugin/stagepb"
)

// Versions of the control protocol. Runner and plugin use the newest that both
// know. New fields and new calls that the runner can do without raise nothing: an
// old plugin ignores the first and answers the second with Unimplemented. What an
// old plugin would misunderstand raises ProtocolVersion.
const (
	ProtocolVersion = 1 // the newest, which this package speaks
	OldestProtocol  = 1 // the oldest that a runner takes, and a plugin still serves
)

// Handshake is what runner and stage must agree on before they speak.
var Handshake = goplugin.HandshakeConfig{
	ProtocolVersion:  OldestProtocol, // of a peer that names none
	MagicCookieKey:   "SLUICE_STAGE",
	MagicCookieValue: "8d1f6a2e-plugin-of-a-sluice-runner",
}

// The environment of a stage's process, set by the runner.
const (
	// EnvLifeline is the number of an inherited descriptor at whose end of
	// file the stage exits: the runner is gone.
	EnvLifeline = "SLUICE_LIFELINE"
	// EnvLogLevel is the least severe level worth writing, as slog writes it.
	EnvLogLevel = "SLUICE_LOG_LEVEL"
)

// ServiceName is the key of the one service in the go-plugin plugin set.
const ServiceName = "stage"

// Serve turns the process into a stage of the runner that started it. It
// returns only if the process was not started by a runner, with an error that
// says so; main should print it and exit.
func Serve(d Definition) error {
	if os.Getenv(Handshake.MagicCookieKey) != Handshake.MagicCookieValue {
		return fmt.Errorf("this is the Sluice plugin %s-%s; a runner starts it: name its folder in "+
			"plugin_path and write a block %s %q in a pipeline", d.Kind, d.Type, d.Kind, d.Type)
	}
	// The terminal or the service manager signals the whole process group, but
	// a stage ends by the end of its input.
	signal.Ignore(unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	watchLifeline(os.Getenv(EnvLifeline))
	if fd, err := strconv.Atoi(os.Getenv(EnvHandover)); err == nil {
		unix.CloseOnExec(fd)
	}

	runtime.GOMAXPROCS(max(d.Parallel, 1))

	server := newServer(d, slog.New(logHandler(os.Stderr)))
	server.restore = keepStderr()
	goplugin.Serve(&goplugin.ServeConfig{
		HandshakeConfig: Handshake,
		VersionedPlugins: versioned(func() goplugin.PluginSet {
			return goplugin.PluginSet{ServiceName: &grpcPlugin{server: server}}
		}),
		GRPCServer: goplugin.DefaultGRPCServer,
		Logger:     hclog.NewNullLogger(),
	})
	os.Exit(0) // the runner closed the control connection
	return nil
}

// keepStderr returns what gives os.Stderr back. go-plugin's Serve replaces it by a
// stream that nobody reads here, and what a plugin prints to it would be lost.
func keepStderr() func() {
	stderr := os.Stderr
	return sync.OnceFunc(func() { os.Stderr = stderr })
}

// logHandler writes JSON lines, which the runner reads from standard error.
func logHandler(stderr *os.File) slog.Handler {
	_ = logLevel.UnmarshalText([]byte(os.Getenv(EnvLogLevel))) // unset: info
	return slog.NewJSONHandler(stderr, &slog.HandlerOptions{Level: &logLevel})
}

// logLevel is the least severe level worth writing: the runner may change it.
var logLevel slog.LevelVar

// watchLifeline ends the process when the runner's end of the pipe closes. The
// kernel's parent-death signal does the same sooner, but not for processes
// that changed credentials.
func watchLifeline(fd string) {
	var n int
	if _, err := fmt.Sscan(strings.TrimSpace(fd), &n); err != nil {
		return
	}
	unix.CloseOnExec(n)
	go func() {
		var b [1]byte
		for {
			if _, err := unix.Read(n, b[:]); err != unix.EINTR {
				os.Exit(1)
			}
		}
	}()
}

// grpcPlugin registers the control protocol with go-plugin.
type grpcPlugin struct {
	goplugin.NetRPCUnsupportedPlugin
	server stagepb.StageServer
}

func (p *grpcPlugin) GRPCServer(_ *goplugin.GRPCBroker, s *grpc.Server) error {
	stagepb.RegisterStageServer(s, p.server)
	return nil
}

func (p *grpcPlugin) GRPCClient(_ context.Context, _ *goplugin.GRPCBroker, c *grpc.ClientConn) (any, error) {
	return stagepb.NewStageClient(c), nil
}

// ClientPlugins are the plugin sets for the runner's side, by the version of the
// protocol; their service dispenses a stagepb.StageClient.
func ClientPlugins() map[int]goplugin.PluginSet {
	return versioned(func() goplugin.PluginSet { return goplugin.PluginSet{ServiceName: &grpcPlugin{}} })
}

// versioned makes a set for each version that is spoken.
func versioned(set func() goplugin.PluginSet) map[int]goplugin.PluginSet {
	sets := map[int]goplugin.PluginSet{}
	for v := OldestProtocol; v <= ProtocolVersion; v++ {
		sets[v] = set()
	}
	return sets
}
