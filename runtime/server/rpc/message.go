package rpc

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"io"
	"net/http"
	"os"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/switchyard-dev/switchyard/runtime/protocol"
	"github.com/switchyard-dev/switchyard/runtime/quote"
	"github.com/switchyard-dev/switchyard/runtime/server"
	"github.com/switchyard-dev/switchyard/runtime/server/body"
)

const (
	// prefixBytes stand before each message: whether it is compressed, and its length.
	prefixBytes = 5
	// encodingHeader names how the messages are compressed that say they are.
	encodingHeader = "Grpc-Encoding"
	gzipEncoding   = "gzip"
)

// read reads a call's message, and what it holds of the server until the call ends.
func (h *Handler) read(
	r *http.Request, route route, s *server.Server, c *call,
) (proto.Message, error) {
	encoding := r.Header.Get(encodingHeader)
	r.Header.Del(encodingHeader) // of what grpc-go is given, nothing is compressed
	if route.infer {
		if s == nil {
			return nil, server.TryLater(http.StatusServiceUnavailable, errStarting)
		}
		var err error
		if c.own, err = s.Begin(); err != nil {
			return nil, err
		}
	}
	from := &patient{from: r.Body}
	defer from.end()
	_ = from.SetReadDeadline(time.Now().Add(body.StepTime))
	in, err := open(from, encoding)
	if err != nil {
		return nil, err
	}
	message := route.request()
	if !route.infer {
		return message, readSmall(in.from, message)
	}
	raw, err := body.Read(body.Body{
		From: in.from, Control: from, Length: in.length, Limit: h.options.MaxMessageBytes,
	}, c.own)
	if err != nil {
		return nil, err
	}
	return message, decode(raw, message, c.own.Take)
}

// decode reads an infer request, for whose parts memory is taken before they are made.
func decode(raw []byte, message proto.Message, take func(bytes int64) error) error {
	parts, err := measure(raw, message.ProtoReflect().Descriptor())
	if err != nil {
		return err
	}
	if err := take(parts); err != nil {
		return err
	}
	return unmarshal(raw, message)
}

func unmarshal(raw []byte, message proto.Message) error {
	if err := proto.Unmarshal(raw, message); err != nil {
		return protocol.Errorf("malformed request: %v", err)
	}
	return nil
}

// readSmall reads a message that holds some names.
func readSmall(from io.Reader, message proto.Message) error {
	var raw bytes.Buffer
	switch n, err := raw.ReadFrom(io.LimitReader(from, smallBytes+1)); {
	case n > smallBytes:
		return server.Errorf(http.StatusRequestEntityTooLarge, "the message is over the limit of %d bytes", smallBytes)
	case err != nil:
		return readError(err)
	}
	return unmarshal(raw.Bytes(), message)
}

// framed is a message as it comes.
type framed struct {
	from   io.Reader
	length int64 // in bytes, or body.Unknown where it is compressed
}

// open reads what stands before a message.
func open(from io.Reader, encoding string) (framed, error) {
	var prefix [prefixBytes]byte
	if n, err := io.ReadFull(from, prefix[:]); n == 0 && errors.Is(err, io.EOF) {
		return framed{}, protocol.Errorf("expected a message, found none")
	} else if err != nil {
		return framed{}, readError(err)
	}
	length := int64(binary.BigEndian.Uint32(prefix[1:]))
	in := framed{io.LimitReader(from, length), length}
	switch compressed := prefix[0]; {
	case compressed == 0:
		return in, nil
	case compressed != 1:
		return in, protocol.Errorf("expected a message that is compressed (1) or not (0), found %d", compressed)
	case encoding != gzipEncoding:
		return in, server.Errorf(http.StatusUnsupportedMediaType, "grpc-encoding: expected %s or identity, found %s",
			gzipEncoding, quote.Name(encoding))
	}
	return framed{&unzipped{from: in.from}, body.Unknown}, nil
}

// readError is why bytes did not come.
func readError(err error) error {
	var ours *server.Error
	switch {
	case errors.As(err, &ours):
		return err
	case errors.Is(err, os.ErrDeadlineExceeded):
		return server.Errorf(http.StatusRequestTimeout, "expected the message in %s, found some of it", body.StepTime)
	}
	return protocol.Errorf("the message ended early")
}

// unzipped decompresses; what cannot be is the client's fault.
type unzipped struct {
	from io.Reader
	zip  *gzip.Reader
}

func (u *unzipped) Read(p []byte) (n int, err error) {
	if u.zip == nil {
		if u.zip, err = gzip.NewReader(u.from); errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF // a message of no bytes is none that is compressed
		}
	}
	if err == nil {
		n, err = u.zip.Read(p)
	}
	var corrupt flate.CorruptInputError
	if errors.Is(err, gzip.ErrHeader) || errors.Is(err, gzip.ErrChecksum) || errors.As(err, &corrupt) {
		err = server.Errorf(http.StatusBadRequest, "the message is not in gzip: %v", err)
	}
	return n, err
}

// emptied is what grpc-go is given of a call whose message has been read: an empty one.
func emptied(from io.Closer) io.ReadCloser {
	return struct {
		io.Reader
		io.Closer
	}{bytes.NewReader(make([]byte, prefixBytes)), from}
}

const (
	// streamReads bounds how often grpc-go reads of a stream, which it does as fast as the client sends: each time it
	// takes a buffer.
	streamReads = 64
	// streamTime is how long a client may go on sending.
	streamTime = time.Minute
)

// stream is the body of a call that has several messages, all of them small.
type stream struct {
	*patient
	left int // reads
}

func newStream(from io.ReadCloser) *stream {
	s := &stream{&patient{from: from}, streamReads}
	_ = s.SetReadDeadline(time.Now().Add(streamTime))
	return s
}

func (s *stream) Read(p []byte) (int, error) {
	if s.left == 0 {
		return 0, io.ErrUnexpectedEOF
	}
	s.left--
	return s.patient.Read(p)
}

func (s *stream) Close() error {
	s.end()
	return s.from.Close()
}
