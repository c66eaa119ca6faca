package kernels

import (
	"fmt"
	"math"

	"github.com/switchyard-dev/switchyard/runtime/quote"
)

// Activation is a function of one value, named as in transformers' ACT2FN (the field hidden_act of a config).
type Activation func(x float32) float32

// The activations. A nil Activation is the identity.
var activations = map[string]Activation{
	"gelu":              gelu,
	"gelu_new":          geluTanh,
	"gelu_python":       gelu, // by torch.erf, which is the same function
	"gelu_pytorch_tanh": geluTanh,
	"relu":              ReLU,
	"silu":              SiLU,
	"swish":             SiLU,
	"tanh":              Tanh,
}

// FindActivation finds the activation that a field of a config names.
func FindActivation(field, name string) (Activation, error) {
	act, ok := activations[name]
	if !ok {
		return nil, fmt.Errorf("%s: no activation is named %s", field, quote.Name(name))
	}
	return act, nil
}

func (a Activation) apply(x []float32) {
	if a == nil {
		return
	}
	for i, v := range x {
		x[i] = a(v)
	}
}

// gelu is x·Φ(x), Φ the normal distribution (Hendrycks and Gimpel, arXiv:1606.08415), by the error function.
func gelu(x float32) float32 {
	v := float64(x)
	return float32(v * 0.5 * (1 + math.Erf(v*(1/math.Sqrt2))))
}

// geluTanh is the same paper's approximation by tanh.
func geluTanh(x float32) float32 {
	v := float64(x)
	inner := math.Sqrt(2/math.Pi) * (v + 0.044715*v*v*v)
	return float32(0.5 * v * (1 + math.Tanh(inner)))
}

// Tanh is the activation of BERT's pooler and RoBERTa's head.
func Tanh(x float32) float32 { return float32(math.Tanh(float64(x))) }

// ReLU is the larger of x and 0.
func ReLU(x float32) float32 {
	if x < 0 { // not max: a NaN stays one
		return 0
	}
	return x
}

// SiLU is x·σ(x).
func SiLU(x float32) float32 {
	v := float64(x)
	return float32(v / (1 + math.Exp(-v)))
}
