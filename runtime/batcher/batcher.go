// Package batcher makes batches of the rows of many requests. A request asks for admission before it is decoded
// (Admit), by estimated time (Cost); its rows are queued under its ticket (Submit), and computed when it is their turn
// (schedule). One goroutine runs the engine; requests' own goroutines do the rest under one lock, which is never held
// while anything is computed.
//
// Invariants: what waits is bounded in estimated time, and what does not fit is refused at once; a row never waits
// while the engine is idle, unless it is told to; what was admitted is answered unless its caller has gone or its
// deadline passes; what a request holds it holds until none of its rows is queued or in the engine, be its caller gone
// or not.
package batcher

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"gorgonia.org/tensor"

	"github.com/switchyard-dev/switchyard/runtime/engine"
)

// ErrOverloaded says that the queue is full: try again later. The error is an *OverloadedError.
var ErrOverloaded = errors.New("the queue is full")

// ErrClosed says that the batcher admits no more requests.
var ErrClosed = errors.New("the server is stopping")

// OverloadedError is ErrOverloaded, and says how much later.
type OverloadedError struct {
	RetryAfter time.Duration // about when there will be room: whole seconds, at least one
}

func (e *OverloadedError) Error() string {
	return fmt.Sprintf("%v: there may be room in %s", ErrOverloaded, e.RetryAfter)
}

// Is makes it ErrOverloaded.
func (e *OverloadedError) Is(target error) bool { return target == ErrOverloaded }

// Runner computes a batch: *engine.Engine.
type Runner interface {
	Run(batch engine.Batch) ([]*tensor.Dense, error)
}

// Ask is what is known of a row before it is decoded.
type Ask struct {
	Input   int             // number of its input: rows that are asked of one share it
	Adapter *engine.Adapter // nil is the bare base
	Tokens  int             // that the model makes of the input, about
}

// Row is one input asked of one adapter; a nil adapter is the bare base. Rows that share an input share the pointer.
type Row struct {
	Input   *engine.Input
	Adapter *engine.Adapter
	Tokens  int // that the model makes of the input
}

// Answers are what a request was answered, and when. Where there is an error they say when alone.
type Answers struct {
	Logits []*tensor.Dense // of each row, as the engine gives them
	Queued time.Time       // when its rows were; zero: never
	Runs   []Run           // of the batches that its rows were in, one after the other
}

// Run is when a batch was in the engine, and what was in it.
type Run struct {
	Began, Ended               time.Time
	ForwardBegan, ForwardEnded time.Time // the model's forward pass within; zero if there was none to its end
	Rows, Adapters             int       // the base counts as an adapter
	Tokens                     int       // those that rows share counted once
}

// Took is how long the engine had it.
func (r *Run) Took() time.Duration { return r.Ended.Sub(r.Began) }

// Stats tells of one batch that ran.
type Stats struct {
	Run
	Estimated time.Duration   // that it would take
	Waits     []time.Duration // of each request whose first row was in it, in the queue
	Err       error
}

// Snapshot is what is under way.
type Snapshot struct {
	Preparing int           // requests that were admitted and whose rows are not queued yet
	Waiting   Load          // in the queue
	Running   Load          // in the engine
	Reserved  time.Duration // estimated, of all that prepares or waits
	Cost      Cost          // as it is corrected by now
}

// Load is requests, their rows, and the adapters that are asked; nil is the base.
type Load struct {
	Requests, Rows int
	Adapters       []*engine.Adapter
}

// The defaults of Options.
const (
	DefaultMaxBatch = 100 * time.Millisecond
	DefaultMaxQueue = 2 * time.Second
)

// Options bound the batcher.
type Options struct {
	Cost           Cost          // as Calibrate has it; zero: every row costs next to nothing
	MaxBatch       time.Duration // estimated, of a batch; a row of more is one of its own; 0: the default
	MaxQueue       time.Duration // estimated, of all rows that prepare or wait; 0: the default
	MaxDelay       time.Duration // that the first row of a batch waits for others, while the engine is idle
	MaxBatchRows   int           // that there is memory for
	MaxBatchTokens int           // likewise; a row of more is a batch of its own
	Observe        func(Stats)   // called after each batch; may be nil
	Now            func() time.Time
}

// Batcher is a queue in front of an engine. Safe for concurrent use.
type Batcher struct {
	runner  Runner
	options Options
	wake    chan struct{} // tells the goroutine that runs the engine to look again
	closed  chan struct{}

	mu        sync.Mutex
	cost      fitted
	schedule  *schedule
	running   []*track
	preparing int // tickets that were neither submitted nor released
	closing   bool
}

// Ticket is a request's admission: room in the queue for rows that are still being prepared. It is for one goroutine.
type Ticket struct {
	batcher *Batcher
	claim   *claim // nil once it was submitted or released
}

// request is the rows of one Submit.
type request struct {
	claim   *claim
	rows    []Row
	release func()
	done    chan struct{} // closed when none of its rows is queued or in the engine

	answers Answers
	pending int // rows not answered yet
	running int // tracks in the engine
	err     error
}

// New starts a batcher over a runner.
func New(runner Runner, options Options) *Batcher {
	if options.Now == nil {
		options.Now = time.Now
	}
	if options.Observe == nil {
		options.Observe = func(Stats) {}
	}
	if options.MaxBatch == 0 {
		options.MaxBatch = DefaultMaxBatch
	}
	if options.MaxQueue == 0 {
		options.MaxQueue = DefaultMaxQueue
	}
	b := &Batcher{
		runner: runner, options: options, wake: make(chan struct{}, 1), closed: make(chan struct{}),
		cost: fitted{began: options.Cost, now: options.Cost},
		schedule: newSchedule(limits{
			batch: options.MaxBatch, queue: options.MaxQueue, delay: options.MaxDelay,
			rows: options.MaxBatchRows, tokens: options.MaxBatchTokens,
		}),
	}
	go b.run()
	return b
}

// Admit reserves the estimated time of rows that are still to be prepared, so that a request for which there is no room
// is refused before any work is done for it. Its error is an *OverloadedError, ErrClosed or the context's. Every ticket
// has to be submitted or released: Close waits for it.
func (b *Batcher) Admit(ctx context.Context, asks []Ask) (*Ticket, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	tracks := b.lay(asks)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closing {
		return nil, ErrClosed
	}
	shares, retry := b.schedule.admit(tracks)
	if retry > 0 {
		return nil, &OverloadedError{RetryAfter: max(retry+time.Second-1, time.Second).Truncate(time.Second)}
	}
	b.preparing++
	c := &claim{shares: shares}
	c.deadline, _ = ctx.Deadline()
	return &Ticket{b, c}, nil
}

// lay makes the tracks of rows, by the prices of now.
func (b *Batcher) lay(asks []Ask) []*track {
	b.mu.Lock()
	cost := b.cost.now
	b.mu.Unlock()
	return lay(asks, &cost)
}

// Release gives the ticket back if it was not submitted. More than once is harmless.
func (t *Ticket) Release() {
	b := t.batcher
	b.mu.Lock()
	defer b.mu.Unlock()
	if t.claim == nil {
		return
	}
	b.schedule.release(t.claim)
	b.take(t)
}

// take takes a ticket's claim out of it.
func (b *Batcher) take(t *Ticket) *claim {
	c := t.claim
	t.claim = nil
	b.preparing--
	b.look()
	return c
}

// Submit queues the ticket's rows and waits for their answers. What they cost by their real tokens counts from now on,
// instead of what was asked, as far as there is room. Its error is the context's, context.DeadlineExceeded also where
// the rows cannot be in time by the estimate, or the engine's. release is called once, when no row is queued or in the
// engine any more: after Submit has returned, if its caller did not wait. It must be quick.
func (t *Ticket) Submit(ctx context.Context, rows []Row, release func()) (Answers, error) {
	r := &request{rows: rows, release: release, done: make(chan struct{}), pending: len(rows)}
	r.answers.Logits = make([]*tensor.Dense, len(rows))
	if err := t.enqueue(ctx, r); err != nil {
		release()
		return Answers{}, err
	}
	if len(rows) == 0 {
		r.end()
	}
	select {
	case <-r.done:
	case <-ctx.Done():
		t.batcher.leave(r, ctx.Err())
	}
	return t.batcher.answersOf(r)
}

// enqueue queues a request under its ticket, which is spent then.
func (t *Ticket) enqueue(ctx context.Context, r *request) error {
	b := t.batcher
	tracks := b.lay(asksOf(r.rows))
	b.mu.Lock()
	defer b.mu.Unlock()
	if t.claim == nil {
		return errors.New("batcher: the ticket was submitted or released before")
	}
	_, total := sharesOf(tracks)
	now := b.options.Now()
	c := b.take(t)
	c.request, r.claim = r, c
	c.deadline, _ = ctx.Deadline()
	err := ctx.Err()
	if err == nil && c.isLate(now, total) {
		err = context.DeadlineExceeded
	}
	if err != nil {
		b.schedule.release(c)
		return err
	}
	r.answers.Queued = now
	b.schedule.enqueue(c, tracks, now)
	return nil
}

// asksOf numbers the rows' inputs.
func asksOf(rows []Row) []Ask {
	numbers := make(map[*engine.Input]int, len(rows))
	asks := make([]Ask, len(rows))
	for i, row := range rows {
		number, ok := numbers[row.Input]
		if !ok {
			number = len(numbers)
			numbers[row.Input] = number
		}
		asks[i] = Ask{number, row.Adapter, row.Tokens}
	}
	return asks
}

// leave takes a request whose caller goes out of the queue.
func (b *Batcher) leave(r *request, err error) {
	b.mu.Lock()
	isGone := b.fail(r, err)
	b.mu.Unlock()
	if isGone {
		r.end()
	}
}

// answersOf are a request's, when it has been answered or has failed.
func (b *Batcher) answersOf(r *request) (Answers, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	answers := r.answers // the engine may still be busy with a batch of it
	if r.err != nil {
		answers.Logits = nil
	}
	return answers, r.err
}

// Snapshot tells what is under way.
func (b *Batcher) Snapshot() Snapshot {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := Snapshot{Preparing: b.preparing, Reserved: b.schedule.reserved, Cost: b.cost.now}
	var waiting []*track
	for _, f := range b.schedule.flows {
		waiting = append(waiting, f.tracks...)
	}
	s.Waiting, s.Running = loadOf(waiting), loadOf(b.running)
	return s
}

// loadOf is that of tracks.
func loadOf(tracks []*track) (l Load) {
	requests, adapters := make(map[*request]bool), make(map[*engine.Adapter]bool)
	for _, t := range tracks {
		r := t.claim.request
		requests[r] = true
		for _, row := range t.rows {
			adapters[r.rows[row].Adapter] = true
		}
		l.Rows += len(t.rows)
	}
	l.Requests, l.Adapters = len(requests), slices.Collect(maps.Keys(adapters))
	return l
}

// Close refuses new requests, answers those admitted, and returns when they are. It is called once.
func (b *Batcher) Close() {
	b.mu.Lock()
	b.closing = true
	b.mu.Unlock()
	b.look()
	<-b.closed
}

// look has the goroutine that runs the engine look at the queue again.
func (b *Batcher) look() {
	select {
	case b.wake <- struct{}{}:
	default: // it will anyway
	}
}

// run feeds the engine until the batcher is closed and empty.
func (b *Batcher) run() {
	defer close(b.closed)
	for batch := b.next(); batch != nil; batch = b.next() {
		b.compute(batch)
	}
}

// next waits for a batch that should begin now; nil says that none will follow.
func (b *Batcher) next() []*track {
	for {
		batch, late, wait, isLast := b.decide()
		for _, r := range late {
			r.end()
		}
		if len(batch) > 0 || isLast {
			return batch
		}
		stop := func() bool { return true }
		if wait > 0 {
			stop = time.AfterFunc(wait, b.look).Stop
		}
		<-b.wake
		stop()
	}
}

// decide takes a batch if it should begin now. late are the requests that it leaves out for good. If there is no batch
// yet, wait is how long rows still wait for others, and isLast tells that none will follow.
func (b *Batcher) decide() (batch []*track, late []*request, wait time.Duration, isLast bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now, overhead := b.options.Now(), b.cost.now.of(work{1})
	ready, wait := b.schedule.isReady(now, overhead)
	isFinal := b.closing && b.preparing == 0
	if ready || isFinal { // nobody will come to be waited for
		var dropped []*claim
		batch, dropped = b.schedule.take(now, overhead)
		for _, c := range dropped {
			c.request.err = context.DeadlineExceeded
			late = append(late, c.request)
		}
	}
	for _, t := range batch {
		t.claim.request.running++
	}
	b.running = batch
	return batch, late, wait, isFinal && len(batch) == 0 && b.schedule.tracks == 0
}
