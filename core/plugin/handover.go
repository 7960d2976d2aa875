package plugin

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sluice-project/sluice/core/plugin/stagepb"
)

// EnvHandover is the number of an inherited descriptor: a socket over which the
// runner passes descriptors to a stage that runs.
const EnvHandover = "SLUICE_HANDOVER"

// Pause implements the control protocol: a reload begins.
func (s *server) Pause(ctx context.Context, r *stagepb.PauseRequest) (*stagepb.Empty, error) {
	st, err := s.started()
	if err != nil {
		return nil, err
	}
	s.control.Lock()
	defer s.control.Unlock()
	if r.Input && !s.paused.input {
		// What it works on may wait for room below, for as long as that lasts.
		if err := lockWithin(ctx, &st.turn); err != nil {
			return nil, status.Error(codes.DeadlineExceeded, "pause: the batch in hand does not end")
		}
		s.paused.input = true
	}
	if !s.paused.output {
		st.out.pause()
		s.paused.output = true
	}
	return &stagepb.Empty{}, nil
}

// Resume implements the control protocol.
func (s *server) Resume(context.Context, *stagepb.Empty) (*stagepb.Empty, error) {
	st, err := s.started()
	if err != nil {
		return nil, err
	}
	s.control.Lock()
	defer s.control.Unlock()
	s.unpause(st)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.begin != nil {
		s.begin()
		s.begin = nil
	}
	return &stagepb.Empty{}, nil
}

// unpause ends what Pause began. The caller holds control.
func (s *server) unpause(st *stage) {
	if s.paused.output {
		st.out.resume()
	}
	if s.paused.input {
		st.turn.Unlock()
	}
	s.paused.input, s.paused.output = false, false
}

// Drain implements the control protocol.
func (s *server) Drain(context.Context, *stagepb.Empty) (*stagepb.Empty, error) {
	st, err := s.started()
	if err != nil {
		return nil, err
	}
	s.control.Lock()
	defer s.control.Unlock()
	st.ending.Store(true)
	if st.in != nil {
		st.in.stir()
	}
	s.drain()
	s.unpause(st)
	return &stagepb.Empty{}, nil
}

// Rewire implements the control protocol.
func (s *server) Rewire(_ context.Context, r *stagepb.RewireRequest) (*stagepb.Empty, error) {
	st, err := s.started()
	if err != nil {
		return nil, err
	}
	s.control.Lock()
	defer s.control.Unlock()
	if !s.paused.output {
		return nil, status.Error(codes.FailedPrecondition, "rewire: pause first")
	}
	fresh := 0
	for _, number := range r.Outputs {
		if number == 0 {
			fresh++
		}
	}
	var fds []int
	if fresh > 0 {
		if fds, err = receiveDescriptors(r.Token); err != nil {
			return nil, status.Error(codes.Internal, err.Error())
		}
	}
	if err := st.out.rewire(r.Outputs, fds); err != nil {
		closeAll(fds)
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	return &stagepb.Empty{}, nil
}

// Adjust implements the control protocol.
func (s *server) Adjust(_ context.Context, r *stagepb.AdjustRequest) (*stagepb.Empty, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(r.LogLevel)); err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	logLevel.Set(level)
	return &stagepb.Empty{}, nil
}

// maxDescriptors is the kernel's SCM_MAX_FD.
const maxDescriptors = 253

// receiveDescriptors returns what came over the handover socket under a token. It
// does not wait: what is wanted has arrived.
func receiveDescriptors(token uint64) ([]int, error) {
	socket, err := strconv.Atoi(os.Getenv(EnvHandover))
	if err != nil {
		return nil, errors.New("rewire: the runner gave no socket for descriptors")
	}
	var payload [8]byte
	control := make([]byte, unix.CmsgSpace(4*maxDescriptors))
	for {
		n, size, _, _, err := unix.Recvmsg(socket, payload[:], control, unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("rewire: receive descriptors: %w", err)
		}
		fds := descriptorsIn(control[:size])
		if n == len(payload) && binary.LittleEndian.Uint64(payload[:]) == token {
			return fds, nil
		}
		closeAll(fds) // of a call that failed
		if n == 0 {
			return nil, errors.New("rewire: the runner closed the socket for descriptors")
		}
	}
}

// descriptorsIn returns the descriptors of a control message.
func descriptorsIn(control []byte) (fds []int) {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return nil
	}
	for i := range messages {
		more, err := unix.ParseUnixRights(&messages[i])
		if err == nil {
			fds = append(fds, more...)
		}
	}
	return fds
}

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}

// lockWithin takes a lock, unless ctx ends first. Its holder may let go of it for
// moments only, in which nobody gets it who does not wait in its queue.
func lockWithin(ctx context.Context, mu *sync.Mutex) error {
	taken := make(chan struct{})
	go func() {
		mu.Lock()
		select {
		case taken <- struct{}{}:
		case <-ctx.Done():
			mu.Unlock()
		}
	}()
	select {
	case <-taken:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
