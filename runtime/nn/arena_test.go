package nn_test

import (
	"testing"

	"github.com/switchyard-dev/switchyard/runtime/nn"
)

// What was taken is nobody else's until it is given back, whatever its size.
func TestArena(t *testing.T) {
	var arena nn.Arena
	for round := range 4 {
		b := nn.NewBatch(nil, &arena, nil, nil, nil, 0)
		kept := b.Floats(100)
		fill(kept, 1)
		for layer := range 3 {
			mark := b.Mark()
			first, second := b.Floats(1000*(round+1)), b.Floats(10)
			fill(first, 2)
			fill(second, 3)
			within := b.Mark()
			fill(b.Floats(5000), 4)
			b.Free(within)
			fill(b.Floats(70), 5)
			for _, c := range []struct {
				values []float32
				want   float32
			}{{kept, 1}, {first, 2}, {second, 3}} {
				for i, v := range c.values {
					if v != c.want {
						t.Fatalf("round %d, layer %d: expected %g at %d, found %g", round, layer, c.want, i, v)
					}
				}
			}
			b.Free(mark)
		}
		if len(kept) != cap(kept) {
			t.Errorf("expected what is appended to be elsewhere, found room for %d more", cap(kept)-len(kept))
		}
		arena.Reset()
	}
	// The largest batch once more, and smaller ones, find room for all of it.
	same := func() {
		b := nn.NewBatch(nil, &arena, nil, nil, nil, 0)
		b.Floats(100)
		mark := b.Mark()
		for range 3 {
			b.Floats(4000)
			b.Floats(10)
			b.Floats(5000)
			b.Free(mark)
		}
		arena.Reset()
	}
	same()
	most := float64(2) // the batch itself
	if n := testing.AllocsPerRun(10, same); n > most {
		t.Errorf("expected %g allocations at most, found %g", most, n)
	}
}

// What grows from stage to stage does not keep the memory of all that came before.
func TestAnArenaThatGrowsDropsWhatIsTooSmall(t *testing.T) {
	var arena nn.Arena
	b := nn.NewBatch(nil, &arena, nil, nil, nil, 0)
	kept := b.Floats(10)
	fill(kept, 1)
	const stages, first = 20, 1000
	for stage := range stages {
		mark := b.Mark()
		for range 3 {
			fill(b.Floats(first*(stage+1)), 2)
		}
		b.Free(mark)
	}
	for i, v := range kept {
		if v != 1 {
			t.Fatalf("expected 1 at %d, found %g", i, v)
		}
	}
	if most, held := 10+3*first*stages, arena.Held(); held > most+2*first*stages {
		t.Errorf("expected hardly more than the %d values of the last stage, found %d", most, held)
	}
}

// What the system had no memory for fails once: the batches that follow find room for what they need.
func TestAnArenaOutlivesWhatItCannotMap(t *testing.T) {
	const beyond = 1 << 50 // values, more than there are addresses
	var arena nn.Arena
	defer arena.Free()
	take := func(sizes ...int) (refused bool) {
		defer arena.Reset()
		defer func() { refused = recover() != nil }()
		b := nn.NewBatch(nil, &arena, nil, nil, nil, 0)
		for _, n := range sizes {
			fill(b.Floats(n), 1)
		}
		return false
	}
	for _, before := range [][]int{nil, {1000}, {1000, 200_000}} {
		if !take(append(before, beyond)...) {
			t.Fatal("expected no memory for so much")
		}
		if take(1) || take(1000, 2000) {
			t.Errorf("behind %v and too much: expected room for a few values", before)
		}
	}
}

func fill(x []float32, v float32) {
	for i := range x {
		x[i] = v
	}
}
