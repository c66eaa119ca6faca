package modernbert

import (
	"math"

	"github.com/switchyard-dev/switchyard/runtime/arch"
	"github.com/switchyard-dev/switchyard/runtime/nn"
)

// rotary is a rotary embedding: how fast each pair of a head turns, and what cosine and sine are multiplied by.
type rotary struct {
	frequencies []float32 // [dim/2], in radians a token
	scale       float64
}

// angles are the cosines and sines of the places of a row, [places, dim/2].
type angles struct{ cos, sin []float32 }

// newRotary computes the frequencies of heads of that size, as transformers does (compute_default_rope_parameters and
// _compute_yarn_parameters, with the same roundings to float32).
func newRotary(r arch.RoPE, dim int) rotary {
	half := dim / 2
	out := rotary{frequencies: make([]float32, half), scale: 1}
	turns := make([]float32, half) // tokens of a radian
	for i := range turns {
		turns[i] = float32(math.Pow(r.Theta, float64(float32(2*i)/float32(dim))))
		out.frequencies[i] = 1 / turns[i]
	}
	y := r.YaRN
	if y == nil {
		return out
	}
	out.scale = attentionFactor(y)
	// The pairs up to low turn as they were trained, those from high on slower by the factor, with a ramp between.
	correction := func(rotations float64) float64 {
		return float64(dim) * math.Log(float64(y.OriginalTokens)/(rotations*2*math.Pi)) / (2 * math.Log(r.Theta))
	}
	low := max(math.Floor(correction(y.BetaFast)), 0)
	high := min(math.Ceil(correction(y.BetaSlow)), float64(dim-1))
	if low == high {
		high += 0.001
	}
	for i := range out.frequencies {
		ramp := min(max((float32(i)-float32(low))/float32(high-low), 0), 1)
		keep := 1 - ramp
		slow := 1 / (float32(y.Factor) * turns[i])
		out.frequencies[i] = float32(slow*(1-keep)) + float32(1/turns[i]*keep)
	}
	return out
}

func attentionFactor(y *arch.YaRN) float64 {
	mscale := func(m float64) float64 {
		if y.Factor <= 1 {
			return 1
		}
		return 0.1*m*math.Log(y.Factor) + 1
	}
	switch {
	case y.AttentionFactor != nil:
		return *y.AttentionFactor
	case y.MScale != 0 && y.MScaleAllDim != 0:
		return mscale(y.MScale) / mscale(y.MScaleAllDim)
	default:
		return mscale(1)
	}
}

// angles computes those of a batch's longest row.
func (r *rotary) angles(b *nn.Batch) angles {
	places, half := b.Longest(), len(r.frequencies)
	a := angles{b.Floats(places * half), b.Floats(places * half)}
	for place := range places {
		for i, f := range r.frequencies {
			angle := float64(float32(place) * f)
			a.cos[place*half+i] = float32(float64(float32(math.Cos(angle))) * r.scale)
			a.sin[place*half+i] = float32(float64(float32(math.Sin(angle))) * r.scale)
		}
	}
	return a
}
