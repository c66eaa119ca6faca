package batcher

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

// bertBase is about a BERT-base on two cores: 1 ms a token.
var bertBase = Cost{Batch: 1e-3, Token: 1e-3, Pair: 4e-7, Update: 4e-11}

func near(a, b, within float64) bool { return math.Abs(a-b) <= within*math.Abs(b) }

// pricesNear tells whether prices are another's within a part of them.
func pricesNear(got, want Cost, within float64) bool {
	for i, p := range got.prices() {
		if !near(*p, *want.prices()[i], within) {
			return false
		}
	}
	return true
}

func measure(c Cost, works ...work) []measured {
	all := make([]measured, len(works))
	for i, w := range works {
		all[i] = measured{w, c.seconds(w)}
	}
	return all
}

func TestPricesAreFound(t *testing.T) {
	texts := []work{
		{1, 16, 256, 0}, {1, 16, 256, 16e6}, {1, 64, 1024, 0}, {1, 64, 4096, 0}, {1, 128, 16384, 128e6}, {1, 512, 262144, 0},
	}
	if got := fit(measure(bertBase, texts...)); !pricesNear(got, bertBase, 0.05) {
		t.Errorf("texts: expected %+v, found %+v", bertBase, got)
	}
	// Images have all the same tokens: how the time is shared out cannot be known, and does not matter.
	image := func(n float64) work { return work{1, 197 * n, 197 * 197 * n, 0} }
	for name, works := range map[string][]work{"one image": {image(1)}, "images": {image(1), image(2), image(4)}} {
		got := fit(measure(bertBase, works...))
		if want := bertBase.seconds(image(8)); !near(got.seconds(image(8)), want, 0.05) {
			t.Errorf("%s: expected %g s for eight, found %g by %+v", name, want, got.seconds(image(8)), got)
		}
	}
	// A measurement that contradicts the model (twice the rows in half the time) makes no price negative.
	odd := fit([]measured{{work{1, 16, 256, 0}, 2}, {work{1, 32, 512, 0}, 1}})
	for _, p := range odd.prices() {
		if *p < 0 || math.IsNaN(*p) || math.IsInf(*p, 0) {
			t.Errorf("expected prices that are not negative, found %+v", odd)
		}
	}
	if none := fit(nil); none != (Cost{}) {
		t.Errorf("of nothing: expected no prices, found %+v", none)
	}
}

// random is a batch of texts.
func random(r *rand.Rand) work {
	total := work{1}
	for range 1 + r.IntN(16) {
		n := float64(1 + r.IntN(512))
		total[1], total[2], total[3] = total[1]+n, total[2]+n*n, total[3]+n*float64(r.IntN(2))*2e6
	}
	return total
}

func TestPricesFollowWhatBatchesTake(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	slow := Cost{Batch: 1e-3, Token: 2e-3, Pair: 12e-7, Update: 8e-11}
	f := fitted{bertBase, bertBase}
	for range 2000 {
		w := random(r)
		took := slow.seconds(w) * math.Exp(r.NormFloat64()/10)
		if r.IntN(20) == 0 {
			took *= 50 // something else had the processor
		}
		f.observe(w, seconds(took))
	}
	for range 100 {
		w := random(r)
		if got, want := f.now.seconds(w), slow.seconds(w); !near(got, want, 0.2) {
			t.Errorf("%v: expected about %g s, found %g by %+v", w, want, got, f.now)
		}
	}
}

func TestNoBatchMovesPricesFar(t *testing.T) {
	w := work{1, 64, 4096, 64e6}
	for name, took := range map[string]time.Duration{"long": 1000 * time.Hour, "short": time.Nanosecond} {
		f := fitted{bertBase, bertBase}
		f.observe(w, took)
		if !near(f.now.seconds(w), bertBase.seconds(w), 0.02) {
			t.Errorf("a %s batch: expected %g s still, found %g", name, bertBase.seconds(w), f.now.seconds(w))
		}
		for range 10000 {
			f.observe(w, took)
		}
		for i, p := range f.now.prices() {
			if factor := *p / *bertBase.prices()[i]; factor > mostCorrection*1.001 || factor < 0.999/mostCorrection {
				t.Errorf("%s batches: expected prices within a factor of %d, found %g", name, mostCorrection, factor)
			}
		}
		if name == "long" && f.now.seconds(w) < 7*bertBase.seconds(w) {
			t.Errorf("long batches: expected prices to follow to their bound, found %+v", f.now)
		}
	}
	unknown := fitted{}
	unknown.observe(w, time.Second)
	if unknown.now != (Cost{}) || unknown.now.ofTrack(w) != leastCost {
		t.Errorf("without prices: expected none, and the least cost, found %+v", unknown.now)
	}
	if huge := (&Cost{Token: math.MaxFloat64}).of(w); huge != 24*time.Hour {
		t.Errorf("expected an estimate that can be added to others, found %s", huge)
	}
}
