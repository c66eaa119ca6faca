// Package load asks one adapter all the time, from several clients, and keeps which revision answered when: what a swap
// under load looks like from outside.
package load

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/switchyard-dev/switchyard/test/oip"
)

// Every is how often a client asks, unless the last answer took longer. Without it, clients on the machine of those
// they ask would take the processors from the control plane: the faster the answers come, the more.
const Every = 20 * time.Millisecond

// Load is clients that ask.
type Load struct {
	cancel  context.CancelFunc
	clients sync.WaitGroup

	mu      sync.Mutex
	changed *sync.Cond
	report  Report
	total   int
	ready   bool
}

// Report is what came back.
type Report struct {
	Revisions []Revision // in the order of their first answers
	Failures  []error    // requests that were not answered
}

// Err joins the first failures.
func (r *Report) Err() error { return errors.Join(r.Failures[:min(len(r.Failures), 3)]...) }

// Revision is the answers of one revision.
type Revision struct {
	Digest     string
	Label      string // of its first answer
	Answers    int
	AfterReady int // to requests that began after MarkReady
}

// Start has so many clients ask the adapter of a model server about an image, each its next request after the last
// answer and not before Every has passed, until Stop.
func Start(ctx context.Context, url, adapter string, image []byte, clients int) *Load {
	ctx, cancel := context.WithCancel(ctx)
	l := &Load{cancel: cancel}
	l.changed = sync.NewCond(&l.mu)
	for range clients {
		l.clients.Go(func() {
			Repeat(ctx, func() { l.one(ctx, url, adapter, image) })
		})
	}
	return l
}

// Repeat asks again and again, Every or less often, until ctx ends.
func Repeat(ctx context.Context, ask func()) {
	next := time.NewTicker(Every) //nolint:forbidigo // a rate, and no wait for anything
	defer next.Stop()
	for ctx.Err() == nil {
		ask()
		select {
		case <-next.C:
		case <-ctx.Done():
		}
	}
}

func (l *Load) one(ctx context.Context, url, adapter string, image []byte) {
	l.mu.Lock()
	ready := l.ready
	l.mu.Unlock()
	answers, err := oip.Infer(ctx, url, adapter, oip.Request{Inputs: []oip.Tensor{oip.Images(image)}})
	if ctx.Err() != nil {
		return // stopped meanwhile: not asked any more
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.changed.Broadcast()
	l.total++
	if err != nil {
		l.report.Failures = append(l.report.Failures, err)
		return
	}
	answer := answers[0]
	i := slices.IndexFunc(l.report.Revisions, func(r Revision) bool { return r.Digest == answer.Revision })
	if i < 0 {
		i = len(l.report.Revisions)
		l.report.Revisions = append(l.report.Revisions, Revision{Digest: answer.Revision, Label: answer.Label})
	}
	l.report.Revisions[i].Answers++
	if ready {
		l.report.Revisions[i].AfterReady++
	}
}

// Count is how many requests were answered and how many were not so far, and what the last of these failed of.
type Count struct {
	Answers int    `json:"answers"`
	Lost    int    `json:"lost"`
	Last    string `json:"last,omitempty"`
}

// Count counts what has come back so far.
func (l *Load) Count() Count {
	l.mu.Lock()
	defer l.mu.Unlock()
	lost := len(l.report.Failures)
	count := Count{Answers: l.total - lost, Lost: lost}
	if lost > 0 {
		count.Last = l.report.Failures[lost-1].Error()
	}
	return count
}

// MarkReady tells that from now on only the last revision may answer.
func (l *Load) MarkReady() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ready = true
}

// NextRevision waits for an answer by another revision than the one given, and returns it.
func (l *Load) NextRevision(ctx context.Context, than string) (digest string, err error) {
	err = l.wait(ctx, func() bool {
		n := len(l.report.Revisions)
		if n > 0 {
			digest = l.report.Revisions[n-1].Digest
		}
		return n > 0 && digest != than
	})
	return digest, err
}

// Answers waits for so many more answers, failures among them.
func (l *Load) Answers(ctx context.Context, n int) error {
	l.mu.Lock()
	until := l.total + n
	l.mu.Unlock()
	return l.wait(ctx, func() bool { return l.total >= until })
}

// wait waits until the condition, which is asked under the lock, holds.
func (l *Load) wait(ctx context.Context, holds func() bool) error {
	defer context.AfterFunc(ctx, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.changed.Broadcast()
	})()
	l.mu.Lock()
	defer l.mu.Unlock()
	for !holds() {
		if err := ctx.Err(); err != nil {
			return err
		}
		l.changed.Wait()
	}
	return nil
}

// Stop ends the clients and returns what came back.
func (l *Load) Stop() *Report {
	l.cancel()
	l.clients.Wait()
	return &l.report
}
