package nn

import (
	"slices"

	"github.com/switchyard-dev/switchyard/runtime/memory"
)

// Arena is memory that forward passes work with, one after the other: what one leaves, the next writes over. It is as
// large as what the largest batch so far took at once. It lies off the heap, and lasts until it is freed.
type Arena struct {
	blocks []block
	at     Place
	most   int // values that were taken at once
}

// block is values that lie side by side, and the memory that they are all of.
type block struct {
	values []float32
	memory *memory.Region
}

// Place is how much of an arena is taken.
type Place struct{ block, used, total int }

// take is n values, of whatever was there.
func (a *Arena) take(n int) []float32 {
	taken := a.find(n)
	if taken == nil {
		taken = a.grow(n)
	}
	a.at.total += n
	a.most = max(a.most, a.at.total)
	return taken
}

// find is n values of the blocks that there are, or nil.
func (a *Arena) find(n int) []float32 {
	for a.at.block < len(a.blocks) {
		values, end := a.blocks[a.at.block].values, a.at.used+n
		switch {
		case end <= len(values):
			taken := values[a.at.used:end:end]
			a.at.used = end
			return taken
		case a.at.used > 0: // the rest of a block that is in use
			a.at.block, a.at.used = a.at.block+1, 0
		default: // a free one that is too small gives way to one that is not
			a.free(a.at.block, a.at.block+1)
		}
	}
	return nil
}

// grow is n values of a new block. The first block has room for all that was taken at once before. Where the system has
// none for that, it is forgotten: the next batch takes no more than it needs.
func (a *Arena) grow(n int) []float32 {
	size := n
	if len(a.blocks) == 0 {
		size, a.most = max(n, a.most), 0
	}
	region := &memory.Region{}
	values := memory.Make[float32](region, size)
	region.Seal()
	a.blocks = append(a.blocks, block{values, region})
	a.at.used, a.most = n, max(size, a.most)
	return values[:n:n]
}

// free gives back the blocks [from, to).
func (a *Arena) free(from, to int) {
	for _, b := range a.blocks[from:to] {
		b.memory.Free()
	}
	a.blocks = slices.Delete(a.blocks, from, to)
}

// Most is how many values were taken at once so far.
func (a *Arena) Most() int { return a.most }

// Reset gives back all that was taken. What lay in several blocks will lie in one.
func (a *Arena) Reset() {
	if len(a.blocks) > 1 {
		a.free(0, len(a.blocks))
	}
	a.at = Place{}
}

// Free gives back the memory itself: nothing that was taken may be used any more.
func (a *Arena) Free() {
	a.free(0, len(a.blocks))
	a.at = Place{}
}

// Floats are n values for a batch to work with, of whatever was there before: until what Mark told is given to Free, or
// until the batch ends.
func (b *Batch) Floats(n int) []float32 { return b.memory().take(n) }

// Mark tells how much of the batch's memory is taken.
func (b *Batch) Mark() Place { return b.memory().at }

// Free gives back all that was taken since Mark told that place.
func (b *Batch) Free(to Place) { b.memory().at = to }

// memory is the batch's arena, one of its own where it was given none.
func (b *Batch) memory() *Arena {
	if b.arena == nil {
		b.arena = &Arena{}
	}
	return b.arena
}
