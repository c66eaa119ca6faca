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

// EachVariant runs a test with each of the variants that this processor has.
func EachVariant(t *testing.T, test func(t *testing.T)) {
	chosen := active
	defer func() { active = chosen }()
	for _, v := range variants() {
		active = v
		t.Run(v.name(), test)
	}
}
