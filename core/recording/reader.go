package recording

import (
	"bufio"
	"compress/flate"
	"compress/gzip"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/sluice-project/sluice/core/flow"
)

// A Reader reads a recording, frame by frame.
type Reader struct {
	// About is what the recording says of itself.
	About About

	in     *bufio.Reader
	frames int   // that were begun
	offset int64 // of the frame at hand, in what is in the gzip stream
	next   int64 // of the one behind it
	buf    []byte
	end    *End
	live   bool // frames of a stage: no header, no end
}

// NewReader reads the header of a recording.
func NewReader(r io.Reader) (*Reader, error) {
	unpacked, err := gzip.NewReader(r)
	if err != nil {
		return nil, fmt.Errorf("%w: not the file of one: %w", ErrMalformed, err)
	}
	d := &Reader{in: bufio.NewReaderSize(unpacked, flow.MaxBatch)}
	line, err := d.in.Peek(len(magic))
	if string(line) != magic {
		if errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, fmt.Errorf("%w: before its header", ErrCutShort)
		}
		return nil, fmt.Errorf("%w: it does not begin with %q", ErrMalformed, magic[:len(magic)-1])
	}
	_, _ = d.in.Discard(len(magic))
	d.next = int64(len(magic))
	kind, _, content, err := d.frame()
	switch {
	case err != nil:
		return nil, err
	case kind != frameAbout:
		return nil, d.malformed("kind %d instead of a header", kind)
	}
	if err := json.Unmarshal(content, &d.About); err != nil {
		return nil, d.malformed("header: %v", err)
	}
	return d, nil
}

// NewLiveReader reads the frames that a stage sends. Their end is that of r.
func NewLiveReader(r io.Reader) *Reader {
	return &Reader{in: bufio.NewReaderSize(r, flow.MaxBatch), live: true}
}

func (d *Reader) malformed(format string, args ...any) error {
	return fmt.Errorf("%w: frame %d, at byte %d of what is packed: %s", ErrMalformed, d.frames, d.offset, fmt.Sprintf(format, args...))
}

// frame reads the next frame. Its content is valid until the next one.
func (d *Reader) frame() (kind byte, at time.Duration, content []byte, err error) {
	var head [frameHead]byte
	d.frames++
	d.offset = d.next
	if n, err := io.ReadFull(d.in, head[:]); err != nil {
		if n == 0 && errors.Is(err, io.EOF) {
			return 0, 0, nil, io.EOF
		}
		return 0, 0, nil, d.broken(err)
	}
	length := binary.LittleEndian.Uint32(head[:])
	if length > maxContent {
		return 0, 0, nil, d.malformed("a length of %d bytes, of at most %d", length, maxContent)
	}
	kind, at = head[4], time.Duration(binary.LittleEndian.Uint64(head[8:]))
	if at < 0 {
		return 0, 0, nil, d.malformed("a time before its begin")
	}
	if cap(d.buf) < int(length) {
		d.buf = make([]byte, length, maxContent)
	}
	content = d.buf[:length]
	if _, err := io.ReadFull(d.in, content); err != nil {
		return 0, 0, nil, d.broken(err)
	}
	d.next = d.offset + frameHead + int64(length)
	return kind, at, content, nil
}

// broken says why there is no more of a frame.
func (d *Reader) broken(err error) error {
	if d.live && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return err // of whoever sends
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w, in frame %d", ErrCutShort, d.frames)
	}
	var corrupt flate.CorruptInputError
	if errors.Is(err, gzip.ErrChecksum) || errors.Is(err, gzip.ErrHeader) || errors.As(err, &corrupt) {
		return d.malformed("%v", err)
	}
	return fmt.Errorf("read: %w", err)
}

// Read returns the next batch, io.EOF behind the end, or an error that wraps
// ErrCutShort where the end is missing. Each batch was checked.
func (d *Reader) Read() (b Batch, err error) {
	if d.end != nil {
		return b, io.EOF
	}
	for {
		kind, at, content, err := d.frame()
		switch {
		case err == io.EOF && d.live:
			return b, io.EOF
		case err == io.EOF:
			return b, fmt.Errorf("%w: it has no end after %d frames", ErrCutShort, d.frames-1)
		case err != nil:
			return b, err
		}
		b.At = at
		switch kind {
		case frameBatch:
			if b.Batch, err = flow.DecodeBatch(content); err != nil {
				return b, d.malformed("%v", err)
			}
			b.Packet = content
			return b, nil
		case frameLost:
			if len(content) != 8 {
				return b, d.malformed("a loss of %d bytes", len(content))
			}
			b.Lost = binary.LittleEndian.Uint64(content)
			return b, nil
		case frameAbout:
			return b, d.malformed("a second header")
		case frameEnd:
			d.end = &End{}
			if err := json.Unmarshal(content, d.end); err != nil {
				return b, d.malformed("end: %v", err)
			}
			return b, io.EOF
		}
	}
}

// End returns what the recording says at its end, nil before that was read.
func (d *Reader) End() *End { return d.end }
