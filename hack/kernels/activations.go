package main

import (
	"math"

	. "github.com/mmcloughlin/avo/build" //nolint:revive,stylecheck // as avo's programs are written
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// activation changes a vector in place.
type activation struct {
	name string
	emit func(s set, x reg.VecVirtual) // nil: the identity
}

var activations = []activation{
	{"identity", nil},
	{"gelu", gelu},
	{"geluTanh", geluTanh},
	{"relu", relu},
	{"silu", silu},
}

// exp replaces x by e^x: 2^n·e^r with n whole and |r| ≤ ln 2 / 2, e^r by the polynomial of expf in Moshier's Cephes
// Mathematical Library. Below the least float32 it is zero; a NaN stays one.
func exp(s set, x reg.VecVirtual) {
	least, most := s.vec(), s.vec()
	tiny := s.vec()
	if s.lanes() == 16 {
		VMOVUPS(constant(-104), least) // 2^-150: its scale makes that zero
	} else {
		VMOVUPS(constant(-87.3), least)
		VCMPPS(operand.U8(1), least, x, tiny) // x < least; a NaN is not
	}
	VMOVUPS(constant(88.7), most)
	VMAXPS(x, least, x)
	VMINPS(x, most, x)
	n, y, square := s.vec(), s.vec(), s.vec()
	VMULPS(constant(math.Log2E), x, n)
	s.round(n, n)
	VFNMADD231PS(constant(0.693359375), n, x)
	VFNMADD231PS(constant(-2.12194440e-4), n, x)
	VMOVUPS(constant(1.9875691500e-4), y)
	for _, c := range []float32{1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1} {
		VFMADD213PS(constant(c), x, y)
	}
	VMULPS(x, x, square)
	VFMADD213PS(x, square, y)
	VADDPS(constant(1), y, x)
	s.scale(x, n)
	if s.lanes() != 16 {
		VANDNPS(x, tiny, x)
	}
}

// gelu is x·Φ(x) = max(x, 0) - |x|·h, where h = (1 - erf(|x|/√2))/2 = e^(-x²/2)·q(t), t = 1/(1 + 0.33·|x|). The form is
// that of Abramowitz and Stegun, Handbook of Mathematical Functions, 7.1.26; q has two terms more, fitted to be within 3e-9.
func gelu(s set, x reg.VecVirtual) {
	magnitude, t, y, e := s.vec(), s.vec(), s.vec(), s.vec()
	VANDPS(bits(math.MaxInt32), x, magnitude)
	VMOVUPS(constant(100), y) // where h is zero for long: infinity times it would be no number
	VMINPS(magnitude, y, magnitude)
	VMOVUPS(constant(1), y)
	VMOVUPS(constant(0.33), t)
	VFMADD213PS(y, magnitude, t)
	VDIVPS(t, y, t)
	VMOVUPS(constant(0.04451133237326733), y)
	for _, c := range []float32{
		-0.21572062750987867, 0.3218060145002875, -0.07965826256909632, 0.17555854164645396, 0.12108551122624361,
		0.13241749294104985,
	} {
		VFMADD213PS(constant(c), t, y)
	}
	VMULPS(t, y, y)
	VMULPS(constant(-0.5), x, e)
	VMULPS(x, e, e)
	exp(s, e)
	VMULPS(e, y, y)
	relu(s, x)
	VFNMADD231PS(y, magnitude, x)
}

// geluTanh is x·σ(2u), u = √(2/π)·(x + 0.044715·x³): the same as with (1 + tanh u)/2.
func geluTanh(s set, x reg.VecVirtual) {
	e := s.vec()
	VMULPS(x, x, e)
	c := load(s, constant(-2*0.7978845608028654))
	cubic := load(s, constant(-2*0.7978845608028654*0.044715))
	VFMADD213PS(c, cubic, e)
	VMULPS(x, e, e)
	over(s, x, e)
}

func relu(s set, x reg.VecVirtual) { VMAXPS(x, zero(s), x) } // a NaN stays one

// silu is x·σ(x).
func silu(s set, x reg.VecVirtual) {
	e := s.vec()
	VXORPS(bits(1<<31), x, e)
	over(s, x, e)
}

// over is x/(1 + e^y).
func over(s set, x, y reg.VecVirtual) {
	exp(s, y)
	VADDPS(constant(1), y, y)
	VDIVPS(y, x, x)
}
