package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sluice-project/sluice/core/control"
)

// get reads from the node's listener for metrics.
func (n *node) get(path string) (status int, body string) {
	n.t.Helper()
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", n.dir+"/metrics")
		},
	}}
	response, err := client.Get("http://node" + path)
	if err != nil {
		n.t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		n.t.Fatal(err)
	}
	return response.StatusCode, string(text)
}

func TestMetrics(t *testing.T) {
	n := startNode(t)
	await(t, "the node is in sync", func() bool { code, text := n.get("/readyz"); return code == 200 && text == "ok\n" })
	if code, text := n.get("/healthz"); code != 200 || text != "ok\n" {
		t.Errorf("/healthz: %d: %s", code, text)
	}
	if code, text := n.get("/"); code != 200 || !strings.Contains(text, "<h1>fw1</h1>") || !strings.Contains(text, "stage runs") {
		t.Errorf("the page: %d: %s", code, text)
	}
	execute(t, "", n.socket, "role", "fault")
	if code, text := n.get("/readyz"); code != 503 || text != "the node was given the role fault\n" {
		t.Errorf("/readyz: %d: %s", code, text)
	}
	var text string
	await(t, "a scrape that tells of the role", func() bool { // one right behind another gets the same numbers
		_, text = n.get("/metrics")
		return strings.Contains(text, "\nsluice_role{role=\"fault\"} 1\n")
	})
	for _, want := range []string{
		`sluice_node_info{node="fw1",version="`,
		`sluice_ready 0`,
		`sluice_stage_up{stage="local.sink.kernel"} 1`,
		`sluice_stage_answered{stage="local.filter.basic"} 1`,
		`sluice_source_receive_buffer_bytes{stage="local.source.netlink"} `,
		`sluice_replay_duration_seconds_count{reason="start",result="done",stage="local.source.netlink"} 1`,
		`sluice_command_duration_seconds_count{command="role fault",result="done"} 1`,
		`sluice_config_last_reload_successful 1`,
		`process_cpu_seconds_total `,
	} {
		if !strings.Contains(text, "\n"+want) {
			t.Errorf("no line begins with %s", want)
		}
	}
	if t.Failed() {
		t.Log(text)
	}
	status, err := control.NewClient(n.socket).Status(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	// A stage that hangs does not hang the scrape.
	if err := unix.Kill(status.Pipelines[0].Stages[1].PID, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	await(t, "a scrape that tells of the stage that hangs", func() bool {
		_, text := n.get("/metrics")
		return strings.Contains(text, "\nsluice_stage_answered{stage=\"local.filter.basic\"} 0\n") &&
			strings.Contains(text, "\nsluice_stage_answered{stage=\"local.sink.kernel\"} 1\n")
	})
	n.signal(unix.SIGKILL)
	<-n.exited
	if _, err := os.Lstat(n.dir + "/metrics"); err != nil {
		t.Errorf("the test is not what it was: %v", err)
	}
}
