package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build" //nolint:revive,stylecheck // as avo's programs are written
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// begin starts a function of one pointer to a struct; field reads its fields.
func begin(name, doc string) (field func(offset int) reg.GPVirtual) {
	args := beginArgs(name, doc)
	return func(offset int) reg.GPVirtual { return read(args, offset) }
}

func beginArgs(name, doc string) (args reg.Register) {
	TEXT(name, NOSPLIT, "func(args *byte)")
	Doc(doc)
	return Load(Param("args"), GP64())
}

func read(args reg.Register, offset int) reg.GPVirtual {
	r := GP64()
	MOVQ(operand.Mem{Base: args, Disp: offset}, r)
	return r
}

func end() {
	VZEROUPPER()
	RET()
}

// The fields of a tile. Those of what is gone through lie where the next tile begins when one has ended.
const (
	tileA       = 8 * iota
	tileB       // of bfloat16 words
	tileC       //
	tileLdA     // bytes between two rows of a
	tileLdK     // and between two of its columns
	tileLdB     //
	tileLdC     //
	tileK       //
	tileColumns //
	tileAdd     // whether c is added to
	tileSoon    // what is fetched meanwhile
	tilePace    // how many bytes of it go with each row of b
	tileDst     // whose rows are fetched, too, or nil
	tileLdDst   //
	tileCount   // tiles, one below the other
)

// tile is c [rows, columns] = a [rows, k] · b [k, columns], or += that, for some tiles one below the other.
func tile(s set, rows, vectors int) {
	name := fmt.Sprintf("tile%s_%dx%d", s.name(), rows, vectors)
	tiles(s, name, fmt.Sprintf("%s computes tiles of %d rows and %d vectors.", name, rows, vectors), rows, vectors,
		func(t *accumulators) {
			ldk, k := t.field(tileLdK), t.field(tileK)
			Label("next")
			t.fetch()
			t.add(0, func(j int, to reg.VecVirtual) {
				t.masks[j].load(operand.Mem{Base: t.b, Disp: 4 * s.lanes() * j}, to)
			})
			for _, p := range t.pointers {
				ADDQ(ldk, p)
			}
			ADDQ(t.ldb, t.b)
			DECQ(k)
			JNZ(operand.LabelRef("next"))
		})
}

// pairs is tile of a b in words of two bfloat16, those of 2k and 2k+1, widened: of an odd k the last upper half counts
// for nothing. The columns of a are side by side.
func pairs(s set, rows, vectors int) {
	name := fmt.Sprintf("pairs%s_%dx%d", s.name(), rows, vectors)
	doc := fmt.Sprintf("%s computes tiles of %d rows and %d vectors, of bfloat16.", name, rows, vectors)
	tiles(s, name, doc, rows, vectors, func(t *accumulators) {
		add := func(upper bool, disp int) {
			t.add(disp, func(j int, to reg.VecVirtual) {
				t.masks[j].load(operand.Mem{Base: t.b, Disp: 4 * s.lanes() * j}, to)
				widen(to, upper)
			})
		}
		k := t.field(tileK)
		SUBQ(operand.U8(2), k)
		JB(operand.LabelRef("odd"))
		Label("next")
		t.fetch()
		add(false, 0)
		add(true, 4)
		for _, p := range t.pointers {
			ADDQ(operand.U8(8), p)
		}
		ADDQ(t.ldb, t.b)
		SUBQ(operand.U8(2), k)
		JAE(operand.LabelRef("next"))
		Label("odd")
		ADDQ(operand.U8(2), k)
		JZ(operand.LabelRef("done"))
		add(false, 0)
		Label("done")
	})
}

// widen has either the lower or the upper ones of words of two bfloat16 as float32. They are read twice rather than
// copied: with AVX2's 12 accumulators no register is left to copy to.
func widen(words reg.VecVirtual, upper bool) {
	if upper {
		VANDPS(bits(upperHalf), words, words)
	} else {
		VPSLLD(operand.U8(16), words, words)
	}
}

// accumulators of a tile [rows, vectors], and where what is added to them comes from.
type accumulators struct {
	set        set
	args       reg.Register
	acc        [][]reg.VecVirtual
	masks      []mask          // of vectors
	pointers   []reg.GPVirtual // to each third row of a
	lda        reg.GPVirtual
	b, ldb     reg.GPVirtual
	soon, pace reg.GPVirtual
}

func (t *accumulators) field(offset int) reg.GPVirtual { return read(t.args, offset) }

// tiles is a function of tiles [rows, vectors]; sum adds up what one is.
func tiles(s set, name, doc string, rows, vectors int, sum func(*accumulators)) {
	t := &accumulators{set: s, args: beginArgs(name, doc), masks: []mask{whole{}, whole{}}[:vectors]}
	if s.lanes() == 16 { // else whole vectors are read
		last := t.field(tileColumns)
		if vectors == 2 {
			SUBQ(operand.U8(16), last)
		}
		t.masks[vectors-1] = s.mask(last)
	}
	Label("tile")
	t.begin(rows)
	sum(t)
	t.end()
	DECQ(operand.Mem{Base: t.args, Disp: tileCount})
	JNZ(operand.LabelRef("tile"))
	end()
}

// begin has the pointers, and the accumulators zero or c's.
func (t *accumulators) begin(rows int) {
	t.lda, t.pointers = t.field(tileLdA), []reg.GPVirtual{t.field(tileA)}
	if rows > 3 {
		three := GP64()
		LEAQ(operand.Mem{Base: t.lda, Index: t.lda, Scale: 2}, three)
		for i := 3; i < rows; i += 3 {
			p := GP64()
			LEAQ(operand.Mem{Base: t.pointers[len(t.pointers)-1], Index: three, Scale: 1}, p)
			t.pointers = append(t.pointers, p)
		}
	}
	t.acc = make([][]reg.VecVirtual, rows)
	for i := range t.acc {
		for range t.masks {
			t.acc[i] = append(t.acc[i], zero(t.set))
		}
	}
	add := t.field(tileAdd)
	TESTQ(add, add)
	JZ(operand.LabelRef("begin"))
	t.rows(tileC, tileLdC, func(i int, at reg.GPVirtual) {
		for j := range t.acc[i] {
			VMOVUPS(operand.Mem{Base: at, Disp: 4 * t.set.lanes() * j}, t.acc[i][j])
		}
	})
	Label("begin")
	dst := t.field(tileDst)
	TESTQ(dst, dst)
	JZ(operand.LabelRef("away"))
	MOVQ(t.rows(tileDst, tileLdDst, func(_ int, at reg.GPVirtual) {
		PREFETCHT0(operand.Mem{Base: at})
	}), operand.Mem{Base: t.args, Disp: tileDst})
	Label("away")
	t.b, t.ldb = t.field(tileB), t.field(tileLdB)
	t.soon, t.pace = t.field(tileSoon), t.field(tilePace)
}

// rows goes through the rows of what a field points to, and returns where those below begin.
func (t *accumulators) rows(of, stride int, row func(i int, at reg.GPVirtual)) (end reg.GPVirtual) {
	at, ld := t.field(of), t.field(stride)
	for i := range t.acc {
		row(i, at)
		ADDQ(ld, at)
	}
	return at
}

// fetch fetches a little more of what is needed soon.
func (t *accumulators) fetch() {
	PREFETCHT1(operand.Mem{Base: t.soon})
	ADDQ(t.pace, t.soon)
}

// add adds one k: the values of a that are disp bytes from the pointers, times a row of b, which load has in registers.
func (t *accumulators) add(disp int, load func(j int, to reg.VecVirtual)) {
	row := make([]reg.VecVirtual, len(t.masks))
	for j := range row {
		row[j] = t.set.vec()
		load(j, row[j])
	}
	for i := range t.acc {
		from := operand.Mem{Base: t.pointers[i/3], Disp: disp}
		if i%3 > 0 {
			from.Index, from.Scale = t.lda, uint8(i%3) //nolint:gosec // 1 or 2
		}
		t.set.fma(from, row, t.acc[i])
	}
}

// end writes the accumulators to c, and has the fields where the next tile begins.
func (t *accumulators) end() {
	MOVQ(t.rows(tileC, tileLdC, func(i int, at reg.GPVirtual) {
		for j := range t.acc[i] {
			VMOVUPS(t.acc[i][j], operand.Mem{Base: at, Disp: 4 * t.set.lanes() * j})
		}
	}), operand.Mem{Base: t.args, Disp: tileC})
	below := GP64()
	IMUL3Q(operand.U8(len(t.acc)), t.lda, below) //nolint:gosec // at most 12
	ADDQ(below, operand.Mem{Base: t.args, Disp: tileA})
	MOVQ(t.soon, operand.Mem{Base: t.args, Disp: tileSoon})
}

// epilogue is dst = act(acc·gain + bias)·times + residual by rows. Fields: acc, dst, residual, bias, gain, times (the
// last four may be nil), the bytes between two rows of acc and times, and of dst and residual; rows, columns.
func epilogue(s set, act activation) {
	name := "epilogue" + s.name() + "_" + act.name
	field := begin(name, name+" finishes a block of a product.")
	acc, dst, residual, bias, gain, times := field(0), field(8), field(16), field(24), field(32), field(40)
	rows, cols := field(64), field(72)
	size := 4 * s.lanes()
	chunk := func(at reg.GPVirtual, m mask, suffix string) {
		x, y := s.vec(), s.vec()
		m.load(operand.Mem{Base: acc, Index: at, Scale: 1}, x)
		optional := func(p reg.GPVirtual, name string, then func()) {
			TESTQ(p, p)
			JZ(operand.LabelRef(name + suffix))
			m.load(operand.Mem{Base: p, Index: at, Scale: 1}, y)
			then()
			Label(name + suffix)
		}
		optional(gain, "gainless", func() { VMULPS(y, x, x) })
		optional(bias, "biasless", func() { VADDPS(y, x, x) })
		if act.emit != nil {
			act.emit(s, x)
		}
		optional(times, "timeless", func() { VMULPS(y, x, x) })
		optional(residual, "bare", func() { VADDPS(y, x, x) })
		m.store(x, operand.Mem{Base: dst, Index: at, Scale: 1})
	}
	Label("row")
	at, left := GP64(), GP64()
	XORQ(at, at)
	MOVQ(cols, left)
	inChunks(s, at, left, size, chunk)
	lda, ldd := field(48), field(56)
	ADDQ(lda, acc)
	TESTQ(times, times)
	JZ(operand.LabelRef("alone"))
	ADDQ(lda, times)
	Label("alone")
	ADDQ(ldd, dst)
	TESTQ(residual, residual)
	JZ(operand.LabelRef("following"))
	ADDQ(ldd, residual)
	Label("following")
	DECQ(rows)
	JNZ(operand.LabelRef("row"))
	end()
}

// inChunks runs chunk for each vector of left values, the last under a mask where it is not full.
func inChunks(s set, at, left reg.GPVirtual, size int, chunk func(at reg.GPVirtual, m mask, suffix string)) {
	labels++
	n := fmt.Sprint(labels)
	Label("chunk" + n)
	CMPQ(left, operand.U8(s.lanes())) //nolint:gosec // 8 or 16
	JB(operand.LabelRef("tail" + n))
	chunk(at, whole{}, "_"+n)
	ADDQ(operand.U8(size), at)        //nolint:gosec // 32 or 64
	SUBQ(operand.U8(s.lanes()), left) //nolint:gosec // 8 or 16
	JMP(operand.LabelRef("chunk" + n))
	Label("tail" + n)
	TESTQ(left, left)
	JZ(operand.LabelRef("done" + n))
	chunk(at, s.mask(left), "_tail"+n)
	Label("done" + n)
}

var labels int

// layerNorm normalises rows. Fields: x, dst, gain, bias (may be nil), width, rows, eps as float64.
//
// The mean is a float64 sum, taken off in two parts: what is near it loses nothing.
func layerNorm(s set) {
	name := "layerNorm" + s.name()
	field := begin(name, name+" normalises rows.")
	x, dst, gain, bias, width, rows := field(0), field(8), field(16), field(24), field(32), field(40)
	n := XMM()
	VXORPS(n, n, n)
	VCVTSI2SDQ(width, n, n)
	size := 4 * s.lanes()
	pass := func(chunk func(at reg.GPVirtual, m mask, suffix string)) {
		at, left := GP64(), GP64()
		XORQ(at, at)
		MOVQ(width, left)
		inChunks(s, at, left, size, chunk)
	}
	Label("row")
	sums := [2]reg.VecVirtual{zero(s), zero(s)}
	pass(func(at reg.GPVirtual, m mask, _ string) {
		v := s.vec()
		m.load(operand.Mem{Base: x, Index: at, Scale: 1}, v)
		s.doubles(v, sums)
	})
	mean := s.sum(sums)
	VDIVSD(n, mean, mean)
	high, low := XMM(), XMM()
	VCVTSD2SS(mean, mean, high)
	VCVTSS2SD(high, high, low)
	VSUBSD(low, mean, low)
	VCVTSD2SS(low, low, low)
	high1, low1 := s.broadcast(high), s.broadcast(low)
	centre := func(at reg.GPVirtual, m mask) reg.VecVirtual {
		v := s.vec()
		m.load(operand.Mem{Base: x, Index: at, Scale: 1}, v)
		VSUBPS(high1, v, v)
		VSUBPS(low1, v, v)
		return v
	}
	squares := zero(s)
	pass(func(at reg.GPVirtual, m mask, _ string) {
		v := centre(at, m)
		m.clear(v)
		VFMADD231PS(v, v, squares)
	})
	wide := [2]reg.VecVirtual{zero(s), zero(s)}
	s.doubles(squares, wide)
	variance := s.sum(wide)
	VDIVSD(n, variance, variance)
	eps := XMM()
	VMOVQ(field(48), eps)
	VADDSD(eps, variance, variance)
	VSQRTSD(variance, variance, variance)
	VCVTSD2SS(variance, variance, variance)
	deviation := s.broadcast(variance)
	factor := s.vec()
	VMOVUPS(constant(1), factor)
	VDIVPS(deviation, factor, factor)
	pass(func(at reg.GPVirtual, m mask, suffix string) {
		v, y := centre(at, m), s.vec()
		VMULPS(factor, v, v)
		m.load(operand.Mem{Base: gain, Index: at, Scale: 1}, y)
		VMULPS(y, v, v)
		TESTQ(bias, bias)
		JZ(operand.LabelRef("biasless" + suffix))
		m.load(operand.Mem{Base: bias, Index: at, Scale: 1}, y)
		VADDPS(y, v, v)
		Label("biasless" + suffix)
		m.store(v, operand.Mem{Base: dst, Index: at, Scale: 1})
	})
	LEAQ(operand.Mem{Base: x, Index: width, Scale: 4}, x)
	LEAQ(operand.Mem{Base: dst, Index: width, Scale: 4}, dst)
	DECQ(rows)
	JNZ(operand.LabelRef("row"))
	end()
}

// softmax goes on with the softmax of two vectors of columns, over some more rows of scores: these become
// exp(scale·(score - largest)). Fields: scores [rows, 2 vectors], largest, sums, and corrections [2 vectors] each; rows;
// scale as float32. Corrections are what former weights and sums are to be multiplied by; the sums have been.
func softmax(s set) {
	name := "softmax" + s.name()
	field := begin(name, name+" goes on with the softmax of columns.")
	scores, largest, sums, corrections, rows := field(0), field(8), field(16), field(24), field(32)
	xmm := XMM()
	VMOVD(field(40).As32(), xmm)
	factor := s.broadcast(xmm)
	size := 4 * s.lanes()
	top := [2]reg.VecVirtual{s.vec(), s.vec()}
	for i := range top {
		VMOVUPS(operand.Mem{Base: largest, Disp: size * i}, top[i])
	}
	at, left := GP64(), GP64()
	MOVQ(scores, at)
	MOVQ(rows, left)
	Label("seek")
	for i := range top {
		v := s.vec()
		VMOVUPS(operand.Mem{Base: at, Disp: size * i}, v)
		VMAXPS(v, top[i], top[i]) // a NaN stays one, here or below
	}
	ADDQ(operand.U8(2*size), at) //nolint:gosec // 64 or 128
	DECQ(left)
	JNZ(operand.LabelRef("seek"))
	total := [2]reg.VecVirtual{s.vec(), s.vec()}
	// weigh takes the largest off before it scales: what is the largest weighs 1, and what was is corrected by 1, exactly.
	weigh := func(i int, score reg.VecVirtual) {
		VSUBPS(top[i], score, score)
		VMULPS(factor, score, score)
		exp(s, score)
	}
	for i := range top {
		was := s.vec()
		VMOVUPS(operand.Mem{Base: largest, Disp: size * i}, was)
		VMOVUPS(top[i], operand.Mem{Base: largest, Disp: size * i})
		weigh(i, was)
		VMOVUPS(was, operand.Mem{Base: corrections, Disp: size * i})
		VMULPS(operand.Mem{Base: sums, Disp: size * i}, was, total[i])
	}
	Label("weigh")
	for i := range top {
		v := s.vec()
		VMOVUPS(operand.Mem{Base: scores, Disp: size * i}, v)
		weigh(i, v)
		VMOVUPS(v, operand.Mem{Base: scores, Disp: size * i})
		VADDPS(v, total[i], total[i])
	}
	ADDQ(operand.U8(2*size), scores) //nolint:gosec // 64 or 128
	DECQ(rows)
	JNZ(operand.LabelRef("weigh"))
	for i := range top {
		VMOVUPS(total[i], operand.Mem{Base: sums, Disp: size * i})
	}
	end()
}

// transpose writes the columns of src as rows of dst, each times its factor, for at most as many rows and columns as a
// vector has lanes. Fields: src, dst, the bytes between two rows of src, and of dst; rows of src (those beyond count as
// zeros); columns of src; how many values are written of each row of dst; factors [a vector].
func transpose(s set) {
	name := "transpose" + s.name()
	field := begin(name, name+" transposes a block.")
	src, dst, lds, ldd, rows, cols, width := field(0), field(8), field(16), field(24), field(32), field(40), field(48)
	factors := s.vec()
	VMOVUPS(operand.Mem{Base: field(56)}, factors)
	in := make([]reg.VecVirtual, s.lanes())
	for i := range in {
		in[i] = zero(s)
	}
	m := s.mask(cols)
	for i := range in {
		CMPQ(rows, operand.U8(i)) //nolint:gosec // below 16
		JE(operand.LabelRef("read"))
		m.load(operand.Mem{Base: src}, in[i])
		VMULPS(factors, in[i], in[i])
		ADDQ(lds, src)
	}
	Label("read")
	u := make([][4]reg.VecVirtual, s.lanes()/4)
	for g := range u {
		pair := func(x, y reg.VecVirtual) (low, high reg.VecVirtual) {
			low, high = s.vec(), s.vec()
			VUNPCKLPS(y, x, low)
			VUNPCKHPS(y, x, high)
			return low, high
		}
		fours := func(x, y reg.VecVirtual) (low, high reg.VecVirtual) {
			low, high = s.vec(), s.vec()
			VUNPCKLPD(y, x, low)
			VUNPCKHPD(y, x, high)
			return low, high
		}
		low0, high0 := pair(in[4*g], in[4*g+1])
		low1, high1 := pair(in[4*g+2], in[4*g+3])
		u[g][0], u[g][1] = fours(low0, low1)
		u[g][2], u[g][3] = fours(high0, high1)
	}
	out := s.columns(u)
	write := func(m mask) {
		for i := range out {
			CMPQ(cols, operand.U8(i)) //nolint:gosec // below 16
			JE(operand.LabelRef("written"))
			m.store(out[i], operand.Mem{Base: dst})
			ADDQ(ldd, dst)
		}
	}
	CMPQ(width, operand.U8(s.lanes())) //nolint:gosec // 8 or 16
	JB(operand.LabelRef("narrow"))
	write(whole{}) // under a mask AVX2 stores slowly
	JMP(operand.LabelRef("written"))
	Label("narrow")
	write(s.mask(width))
	Label("written")
	end()
}
