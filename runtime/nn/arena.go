package nn

// Arena is memory that forward passes work with, one after the other: what one leaves, the next writes over. It is as
// large as what the largest batch so far took at once.
type Arena struct {
	blocks [][]float32
	at     Place
	most   int // values that were taken at once
}

// Place is how much of an arena is taken.
type Place struct{ block, used, total int }

// take is n values, of whatever was there.
func (a *Arena) take(n int) []float32 {
	a.at.total += n
	a.most = max(a.most, a.at.total)
	inUse := a.at.block // blocks: what is behind the place is free
	if a.at.used > 0 {
		inUse++
	}
	for ; a.at.block < len(a.blocks); a.at.block, a.at.used = a.at.block+1, 0 {
		if block, end := a.blocks[a.at.block], a.at.used+n; end <= len(block) {
			taken := block[a.at.used:end:end]
			a.at.used = end
			return taken
		}
	}
	// No free block is large enough: they give way to one that is.
	a.blocks = a.blocks[:min(inUse, len(a.blocks))]
	size := n
	if len(a.blocks) == 0 {
		size = a.most
	}
	block := make([]float32, size)
	a.blocks = append(a.blocks, block)
	a.at.block, a.at.used = len(a.blocks)-1, n
	return block[:n:n]
}

// Most is how many values were taken at once so far.
func (a *Arena) Most() int { return a.most }

// Reset gives back all that was taken. What lay in several blocks will lie in one.
func (a *Arena) Reset() {
	if len(a.blocks) > 1 {
		a.blocks = nil
	}
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
