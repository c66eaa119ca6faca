package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build" //nolint:revive,stylecheck // as avo's programs are written
	"github.com/mmcloughlin/avo/ir"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// bfloat16 is AVX-512 with AVX512_BF16: a value of a, or a lane of b, is a word of two bfloat16, and an accumulator gains
// the products of both.
type bfloat16 struct{ avx512 }

func (bfloat16) name() string { return "BFloat16" }

func (bfloat16) fma(a operand.Mem, b, acc []reg.VecVirtual) {
	all := ZMM()
	VBROADCASTSS(a, all)
	for i := range b {
		unknown("VDPBF16PS", []operand.Op{all, b[i]}, acc[i])
	}
}

// roundBFloat16 writes rows of float32 as bfloat16, the nearest, to even. Fields: src, dst, the bytes between two rows of
// src, and of dst; rows; columns. Of each row of dst whole vectors of half as many bytes are written, zeros at the end.
func roundBFloat16() {
	const name = "roundBFloat16"
	field := begin(name, name+" rounds rows.")
	src, dst, lds, ldd, rows, cols := field(0), field(8), field(16), field(24), field(32), field(40)
	Label("row")
	at, left, to := GP64(), GP64(), GP64()
	XORQ(at, at)
	MOVQ(cols, left)
	MOVQ(dst, to)
	inChunks(bfloat16{}, at, left, 64, func(at reg.GPVirtual, m mask, _ string) {
		x, y := ZMM(), YMM()
		m.load(operand.Mem{Base: src, Index: at, Scale: 1}, x)
		unknown("VCVTNEPS2BF16", []operand.Op{x}, y)
		VMOVUPS(y, operand.Mem{Base: to})
		ADDQ(operand.U8(32), to)
	})
	ADDQ(lds, src)
	ADDQ(ldd, dst)
	DECQ(rows)
	JNZ(operand.LabelRef("row"))
	end()
}

// opcodes are those of the instructions that Go's assembler does not know; all are EVEX.512.F3.0F38.W0.
var opcodes = map[string]byte{"VDPBF16PS": 0x52, "VCVTNEPS2BF16": 0x72}

// unknown is an instruction of opcodes, its operands in Go's order.
func unknown(name string, from []operand.Op, to reg.VecVirtual) {
	in := from
	if len(from) == 2 { // they are added to what is there
		in = append([]operand.Op{to}, from...)
	}
	Instruction(&ir.Instruction{
		Opcode: name, Operands: append(from, to), Inputs: in, Outputs: []operand.Op{to}, ISA: []string{"AVX512_BF16"},
	})
}

// encode puts the bytes in place of such instructions, once their registers are chosen.
func encode(f *ir.Function) error {
	var nodes []ir.Node
	for _, node := range f.Nodes {
		i, ok := node.(*ir.Instruction)
		if !ok || opcodes[i.Opcode] == 0 {
			nodes = append(nodes, node)
			continue
		}
		registers := make([]byte, len(i.Operands))
		for j, op := range i.Operands {
			registers[j] = byte(op.(reg.Physical).PhysicalIndex()) //nolint:gosec // below 32
		}
		rm, vvvv, to := registers[0], byte(0), registers[len(registers)-1]
		if len(registers) == 3 {
			vvvv = registers[1]
		}
		nodes = append(nodes,
			ir.NewComment(fmt.Sprintf("%s %s", i.Opcode, operands(i))),
			constantBytes("LONG", evex(rm, vvvv, to)),
			constantBytes("WORD", uint32(opcodes[i.Opcode])|uint32(0xc0|to&7<<3|rm&7)<<8),
		)
	}
	f.Nodes = nodes
	return nil
}

// evex is the prefix of EVEX.512.F3.0F38.W0: registers are split over it, and their upper bits inverted (Intel's manual,
// volume 2, 2.7.1).
func evex(rm, vvvv, to byte) uint32 {
	not := func(register, bit byte) byte { return register>>bit&1 ^ 1 }
	p0 := not(to, 3)<<7 | not(rm, 4)<<6 | not(rm, 3)<<5 | not(to, 4)<<4 | 2
	p1 := ^vvvv&15<<3 | 1<<2 | 2
	p2 := byte(2<<5) | not(vvvv, 4)<<3
	return 0x62 | uint32(p0)<<8 | uint32(p1)<<16 | uint32(p2)<<24
}

func constantBytes(directive string, value uint32) *ir.Instruction {
	return &ir.Instruction{Opcode: directive, Operands: []operand.Op{operand.U32(value)}}
}

func operands(i *ir.Instruction) string {
	text := ""
	for j, op := range i.Operands {
		if j > 0 {
			text += ", "
		}
		text += op.Asm()
	}
	return text
}
