package kernels

import "testing"

// Of is the activation of one value.
func (a Activation) Of(x float32) float32 { return a.of(x) }

// Bytes is the memory of a packed matrix.
func (p *Packed) Bytes() int64 { return int64(len(p.panels)+len(p.pairs)) * 4 }

// Names are the variants that this processor has.
func Names() []string {
	var names []string
	for _, v := range variants() {
		names = append(names, v.name())
	}
	return names
}

// Choose is the name of the variant that an Environment of that value makes compute.
func Choose(value string) (string, error) {
	v, err := choose(value, variants())
	return v.name(), err
}

// rounding is the portable variant for a processor that multiplies bfloat16 itself, on any processor.
type rounding struct{ portable }

func (rounding) name() string { return "rounding" }

func (rounding) round(_ *worker, x []float32, stride, rows, k int) (rounded []uint32, words int) {
	words = ceilDiv(k, 2)
	rounded = make([]uint32, rows*words)
	for i := range rows * k {
		r, i := i/k, i%k
		rounded[r*words+i/2] |= uint32(round(x[r*stride+i])) << (i % 2 * 16)
	}
	return rounded, words
}

func (v rounding) tilePairs(w *worker, t tile) {
	if t.rounded != nil {
		t.a = make([]float32, t.rows*t.k)
		for i := range t.a {
			t.a[i] = half(t.rounded[i/t.k*t.lda+i%t.k/2], i%t.k)
		}
		t.lda = t.k
	}
	v.portable.tilePairs(w, t)
}

// Rounding runs a test with a variant that rounds what it multiplies with BFloat16.
func Rounding(t *testing.T, test func(t *testing.T)) {
	chosen := active
	defer func() { active = chosen }()
	active = rounding{}
	t.Run(active.name(), test)
}

// EachVariant runs a test with each of the variants that this processor has.
func EachVariant(t *testing.T, test func(t *testing.T)) {
	chosen := active
	defer func() { active = chosen }()
	for _, v := range variants() {
		active = v
		t.Run(v.name(), test)
	}
}
