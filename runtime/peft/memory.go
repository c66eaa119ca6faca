package peft

import (
	"gorgonia.org/tensor"

	"github.com/switchyard-dev/switchyard/runtime/arch"
	"github.com/switchyard-dev/switchyard/runtime/weights"
)

// Bytes is how much memory the adapter takes in a pod of its base, as runtime/nn keeps it, half words and the ends of
// pages aside: matrices as bfloat16 where each of their values is one, all else as float32. Where layers take the same
// input their A's are one matrix, so all A's count as the largest type among them. All values are looked at.
func (a *Adapter) Bytes(base *arch.Description) int64 {
	downs := arch.BFloat16
	for _, u := range a.Updates {
		if lossless(u.A, u.Scale) == arch.Float32 {
			downs = arch.Float32
		}
	}
	total := int64(0)
	add := func(t *tensor.Dense, dtype arch.DType, m *arch.Module, param string) {
		if t != nil {
			total += int64(t.DataSize()) * dtype.ValueBytes(m, param)
		}
	}
	for _, u := range a.Updates {
		m := base.Lookup(u.Module)[0]
		add(u.A, downs, m, "weight")
		add(u.B, lossless(u.B, 1), m, "weight")
		add(u.Bias, arch.Float32, m, "bias")
		add(u.Magnitude, arch.Float32, m, "bias")
	}
	for _, s := range a.Saved {
		m := base.Lookup(s.Module)[0]
		for param, t := range s.Params {
			add(t, lossless(t, 1), m, param)
		}
	}
	for _, r := range a.Rows {
		add(r.Values, lossless(r.Values, 1), base.Lookup(r.Module)[0], "weight")
	}
	return total
}

// lossless is the type of least memory that has each value of a tensor, times a factor.
func lossless(t *tensor.Dense, factor float32) arch.DType {
	if weights.AreBFloat16(t.Float32s(), factor) {
		return arch.BFloat16
	}
	return arch.Float32
}
