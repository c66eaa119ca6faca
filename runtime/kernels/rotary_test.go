package kernels_test

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/switchyard-dev/switchyard/runtime/kernels"
)

// angles are the tables of so many places, where pair i of dim/2 turns by place/10000^(2i/dim).
func angles(places, dim int) (cos, sin []float32) {
	for place := range places {
		for i := range dim / 2 {
			angle := float64(place) / math.Pow(10000, 2*float64(i)/float64(dim))
			cos, sin = append(cos, float32(math.Cos(angle))), append(sin, float32(math.Sin(angle)))
		}
	}
	return cos, sin
}

// turn is a rotation by its definition: each pair as a complex number, in float64.
func turn(op kernels.Rotary) []float64 {
	out := make([]float64, len(op.X))
	for i, v := range op.X {
		out[i] = float64(v)
	}
	half := op.Dim / 2
	for _, row := range op.Rows {
		for token := row.Start; token < row.End; token++ {
			for head := range op.Heads {
				for i := range half {
					at := token*op.Stride + head*op.Dim + i
					by := (token-row.Start)*half + i
					z := complex(out[at], out[at+half]) * complex(float64(op.Cos[by]), float64(op.Sin[by]))
					out[at], out[at+half] = real(z), imag(z)
				}
			}
		}
	}
	return out
}

// The queries and keys of a fused matrix turn together, each row from its own first place; the values stay.
func TestRotary(t *testing.T) {
	const heads, dim, width, tokens = 3, 8, 24, 12
	rng := rand.New(rand.NewPCG(18, 18))
	x := random(rng, tokens*3*width)
	cos, sin := angles(7, dim)
	query := kernels.Rotary{
		X: x, Stride: 3 * width, Heads: heads, Dim: dim, Cos: cos, Sin: sin,
		Rows: []kernels.Span{{Start: 0, End: 1}, {Start: 1, End: 8}, {Start: 8, End: 12}},
	}
	key := query
	key.X = x[width:]
	before := slices.Clone(x)
	wantQuery, wantKey := turn(query), turn(key)
	newPool(t, 2).Rotary(query, key)
	for token := range tokens {
		at := token * 3 * width
		near(t, "queries", x[at:at+width], wantQuery[at:at+width], 1e-6)
		near(t, "keys", x[at+width:at+2*width], wantKey[at:at+width], 1e-6)
		if !sameBits(x[at+2*width:at+3*width], before[at+2*width:at+3*width]) {
			t.Errorf("token %d: its values have changed", token)
		}
	}
}

func TestRotaryOfARowDoesNotSeeItsNeighbours(t *testing.T) {
	const dim = 6
	rng := rand.New(rand.NewPCG(19, 19))
	p := newPool(t, 2)
	cos, sin := angles(4, dim)
	row := random(rng, 4*dim)
	amid := slices.Concat(nans(3*dim), row, nans(2*dim))
	p.Rotary(
		kernels.Rotary{X: row, Stride: dim, Rows: []kernels.Span{{Start: 0, End: 4}}, Heads: 1, Dim: dim, Cos: cos, Sin: sin},
		kernels.Rotary{
			X: amid, Stride: dim, Heads: 1, Dim: dim, Cos: cos, Sin: sin,
			Rows: []kernels.Span{{Start: 0, End: 3}, {Start: 3, End: 7}, {Start: 7, End: 9}},
		},
	)
	if !sameBits(amid[3*dim:7*dim], row) {
		t.Errorf("a row among NaN neighbours: expected the row alone, %v, found %v", row, amid[3*dim:7*dim])
	}
}
