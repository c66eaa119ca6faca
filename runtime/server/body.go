package server

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/switchyard-dev/switchyard/runtime/quote"
)

const (
	// bodyStep is how much of a body is reserved and read at a time: a client that has sent nothing holds no more.
	bodyStep = 256 << 10
	// stepTime is how long a step may take: some 50 KB a second. A client that stalls is let go.
	stepTime = 5 * time.Second
	// writeTime is how long a client may take over its answer.
	writeTime = 30 * time.Second
)

// readBody reads a bounded body. What all requests together hold of bodies is bounded too; release gives back this
// one's part.
func (s *Server) readBody(w http.ResponseWriter, r *http.Request) (body []byte, release func(), err error) {
	if err := checkContent(r.Header); err != nil {
		return nil, nil, err
	}
	limit := s.options.MaxBodyBytes
	tooLarge := failure(http.StatusRequestEntityTooLarge, "the body is over the limit of %d bytes", limit)
	if r.ContentLength > limit {
		return nil, nil, tooLarge
	}
	held := int64(0)
	giveBack := func() { s.bodies.Release(held) }
	defer func() {
		if err != nil {
			giveBack()
		}
	}()
	control := http.NewResponseController(w)
	var buffer bytes.Buffer
	for {
		if !s.bodies.TryAcquire(bodyStep) {
			return nil, nil, tryLater(http.StatusTooManyRequests, errors.New("too many request bodies in flight"))
		}
		held += bodyStep
		_ = control.SetReadDeadline(time.Now().Add(stepTime)) // a writer without deadlines is a test's
		n, err := io.CopyN(&buffer, r.Body, bodyStep)
		switch {
		case int64(buffer.Len()) > limit:
			return nil, nil, tooLarge
		case errors.Is(err, io.EOF):
			// The step's time is over: the wait for the answer has none, though net/http reads on to see the client leave.
			_ = control.SetReadDeadline(time.Time{})
			return buffer.Bytes(), giveBack, nil
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil, nil, failure(http.StatusRequestTimeout, "expected %d bytes of the body in %s, found %d",
				bodyStep, stepTime, n)
		case err != nil:
			return nil, nil, badRequest("the body ended early, after %d bytes", buffer.Len())
		}
	}
}

func checkContent(h http.Header) error {
	if h.Get("Inference-Header-Content-Length") != "" {
		return failure(http.StatusUnsupportedMediaType, "binary tensor data is not supported yet: send JSON")
	}
	if encoding := h.Get("Content-Encoding"); encoding != "" && encoding != "identity" {
		return failure(http.StatusUnsupportedMediaType, "content encoding %s is not supported", quote.Name(encoding))
	}
	return nil
}
