package kernels

import "math"

// DType is how the values of a matrix are kept. What is computed with them is float32.
type DType uint8

// The types.
const (
	Float32  DType = iota
	BFloat16       // the upper half of a float32: its sign, all of its exponent, and 7 bits of its fraction
	Widened        // BFloat16 that is always multiplied as Float32 is: products are the same, to the bit
)

// halves tells whether a value of the type has 16 bits.
func (d DType) halves() bool { return d != Float32 }

// Largest is the largest number of the type.
func (d DType) Largest() float32 {
	if d.halves() {
		return widen(0x7f7f)
	}
	return math.MaxFloat32
}

// round is the bfloat16 nearest to x, of two the even one. A NaN stays one.
func round(x float32) uint16 {
	bits := math.Float32bits(x)
	if x != x {
		return uint16(bits>>16) | 1<<6 // else it might be left with the bits of an infinity
	}
	return uint16((bits + 0x7fff + bits>>16&1) >> 16)
}

// widen is a bfloat16 as a float32, exactly.
func widen(x uint16) float32 { return math.Float32frombits(uint32(x) << 16) }

// half is the value of one k of those that share a word.
func half(pair uint32, k int) float32 { return math.Float32frombits(pair >> (k % 2 * 16) << 16) }
