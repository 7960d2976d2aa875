package service

import (
	"context"
	"log/slog"
	"net"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// manager returns a Manager and what reads the next word that it tells.
func manager(t *testing.T) (*Manager, func() string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { socket.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	return New(slog.New(slog.NewTextHandler(t.Output(), nil))), func() string {
		buf := make([]byte, 4096)
		n, err := socket.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		return string(buf[:n])
	}
}

func TestWords(t *testing.T) {
	m, next := manager(t)
	for _, c := range []struct {
		tell func()
		want string
	}{
		{func() { m.Ready("3 stages run") }, `^READY=1\nSTATUS=3 stages run$`},
		{m.Reloading, `^RELOADING=1\nMONOTONIC_USEC=[1-9][0-9]{3,}\nSTATUS=loads its configuration$`},
		{func() { m.Ready("3 stages run") }, `^READY=1\nSTATUS=3 stages run$`},
		{func() { m.Status("3 stages run"); m.Status("1 stage\nwaits") }, `^STATUS=1 stage; waits$`},
		{m.Stopping, `^STOPPING=1\nSTATUS=drains$`},
	} {
		c.tell()
		if got := next(); !regexp.MustCompile(c.want).MatchString(got) {
			t.Errorf("%q, not %s", got, c.want)
		}
	}
}

// The watchdog is fed while nothing is stuck, told once what is, and fed again
// after that.
func TestWatch(t *testing.T) {
	t.Setenv("WATCHDOG_USEC", "30000")
	m, next := manager(t)
	ctx, cancel := context.WithCancel(context.Background())
	answers := make(chan []string)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		m.Watch(ctx, func() []string {
			select {
			case a := <-answers:
				return a
			case <-ctx.Done():
				return nil
			}
		})
	}()
	answers <- nil
	if got := next(); got != "WATCHDOG=1" {
		t.Error(got)
	}
	answers <- []string{"local.source.netlink has not answered for 30s"}
	answers <- []string{"local.source.netlink has not answered for 30s"}
	if got := next(); got != "STATUS=stuck: local.source.netlink has not answered for 30s" {
		t.Error(got)
	}
	answers <- nil
	if got := next(); got != "WATCHDOG=1" {
		t.Error("after it was stuck: ", got)
	}
	cancel()
	<-ended
}

// Without a service manager nothing is told and nothing fails; a wrong setting
// of the watchdog is logged.
func TestNobody(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	t.Setenv("WATCHDOG_USEC", "soon")
	var log strings.Builder
	m := New(slog.New(slog.NewTextHandler(&log, nil)))
	m.Ready("")
	m.Watch(context.Background(), func() []string { t.Error("asked"); return nil })
	if got := log.String(); strings.Contains(got, "not told") || !strings.Contains(got, "no watchdog") {
		t.Error(got)
	}
}
