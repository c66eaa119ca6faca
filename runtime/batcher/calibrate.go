package batcher

import (
	"fmt"
	"time"

	"github.com/switchyard-dev/switchyard/runtime/engine"
)

// trial is a batch that the engine is measured with.
type trial struct {
	rows, tokens int  // of images whose size is fixed: as many tokens as they have
	adapted      bool // by an adapter that updates every layer
}

// trials go from little work to much. The first ones are always done: without them a price would be unknown.
var trials = []trial{
	{1, 16, false},
	{1, 16, true},
	{4, 16, false},
	{1, 64, false},
	{1, 64, true},
	{4, 64, false},
	{1, 128, true},
	{1, 256, false},
	{1, 512, false},
}

const (
	alwaysTried = 2
	timesTried  = 3 // the shortest counts: all that disturbs makes it longer
	// calibrationTime is about how long it may take. The prices of what it does not come to are corrected in use.
	calibrationTime = 500 * time.Millisecond
	// calibrationRank is high enough for the updates' time to stand out, and low enough for their memory not to (16 MiB of
	// a BERT-base).
	calibrationRank = 16
	// What the prices are at least: one of nothing could never be corrected. That of a pair is over the token's: by its
	// multiply-adds it is one part in six hidden sizes.
	leastBatch = 1e-5
	leastToken = 1e-8
	leastPair  = 1e-4
	// mostUpdate is what a multiply-add of an update costs at most, over one of the base. Those of thin matrices are
	// slower, but not by more: more is noise.
	mostUpdate = 8
)

// Calibrate measures an engine that nobody uses yet, with inputs and updates of its own.
func Calibrate(e *engine.Engine) (Cost, error) {
	var adapters [2]*engine.Adapter
	for i, rank := range []int{0, calibrationRank} {
		a, err := e.Uniform(rank)
		if err != nil {
			return Cost{}, fmt.Errorf("batcher: calibrating: %w", err)
		}
		defer a.Free()
		adapters[i] = a
	}
	var all []measured
	began := time.Now()
	for i, t := range trials {
		left := calibrationTime - time.Since(began)
		a := adapters[0]
		if t.adapted {
			a = adapters[1]
		}
		batch, w, err := t.batch(e, a)
		if err != nil {
			return Cost{}, fmt.Errorf("batcher: calibrating: %w", err)
		}
		if i >= alwaysTried && expected(all, w) > left {
			continue
		}
		took, err := shortest(e, batch, left)
		if err != nil {
			return Cost{}, fmt.Errorf("batcher: calibrating: %w", err)
		}
		all = append(all, measured{w, took.Seconds()})
	}
	cost := fit(all)
	cost.Batch, cost.Token = max(cost.Batch, leastBatch), max(cost.Token, leastToken)
	cost.Pair = max(cost.Pair, leastPair*cost.Token)
	ofBase := cost.Token / float64(max(e.Work(), 1)) // a multiply-add
	cost.Update = min(max(cost.Update, ofBase), mostUpdate*ofBase)
	return cost, nil
}

// batch is what the engine is asked.
func (t trial) batch(e *engine.Engine, a *engine.Adapter) (engine.Batch, work, error) {
	total := work{1}
	var batch engine.Batch
	for i := range t.rows {
		in := e.Sample(t.tokens, i)
		tokens, err := e.Tokens(in)
		if err != nil {
			return engine.Batch{}, work{}, err
		}
		for j, v := range workOf(tokens, a) {
			total[j] += v
		}
		batch.Inputs, batch.Rows = append(batch.Inputs, in), append(batch.Rows, engine.Row{Input: i, Adapter: a})
	}
	return batch, total, nil
}

// expected is how long work takes by the last measurement, if it is all in the tokens.
func expected(all []measured, w work) time.Duration {
	last := all[len(all)-1]
	return seconds(last.took / last.work[1] * w[1])
}

// shortest runs a batch some times, as long as there is time left, and returns the least that it took.
func shortest(e *engine.Engine, batch engine.Batch, left time.Duration) (time.Duration, error) {
	var least time.Duration
	for i := range timesTried {
		began := time.Now()
		if _, err := e.Run(batch); err != nil {
			return 0, err
		}
		took := time.Since(began)
		if left -= took; i == 0 || took < least {
			least = took
		}
		if left < took {
			break
		}
	}
	return least, nil
}
