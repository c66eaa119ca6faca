package main

import (
	"fmt"
	"math"

	. "github.com/mmcloughlin/avo/build" //nolint:revive,stylecheck // as avo's programs are written
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// set is an instruction set: what is written otherwise in each.
type set interface {
	name() string
	lanes() int // float32 values of a vector
	rows() int  // most rows of a tile: rows · 2 accumulators, 2 vectors of b, and what a needs, fill the registers
	vec() reg.VecVirtual
	// mask has the first n lanes, 0 < n ≤ lanes.
	mask(n reg.Register) mask
	// fma adds the value at a, in all lanes, times each b to its accumulator.
	fma(a operand.Mem, b, acc []reg.VecVirtual)
	// round to the nearest integer, to even.
	round(x, to reg.VecVirtual)
	// scale multiplies x by 2^n, n whole; 0 where that is too small.
	scale(x, n reg.VecVirtual)
	// doubles adds the values of x, as float64, to two accumulators of half as many lanes.
	doubles(x reg.VecVirtual, acc [2]reg.VecVirtual)
	// sum adds up the lanes of float64 accumulators, in one order, into the first lane.
	sum(acc [2]reg.VecVirtual) reg.VecVirtual
	// broadcast has the first lane of an XMM register in all lanes.
	broadcast(x reg.Register) reg.VecVirtual
	// columns joins the 128-bit lanes of rows 4·g…4·g+3: u[g][j] holds column 4·L+j of them in lane L.
	columns(u [][4]reg.VecVirtual) []reg.VecVirtual
}

// mask is some lanes of a vector, or all of them.
type mask interface {
	load(from operand.Mem, to reg.VecVirtual) // the other lanes are zero
	store(from reg.VecVirtual, to operand.Mem)
	clear(x reg.VecVirtual) // the other lanes become zero
}

type whole struct{}

func (whole) load(from operand.Mem, to reg.VecVirtual)  { VMOVUPS(from, to) }
func (whole) store(from reg.VecVirtual, to operand.Mem) { VMOVUPS(from, to) }
func (whole) clear(reg.VecVirtual)                      {}

type avx512 struct{}

func (avx512) name() string        { return "AVX512" }
func (avx512) lanes() int          { return 16 }
func (avx512) rows() int           { return 12 }
func (avx512) vec() reg.VecVirtual { return ZMM() }

type opmask struct{ k reg.OpmaskVirtual }

func (m opmask) load(from operand.Mem, to reg.VecVirtual)  { VMOVUPS_Z(from, m.k, to) }
func (m opmask) store(from reg.VecVirtual, to operand.Mem) { VMOVUPS(from, m.k, to) }
func (m opmask) clear(x reg.VecVirtual)                    { VMOVAPS_Z(x, m.k, x) }

func (avx512) mask(n reg.Register) mask {
	ones, k := GP32(), K()
	MOVL(operand.I32(-1), ones)
	BZHIL(n.(reg.GP).As32(), ones, ones)
	KMOVW(ones, k)
	return opmask{k}
}

// fma reads a once: an operand in memory for each b would be 26 loads for 24 multiplications, which are more than some
// processors can do meanwhile (two loads beside two multiplications a cycle).
func (avx512) fma(a operand.Mem, b, acc []reg.VecVirtual) {
	if len(b) == 1 {
		VFMADD231PS_BCST(a, b[0], acc[0])
		return
	}
	all := ZMM()
	VBROADCASTSS(a, all)
	for i := range b {
		VFMADD231PS(all, b[i], acc[i])
	}
}

func (avx512) round(x, to reg.VecVirtual) { VRNDSCALEPS(operand.U8(8), x, to) }
func (avx512) scale(x, n reg.VecVirtual)  { VSCALEFPS(n, x, x) }

func (avx512) doubles(x reg.VecVirtual, acc [2]reg.VecVirtual) {
	high, wide := YMM(), [2]reg.VecVirtual{ZMM(), ZMM()}
	VEXTRACTF64X4(operand.U8(1), x, high)
	VCVTPS2PD(x.AsY(), wide[0])
	VCVTPS2PD(high, wide[1])
	for i := range acc {
		VADDPD(wide[i], acc[i], acc[i])
	}
}

func (avx512) sum(acc [2]reg.VecVirtual) reg.VecVirtual {
	VADDPD(acc[1], acc[0], acc[0])
	high := YMM()
	VEXTRACTF64X4(operand.U8(1), acc[0], high)
	return halves(high, acc[0].AsY())
}

func (avx512) broadcast(x reg.Register) reg.VecVirtual {
	to := ZMM()
	VBROADCASTSS(x, to)
	return to
}

func (avx512) columns(u [][4]reg.VecVirtual) []reg.VecVirtual {
	out := make([]reg.VecVirtual, 16)
	pick := func(imm operand.U8, x, y reg.VecVirtual) reg.VecVirtual {
		to := ZMM()
		VSHUFF32X4(imm, y, x, to)
		return to
	}
	const even, odd = 0x88, 0xdd
	for j := range 4 {
		a, b := pick(even, u[0][j], u[1][j]), pick(odd, u[0][j], u[1][j])
		c, d := pick(even, u[2][j], u[3][j]), pick(odd, u[2][j], u[3][j])
		out[j], out[8+j] = pick(even, a, c), pick(odd, a, c)
		out[4+j], out[12+j] = pick(even, b, d), pick(odd, b, d)
	}
	return out
}

type avx2 struct{}

func (avx2) name() string        { return "AVX2" }
func (avx2) lanes() int          { return 8 }
func (avx2) rows() int           { return 6 }
func (avx2) vec() reg.VecVirtual { return YMM() }

type vecmask struct{ y reg.VecVirtual }

func (m vecmask) load(from operand.Mem, to reg.VecVirtual)  { VMASKMOVPS(from, m.y, to) }
func (m vecmask) store(from reg.VecVirtual, to operand.Mem) { VMASKMOVPS(from, m.y, to) }
func (m vecmask) clear(x reg.VecVirtual)                    { VANDPS(m.y, x, x) }

// mask reads eight words behind which there are n that are all ones.
func (avx2) mask(n reg.Register) mask {
	const table = "lanes"
	if !made[table] {
		made[table] = true
		GLOBL(table, RODATA|NOPTR)
		for i := range 16 {
			word := operand.U32(0)
			if i < 8 {
				word = math.MaxUint32
			}
			DATA(4*i, word)
		}
	}
	at, y := GP64(), YMM()
	LEAQ(operand.NewDataAddr(operand.Symbol{Name: table, Static: true}, 32), at)
	count := GP64()
	MOVQ(n, count)
	NEGQ(count)
	VMOVUPS(operand.Mem{Base: at, Index: count, Scale: 4}, y)
	return vecmask{y}
}

func (avx2) fma(a operand.Mem, b, acc []reg.VecVirtual) {
	all := YMM()
	VBROADCASTSS(a, all)
	for i := range b {
		VFMADD231PS(all, b[i], acc[i])
	}
}

func (avx2) round(x, to reg.VecVirtual) { VROUNDPS(operand.U8(8), x, to) }

// scale adds n to the exponents. What exp makes for the least that it takes is zero already.
func (avx2) scale(x, n reg.VecVirtual) {
	whole := YMM()
	VCVTPS2DQ(n, whole)
	VPSLLD(operand.U8(23), whole, whole)
	VPADDD(whole, x, x)
}

func (avx2) doubles(x reg.VecVirtual, acc [2]reg.VecVirtual) {
	high, wide := XMM(), [2]reg.VecVirtual{YMM(), YMM()}
	VEXTRACTF128(operand.U8(1), x, high)
	VCVTPS2PD(x.AsX(), wide[0])
	VCVTPS2PD(high, wide[1])
	for i := range acc {
		VADDPD(wide[i], acc[i], acc[i])
	}
}

func (avx2) sum(acc [2]reg.VecVirtual) reg.VecVirtual { return halves(acc[1], acc[0]) }

func (avx2) broadcast(x reg.Register) reg.VecVirtual {
	to := YMM()
	VBROADCASTSS(x, to)
	return to
}

func (avx2) columns(u [][4]reg.VecVirtual) []reg.VecVirtual {
	out := make([]reg.VecVirtual, 8)
	for j := range 4 {
		out[j], out[4+j] = YMM(), YMM()
		VPERM2F128(operand.U8(0x20), u[1][j], u[0][j], out[j])
		VPERM2F128(operand.U8(0x31), u[1][j], u[0][j], out[4+j])
	}
	return out
}

// halves adds two YMM registers of float64, and then their lanes into the first.
func halves(x, y reg.Register) reg.VecVirtual {
	all, high, low := YMM(), XMM(), XMM()
	VADDPD(x, y, all)
	VEXTRACTF128(operand.U8(1), all, high)
	VADDPD(all.AsX(), high, low)
	VUNPCKHPD(low, low, high)
	VADDSD(high, low, low)
	return low
}

// made are the tables written so far.
var made = map[string]bool{}

// constant is a value in as many lanes as the widest vector has.
func constant(x float32) operand.Mem { return bits(math.Float32bits(x)) }

func bits(word uint32) operand.Mem {
	name := fmt.Sprintf("c%08x", word)
	if !made[name] {
		made[name] = true
		GLOBL(name, RODATA|NOPTR)
		for i := range 16 {
			DATA(4*i, operand.U32(word))
		}
	}
	return operand.NewDataAddr(operand.Symbol{Name: name, Static: true}, 0)
}

// upperHalf are the bits of a word that its later bfloat16 has.
const upperHalf = 0xffff0000

// load has a constant in a register.
func load(s set, c operand.Mem) reg.VecVirtual {
	x := s.vec()
	VMOVUPS(c, x)
	return x
}

func zero(s set) reg.VecVirtual {
	x := s.vec()
	if s.lanes() == 16 {
		VPXORD(x, x, x)
	} else {
		VXORPS(x, x, x)
	}
	return x
}
