package kernels_test

import (
	"math/rand/v2"
	"testing"

	"gorgonia.org/tensor"
)

// What our engine does not do itself (another layout, another type) is gorgonia's own work, with the same result.
func TestMatMulOfTensors(t *testing.T) {
	p := newPool(t, 2)
	rng := rand.New(rand.NewPCG(8, 8))
	const m, n, k = 5, 6, 7
	x, w := random(rng, m*k), random(rng, n*k) // w [n, k]
	want := oracle(t, x, w, m, n, k)

	a := p.NewDense(x, m, k)
	wt := make([]float32, n*k)
	for j := range n {
		for i := range k {
			wt[i*n+j] = w[j*k+i]
		}
	}
	transposed := p.NewDense(w, n, k)
	if err := transposed.T(); err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string]*tensor.Dense{"row-major": p.NewDense(wt, k, n), "transposed view": transposed} {
		c, err := tensor.MatMul(a, b)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got := c.Data().([]float32)
		for i := range want {
			if diff := got[i] - want[i]; diff > 1e-5 || diff < -1e-5 {
				t.Errorf("%s: [%d, %d]: expected %g, found %g", name, i/n, i%n, want[i], got[i])
			}
		}
	}
	if _, err := tensor.MatMul(a, a); err == nil {
		t.Error("shapes [5, 7] and [5, 7]: expected an error")
	}
}
