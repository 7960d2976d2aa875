package sinklog

import (
	"bytes"
	"log/syslog"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// An output takes lines. One goroutine uses it, and may be held up by it.
type output interface {
	// write writes whole lines and returns how many of them it could not.
	write(p []byte) (lost int, err error)
	// reopen opens the output anew. After an error the old one stays.
	reopen() error
	close() error
}

func lines(p []byte) int { return bytes.Count(p, []byte{'\n'}) }

// A file is appended to.
type file struct {
	path    string
	mode    os.FileMode
	f       *os.File
	checked time.Time // when path last was this file
}

// checkEvery is how often the file is compared with what is at its path.
const checkEvery = time.Second

// reopen does not block: what is no file but a pipe without reader is an error.
func (o *file) reopen() error {
	f, err := os.OpenFile(o.path, os.O_WRONLY|os.O_APPEND|os.O_CREATE|unix.O_NONBLOCK, o.mode)
	if err != nil {
		return err
	}
	o.close()
	o.f, o.checked = f, time.Now()
	return nil
}

func (o *file) close() error { return o.f.Close() } // harmless on nil

// follow reopens the file if it was moved away or removed. What goes into a file
// that has no name any more is lost: an error. But as long as the old one
// has a name, and there is no new one to write to, lines go on to it.
func (o *file) follow() error {
	if time.Since(o.checked) < checkEvery {
		return nil
	}
	ours, err := o.f.Stat()
	if err != nil {
		return err
	}
	if there, err := os.Stat(o.path); err == nil && os.SameFile(ours, there) {
		o.checked = time.Now()
		return nil
	}
	err = o.reopen()
	if s, ok := ours.Sys().(*syscall.Stat_t); ok && s.Nlink > 0 {
		return nil
	}
	return err
}

// write cuts off the line of which the disk had room for a part only.
func (o *file) write(p []byte) (lost int, err error) {
	if err := o.follow(); err != nil {
		return lines(p), err
	}
	n, err := o.f.Write(p)
	if err == nil {
		return 0, nil
	}
	whole := bytes.LastIndexByte(p[:n], '\n') + 1
	if s, err := o.f.Stat(); err == nil && n > whole {
		o.f.Truncate(s.Size() - int64(n-whole))
	}
	return lines(p[whole:]), err
}

// A system is the syslog daemon. It may come, go and hang at any time.
type system struct {
	network, address string // of a test's daemon; empty: the local one
	priority         syslog.Priority
	w                *syslog.Writer // nil: never connected yet
}

func (o *system) reopen() error {
	w, err := syslog.Dial(o.network, o.address, o.priority, "sluice")
	if err != nil {
		return err
	}
	o.close()
	o.w = w
	return nil
}

func (o *system) close() error {
	if o.w == nil {
		return nil
	}
	return o.w.Close()
}

// write sends a message a line. The library connects again when the daemon was
// restarted; an error says that this did not help, so the rest is lost, too.
func (o *system) write(p []byte) (lost int, err error) {
	if o.w == nil {
		if err := o.reopen(); err != nil {
			return lines(p), err
		}
	}
	for len(p) > 0 {
		line, rest, _ := bytes.Cut(p, []byte{'\n'})
		if _, err := o.w.Write(bytes.TrimLeft(line, " ")); err != nil {
			return lines(p), err
		}
		p = rest
	}
	return 0, nil
}
