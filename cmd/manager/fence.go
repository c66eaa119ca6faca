package main

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"k8s.io/client-go/rest"
)

// fence lets a manager write only while it has renewed its lease lately. Leader election alone does not: who hung for
// longer than the lease, stopped or starved, goes on with what it knew then until it notices, a renew deadline later,
// and what it writes meanwhile is of a former time and over what its successor has written.
type fence struct {
	within time.Duration // of the last renewal
	now    func() time.Time

	mu      sync.Mutex
	renewed time.Time // zero: it never led
}

// guard has all requests of a config's clients pass the fence, leader election's among them.
func (f *fence) guard(config *rest.Config) {
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { return fenced{f, next} })
}

type fenced struct {
	fence *fence
	next  http.RoundTripper
}

// RoundTrip sends a request, but for one that would write while another manager may lead.
func (t fenced) RoundTrip(r *http.Request) (*http.Response, error) {
	switch {
	case r.Method == http.MethodGet || strings.HasSuffix(r.URL.Path, "reviews"): // these ask, too: of tokens and of access
		return t.next.RoundTrip(r)
	case strings.HasPrefix(r.URL.Path, "/apis/coordination.k8s.io/"):
		began := t.fence.now() // the lease runs from before the API server has it
		response, err := t.next.RoundTrip(r)
		if err == nil && response.StatusCode < http.StatusMultipleChoices {
			t.fence.renew(began)
		}
		return response, err
	}
	if err := t.fence.check(); err != nil {
		if r.Body != nil {
			_ = r.Body.Close() // as a RoundTripper must
		}
		return nil, err
	}
	return t.next.RoundTrip(r)
}

func (f *fence) renew(at time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if at.After(f.renewed) {
		f.renewed = at
	}
}

func (f *fence) check() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.renewed.IsZero() {
		return fmt.Errorf("not written: this manager does not lead")
	}
	now := f.now()
	// The monotonic clock stands still while a machine sleeps, the other may be set back.
	ago := max(now.Sub(f.renewed), now.Round(0).Sub(f.renewed.Round(0)))
	if ago > f.within {
		return fmt.Errorf("not written: the lease was renewed %v ago, and another manager may lead after %v",
			ago.Round(time.Millisecond), f.within)
	}
	return nil
}
