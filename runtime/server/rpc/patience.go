package rpc

import (
	"io"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/switchyard-dev/switchyard/runtime/server/body"
)

// patient reads a body until a deadline. net/http has deadlines of its own, but over HTTP/2 each costs a message to the
// goroutine that has the connection: a timer that is stopped costs nothing.
type patient struct {
	from  io.ReadCloser
	timer *time.Timer
	late  atomic.Bool
}

// SetReadDeadline implements body.Control. One that has passed stays so.
func (p *patient) SetReadDeadline(deadline time.Time) error {
	switch left := time.Until(deadline); {
	case deadline.IsZero():
		p.end()
	case p.timer == nil:
		p.timer = time.AfterFunc(left, func() {
			p.late.Store(true)
			_ = p.from.Close() // ends a read that waits
		})
	default:
		p.timer.Reset(left)
	}
	return nil
}

func (p *patient) Read(b []byte) (int, error) {
	n, err := p.from.Read(b)
	if err != nil && p.late.Load() {
		err = os.ErrDeadlineExceeded
	}
	return n, err
}

func (p *patient) end() {
	if p.timer != nil {
		p.timer.Stop()
	}
}

// writer gives a client its time to read each part of an answer, and no more.
type writer struct {
	http.ResponseWriter
	control *http.ResponseController
	parts   bool // the answer comes in parts, each to be sent at once

	timer *time.Timer
	mu    sync.Mutex
	ended bool
}

func newWriter(w http.ResponseWriter, parts bool) *writer {
	return &writer{ResponseWriter: w, control: http.NewResponseController(w), parts: parts}
}

func (w *writer) Write(p []byte) (int, error) {
	w.hurry()
	return w.ResponseWriter.Write(p)
}

// Flush implements http.Flusher, as grpc-go asks. Where there is but one part, all that it has to do is to part the
// header from the trailers.
func (w *writer) Flush() {
	if !w.parts {
		w.WriteHeader(http.StatusOK)
		return
	}
	w.hurry()
	_ = w.control.Flush()
	w.timer.Stop() // the next part may be long in coming
}

// hurry starts the time that a part has.
func (w *writer) hurry() {
	if w.timer == nil {
		w.timer = time.AfterFunc(body.WriteTime, w.cut)
	} else {
		w.timer.Reset(body.WriteTime)
	}
}

// cut ends the stream.
func (w *writer) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.ended {
		_ = w.control.SetWriteDeadline(time.Unix(0, 1)) // a deadline that has passed
	}
}

// end sends what is left of the answer. The trailers come of themselves.
func (w *writer) end() {
	w.hurry()
	_ = w.control.Flush()
	w.timer.Stop()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended = true // net/http takes its part of the writer back
}
