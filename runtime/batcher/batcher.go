// Package batcher makes batches of the rows of many requests. One goroutine owns the queue; another runs the engine.
//
// Invariants: the queue is bounded in rows, and what does not fit is refused at once; a row never waits while the
// engine is idle; what was admitted is answered unless its caller has gone; what a request holds it holds until none of
// its rows is queued or in the engine, be its caller gone or not.
package batcher

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync/atomic"
	"time"

	"gorgonia.org/tensor"

	"github.com/switchyard-dev/switchyard/runtime/engine"
)

// ErrOverloaded says that the queue is full: try again later.
var ErrOverloaded = errors.New("the queue is full")

// ErrClosed says that the batcher takes no more rows.
var ErrClosed = errors.New("the server is stopping")

// Runner computes a batch: *engine.Engine.
type Runner interface {
	Run(batch engine.Batch) ([]*tensor.Dense, error)
}

// Row is one input asked of one adapter; a nil adapter is the bare base. Rows that share an input share the pointer.
type Row struct {
	Input   *engine.Input
	Adapter *engine.Adapter
	Tokens  int // that the model makes of the input
}

// Stats tells of one batch that ran.
type Stats struct {
	Rows     int
	Adapters int
	Engine   time.Duration   // in the engine
	Waits    []time.Duration // of each request whose first row was in it, in the queue
	Err      error
}

// Options bound the batcher.
type Options struct {
	MaxBatchRows   int
	MaxBatchTokens int // a row of more is a batch of its own
	MaxQueueRows   int
	Observe        func(Stats)      // called after each batch; may be nil
	Now            func() time.Time // nil is time.Now
}

// Batcher is a queue in front of an engine. Safe for concurrent use.
type Batcher struct {
	runner  Runner
	options Options
	submit  chan *request
	batches chan []item // to the goroutine that runs the engine
	results chan result // and back
	closing chan struct{}
	closed  chan struct{}
	depth   atomic.Int64
}

// request is the rows of one Submit. The queue's goroutine alone changes it, until done is closed.
type request struct {
	ctx     context.Context //nolint:containedctx // the request carries its caller's life through the queue
	rows    []Row
	logits  []*tensor.Dense
	arrived time.Time
	pending int // rows not yet answered
	err     error
	done    chan struct{}
	inside  int // rows queued or in the engine
	release func()
}

// leave takes one of the request's rows out of the batcher.
func (r *request) leave() {
	if r.inside--; r.inside == 0 {
		r.release()
	}
}

// item is row number row of a request.
type item struct {
	request *request
	row     int
}

type result struct {
	batch []item
	out   []*tensor.Dense
	err   error
}

// New starts a batcher over a runner.
func New(runner Runner, options Options) *Batcher {
	if options.Now == nil {
		options.Now = time.Now
	}
	if options.Observe == nil {
		options.Observe = func(Stats) {}
	}
	b := &Batcher{
		runner: runner, options: options,
		submit: make(chan *request), batches: make(chan []item), results: make(chan result),
		closing: make(chan struct{}), closed: make(chan struct{}),
	}
	go b.queue()
	go b.run()
	return b
}

// Submit queues rows and waits for their logits, as the engine gives them. Its error is
// ErrOverloaded, ErrClosed, the context's, or the engine's. release is called once, when no row is queued or in the
// engine any more: after Submit has returned, if its caller did not wait. It must be quick.
func (b *Batcher) Submit(ctx context.Context, rows []Row, release func()) ([]*tensor.Dense, error) {
	if len(rows) == 0 {
		release()
		return nil, nil
	}
	r := &request{
		ctx: ctx, rows: rows, logits: make([]*tensor.Dense, len(rows)), arrived: b.options.Now(), pending: len(rows),
		done: make(chan struct{}), release: release,
	}
	select {
	case b.submit <- r:
	case <-b.closing:
		release()
		return nil, ErrClosed
	case <-ctx.Done():
		release()
		return nil, ctx.Err()
	}
	select {
	case <-r.done:
		return r.logits, r.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Depth is the number of rows queued, not counting those in the engine.
func (b *Batcher) Depth() int { return int(b.depth.Load()) }

// Close refuses new rows, answers those admitted, and returns when they are. It is called once.
func (b *Batcher) Close() {
	close(b.closing)
	<-b.closed
}

// queue owns the queue: it admits, hands batches to the engine whenever that is idle, and answers.
func (b *Batcher) queue() {
	defer close(b.closed)
	defer close(b.batches)
	var queued []item
	idle := true
	submit, closing := b.submit, b.closing
	for {
		if idle {
			var batch []item
			batch, queued = take(queued, b.options.MaxBatchRows, b.options.MaxBatchTokens)
			if len(batch) > 0 {
				idle = false
				b.batches <- batch
			}
		}
		b.depth.Store(int64(len(queued)))
		if idle && submit == nil {
			return
		}
		select {
		case r := <-submit:
			queued = b.admit(queued, r)
		case res := <-b.results:
			idle = true
			answer(res)
		case <-closing:
			submit, closing = nil, nil
		}
	}
}

// admit queues a request's rows, or refuses it if they do not fit beside those still wanted.
func (b *Batcher) admit(queued []item, r *request) []item {
	if len(queued)+len(r.rows) > b.options.MaxQueueRows {
		queued = wanted(queued)
	}
	if len(queued)+len(r.rows) > b.options.MaxQueueRows {
		r.err = fmt.Errorf("%w: %d rows wait, %d more asked, at most %d", ErrOverloaded,
			len(queued), len(r.rows), b.options.MaxQueueRows)
		r.release()
		close(r.done)
		return queued
	}
	r.inside = len(r.rows)
	for i := range r.rows {
		queued = append(queued, item{r, i})
	}
	return queued
}

// wanted drops rows whose request has failed or whose caller has gone.
func wanted(queued []item) []item {
	kept := make([]item, 0, len(queued))
	for _, it := range queued {
		if it.request.err == nil && it.request.ctx.Err() == nil {
			kept = append(kept, it)
		} else {
			it.request.leave()
		}
	}
	return kept
}

// take moves rows that are still wanted from the front of the queue into a batch: as many as the bounds let, and at
// least one. A head takes no more of them where the batch has the base's own computing of its input: it computes next
// to nothing beside that.
func take(queued []item, rows, tokens int) (batch, rest []item) {
	queued = wanted(queued)
	computed := make(map[*engine.Input]bool) // by the base, for a row of the batch
	n := 0
	for n < len(queued) {
		row := &queued[n].request.rows[queued[n].row]
		isHead := row.Adapter.IsHead()
		if !isHead || !computed[row.Input] {
			rows, tokens = rows-1, tokens-row.Tokens
			if n > 0 && (rows < 0 || tokens < 0) {
				break
			}
		}
		if isHead || row.Adapter == nil {
			computed[row.Input] = true
		}
		n++
	}
	return queued[:n:n], queued[n:]
}

// answer hands a batch's rows to their requests.
func answer(res result) {
	for i, it := range res.batch {
		r := it.request
		r.leave()
		if r.err != nil {
			continue // an earlier batch failed it, and its caller has its answer
		}
		if res.err != nil {
			r.err = res.err
			close(r.done)
			continue
		}
		r.logits[it.row] = res.out[i]
		if r.pending--; r.pending == 0 {
			close(r.done)
		}
	}
}

// run feeds the engine.
func (b *Batcher) run() {
	for items := range b.batches {
		out, err := b.compute(items)
		b.results <- result{items, out, err}
	}
}

// compute runs one batch. A panic fails the batch, and the next one runs.
func (b *Batcher) compute(items []item) (out []*tensor.Dense, err error) {
	defer func() {
		if v := recover(); v != nil {
			out, err = nil, fmt.Errorf("batch: panic: %v\n%s", v, debug.Stack())
		}
	}()
	began := b.options.Now()
	batch, stats := assemble(items, began)
	out, err = b.runner.Run(batch)
	stats.Engine, stats.Err = b.options.Now().Sub(began), err
	b.options.Observe(stats)
	return out, err
}

// assemble makes the engine's batch; rows with the same input share it.
func assemble(items []item, now time.Time) (engine.Batch, Stats) {
	var batch engine.Batch
	stats := Stats{Rows: len(items)}
	inputs := make(map[*engine.Input]int)
	distinct := make(map[*engine.Adapter]bool)
	for _, it := range items {
		row := it.request.rows[it.row]
		input, ok := inputs[row.Input]
		if !ok {
			input = len(batch.Inputs)
			inputs[row.Input] = input
			batch.Inputs = append(batch.Inputs, *row.Input)
		}
		batch.Rows = append(batch.Rows, engine.Row{Input: input, Adapter: row.Adapter})
		distinct[row.Adapter] = true
		if it.row == 0 {
			stats.Waits = append(stats.Waits, now.Sub(it.request.arrived))
		}
	}
	stats.Adapters = len(distinct)
	return batch, stats
}
