package conntrackdcli

import (
	"context"
	"fmt"
	"os"
	"runtime"

	"github.com/mdlayher/netlink"
	"github.com/ti-mo/conntrack"
	"golang.org/x/sys/unix"

	"github.com/sluice-project/sluice/core/flow"
	"github.com/sluice-project/sluice/internal/ctnl"
)

// inRunnersNetwork calls f where the runner's kernel table is: sockets that f
// opens are in the runner's network namespace. Another than ours can only be
// entered with CAP_SYS_ADMIN.
func (c *Client) inRunnersNetwork(ctx context.Context, f func() error) error {
	status, err := c.control.Status(ctx)
	if err != nil {
		return err
	}
	theirs := fmt.Sprintf("/proc/%d/ns/net", status.PID)
	a, errA := os.Readlink(theirs)
	b, errB := os.Readlink("/proc/self/ns/net")
	if errA != nil || errB != nil || a == b {
		return f()
	}
	ns, err := os.Open(theirs)
	if err != nil {
		return fmt.Errorf("network namespace of the runner: %w", err)
	}
	defer ns.Close()
	done := make(chan error, 1)
	go func() { // the thread ends with this goroutine, which never unlocks it
		runtime.LockOSThread()
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("network namespace of the runner: %w", err)
			return
		}
		done <- f()
	}()
	return <-done
}

// flushKernel empties the kernel's tables, of everything as conntrackd does it,
// not of what the filters accept alone.
func (c *Client) flushKernel(ctx context.Context, table Table) error {
	return c.inRunnersNetwork(ctx, func() error {
		if table != Expectations {
			if err := flushFlows(); err != nil {
				return fmt.Errorf("flush of the kernel's table: %w", err)
			}
		}
		if table != Flows {
			if err := flushExpectations(); err != nil {
				return fmt.Errorf("flush of the kernel's expectations: %w", err)
			}
		}
		return nil
	})
}

func flushFlows() error {
	conn, err := conntrack.Dial(nil)
	if err != nil {
		return err
	}
	defer conn.Close()
	return conn.Flush()
}

// Of linux/netfilter/nfnetlink_conntrack.h: NFNL_SUBSYS_CTNETLINK_EXP and
// IPCTNL_MSG_EXP_DELETE, which without a tuple deletes all.
const deleteExpectations = 2<<8 | 2

func flushExpectations() error {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = conn.Execute(netlink.Message{
		Header: netlink.Header{Type: deleteExpectations, Flags: netlink.Request | netlink.Acknowledge},
		Data:   []byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, 0}, // struct nfgenmsg
	})
	return err
}

// dumpKernel prints the kernel's table, which is what conntrackd does where
// there is no internal cache; unlike conntrackd, without looking at the
// filters. There is no cache of expectations then either.
func (c *Client) dumpKernel(ctx context.Context, o Options) error {
	if o.Table == Expectations {
		_, err := c.control.Status(ctx)
		return err
	}
	return c.inRunnersNetwork(ctx, func() error {
		d, err := ctnl.OpenDump(ctnl.Filter{})
		if err != nil {
			return err
		}
		defer d.Close()
		for more := true; more && err == nil; {
			more, err = d.Next(func(e *flow.Event) error { return c.writeKernelFlow(e, o.XML) })
		}
		return err
	})
}

func (c *Client) writeKernelFlow(e *flow.Event, asXML bool) error {
	line := append(e.Flow.AppendText(nil), " use=1\n"...)
	if asXML {
		line = (&Entry{View: e.Flow.View()}).AppendXML(nil, false)
	}
	_, err := c.out.Write(line)
	return err
}

// readLinks reads the states of the links' interfaces.
func (n *node) readLinks() error {
	for _, link := range n.setup.Links {
		n.states = append(n.states, linkState(link.Interface))
	}
	return nil
}
