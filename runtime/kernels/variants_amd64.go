package kernels

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/cpu"
)

// variants are those that this processor has, the best last.
func variants() []variant {
	all := []variant{portable{}}
	if cpu.X86.HasAVX2 && cpu.X86.HasFMA {
		all = append(all, &avx2)
	}
	// What is narrower than 512 bits may be in registers that only VL reaches. Each flag is set only where the system
	// keeps those registers, too.
	if cpu.X86.HasAVX512F && cpu.X86.HasAVX512DQ && cpu.X86.HasAVX512VL && cpu.X86.HasBMI2 {
		all = append(all, &avx512)
		if cpu.X86.HasAVX512BF16 {
			all = append(all, &avx512BFloat16)
		}
	}
	return all
}

// vector is a variant in assembly. Its functions take a struct of what they work on, which lies in the worker: called
// through a table they could not have it on the stack.
type vector struct {
	is        string
	lanes     int
	most      int              // rows of a tile
	reads     int              // columns of b that are read at once
	tiles     [2][]func(*byte) // by vectors - 1 and rows - 1
	pairs     [2][]func(*byte) // the same of a b of bfloat16
	dots      [2][]func(*byte) // the same of an a and a b of bfloat16; in place of pairs where there are some
	rounds    func(*byte)      // as dots has a; nil where there are none
	epilogues [epilogues]func(*byte)
	layerNorm func(*byte)
	soften    func(*byte)
	turn      func(*byte)
}

var avx2 = vector{
	is: "avx2", lanes: 8, most: 6, reads: 8,
	tiles: [2][]func(*byte){
		{tileAVX2_1x1, tileAVX2_2x1, tileAVX2_3x1, tileAVX2_4x1, tileAVX2_5x1, tileAVX2_6x1},
		{tileAVX2_1x2, tileAVX2_2x2, tileAVX2_3x2, tileAVX2_4x2, tileAVX2_5x2, tileAVX2_6x2},
	},
	pairs: [2][]func(*byte){
		{pairsAVX2_1x1, pairsAVX2_2x1, pairsAVX2_3x1, pairsAVX2_4x1, pairsAVX2_5x1, pairsAVX2_6x1},
		{pairsAVX2_1x2, pairsAVX2_2x2, pairsAVX2_3x2, pairsAVX2_4x2, pairsAVX2_5x2, pairsAVX2_6x2},
	},
	epilogues: [epilogues]func(*byte){
		Identity: epilogueAVX2_identity, GELU: epilogueAVX2_gelu, GELUTanh: epilogueAVX2_geluTanh,
		ReLU: epilogueAVX2_relu, SiLU: epilogueAVX2_silu,
	},
	layerNorm: layerNormAVX2, soften: softmaxAVX2, turn: transposeAVX2,
}

var avx512 = vector{
	is: "avx512", lanes: 16, most: 12, reads: 1,
	tiles: [2][]func(*byte){
		{
			tileAVX512_1x1, tileAVX512_2x1, tileAVX512_3x1, tileAVX512_4x1, tileAVX512_5x1, tileAVX512_6x1,
			tileAVX512_7x1, tileAVX512_8x1, tileAVX512_9x1, tileAVX512_10x1, tileAVX512_11x1, tileAVX512_12x1,
		},
		{
			tileAVX512_1x2, tileAVX512_2x2, tileAVX512_3x2, tileAVX512_4x2, tileAVX512_5x2, tileAVX512_6x2,
			tileAVX512_7x2, tileAVX512_8x2, tileAVX512_9x2, tileAVX512_10x2, tileAVX512_11x2, tileAVX512_12x2,
		},
	},
	pairs: [2][]func(*byte){
		{
			pairsAVX512_1x1, pairsAVX512_2x1, pairsAVX512_3x1, pairsAVX512_4x1, pairsAVX512_5x1, pairsAVX512_6x1,
			pairsAVX512_7x1, pairsAVX512_8x1, pairsAVX512_9x1, pairsAVX512_10x1, pairsAVX512_11x1, pairsAVX512_12x1,
		},
		{
			pairsAVX512_1x2, pairsAVX512_2x2, pairsAVX512_3x2, pairsAVX512_4x2, pairsAVX512_5x2, pairsAVX512_6x2,
			pairsAVX512_7x2, pairsAVX512_8x2, pairsAVX512_9x2, pairsAVX512_10x2, pairsAVX512_11x2, pairsAVX512_12x2,
		},
	},
	epilogues: [epilogues]func(*byte){
		Identity: epilogueAVX512_identity, GELU: epilogueAVX512_gelu, GELUTanh: epilogueAVX512_geluTanh,
		ReLU: epilogueAVX512_relu, SiLU: epilogueAVX512_silu,
	},
	layerNorm: layerNormAVX512, soften: softmaxAVX512, turn: transposeAVX512,
}

// avx512BFloat16 is avx512 where the processor multiplies bfloat16.
var avx512BFloat16 = func() vector {
	v := avx512
	v.is = "avx512bf16"
	v.dots = [2][]func(*byte){
		{
			tileBFloat16_1x1, tileBFloat16_2x1, tileBFloat16_3x1, tileBFloat16_4x1, tileBFloat16_5x1, tileBFloat16_6x1,
			tileBFloat16_7x1, tileBFloat16_8x1, tileBFloat16_9x1, tileBFloat16_10x1, tileBFloat16_11x1, tileBFloat16_12x1,
		},
		{
			tileBFloat16_1x2, tileBFloat16_2x2, tileBFloat16_3x2, tileBFloat16_4x2, tileBFloat16_5x2, tileBFloat16_6x2,
			tileBFloat16_7x2, tileBFloat16_8x2, tileBFloat16_9x2, tileBFloat16_10x2, tileBFloat16_11x2, tileBFloat16_12x2,
		},
	}
	v.rounds = roundBFloat16
	return v
}()

// arguments is what the assembly reads: hack/kernels knows the offsets.
type arguments struct {
	tile     tileArguments
	epilogue struct {
		acc, dst, residual, bias, gain, times *float32
		lda, ldd                              uintptr
		rows, cols                            uintptr
	}
	round struct {
		src        *float32
		dst        *uint32
		lds, ldd   uintptr
		rows, cols uintptr
	}
	norm struct {
		x, dst, gain, bias *float32
		width, rows        uintptr
		eps                float64
	}
	softmax struct {
		scores, largest, sums, correct *float32
		rows                           uintptr
		scale                          float32
	}
	transpose struct {
		src, dst          *float32
		lds, ldd          uintptr
		rows, cols, width uintptr
		factors           *float32
	}
}

// tileArguments has addresses, no pointers: the assembly leaves them where a tile below would begin, and that may be
// beyond what they are of.
type tileArguments struct {
	a, b, c            uintptr
	lda, ldk, ldb, ldc uintptr
	k, cols            uintptr
	add                uintptr
	soon, pace         uintptr
	dst, ldd           uintptr
	tiles              uintptr
}

// bytes is the distance of so many floats.
func bytes(floats int) uintptr { return uintptr(floats) * 4 }

// first is the first byte of a struct: what the assembly takes.
func first[T any](args *T) *byte { return (*byte)(unsafe.Pointer(args)) } //nolint:gosec // its offsets are the struct's

// matrix is the first element of a matrix whose last is checked to be there: assembly checks nothing.
func matrix[T float32 | uint32](x []T, rows, cols, ld int) *T {
	_ = x[(rows-1)*ld+cols-1]
	return &x[0]
}

func address[T float32 | uint32](x *T) uintptr { return uintptr(unsafe.Pointer(x)) } //nolint:gosec // for assembly

// optional is the first of n values, or nil.
func optional(x []float32, n int) *float32 {
	if x == nil {
		return nil
	}
	return matrix(x, 1, n, 0)
}

func (v *vector) name() string { return v.is }
func (v *vector) panel() int   { return 2 * v.lanes }
func (v *vector) rows() int    { return v.most }

func (v *vector) tile(w *worker, t tile) {
	a := address(matrix(t.a, t.rows, (t.k-1)*t.ldk+1, t.lda))
	v.compute(w, &v.tiles, &t, a, address(matrix(t.b, t.k, v.read(&t), t.ldb)), t.k)
}

func (v *vector) tilePairs(w *worker, t tile) {
	words := ceilDiv(t.k, 2)
	b := address(matrix(t.pairs, words, v.read(&t), t.ldb))
	if t.rounded != nil {
		v.compute(w, &v.dots, &t, address(matrix(t.rounded, t.rows, words, t.lda)), b, words)
		return
	}
	v.compute(w, &v.pairs, &t, address(matrix(t.a, t.rows, t.k, t.lda)), b, t.k)
}

// read is how many columns of b are read: those of whole vectors, or those alone that there are, by a mask.
func (v *vector) read(t *tile) int { return ceilDiv(t.cols, v.reads) * v.reads }

// compute computes a tile of any number of rows as tiles of sizes that differ by one row at most.
func (v *vector) compute(w *worker, kinds *[2][]func(*byte), t *tile, a, b uintptr, k int) {
	vectors := ceilDiv(t.cols, v.lanes)
	args := &w.args.tile
	*args = tileArguments{
		a: a, b: b, c: address(matrix(t.c, t.rows, vectors*v.lanes, t.ldc)),
		lda: bytes(t.lda), ldk: bytes(t.ldk), ldb: bytes(t.ldb), ldc: bytes(t.ldc), k: uintptr(k), cols: uintptr(t.cols),
		soon: b + bytes(t.ahead), ldd: bytes(t.ldd),
	}
	if t.add {
		args.add = 1
	}
	if t.dst != nil {
		args.dst = address(matrix(t.dst, t.rows, 1, t.ldd))
	}
	n := ceilDiv(t.rows, v.most)
	args.pace = bytes(ceilDiv(t.cols, n))
	rows, most := t.rows/n, max(1, atOnce/k)
	for _, some := range [2]struct{ tiles, rows int }{{t.rows % n, rows + 1}, {n - t.rows%n, rows}} {
		for left := some.tiles; left > 0; left -= most {
			args.tiles = uintptr(min(left, most))
			kinds[vectors-1][some.rows-1](first(args))
		}
	}
	runtime.KeepAlive(t)
}

// atOnce is how many k of tiles are computed before Go is at the turn again, which cannot preempt assembly.
const atOnce = 16 << 10

func (v *vector) round(w *worker, x []float32, stride, rows, k int) (rounded []uint32, words int) {
	if v.rounds == nil {
		return nil, 0
	}
	words = ceilDiv(k, 2*v.lanes) * v.lanes // whole vectors, as they are written
	w.rounded = atLeast(w.rounded, rows*words)
	args := &w.args.round
	args.src, args.dst = matrix(x, rows, k, stride), matrix(w.rounded, rows, words, words)
	args.lds, args.ldd = bytes(stride), bytes(words)
	args.rows, args.cols = uintptr(rows), uintptr(k)
	v.rounds(first(args))
	return w.rounded, words
}

func (v *vector) epilogue(w *worker, e epilogue) {
	args := &w.args.epilogue
	args.acc, args.dst = matrix(e.acc, e.rows, e.cols, e.lda), matrix(e.dst, e.rows, e.cols, e.ldd)
	args.residual, args.times = nil, nil
	if e.residual != nil {
		args.residual = matrix(e.residual, e.rows, e.cols, e.ldd)
	}
	if e.times != nil {
		args.times = matrix(e.times, e.rows, e.cols, e.lda)
	}
	args.bias, args.gain = optional(e.bias, e.cols), optional(e.gain, e.cols)
	args.lda, args.ldd = bytes(e.lda), bytes(e.ldd)
	args.rows, args.cols = uintptr(e.rows), uintptr(e.cols)
	v.epilogues[e.act](first(args))
}

func (v *vector) normalise(w *worker, l *LayerNorm, from, to int) {
	width := len(l.Gain)
	args := &w.args.norm
	args.x, args.dst = matrix(l.X[from*width:], to-from, width, width), matrix(l.Dst[from*width:], to-from, width, width)
	args.gain, args.bias = &l.Gain[0], optional(l.Bias, width)
	args.width, args.rows, args.eps = uintptr(width), uintptr(to-from), l.Eps
	v.layerNorm(first(args))
}

func (v *vector) softmax(w *worker, s *columns, rows int) {
	panel := v.panel()
	args := &w.args.softmax
	args.scores = matrix(s.scores, rows, panel, panel)
	args.largest, args.sums = matrix(s.largest, 1, panel, 0), matrix(s.sums, 1, panel, 0)
	args.correct = matrix(s.correct, 1, panel, 0)
	args.rows, args.scale = uintptr(rows), s.scale
	v.soften(first(args))
}

func (v *vector) transpose(
	w *worker, src []float32, lds, rows, cols int, dst []float32, ldd, width int, factors []float32,
) {
	args := &w.args.transpose
	args.lds, args.ldd = bytes(lds), bytes(ldd)
	for col := 0; col < cols; col += v.lanes {
		n := min(v.lanes, cols-col)
		args.cols = uintptr(n)
		args.factors = matrix(factors[col:], 1, v.lanes, 0)
		for row := 0; row < width; row += v.lanes {
			have, write := min(v.lanes, max(rows-row, 0)), min(v.lanes, width-row)
			args.src = nil
			if have > 0 {
				args.src = matrix(src[row*lds+col:], have, n, lds)
			}
			args.dst = matrix(dst[col*ldd+row:], n, write, ldd)
			args.rows, args.width = uintptr(have), uintptr(write)
			v.turn(first(args))
		}
	}
}
