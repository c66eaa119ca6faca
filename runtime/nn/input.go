package nn

import (
	"hash/maphash"
	"math"
	"slices"
)

// Input is what a row asks about: an image, or a text's tokens.
type Input struct {
	Pixels        []float32 // [channels, Height, Width]
	Height, Width int

	IDs   []int32
	Types []int32 // of each id; nil: all 0
}

// Grid is how many whole patches of that size an image has: rows and columns.
func (in Input) Grid(patch [2]int) (rows, cols int) { return in.Height / patch[0], in.Width / patch[1] }

// looked is how many values of an input go into its hash, spread over all.
const looked = 64

var seed = maphash.MakeSeed()

// Hash is the same for inputs that are the same. It costs little, and looks at a part of the input alone.
func (in *Input) Hash() uint64 {
	var h maphash.Hash
	h.SetSeed(seed)
	maphash.WriteComparable(&h, [...]int{len(in.Pixels), in.Width, len(in.IDs)})
	for i := 0; i < len(in.Pixels); i += max(1, len(in.Pixels)/looked) {
		maphash.WriteComparable(&h, math.Float32bits(in.Pixels[i]))
	}
	for i := 0; i < len(in.IDs); i += max(1, len(in.IDs)/looked) {
		maphash.WriteComparable(&h, in.IDs[i])
	}
	return h.Sum64()
}

// Same tells whether two inputs are the same, bit by bit.
func (in *Input) Same(other *Input) bool {
	return in.Height == other.Height && in.Width == other.Width && slices.Equal(in.IDs, other.IDs) &&
		(in.Types == nil) == (other.Types == nil) && slices.Equal(in.Types, other.Types) &&
		slices.EqualFunc(in.Pixels, other.Pixels, sameBits)
}

func sameBits(a, b float32) bool { return math.Float32bits(a) == math.Float32bits(b) }
