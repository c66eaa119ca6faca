package artifact

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// leastPace is how many bytes an answer has to bring each time that patience ends: some 2 KiB a second. A line that is
// slower will not bring a model, but would keep an attempt for as long as that may take.
const leastPace = 64 << 10

// errSlow is an answer that does not come along.
var errSlow = errors.New("too slow")

// guard carries the requests for one origin. What gives access goes where it belongs and nowhere else: each host gets
// what the Secret has for it, the token that a registry gave in exchange goes to that registry alone, and a request
// that a redirect made gets nothing at all, were it to the same host. For who writes a redirect chooses what is asked
// there.
type guard struct {
	next         http.RoundTripper
	scheme, host string // of the origin
	credentials  *Credentials
	patience     time.Duration

	elsewhere atomic.Bool // it was sent, for a token, to a host that we have no credentials for
}

// RoundTrip sends a request with what it may carry, and bounds the time that its answer takes.
func (g *guard) RoundTrip(r *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(r.Context())
	r = r.Clone(ctx)
	r.Header.Del("Referer") // the URL that led here, with what may give access to it
	g.authorize(r)
	response, err := g.next.RoundTrip(r)
	if err != nil {
		cancel(nil)
		return nil, err
	}
	response.Body = pace(ctx, cancel, response.Body, g.patience)
	return response, nil
}

func (g *guard) authorize(r *http.Request) {
	own := r.URL.Scheme == g.scheme && strings.EqualFold(r.URL.Host, g.host)
	redirected := r.Response != nil
	if redirected || !own {
		r.Header.Del("Authorization")
	}
	if redirected || r.Header.Get("Authorization") != "" {
		return
	}
	header := g.credentials.header(r.URL.Scheme, r.URL.Host)
	if header != "" {
		r.Header.Set("Authorization", header)
	} else if !own {
		g.elsewhere.Store(true)
	}
}

// advice is what to do where the origin wants credentials, or others.
func (g *guard) advice() string {
	switch {
	case g.credentials == nil:
		return "if it is there, it takes credentials, which a secretRef may name"
	case g.elsewhere.Load():
		return "its tokens are given out by another host, for which the Secret has no credentials"
	}
	return "it does not take the Secret's credentials, or they give no access to this"
}

// paced is the body of an answer that has to come along.
type paced struct {
	body     io.ReadCloser
	patience time.Duration
	cancel   context.CancelCauseFunc
	cause    func() error

	mu    sync.Mutex
	timer *time.Timer
	came  int // bytes since the timer was set
	ended bool
}

func pace(ctx context.Context, cancel context.CancelCauseFunc, body io.ReadCloser, patience time.Duration) *paced {
	p := &paced{body: body, patience: patience, cancel: cancel, cause: func() error { return context.Cause(ctx) }}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.timer = time.AfterFunc(patience, p.look)
	return p
}

// look ends an answer of which too little came.
func (p *paced) look() {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.ended:
	case p.came < leastPace:
		p.cancel(errSlow)
	default:
		p.came = 0
		p.timer.Reset(p.patience)
	}
}

// Read reads what has come.
func (p *paced) Read(b []byte) (int, error) {
	n, err := p.body.Read(b)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.came += n
	if err != nil {
		p.end()
	}
	if err != nil && err != io.EOF && p.cause() == errSlow { //nolint:errorlint // as the other end of a cancel
		err = errSlow
	}
	return n, err
}

// Close ends the answer.
func (p *paced) Close() error {
	p.mu.Lock()
	p.end()
	p.mu.Unlock()
	err := p.body.Close()
	p.cancel(nil)
	return err
}

func (p *paced) end() {
	p.ended = true
	p.timer.Stop()
}
