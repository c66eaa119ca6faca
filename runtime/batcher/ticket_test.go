package batcher_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/switchyard-dev/switchyard/runtime/arch"
	"github.com/switchyard-dev/switchyard/runtime/batcher"
	"github.com/switchyard-dev/switchyard/runtime/engine"
)

// aSecond makes each token of a row a second's work.
var aSecond = batcher.Cost{Token: 1}

// timed runs a test in a bubble, on its clock, over an engine in which a token costs a second by the estimate.
func timed(t *testing.T, options batcher.Options, test func(t *testing.T, g *gate, b *batcher.Batcher)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t)
		options.Cost, options.Observe, options.MaxBatchRows, options.MaxBatchTokens = aSecond, g.observe, 4, 100
		b := batcher.New(g, options)
		test(t, g, b)
		close(g.open)
		b.Close()
		g.Close()
	})
}

// pass lets time pass on the bubble's clock.
func pass(t *testing.T, d time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	<-ctx.Done()
	synctest.Wait()
}

func admit(t *testing.T, b *batcher.Batcher, asks ...batcher.Ask) *batcher.Ticket {
	t.Helper()
	ticket, err := b.Admit(t.Context(), asks)
	if err != nil {
		t.Fatal(err)
	}
	return ticket
}

func TestARefusalSaysWhenToComeAgain(t *testing.T) {
	timed(t, batcher.Options{MaxQueue: 20 * time.Second}, func(t *testing.T, _ *gate, b *batcher.Batcher) {
		ticket := admit(t, b, batcher.Ask{Tokens: 10})
		for tokens, want := range map[int]time.Duration{0: time.Second, 3: 6 * time.Second, 100: 10 * time.Second} {
			_, err := b.Admit(t.Context(), []batcher.Ask{{Tokens: tokens}})
			var overloaded *batcher.OverloadedError
			if !errors.As(err, &overloaded) || !errors.Is(err, batcher.ErrOverloaded) || overloaded.RetryAfter != want {
				t.Errorf("%d tokens: expected to hear of room in %s, found %v", tokens, want, err)
			}
		}
		if s := b.Snapshot(); s.Preparing != 1 || s.Reserved != 10*time.Second {
			t.Errorf("expected the one that was admitted, found %+v", s)
		}
		ticket.Release()
		ticket.Release()
		if s := b.Snapshot(); s.Preparing != 0 || s.Reserved != 0 {
			t.Errorf("expected nothing, found %+v", s)
		}
		admit(t, b, batcher.Ask{Tokens: 10}).Release()
	})
}

func TestATicketIsForOneSubmit(t *testing.T) {
	timed(t, batcher.Options{}, func(t *testing.T, g *gate, b *batcher.Batcher) {
		asked := rows(1)
		ticket := admit(t, b, asks(asked)...)
		replies := make(chan reply)
		go func() {
			answers, err := ticket.Submit(t.Context(), asked, func() {})
			replies <- reply{answers, err}
		}()
		g.open <- struct{}{}
		g.check(t, asked, <-replies)
		ticket.Release()
		released := 0
		if _, err := ticket.Submit(t.Context(), asked, func() { released++ }); err == nil || released != 1 {
			t.Errorf("expected an error of the second, and what it holds let go once, found %v, %d", err, released)
		}
		if s := b.Snapshot(); s.Preparing != 0 || s.Reserved != 0 {
			t.Errorf("expected nothing, found %+v", s)
		}
	})
}

func TestDeadlines(t *testing.T) {
	timed(t, batcher.Options{MaxQueue: 1000 * time.Second}, func(t *testing.T, g *gate, b *batcher.Batcher) {
		within := func(d time.Duration) context.Context {
			ctx, cancel := context.WithTimeout(t.Context(), d)
			t.Cleanup(cancel)
			return ctx
		}
		running := submit(t.Context(), b, rows(1))
		long := rows(2)
		long[0].Tokens = 10 // seconds
		if got := <-submit(within(4*time.Second), b, long); !errors.Is(got.err, context.DeadlineExceeded) {
			t.Errorf("what cannot be in time: expected DeadlineExceeded at once, found %v", got.err)
		}
		if n := b.Snapshot().Waiting.Rows; n != 0 {
			t.Errorf("expected it not to wait, found %d rows", n)
		}
		waits := submit(within(6*time.Second), b, long)
		pass(t, 7*time.Second)
		if got := <-waits; !errors.Is(got.err, context.DeadlineExceeded) || got.Queued.IsZero() || len(got.Runs) > 0 {
			t.Errorf("past its deadline: expected DeadlineExceeded, and when it was queued, found %+v", got)
		}
		if s := b.Snapshot(); s.Waiting.Rows != 0 || s.Reserved != 0 {
			t.Errorf("expected it to have left the queue, found %+v", s)
		}
		// Its caller waits, but when its turn comes it cannot be in time any more.
		turn := submit(within(20*time.Second), b, long)
		pass(t, 16*time.Second)
		g.open <- struct{}{}
		if got := <-turn; !errors.Is(got.err, context.DeadlineExceeded) {
			t.Errorf("late by its turn: expected DeadlineExceeded, found %v", got.err)
		}
		if got := <-running; got.err != nil || len(g.stats) != 1 {
			t.Errorf("expected the first alone to be computed, found %d batches, error %v", len(g.stats), got.err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := b.Admit(ctx, nil); !errors.Is(err, context.Canceled) {
			t.Errorf("of a client that has gone: expected its error, found %v", err)
		}
	})
}

func TestAnIdleEngineWaitsForMore(t *testing.T) {
	options := batcher.Options{MaxDelay: time.Second, MaxBatch: 40 * time.Second, MaxQueue: 100 * time.Second}
	timed(t, options, func(t *testing.T, g *gate, b *batcher.Batcher) {
		expect := func(what string, running int) {
			t.Helper()
			synctest.Wait()
			if n := b.Snapshot().Running.Rows; n != running {
				t.Errorf("%s: expected %d rows in the engine, found %d", what, running, n)
			}
		}
		replies := []<-chan reply{submit(t.Context(), b, rows(1))}
		pass(t, 900*time.Millisecond)
		replies = append(replies, submit(t.Context(), b, rows(2)))
		expect("before the first has waited for its second", 0)
		pass(t, 100*time.Millisecond)
		expect("when it has", 2)
		replies = append(replies, submit(t.Context(), b, rows(3)))
		pass(t, 2*time.Second)
		g.open <- struct{}{}
		expect("one that has waited while the engine was busy", 1)
		g.open <- struct{}{}
		replies = append(replies, submit(t.Context(), b, rows(4, 5, 6)))
		expect("less than a batch", 0)
		replies = append(replies, submit(t.Context(), b, rows(7)))
		expect("a full batch", 4)
		g.open <- struct{}{}
		for _, r := range replies {
			if got := <-r; got.err != nil {
				t.Error(got.err)
			}
		}
		last := submit(t.Context(), b, rows(8))
		expect("one more", 0)
		pass(t, time.Second)
		g.open <- struct{}{}
		if got := <-last; got.err != nil {
			t.Error(got.err)
		}
		if wait := g.stats[len(g.stats)-1].Waits[0]; wait != time.Second {
			t.Errorf("expected it to wait for a second, found %s", wait)
		}
	})
}

// What was admitted is answered, also if it is still being prepared when the batcher is closed.
func TestClosingWaitsForTickets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t)
		close(g.open)
		b := batcher.New(g, batcher.Options{MaxBatchRows: 4, MaxBatchTokens: 100})
		asked := rows(1, 2)
		ticket, unused := admit(t, b, asks(asked)...), admit(t, b, asks(asked)...)
		closed := make(chan struct{})
		go func() { b.Close(); close(closed) }()
		synctest.Wait()
		if _, err := b.Admit(t.Context(), asks(asked)); !errors.Is(err, batcher.ErrClosed) {
			t.Errorf("expected ErrClosed, found %v", err)
		}
		answers, err := ticket.Submit(t.Context(), asked, func() {})
		g.check(t, asked, reply{answers, err})
		synctest.Wait()
		select {
		case <-closed:
			t.Error("closed before a ticket was given back")
		default:
		}
		unused.Release()
		<-closed
		g.Close()
	})
}

func TestSnapshotsTellWhoIsAsked(t *testing.T) {
	inBubble(t, func(t *testing.T, g *gate, b *batcher.Batcher) {
		one, other := &engine.Adapter{}, &engine.Adapter{Head: arch.Head{Task: arch.Token}}
		shared := rows(2)[0]
		waiting := []batcher.Row{shared, shared, shared}
		waiting[0].Adapter, waiting[1].Adapter = one, other
		running := submit(t.Context(), b, rows(1))
		ctx, cancel := context.WithCancel(t.Context())
		replies := submit(ctx, b, waiting)
		s := b.Snapshot()
		if !slices.Equal(s.Running.Adapters, []*engine.Adapter{nil}) || len(s.Waiting.Adapters) != 3 ||
			!slices.Contains(s.Waiting.Adapters, one) || !slices.Contains(s.Waiting.Adapters, other) {
			t.Errorf("expected the base to be running, and three to wait, found %+v", s)
		}
		if s.Waiting.Requests != 1 || s.Waiting.Rows != 3 || s.Reserved != 2*time.Microsecond {
			t.Errorf("expected a request of three rows, computed as two, found %+v", s)
		}
		cancel() // the adapters are of no base
		<-replies
		g.open <- struct{}{}
		<-running
	})
}

// Many requests at once, of which some leave: each row that is answered is answered as it is alone, and each request
// lets go of what it holds once. It is worth most under the race detector.
func TestManyRequestsAtOnce(t *testing.T) {
	g := newGate(t)
	close(g.open)
	var refused, answered, released atomic.Int64
	b := batcher.New(g, batcher.Options{MaxBatchRows: 4, MaxBatchTokens: 100, MaxQueue: queueOf10})
	asked := rows(1, 2, 3, 4, 5, 6, 7, 8)
	alone := make([][]float32, len(asked))
	for i, row := range asked {
		alone[i] = g.alone(t, row)
	}
	const clients, requests = 16, 30
	var all sync.WaitGroup
	for client := range clients {
		all.Go(func() {
			r := rand.New(rand.NewPCG(uint64(client), 1))
			for range requests {
				from := r.IntN(len(asked))
				rows := asked[from : from+1+r.IntN(len(asked)-from)]
				ctx, cancel := context.WithCancel(t.Context())
				if r.IntN(4) == 0 {
					go cancel()
				}
				ticket, err := b.Admit(ctx, asks(rows))
				if err != nil {
					refused.Add(1)
					released.Add(1) // there was nothing
					cancel()
					continue
				}
				answers, err := ticket.Submit(ctx, rows, func() { released.Add(1) })
				cancel()
				if err == nil {
					answered.Add(1)
				}
				for i, logits := range answers.Logits {
					if !slices.Equal(logits.Float32s(), alone[from+i]) {
						t.Errorf("row %d: expected %v, found %v", i, alone[from+i], logits.Data())
					}
				}
			}
		})
	}
	all.Wait()
	b.Close()
	g.Close()
	if answered.Load() == 0 || released.Load() != clients*requests {
		t.Errorf("expected answers, and %d requests to let go, found %d answered, %d refused, %d let go",
			clients*requests, answered.Load(), refused.Load(), released.Load())
	}
	if s := b.Snapshot(); s.Reserved != 0 || s.Preparing != 0 || s.Waiting.Rows != 0 || s.Running.Rows != 0 {
		t.Errorf("expected nothing under way, found %+v", s)
	}
}

// A refusal takes microseconds, whatever waits.
func BenchmarkRefusal(b *testing.B) {
	queue := batcher.New(nil, batcher.Options{MaxQueue: 2 * time.Millisecond}) // nothing is computed
	var tickets []*batcher.Ticket
	for range 256 {
		ticket, err := queue.Admit(b.Context(), []batcher.Ask{{Adapter: &engine.Adapter{}}})
		if err != nil {
			b.Fatal(err)
		}
		tickets = append(tickets, ticket)
	}
	for ticket, err := queue.Admit(b.Context(), make([]batcher.Ask, 1)); err == nil; {
		tickets = append(tickets, ticket)
		ticket, err = queue.Admit(b.Context(), make([]batcher.Ask, 1))
	}
	for name, rows := range map[string]int{"row": 1, "256 rows": 256} {
		asks := make([]batcher.Ask, rows)
		for i := range asks {
			asks[i].Input = i
		}
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := queue.Admit(b.Context(), asks); !errors.Is(err, batcher.ErrOverloaded) {
					b.Fatalf("expected ErrOverloaded, found %v", err)
				}
			}
		})
	}
	for _, t := range tickets {
		t.Release()
	}
	queue.Close()
}
