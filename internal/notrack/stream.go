package notrack

import (
	"encoding/binary"
	"errors"
)

// FrameSize is how many bytes more a datagram takes in a stream.
const FrameSize = extensionHeader + attrHeader + frameSize

// maxFrame is the most that a frame may hold: more than any sender puts into one.
const maxFrame = 1 << 16

// ErrStream says that the messages of a stream can't be told apart any more.
var ErrStream = errors.New("a message of impossible length")

// appendFrame appends the mark that the n bytes behind it were sent at once.
func appendFrame(p []byte, n int) []byte {
	p, at := appendExtension(p, scopeAlone)
	p = appendElement(p, elementFrame, frameSize)
	return endMessage(binary.BigEndian.AppendUint32(p, uint32(n)), at)
}

// frameOf returns how many bytes behind the message p were sent at once, if it
// is the mark that says so.
func frameOf(p []byte) (n uint32, ok bool) {
	if len(p) < FrameSize || p[0] != wireVersion<<4|typeControl || p[1] != flagAlive ||
		binary.BigEndian.Uint16(p[8:]) != extensionMagic || p[10] != extensionVersion || p[11] != scopeAlone ||
		binary.BigEndian.Uint16(p[12:]) != attrHeader+frameSize || binary.BigEndian.Uint16(p[14:]) != elementFrame {
		return 0, false
	}
	return binary.BigEndian.Uint32(p[16:]), true
}

// A Stream makes datagrams of the bytes of a connection: what its sender marked
// as sent at once, and otherwise all messages that are complete. Bytes go from
// the connection into Space, then Filled says how many; then Next is called until
// it has no more. The zero Stream is ready.
type Stream struct {
	buf        []byte
	begin, end int // of what Next has not returned
}

// streamRead is how many bytes there is room for in Space, at least.
const streamRead = 16 << 10

// Space returns memory for the connection's next bytes. It is no more than a
// frame needs, whatever comes.
func (s *Stream) Space() []byte {
	if s.begin > 0 {
		s.end = copy(s.buf, s.buf[s.begin:s.end])
		s.begin = 0
	}
	if len(s.buf)-s.end < streamRead {
		s.buf = append(s.buf[:s.end:s.end], make([]byte, max(s.end, streamRead))...)
	}
	return s.buf[s.end:]
}

// Filled says how many bytes of Space were filled.
func (s *Stream) Filled(n int) { s.end += n }

// Next returns the next datagram, valid until Space is called, or nil if more
// bytes are needed. With an error the connection is of no use any more.
func (s *Stream) Next() ([]byte, error) {
	p, at := s.buf[s.begin:s.end], 0
	for len(p)-at >= headerSize {
		size := int(binary.BigEndian.Uint16(p[at+2:]))
		if size < headerSize && at == 0 {
			return nil, ErrStream
		}
		if size < headerSize || len(p)-at < size {
			break
		}
		if n, ok := frameOf(p[at : at+size]); ok {
			if at > 0 {
				break
			}
			if n > maxFrame {
				return nil, ErrStream
			}
			if at = size + int(n); len(p) < at {
				return nil, nil
			}
			break
		}
		at += size
	}
	if at == 0 {
		return nil, nil
	}
	s.begin += at
	return p[:at:at], nil
}
