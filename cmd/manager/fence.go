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
	ending <-chan struct{} // closed once the manager is to end: its lease is renewed no more, or given away
	base   string          // path of the API server's address, before those of its requests

	mu      sync.Mutex
	renewed time.Time // zero: it never led
}

// guard has all requests of a config's clients pass the fence, leader election's among them.
func (f *fence) guard(config *rest.Config) error {
	address, _, err := rest.DefaultServerUrlFor(config)
	if err != nil {
		return err
	}
	f.base = strings.TrimSuffix(address.Path, "/")
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { return fenced{f, next} })
	return nil
}

type fenced struct {
	fence *fence
	next  http.RoundTripper
}

// RoundTrip sends a request, but for one that would write while another manager may lead.
func (t fenced) RoundTrip(r *http.Request) (*http.Response, error) {
	path := strings.TrimPrefix(r.URL.Path, t.fence.base)
	of := func(group string) bool { return strings.HasPrefix(path, "/apis/"+group+"/") }
	switch {
	case r.Method == http.MethodGet,
		r.Method == http.MethodPost && (of("authentication.k8s.io") || of("authorization.k8s.io")): // reviews ask, too
		return t.next.RoundTrip(r)
	case of("coordination.k8s.io"):
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
	select {
	case <-f.ending: // this may be the lease's release
		return
	default:
	}
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
