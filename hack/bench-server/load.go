package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// outcome is what came of many requests.
type outcome struct {
	mu       sync.Mutex
	answered []time.Duration // how long each took
	refused  []time.Duration
	rows     int   // answered
	failed   error // the first wrong answer, or request that was not answered at all
	took     time.Duration
}

func (o *outcome) add(w *world, rows []row, r *reply, took time.Duration, err error) {
	if err == nil && r.code == http.StatusOK {
		err = w.check(rows, r)
	}
	if err == nil && r.code != http.StatusOK && (r.code != http.StatusTooManyRequests || !r.retry) {
		err = fmt.Errorf("expected an answer, or a 429 with Retry-After, found status %d, Retry-After: %t", r.code, r.retry)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case err != nil:
		if o.failed == nil {
			o.failed = err
		}
	case r.code == http.StatusOK:
		o.answered = append(o.answered, took)
		o.rows += len(rows)
	default:
		o.refused = append(o.refused, took)
	}
}

// rate is rows answered a second.
func (o *outcome) rate() float64 { return float64(o.rows) / o.took.Seconds() }

// closed has so many clients send requests until there were so many, each its next one when it has its answer.
func closed(ctx context.Context, w *world, a asker, clients, requests int, next func(i int) []row) *outcome {
	var o outcome
	var begun atomic.Int64
	var all sync.WaitGroup
	began := time.Now()
	for range clients {
		all.Go(func() {
			for ctx.Err() == nil {
				i := int(begun.Add(1)) - 1
				if i >= requests {
					return
				}
				rows := next(i)
				sent := time.Now()
				r, err := a.ask(ctx, rows)
				o.add(w, rows, r, time.Since(sent), err)
			}
		})
	}
	all.Wait()
	o.took = time.Since(began)
	return &o
}

// open has requests arrive at random, so many a second on average, whatever becomes of those before. What has been sent
// is waited for.
func open(
	ctx context.Context, w *world, a asker, rate float64, during time.Duration, next func(i int) []row,
) *outcome {
	var o outcome
	var all sync.WaitGroup
	rng := rand.New(rand.NewPCG(3, 3))
	began := time.Now()
	at := began
	for i := 0; ctx.Err() == nil; i++ {
		at = at.Add(time.Duration(rng.ExpFloat64() / rate * float64(time.Second)))
		if at.Sub(began) > during {
			break
		}
		<-time.After(time.Until(at)) //nolint:forbidigo // requests arrive by the clock
		rows := next(i)
		all.Go(func() {
			sent := time.Now()
			r, err := a.ask(ctx, rows)
			o.add(w, rows, r, time.Since(sent), err)
		})
	}
	o.took = time.Since(began)
	all.Wait()
	return &o
}

// quantile of times, of a copy of them: 0.5 is the median.
func quantile(times []time.Duration, q float64) time.Duration {
	if len(times) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(times))
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}
