// Package body reads what a client sends, whatever carries it.
//
// It is read in steps: each takes memory of what all requests have together before it is read, and has to come in time.
// So a client that has sent little holds little, and one that stalls is let go.
package body

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/switchyard-dev/switchyard/runtime/server"
)

const (
	// step is how much is read at a time, and room taken for: a client that has sent nothing holds no more.
	step = 256 << 10
	// leastStep is what a request holds though its body be a few bytes.
	leastStep = 4 << 10
	// StepTime is how long a step may take: some 50 KB a second. A client that stalls is let go.
	StepTime = 5 * time.Second
	// Time is how long all of it may take: what a large one holds is the less for others.
	Time = time.Minute
	// WriteTime is how long a client may take over its answer.
	WriteTime = 30 * time.Second
)

// Unknown is the length of a body that says nothing of it.
const Unknown = -1

// Control lets a reader wait no longer than until a time; the zero time is any. *http.ResponseController is one.
type Control interface {
	SetReadDeadline(deadline time.Time) error
}

// Body is what is to be read.
type Body struct {
	From    io.Reader
	Control Control
	Length  int64 // in bytes, or Unknown: up to the end
	Limit   int64 // of its length
}

// Read reads a body whole, and takes of the memory that all requests have what it is going to hold. An Error of the
// server that From has is returned as it is.
func Read(b Body, call *server.Call) ([]byte, error) {
	tooLarge := server.Errorf(http.StatusRequestEntityTooLarge, "the body is over the limit of %d bytes", b.Limit)
	if b.Length > b.Limit {
		return nil, tooLarge
	}
	end := time.Now().Add(Time)
	var buffer bytes.Buffer
	for left := b.Length; left != 0; left = b.Length - int64(buffer.Len()) {
		most := int64(step)
		if b.Length != Unknown {
			most = min(most, left)
		}
		if err := call.TakeBody(max(most, leastStep)); err != nil {
			return nil, err
		}
		ended, err := b.step(&buffer, most, end)
		switch {
		case int64(buffer.Len()) > b.Limit:
			return nil, tooLarge
		case err != nil:
			return nil, err
		}
		if ended {
			break
		}
	}
	// The step's time is over: the wait for the answer has none, though net/http reads on to see the client leave.
	_ = b.Control.SetReadDeadline(time.Time{})
	call.KeepBody(max(int64(buffer.Len()), leastStep)) // without a length the last step was a whole one
	return buffer.Bytes(), nil
}

// step reads so many bytes more, or fewer if the body ends. All of it has to be read by end.
func (b *Body) step(buffer *bytes.Buffer, most int64, end time.Time) (ended bool, err error) {
	deadline := time.Now().Add(StepTime)
	if deadline.After(end) {
		deadline = end
	}
	_ = b.Control.SetReadDeadline(deadline) // a writer without deadlines is a test's
	n, err := io.CopyN(buffer, b.From, most)
	var ours *server.Error
	switch {
	case err == nil, errors.As(err, &ours):
		return false, err
	case errors.Is(err, io.EOF) && (b.Length == Unknown || int64(buffer.Len()) == b.Length):
		return true, nil
	case errors.Is(err, os.ErrDeadlineExceeded) && deadline.Equal(end):
		return false, server.Errorf(http.StatusRequestTimeout, "expected the body in %s, found %d bytes", Time, buffer.Len())
	case errors.Is(err, os.ErrDeadlineExceeded):
		return false, server.Errorf(http.StatusRequestTimeout, "expected %d bytes of the body in %s, found %d",
			most, StepTime, n)
	}
	return false, server.Errorf(http.StatusBadRequest, "the body ended early, after %d bytes", buffer.Len())
}
