// Pictures makes docs/pictures/{page,narrow,top}.png and live.svg anew: of a
// pair of firewalls that runs in network namespaces, under traffic. It needs
// root, chromium and tmux.
package main

import (
	"context"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/sluice-project/sluice/internal/testbed"
	"github.com/sluice-project/sluice/test/node"
)

const runner = `
runner {
  name      = %q
  lock_file = %q
  control {
    path = %q
  }
  metrics {
    listen = "127.0.0.1:9783"
  }
}
`

func main() {
	binary := flag.String("sluice", "bin/sluice", "the sluice binary")
	out := flag.String("out", "docs/pictures", "where the pictures go")
	flag.Parse()
	p := &pictures{out: *out}
	var err error
	if p.binary, err = filepath.Abs(*binary); err == nil {
		err = p.make()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "pictures:", err)
		os.Exit(1)
	}
}

type pictures struct {
	binary, out, dir string
	pair             *testbed.Pair
	nodes            []*node.Node
}

func (p *pictures) make() (err error) {
	if p.dir, err = os.MkdirTemp("", "sluice-pictures-"); err != nil {
		return err
	}
	defer os.RemoveAll(p.dir)
	if p.pair, err = testbed.NewPair(testbed.FirewallConfig{SNAT: true}); err != nil {
		return err
	}
	defer p.pair.Close()
	server, err := testbed.NewServer(p.pair.Server, testbed.ServerPort)
	if err != nil {
		return err
	}
	defer server.Close()
	if err := p.pair.MoveTo(p.pair.FW1); err != nil {
		return err
	}
	for i, fw := range []*testbed.Firewall{p.pair.FW1, p.pair.FW2} {
		n, err := p.start(fw, fmt.Sprintf("fw%d", i+1))
		if err != nil {
			return err
		}
		defer n.Close()
		p.nodes = append(p.nodes, n)
	}
	if _, err := p.nodes[0].Sluice("role", "primary"); err != nil {
		return err
	}
	if _, err := p.nodes[1].Sluice("role", "backup"); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); p.traffic(ctx) }()
	defer func() { cancel(); <-ended }()
	time.Sleep(8 * time.Second) // for numbers worth a look
	for _, n := range p.nodes {
		if out, err := n.FW.Run("curl", "-sSf", page+"now"); err != nil {
			return fmt.Errorf("curl: %w: %s", err, out)
		}
	}
	time.Sleep(2 * time.Second) // from there on rates are known
	for _, draw := range []func() error{p.page, p.narrow, p.graph, p.top} {
		if err := draw(); err != nil {
			return err
		}
	}
	return nil
}

func (p *pictures) start(fw *testbed.Firewall, name string) (*node.Node, error) {
	file, socket := filepath.Join(p.dir, name+".hcl"), filepath.Join(p.dir, name+".sock")
	text := fmt.Sprintf(runner, name, filepath.Join(p.dir, name+".lock"), socket) + node.Pipelines(nil)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return nil, err
	}
	return node.StartFile(p.binary, fw, file, socket)
}

// traffic goes on until ctx ends: short connections, and datagrams beside them.
func (p *pictures) traffic(ctx context.Context) {
	to := func(port uint16) netip.AddrPort { return netip.AddrPortFrom(testbed.ServerAddr.V4.Addr(), port) }
	go func() {
		for i := uint16(0); ctx.Err() == nil; i++ {
			_, _ = p.pair.Client.UDP(ctx, testbed.UDP{To: to(testbed.ServerPort), Count: 20})
			time.Sleep(100 * time.Millisecond)
		}
	}()
	endings := []testbed.Ending{testbed.Orderly, testbed.Orderly, testbed.Orderly, testbed.Reset}
	if open, err := p.pair.Client.Churn(ctx, testbed.Churn{
		To: to(testbed.ServerPort), Count: 120, Payload: 1000, Endings: func(int) testbed.Ending { return testbed.LeftOpen },
	}); err == nil && open.Open != nil {
		defer open.Open.Close(testbed.Reset)
	}
	for ctx.Err() == nil {
		_, _ = p.pair.Client.Churn(ctx, testbed.Churn{
			To: to(testbed.ServerPort), Sources: testbed.ClientSources(false), Count: 2000, Rate: 400, Payload: 1000,
			Endings: func(i int) testbed.Ending { return endings[i%len(endings)] },
		})
	}
}

// browse takes a picture of what a browser on a firewall shows.
func (p *pictures) browse(fw *testbed.Firewall, name, url string, width, height int, more ...string) error {
	picture, err := filepath.Abs(filepath.Join(p.out, name))
	if err != nil {
		return err
	}
	out, err := fw.Run("chromium", append(more, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
		"--hide-scrollbars", "--user-data-dir="+filepath.Join(p.dir, name), fmt.Sprintf("--window-size=%d,%d", width, height),
		"--screenshot="+picture, url)...)
	if err != nil {
		return fmt.Errorf("chromium: %w: %s", err, out)
	}
	return nil
}

const page = "http://127.0.0.1:9783/"

func (p *pictures) page() error { return p.browse(p.pair.FW1, "page.png", page, 1280, 1760) }

// narrow is what a telephone shows of the other node, where it is dark.
func (p *pictures) narrow() error {
	return p.browse(p.pair.FW2, "narrow.png", page, 500, 1180, "--force-dark-mode")
}

func (p *pictures) graph() error {
	drawing, err := p.nodes[0].Sluice("graph", "--live")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(p.out, "live.svg"), []byte(drawing), 0o644)
}

// top runs `sluice top` in a terminal and has the browser show what is there.
func (p *pictures) top() error {
	const width, height = 110, 16
	session := fmt.Sprintf("sluice-pictures-%d", os.Getpid())
	tmux := func(args ...string) ([]byte, error) {
		return exec.Command("tmux", append([]string{"-L", session}, args...)...).Output()
	}
	_, err := tmux("new-session", "-d", "-x", fmt.Sprint(width), "-y", fmt.Sprint(height), "env", "COLORTERM=truecolor", "TERM=tmux-256color",
		p.binary, "top", "--socket", p.nodes[0].Socket)
	if err != nil {
		return fmt.Errorf("tmux: %w", err)
	}
	defer func() { _, _ = tmux("kill-server") }()
	time.Sleep(5 * time.Second)
	screen, err := tmux("capture-pane", "-e", "-p")
	if err != nil {
		return fmt.Errorf("tmux: %w", err)
	}
	file := filepath.Join(p.dir, "top.html")
	if err := os.WriteFile(file, []byte(terminal(string(screen))), 0o600); err != nil {
		return err
	}
	return p.browse(p.pair.FW1, "top.png", "file://"+file, 900, 320)
}
