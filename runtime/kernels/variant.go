package kernels

import (
	"fmt"
	"os"
	"strings"
)

// variant is the arithmetic for one kind of processor. What it computes of an element is the same instructions in the
// same order wherever the element stands: in a full tile or at its edge, in a vector or in its tail.
//
// Matrices are slices with the distance of two rows, in floats.
type variant interface {
	name() string
	// panel is the number of columns of a full panel of packed weights, and of a block of queries.
	panel() int
	// rows is how many rows are computed at once.
	rows() int
	// tile is c [rows, cols] = a [rows, k] · b [k, cols], or += that: one accumulator for each element, over all of k in
	// order. rows may be any number; cols is at most a panel; c has room for a whole one, of which all may be written, and
	// b has as many values behind its last as fill its last eight columns up, which may be read.
	tile(w *worker, t tile)
	// tilePairs is tile of a b of bfloat16, two k a word. Of an a of float32 it has the same bits as with b widened. Of a
	// rounded a each sum gains the two products of a word in turn, and numbers too small to be normal count as zero. ldk
	// is 1.
	tilePairs(w *worker, t tile)
	// round has rows of x [rows, k] as bfloat16, two k a word, as tilePairs takes them, until the worker's next; words is
	// the distance of two rows. nil: tilePairs takes float32.
	round(w *worker, x []float32, stride, rows, k int) (rounded []uint32, words int)
	// epilogue is dst = act(acc·gain + bias)·times + residual; what is nil is left out. times lies as acc, residual as
	// dst.
	epilogue(w *worker, e epilogue)
	// normalise is LayerNorm's rows [from, to).
	normalise(w *worker, l *LayerNorm, from, to int)
	// softmax goes on with the softmax of a panel of columns, over some more rows of scores.
	softmax(w *worker, s *columns, rows int)
	// transpose writes src [rows, cols] to dst [cols, width], what is beyond rows as zeros; each column of src is
	// multiplied by its factor.
	transpose(w *worker, src []float32, lds, rows, cols int, dst []float32, ldd, width int, factors []float32)
}

// tile are the operands of one tile.
type tile struct {
	a          []float32
	rounded    []uint32 // in place of a: [rows, k/2], as pairs
	lda, ldk   int      // distance of two rows of a, and of two of its columns
	b          []float32
	pairs      []uint32 // in place of b: [k/2, cols], the earlier k in the lower half
	ldb        int
	c          []float32
	ldc        int
	rows, cols int
	k          int
	add        bool // to c

	// What is needed soon may be fetched meanwhile: as much as b is, from so many values behind where b begins, and the
	// lines where dst's rows begin.
	ahead int
	dst   []float32 // [rows, ·] or nil
	ldd   int
}

// epilogue are the operands of an epilogue.
type epilogue struct {
	acc, times    []float32
	lda           int
	dst, residual []float32
	ldd           int
	bias, gain    []float32
	rows, cols    int
	act           Activation
}

// columns is the state of the softmax of a panel of columns.
type columns struct {
	scores  []float32 // [rows, panel]: become exp(scale·(score - largest))
	largest []float32 // [panel], so far
	sums    []float32 // [panel] of what scores became
	correct []float32 // [panel]: what is to be multiplied with whatever former rows made
	scale   float32
}

// Environment is the variable that forces a variant, for tests: portable, avx2, avx512, avx512bf16.
const Environment = "SWITCHYARD_KERNELS"

// active is what computes, chosen once when the process starts.
var active, errVariant = choose(os.Getenv(Environment), variants())

// choose is the variant of that name, or the best that there is; the last is. It is the portable one beside an error.
func choose(name string, variants []variant) (variant, error) {
	if name == "" {
		return variants[len(variants)-1], nil
	}
	names := make([]string, len(variants))
	for i, v := range variants {
		if names[i] = v.name(); names[i] == name {
			return v, nil
		}
	}
	return variants[0], fmt.Errorf("%s: expected one that this processor has, %s, found %q",
		Environment, strings.Join(names, ", "), name)
}

// Variant is the name of the kernels that compute: portable, avx2, avx512 or avx512bf16. The error is of an Environment
// that asks for what the processor lacks; a program is to end with it, before it computes.
func Variant() (string, error) { return active.name(), errVariant }
