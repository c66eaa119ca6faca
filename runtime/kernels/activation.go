package kernels

import (
	"fmt"
	"math"

	"github.com/switchyard-dev/switchyard/runtime/quote"
)

// Activation is a function of one value, named as in transformers' ACT2FN (the field hidden_act of a config).
type Activation uint8

// The activations.
const (
	Identity Activation = iota
	GELU                // x·Φ(x), Φ the normal distribution (Hendrycks and Gimpel, arXiv:1606.08415)
	GELUTanh            // the same paper's approximation by tanh
	ReLU                // the larger of x and 0
	SiLU                // x·σ(x)
	Tanh                // of BERT's pooler and RoBERTa's head

	// epilogues is how many of them an epilogue computes: Tanh is for few values, and exact.
	epilogues = Tanh
)

var activations = map[string]Activation{
	"gelu":              GELU,
	"gelu_new":          GELUTanh,
	"gelu_python":       GELU, // by torch.erf, which is the same function
	"gelu_pytorch_tanh": GELUTanh,
	"relu":              ReLU,
	"silu":              SiLU,
	"swish":             SiLU,
	"tanh":              Tanh,
}

// FindActivation finds the activation that a field of a config names.
func FindActivation(field, name string) (Activation, error) {
	act, ok := activations[name]
	if !ok {
		return Identity, fmt.Errorf("%s: no activation is named %s", field, quote.Name(name))
	}
	return act, nil
}

// of is the activation of one value, by its definition.
func (a Activation) of(x float32) float32 {
	v := float64(x)
	switch a {
	case GELU:
		v *= 0.5 * (1 + math.Erf(v*(1/math.Sqrt2)))
	case GELUTanh:
		v *= 0.5 * (1 + math.Tanh(math.Sqrt(2/math.Pi)*(v+0.044715*v*v*v)))
	case ReLU:
		if x < 0 { // not max: a NaN stays one
			return 0
		}
		return x
	case SiLU:
		v /= 1 + math.Exp(-v)
	case Tanh:
		v = math.Tanh(v)
	case Identity:
		return x
	}
	return float32(v)
}
