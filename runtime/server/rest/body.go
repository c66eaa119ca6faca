package rest

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/switchyard-dev/switchyard/runtime/quote"
	"github.com/switchyard-dev/switchyard/runtime/server"
)

const (
	// bodyStep is how much of a body is read at a time, and room taken for: a client that has sent nothing holds no more.
	bodyStep = 256 << 10
	// leastStep is what a request holds though its body be a few bytes.
	leastStep = 4 << 10
	// stepTime is how long a step may take: some 50 KB a second. A client that stalls is let go.
	stepTime = 5 * time.Second
	// bodyTime is how long all of it may take: what a large one holds is the less for others.
	bodyTime = time.Minute
	// writeTime is how long a client may take over its answer.
	writeTime = 30 * time.Second
)

// readBody reads a bounded body, and takes of the memory that all requests have what it is going to hold.
func (h *handler) readBody(w http.ResponseWriter, r *http.Request, call *server.Call) ([]byte, error) {
	if err := checkContent(r.Header); err != nil {
		return nil, err
	}
	limit := h.options.MaxBodyBytes
	tooLarge := server.Errorf(http.StatusRequestEntityTooLarge, "the body is over the limit of %d bytes", limit)
	if r.ContentLength > limit {
		return nil, tooLarge
	}
	control := http.NewResponseController(w)
	end := time.Now().Add(bodyTime)
	var buffer bytes.Buffer
	for left := r.ContentLength; left != 0; left = r.ContentLength - int64(buffer.Len()) {
		step := int64(bodyStep)
		if left > 0 { // else it says nothing of its length
			step = min(step, left)
		}
		if err := call.TakeBody(max(step, leastStep)); err != nil {
			return nil, err
		}
		deadline := time.Now().Add(stepTime)
		if deadline.After(end) {
			deadline = end
		}
		_ = control.SetReadDeadline(deadline) // a writer without deadlines is a test's
		n, err := io.CopyN(&buffer, r.Body, step)
		ended := errors.Is(err, io.EOF)
		switch {
		case int64(buffer.Len()) > limit:
			return nil, tooLarge
		case errors.Is(err, os.ErrDeadlineExceeded) && deadline.Equal(end):
			return nil, server.Errorf(http.StatusRequestTimeout, "expected the body in %s, found %d bytes",
				bodyTime, buffer.Len())
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil, server.Errorf(http.StatusRequestTimeout, "expected %d bytes of the body in %s, found %d",
				step, stepTime, n)
		case err != nil && !ended:
			return nil, badRequest("the body ended early, after %d bytes", buffer.Len())
		}
		if ended {
			break
		}
	}
	// The step's time is over: the wait for the answer has none, though net/http reads on to see the client leave.
	_ = control.SetReadDeadline(time.Time{})
	call.KeepBody(max(int64(buffer.Len()), leastStep)) // without a length the last step was a whole one
	return buffer.Bytes(), nil
}

func checkContent(h http.Header) error {
	if encoding := h.Get("Content-Encoding"); encoding != "" && encoding != "identity" {
		return server.Errorf(http.StatusUnsupportedMediaType, "content encoding %s is not supported", quote.Name(encoding))
	}
	return nil
}
