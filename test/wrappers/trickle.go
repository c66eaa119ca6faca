package wrappers

import (
	"context"
	"io"
	"net/http"
	"time"
)

// Trickle answers every request with a body that has no end and comes at a pace: so many bytes each time that a while
// has passed. In a testing/synctest bubble it takes hours of nobody's time.
type Trickle struct {
	Bytes int
	Every time.Duration
}

// RoundTrip answers at once.
func (t Trickle) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{
		Status: "200 OK", StatusCode: http.StatusOK, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{}, ContentLength: -1, Body: &trickle{t, r.Context()}, Request: r,
	}, nil
}

type trickle struct {
	Trickle
	ctx context.Context //nolint:containedctx // a body ends with its request, as net/http's do
}

// Read waits for the next bytes.
func (t *trickle) Read(b []byte) (int, error) {
	select {
	case <-t.ctx.Done():
		return 0, t.ctx.Err()
	case <-time.After(t.Every): //nolint:forbidigo // the pace is what it is for
		return min(len(b), t.Bytes), nil
	}
}

// Close has nothing to give back.
func (*trickle) Close() error { return nil }

var (
	_ http.RoundTripper = Trickle{}
	_ io.ReadCloser     = &trickle{}
)
