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

func fill(x []float32, v float32) {
	for i := range x {
		x[i] = v
	}
}
