package arch

import (
	"fmt"

	"github.com/switchyard-dev/switchyard/runtime/quote"
)

// DType is how a base's weights are kept in memory, whatever its files have; PyTorch's name for the type.
type DType string

// The types. What is computed is float32 either way.
const (
	Float32  DType = "float32"
	BFloat16 DType = "bfloat16" // embeddings and the weights of Linears and convolutions, in half the memory
)

// ParseDType finds the type of that name.
func ParseDType(name string) (DType, error) {
	switch d := DType(name); d {
	case Float32, BFloat16:
		return d, nil
	}
	return "", fmt.Errorf("expected %s or %s, found %s", Float32, BFloat16, quote.Name(name))
}

// ValueBytes is what one value of a module's parameter takes.
func (d DType) ValueBytes(m *Module, param string) int64 {
	if d == BFloat16 && param == "weight" && m.Kind != LayerNorm && m.Kind != Parameters {
		return 2
	}
	return bytesPerValue
}
