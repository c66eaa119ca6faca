package integration

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/switchyard-dev/switchyard/test/load"
	"github.com/switchyard-dev/switchyard/test/oip"
)

// crowd is clients that ask adapters all the time and know what may answer. What a source has is told by its labels: of
// the variant n each ends in "@n" (variants), so an answer says itself which it is by.
type crowd struct {
	truth *truth

	mu       sync.Mutex
	specs    map[string][]int   // by adapter: the variants that its specs asked for, by generation; none is -1
	ready    map[string]int     // by adapter: the last generation that was said to be Ready
	answers  map[string]int     // by adapter
	lost     []lost             // requests without an answer
	wrong    []string           // answers that should not have been
	old      int                // answers by a former revision while the status did not say Ready for its successor
	pending  sync.WaitGroup     // answers that are looked at a moment later
	stop     context.CancelFunc // ends the clients
	clients  sync.WaitGroup
	perModel int
}

// lost is a request that was not answered.
type lost struct {
	adapter    string
	began, end time.Time
	err        error
}

// noVariant is what a spec asks for that leads to nothing: whatever answered before goes on.
const noVariant = -1

// startCrowd has so many clients ask each of the adapters, which are Ready as the samples have them.
func startCrowd(w *truth, endpoint string, perModel int, adapters ...string) *crowd {
	ctx, stop := context.WithCancel(lasting)
	c := &crowd{
		truth: w, specs: map[string][]int{}, ready: map[string]int{}, answers: map[string]int{}, stop: stop,
		perModel: perModel,
	}
	for _, name := range adapters {
		c.specs[name], c.ready[name] = []int{0}, 1
	}
	w.onReady(func(name string, generation int64) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.ready[name] = max(c.ready[name], int(generation))
	})
	for _, name := range adapters {
		for range perModel {
			c.clients.Go(func() {
				load.Repeat(ctx, func() { c.ask(ctx, endpoint, name) })
			})
		}
	}
	return c
}

// expect tells that the next generation of an adapter asks for a variant; before it does.
func (c *crowd) expect(adapter string, variant int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.specs[adapter] = append(c.specs[adapter], variant)
}

func (c *crowd) ask(ctx context.Context, endpoint, name string) {
	c.mu.Lock()
	ready := c.ready[name]
	c.mu.Unlock()
	began := time.Now()
	answers, err := oip.Infer(ctx, endpoint, name, oip.Request{Inputs: []oip.Tensor{oip.Images(image)}})
	if ctx.Err() != nil {
		return // stopped meanwhile: not asked any more
	}
	end := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		c.lost = append(c.lost, lost{name, began, end, err})
		return
	}
	c.answers[name]++
	variant := variantOf(answers[0].Label)
	// What was Ready as the request began, or anything that was asked for since.
	since := c.specs[name][max(0, ready-1):]
	first := len(c.specs[name]) - len(since)
	for i := range since {
		if since[i] == variant {
			return
		}
	}
	if since[0] == noVariant { // cannot be: what leads to nothing is never Ready
		c.wrong = append(c.wrong, fmt.Sprintf("%s: generation %d is Ready", name, ready))
		return
	}
	what := fmt.Sprintf("%s: a request of %s was answered with %q, but generation %d was Ready, of variants %v since",
		name, began.Format(stamp), answers[0].Label, first+1, since)
	c.pending.Go(func() { c.forgive(ctx, name, began, what) })
}

// forgive looks at an answer by a former revision: it is wrong unless the status of the adapter was in doubt, or said
// no more that it is Ready, from when the request began until the status had its time to say so. That is a pod that
// comes back: it answers with what it had before it hears of anything newer.
func (c *crowd) forgive(ctx context.Context, adapter string, began time.Time, what string) {
	pause(ctx, allowed)
	doubtful := c.truth.doubtful(adapter, began)
	c.mu.Lock()
	defer c.mu.Unlock()
	if doubtful {
		c.old++
	} else {
		c.wrong = append(c.wrong, what)
	}
}

func (c *crowd) total() (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, answers := range c.answers {
		n += answers
	}
	return n
}

// end ends the clients.
func (c *crowd) end() {
	c.stop()
	c.clients.Wait()
	c.pending.Wait()
}

// most that are printed of what should not have been.
const most = 10

// unexcused are the lost requests that were not on a connection of a process that was killed, at most two of each
// client for each process. It may be two: until the kernel has taken a killed process apart, some hundredths of a
// second, it takes connections for it. Call it after end.
func (c *crowd) unexcused(deaths []death) (unexcused []string, excused int) {
	// The end of a process is known to the second, and seen by its clients a moment later.
	const before, after = time.Second, 2 * time.Second
	left := make([]int, len(deaths))
	for i := range left {
		left[i] = 2 * c.perModel * len(c.specs)
	}
	for _, l := range c.lost {
		if c.excuse(l, deaths, left, before, after) {
			excused++
			continue
		}
		unexcused = append(unexcused, fmt.Sprintf("%s, asked at %s, lost at %s: %v",
			l.adapter, l.began.Format(stamp), l.end.Format(stamp), l.err))
	}
	return unexcused, excused
}

func (c *crowd) excuse(l lost, deaths []death, left []int, before, after time.Duration) bool {
	if answered(l.err) {
		return false
	}
	for i, d := range deaths {
		if left[i] > 0 && !l.end.Before(d.at.Add(-before)) && !l.began.After(d.at.Add(after)) {
			left[i]--
			return true
		}
	}
	return false
}

// answered tells whether a server gave the error.
func answered(err error) bool {
	var status *oip.StatusError
	return errors.As(err, &status)
}

// variantOf is the variant of a source by one of its labels; 0 is the sample as it is.
func variantOf(label string) int {
	_, number, _ := strings.Cut(label, "@")
	n, _ := strconv.Atoi(number) // 0 where there is none
	return n
}

// span is from a time to another.
type span struct{ from, to time.Time }

// stamp is how the time of day is printed.
const stamp = "15:04:05.000"

// pause waits for a time, or until ctx ends: a schedule of faults is made of times.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d) //nolint:forbidigo // see above
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
