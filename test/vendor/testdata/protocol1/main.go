// Sluice-filter-protocol1 is a filter that speaks version 1 of the control protocol
// and of the data format by itself, as it was written down when they were made. It
// imports nothing of Sluice: a runner that can't work with it has broken plugins
// that are out there. Change it never; a new version gets a fixture of its own.
//
// It passes all but UDP.
package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"os"
	"os/signal"
	"strconv"
	"sync/atomic"
	"syscall"

	goplugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "example.com/sluice-filter-protocol1/stagev1"
)

func main() {
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	if fd, err := strconv.Atoi(os.Getenv("SLUICE_LIFELINE")); err == nil {
		go func() {
			_, _ = os.NewFile(uintptr(fd), "lifeline").Read(make([]byte, 1))
			os.Exit(1)
		}()
	}
	goplugin.Serve(&goplugin.ServeConfig{
		HandshakeConfig: goplugin.HandshakeConfig{
			ProtocolVersion: 1, MagicCookieKey: "SLUICE_STAGE", MagicCookieValue: "8d1f6a2e-plugin-of-a-sluice-runner",
		},
		Plugins:    goplugin.PluginSet{"stage": &service{}},
		GRPCServer: goplugin.DefaultGRPCServer,
	})
}

type service struct {
	goplugin.NetRPCUnsupportedPlugin
	pb.UnimplementedStageServer
	configured, started                 atomic.Bool
	generation                          uint32
	in, out                             int
	batchesIn, batchesOut, events, outs atomic.Uint64
	bytesIn, bytesOut, malformed        atomic.Uint64
	sending                             atomic.Bool
	dropped                             uint64
}

func (s *service) GRPCServer(_ *goplugin.GRPCBroker, server *grpc.Server) error {
	pb.RegisterStageServer(server, s)
	return nil
}

func (s *service) GRPCClient(context.Context, *goplugin.GRPCBroker, *grpc.ClientConn) (any, error) {
	return nil, nil
}

func (s *service) Describe(context.Context, *pb.DescribeRequest) (*pb.Description, error) {
	return &pb.Description{Kind: "filter", Type: "protocol1", Summary: "Is old.", Schema: &pb.Schema{}, BatchVersion: 1}, nil
}

func (s *service) Configure(_ context.Context, c *pb.Configuration) (*pb.Configured, error) {
	var block map[string]any
	if err := json.Unmarshal(c.Json, &block); err != nil || len(block) > 0 {
		return &pb.Configured{Diagnostics: []*pb.Diagnostic{{Summary: "Not empty", Detail: "This block has no attributes."}}}, nil
	}
	s.configured.Store(true)
	return &pb.Configured{Traits: &pb.Traits{}}, nil
}

func (s *service) Start(_ context.Context, r *pb.StartRequest) (*pb.Started, error) {
	if !s.configured.Load() || s.started.Swap(true) || len(r.Inputs) != 1 || len(r.Outputs) != 1 {
		return nil, status.Error(codes.FailedPrecondition, "configure first; one input, one output")
	}
	s.generation, s.in, s.out = r.Generation, int(r.Inputs[0]), int(r.Outputs[0])
	go s.run()
	return &pb.Started{}, nil
}

func (s *service) Statistics(context.Context, *pb.Empty) (*pb.StatisticsReply, error) {
	if !s.started.Load() {
		return nil, status.Error(codes.FailedPrecondition, "not started")
	}
	return &pb.StatisticsReply{
		BatchesIn: s.batchesIn.Load(), BatchesOut: s.batchesOut.Load(), EventsIn: s.events.Load(), EventsOut: s.outs.Load(),
		BytesIn: s.bytesIn.Load(), BytesOut: s.bytesOut.Load(), Malformed: s.malformed.Load(), Sending: s.sending.Load(),
	}, nil
}

func (s *service) Signals(_ *pb.Empty, stream pb.Stage_SignalsServer) error {
	<-stream.Context().Done()
	return nil
}

// run moves batches: header 48 bytes, records of a size and a kind.
func (s *service) run() {
	packet := make([]byte, 1<<16+1)
	for {
		n, err := syscall.Read(s.in, packet)
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			os.Exit(1)
		}
		if n == 0 {
			os.Exit(0)
		}
		s.batch(packet[:n])
		s.bytesIn.Add(uint64(n))
		s.batchesIn.Add(1)
	}
}

func (s *service) batch(p []byte) {
	le := binary.LittleEndian
	if len(p) < 48 || p[0] != 1 {
		s.malformed.Add(1)
		return
	}
	out := append([]byte(nil), p[:48]...)
	kept := uint16(0)
	for rest := p[48:]; len(rest) >= 16; {
		size := int(le.Uint16(rest))
		if size < 16 || size > len(rest) {
			s.malformed.Add(1)
			return
		}
		record := append([]byte(nil), rest[:size]...)
		rest = rest[size:]
		s.events.Add(1)
		switch kind := record[2]; {
		case kind == 4:
			s.dropped = 0
		case kind == 5:
			le.PutUint64(record[8:], le.Uint64(record[8:])-s.dropped)
		case record[9] == 17:
			if le.Uint64(p[8:]) != 0 {
				s.dropped++
			}
			continue
		}
		out = append(out, record...)
		kept++
	}
	if kept == 0 {
		return
	}
	le.PutUint16(out[2:], kept)
	le.PutUint32(out[4:], s.generation)
	s.sending.Store(true)
	err := syscall.EINTR
	for err == syscall.EINTR {
		err2 := syscall.Sendto(s.out, out, 0, nil)
		err, _ = err2.(syscall.Errno)
	}
	s.sending.Store(false)
	if err != 0 {
		os.Exit(1)
	}
	s.bytesOut.Add(uint64(len(out)))
	s.outs.Add(uint64(kept))
	s.batchesOut.Add(1)
}
