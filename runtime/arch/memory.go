package arch

// What the runtime computes together: so many rows, of so many tokens. Beyond a few a batch gains nothing on CPUs, and
// a long one makes the next request wait. A row of more tokens is a batch of its own. They stand here so that who runs
// batches (cmd/runtime) and who says how much memory they take (controllers/inferencepool) mean the same.
const (
	MaxBatchRows   = 32
	MaxBatchTokens = 1 << 14
)

// What requests take of memory together, whatever is asked: RequestBytes from the first byte of a body to the answer,
// enough for the largest request of 256 images of 224 x 224; DecodingBytes while images are decoded, enough for the
// largest.
const (
	RequestBytes  = 384 << 20
	DecodingBytes = 192 << 20
)

// MaxTokenizers is how many instances of a tokenizer a process has at most: one encodes thousands of texts a second,
// and each has a vocabulary of its own, so more would take memory for nothing.
const MaxTokenizers = 2

// Bytes is the memory that the parameters take, kept as dtype.
func (d *Description) Bytes(dtype DType) int64 {
	total := int64(0)
	for i := range d.Modules {
		m := &d.Modules[i]
		if !d.Has(m) {
			continue
		}
		for _, p := range m.Params {
			n := int64(1)
			for _, dim := range p.Shape {
				n *= int64(dim)
			}
			total += n * dtype.ValueBytes(m, p.Name)
		}
	}
	return total
}

// MaxTokens is the most tokens that a row has.
func (d *Description) MaxTokens() int {
	if d.Text != nil {
		return d.Text.MaxTokens
	}
	return d.work(0).tokens
}

// BatchBytes is the memory that computing so many rows takes at once beside the weights, with updates of at most that
// rank in every layer: what a layer works with, the same of a row of an adapter that is tried meanwhile (a text of one
// token), an eighth more for what does not fit side by side until an arena has grown, and the inputs. Heads are not
// counted: they are small. Where images may have any size, there may be as many tokens as are computed together.
func (d *Description) BatchBytes(rows, rank int) int64 {
	w := d.work(rank)
	most, input := int64(max(MaxBatchTokens, w.tokens)), int64(rows)*w.input
	tokens, tried := min(int64(rows)*int64(w.tokens), most), int64(1)
	if i := d.Image; i != nil {
		tried = int64(w.tokens)
		if i.Patch != [2]int{} {
			tokens, input = most, most*int64(i.Channels*i.Patch[0]*i.Patch[1])
		}
	}
	arenas := (tokens+tried)*(w.layer+w.embed) + int64(rows+1)*w.row + 2*w.batch
	return bytesPerValue * (arenas + arenas/8 + input + w.input + w.kept)
}

const bytesPerValue = 4 // of float32

// work is how many values a forward pass works with at once.
type work struct {
	tokens       int   // of a row at most
	input        int64 // values of a row's input
	embed, layer int64 // of a token, in the embeddings and in a layer
	row          int64 // of a row, however many tokens it has
	batch        int64 // of a batch, however many rows it has
	kept         int64 // of one batch for all that follow
}

// encoderWork is that of a transformer's layer: the hidden state, its norm, query, key, value and the intermediate
// state of every token, and the updates' inner products.
func encoderWork(hidden, inner, rank int) int64 {
	const hiddenStates, updates = 5, 3
	return hiddenStates*int64(hidden) + int64(inner) + updates*int64(rank)
}
