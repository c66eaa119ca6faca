package batcher

import (
	"fmt"
	"runtime/debug"

	"gorgonia.org/tensor"

	"github.com/switchyard-dev/switchyard/runtime/engine"
)

// compute runs one batch and answers its rows.
func (b *Batcher) compute(tracks []*track) {
	batch := assemble(tracks)
	stats := b.begin(tracks, &batch)
	out, err := b.attempt(batch, &stats)
	for _, r := range b.answer(tracks, out, stats.Run, err) {
		r.end()
	}
}

// assemble makes the engine's batch: the tracks' rows, one track after the other. Rows with the same input share it.
func assemble(tracks []*track) engine.Batch {
	var batch engine.Batch
	inputs := make(map[*engine.Input]int)
	for _, t := range tracks {
		for _, n := range t.rows {
			row := &t.claim.request.rows[n]
			input, ok := inputs[row.Input]
			if !ok {
				input = len(batch.Inputs)
				inputs[row.Input] = input
				batch.Inputs = append(batch.Inputs, *row.Input)
			}
			batch.Rows = append(batch.Rows, engine.Row{Input: input, Adapter: row.Adapter})
		}
	}
	return batch
}

// begin tells of a batch what is known before it runs.
func (b *Batcher) begin(tracks []*track, batch *engine.Batch) Stats {
	b.mu.Lock()
	defer b.mu.Unlock()
	stats := Stats{Estimated: b.cost.now.of(batchOf(tracks))}
	stats.Began, stats.Rows = b.options.Now(), len(batch.Rows)
	adapters, begun := make(map[*engine.Adapter]bool), make(map[*request]bool)
	for _, row := range batch.Rows {
		adapters[row.Adapter] = true
	}
	stats.Adapters = len(adapters)
	for _, t := range tracks {
		stats.Tokens += t.tokens
		if r := t.claim.request; len(r.answers.Runs) == 0 && !begun[r] {
			begun[r] = true
			stats.Waits = append(stats.Waits, stats.Began.Sub(r.answers.Queued))
		}
	}
	return stats
}

// attempt has the engine compute a batch. A panic fails the batch, and the next one runs.
func (b *Batcher) attempt(batch engine.Batch, stats *Stats) (out []*tensor.Dense, err error) {
	defer func() {
		if v := recover(); v != nil {
			out, err = nil, fmt.Errorf("batch: panic: %v\n%s", v, debug.Stack())
			stats.Ended = b.options.Now()
		}
	}()
	watch := engine.Stopwatch{Now: b.options.Now}
	batch.Forward = &watch
	out, err = b.runner.Run(batch)
	if !watch.Ended.IsZero() {
		stats.ForwardBegan, stats.ForwardEnded = watch.Began, watch.Ended
	}
	if err == nil && len(out) != len(batch.Rows) {
		err = fmt.Errorf("batch: expected %d answers of the engine, found %d", len(batch.Rows), len(out))
	}
	stats.Ended, stats.Err = b.options.Now(), err
	b.options.Observe(*stats)
	return out, err
}

// answer hands a batch's rows to their requests, and returns those that have none left in the batcher.
func (b *Batcher) answer(tracks []*track, out []*tensor.Dense, run Run, err error) (ended []*request) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.running = nil
	if err == nil {
		b.cost.observe(batchOf(tracks), run.Took())
	}
	for _, t := range tracks {
		r := t.claim.request
		if r.running--; r.running == 0 {
			r.answers.Runs = append(r.answers.Runs, run)
		}
		switch {
		case r.err != nil: // its caller has gone, or another row of it has failed
		case err != nil:
			b.fail(r, err)
		default:
			for i, n := range t.rows {
				r.answers.Logits[n] = out[i]
			}
			r.pending -= len(t.rows)
		}
		out = out[min(len(t.rows), len(out)):]
		if r.running == 0 && (r.err != nil || r.pending == 0) {
			ended = append(ended, r)
		}
	}
	return ended
}

// fail ends a request that is not answered yet, and tells whether none of its rows is in the batcher any more: what of
// it is in the engine is computed, for nobody.
func (b *Batcher) fail(r *request, err error) (isGone bool) {
	if r.err != nil || r.pending == 0 {
		return false // it has ended otherwise
	}
	r.err = err
	b.schedule.drop(r.claim)
	return r.running == 0
}

// end lets go of what a request holds, when nothing of it is in the batcher any more.
func (r *request) end() {
	r.release()
	close(r.done)
}
