package kernels

import "math"

// portable is the variant in Go, for any processor. 4 x 2 accumulators fit the sixteen scalar registers of amd64 with
// the operands beside them; 4 x 4 spill.
type portable struct{}

func (portable) name() string { return "portable" }
func (portable) panel() int   { return 2 }
func (portable) rows() int    { return 4 }

func (portable) tile(_ *worker, t tile) {
	r := 0
	for ; r+4 <= t.rows; r += 4 {
		t.rows4(r)
	}
	for ; r < t.rows; r++ {
		t.row(r)
	}
}

// tilePairs widens b by parts, between which the accumulators are put down: that changes no bit of them.
func (p portable) tilePairs(w *worker, t tile) {
	const most = 64 // of the k at once
	var b [2 * most]float32
	a, pairs, k := t.a, t.pairs, t.k
	t.b = b[:]
	for first := 0; first < k; first += most {
		t.a, t.k = a[first:], min(most, k-first)
		for i := range t.k {
			pair := pairs[(first+i)/2*t.ldb:][:2]
			b[2*i], b[2*i+1] = half(pair[0], i), half(pair[1], i)
		}
		part := t
		part.ldb = 2
		p.tile(w, part)
		t.add = true
	}
}

// rows4 computes four rows from r on. Its sums are those of row, to the bit.
func (t *tile) rows4(r int) {
	c := t.c[r*t.ldc:]
	c0, c1, c2, c3 := c[:2], c[t.ldc:][:2], c[2*t.ldc:][:2], c[3*t.ldc:][:2]
	var s00, s01, s10, s11, s20, s21, s30, s31 float32
	if t.add {
		s00, s01, s10, s11, s20, s21, s30, s31 = c0[0], c0[1], c1[0], c1[1], c2[0], c2[1], c3[0], c3[1]
	}
	a0 := t.a[r*t.lda:]
	a1, a2, a3 := a0[t.lda:], a0[2*t.lda:], a0[3*t.lda:]
	for i, at := 0, 0; i < t.k; i, at = i+1, at+t.ldk {
		b := (*[2]float32)(t.b[i*t.ldb:])
		b0, b1 := b[0], b[1]
		v := a0[at]
		s00 += float32(v * b0)
		s01 += float32(v * b1)
		v = a1[at]
		s10 += float32(v * b0)
		s11 += float32(v * b1)
		v = a2[at]
		s20 += float32(v * b0)
		s21 += float32(v * b1)
		v = a3[at]
		s30 += float32(v * b0)
		s31 += float32(v * b1)
	}
	c0[0], c0[1], c1[0], c1[1], c2[0], c2[1], c3[0], c3[1] = s00, s01, s10, s11, s20, s21, s30, s31
}

func (t *tile) row(r int) {
	c := t.c[r*t.ldc:][:2]
	var s0, s1 float32
	if t.add {
		s0, s1 = c[0], c[1]
	}
	a := t.a[r*t.lda:]
	for i := range t.k {
		b := (*[2]float32)(t.b[i*t.ldb:])
		v := a[i*t.ldk]
		s0 += float32(v * b[0])
		s1 += float32(v * b[1])
	}
	c[0], c[1] = s0, s1
}

func (portable) round(*worker, []float32, int, int, int) (rounded []uint32, words int) { return nil, 0 }

func (portable) epilogue(_ *worker, e epilogue) {
	for r := range e.rows {
		acc, dst := e.acc[r*e.lda:][:e.cols], e.dst[r*e.ldd:][:e.cols]
		for i, v := range acc {
			if e.gain != nil {
				v = float32(v * e.gain[i])
			}
			if e.bias != nil {
				v += e.bias[i]
			}
			v = e.act.of(v)
			if e.times != nil {
				v = float32(v * e.times[r*e.lda+i])
			}
			if e.residual != nil {
				v += e.residual[r*e.ldd+i]
			}
			dst[i] = v
		}
	}
}

// normalise sums in float64: the mean of values that nearly cancel keeps its digits at any width.
func (portable) normalise(_ *worker, l *LayerNorm, from, to int) {
	width := len(l.Gain)
	for r := from; r < to; r++ {
		x, dst := l.X[r*width:(r+1)*width], l.Dst[r*width:(r+1)*width]
		sum := 0.0
		for _, v := range x {
			sum += float64(v)
		}
		mean := sum / float64(width)
		squares := 0.0
		for _, v := range x {
			d := float64(v) - mean
			squares += float64(d * d)
		}
		scale := 1 / math.Sqrt(squares/float64(width)+l.Eps)
		for i, v := range x {
			normal := float32((float64(v) - mean) * scale)
			dst[i] = float32(normal * l.Gain[i])
			if l.Bias != nil {
				dst[i] += l.Bias[i]
			}
		}
	}
}

func (portable) softmax(_ *worker, s *columns, rows int) {
	for c := range 2 {
		largest := s.largest[c]
		for r := range rows {
			largest = max(largest, s.scores[2*r+c])
		}
		weight := func(score float32) float32 {
			return float32(math.Exp(float64(s.scale) * (float64(score) - float64(largest))))
		}
		s.correct[c] = weight(s.largest[c])
		sum := float32(s.sums[c] * s.correct[c])
		for r := range rows {
			v := weight(s.scores[2*r+c])
			s.scores[2*r+c] = v
			sum += v
		}
		s.largest[c], s.sums[c] = largest, sum
	}
}

func (portable) transpose(
	_ *worker, src []float32, lds, rows, cols int, dst []float32, ldd, width int, factors []float32,
) {
	for c := range cols {
		to := dst[c*ldd:][:width]
		for r := range to {
			if to[r] = 0; r < rows {
				to[r] = src[r*lds+c] * factors[c]
			}
		}
	}
}
