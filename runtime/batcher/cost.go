package batcher

import (
	"math"
	"time"

	"github.com/switchyard-dev/switchyard/runtime/engine"
)

// Cost estimates how long the engine takes, in seconds.
type Cost struct {
	Batch  float64 // of a batch, whatever is in it
	Token  float64 // of a token in the base
	Pair   float64 // of two tokens of a row, one of which attends to the other
	Update float64 // of a multiply-add in an adapter's updates
}

// leastCost is what a track costs at least: nothing is free, so no queue is without a bound.
const leastCost = time.Microsecond

// work is what a cost is the price of: how many batches, tokens, pairs and multiply-adds, in the order of Cost's.
type work [4]float64

// workOf is that of a row.
func workOf(tokens int, a *engine.Adapter) work {
	n := float64(tokens)
	return work{0, n, n * n, n * float64(a.Work())}
}

// batchOf is that of a batch of tracks.
func batchOf(tracks []*track) work {
	total := work{1}
	for _, t := range tracks {
		for j, v := range t.work {
			total[j] += v
		}
	}
	return total
}

func (c *Cost) prices() [4]*float64 { return [4]*float64{&c.Batch, &c.Token, &c.Pair, &c.Update} }

// of is the estimate for work.
func (c *Cost) of(w work) time.Duration { return seconds(c.seconds(w)) }

func (c *Cost) seconds(w work) float64 {
	return c.Batch*w[0] + c.Token*w[1] + c.Pair*w[2] + c.Update*w[3]
}

// ofTrack is the estimate for a track.
func (c *Cost) ofTrack(w work) time.Duration { return max(c.of(w), leastCost) }

// seconds is a duration of so many, or the longest that is reckoned with: sums of them stay far from overflowing.
func seconds(s float64) time.Duration {
	const longest = 24 * time.Hour
	return time.Duration(min(s, longest.Seconds()) * float64(time.Second))
}

// fitted is a cost that follows what batches take. It begins with what was measured when the base was loaded.
type fitted struct {
	began Cost
	now   Cost
}

const (
	// mostCorrection is how far a price may go from what was measured first: another process on the machine slows the
	// engine down by less, and what is beyond is no measurement.
	mostCorrection = 8
	// mostSurprise bounds what one batch says: one that took ten times its estimate (the machine was suspended, say)
	// counts as one that took this much more, so that prices follow what most batches take.
	mostSurprise = 1.25
	// correctionRate is the part of an error that one batch corrects.
	correctionRate = 0.05
)

// observe corrects the prices by what a batch took. Each price gets its share of the error, by its share in the
// estimate: short texts correct what a batch costs, long ones what a pair does. The steps are factors, so no price
// becomes negative.
func (f *fitted) observe(w work, took time.Duration) {
	estimate := f.now.seconds(w)
	if estimate <= 0 || took <= 0 {
		return
	}
	surprise := math.Log(mostSurprise)
	surprise = min(max(math.Log(took.Seconds()/estimate), -surprise), surprise)
	began, prices := f.began.prices(), f.now.prices()
	squares := 0.0
	for j, p := range prices {
		share := *p * w[j] / estimate
		squares += share * share
	}
	for j, p := range prices {
		share := *p * w[j] / estimate
		price := *p * math.Exp(correctionRate*surprise*share/squares)
		*p = min(max(price, *began[j]/mostCorrection), *began[j]*mostCorrection)
	}
}

// measured is how long the engine took for work, in seconds.
type measured struct {
	work work
	took float64
}

// fit is the cost that explains measurements best: by least squares of the relative errors, without negative prices.
// What they do not tell apart goes to the tokens.
func fit(all []measured) Cost {
	const rounds = 10000 // of one price after the other; some hundred are enough
	var c Cost
	if len(all) == 0 {
		return c
	}
	c.Token = math.Inf(1)
	for _, m := range all {
		c.Token = min(c.Token, m.took/m.work[1])
	}
	prices := c.prices()
	for range rounds {
		for j, p := range prices {
			along, squares := 0.0, 0.0
			for _, m := range all {
				x := m.work[j] / m.took
				along += x * (1 - c.seconds(m.work)/m.took)
				squares += x * x
			}
			if squares > 0 {
				*p = max(*p+along/squares, 0)
			}
		}
	}
	return c
}
