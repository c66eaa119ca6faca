package arch

// MaxBatchRows is how many rows the runtime computes together. Beyond a few a batch gains nothing on CPUs, and a long
// one makes the next request wait. It stands here so that who runs batches (cmd/runtime) and who says how much memory
// they take (controllers/inferencepool) mean the same.
const MaxBatchRows = 32

// Bytes is the memory that the parameters take.
func (d *Description) Bytes() int64 {
	total := int64(0)
	for _, m := range d.Modules {
		for _, p := range m.Params {
			n := int64(1)
			for _, dim := range p.Shape {
				n *= int64(dim)
			}
			total += n * bytesPerValue
		}
	}
	return total
}

// BatchBytes is the memory that computing so many rows takes at once beside the weights, with updates of at most that
// rank in every layer: what a layer works with, once more for what the layer before has left to the garbage collector,
// and the inputs. Heads are not counted: they are small.
func (d *Description) BatchBytes(rows, rank int) int64 {
	work := d.work(rank)
	return int64(rows) * bytesPerValue * (int64(d.Image.Channels*d.Image.Height*d.Image.Width) + work.embed + 2*work.layer)
}

const bytesPerValue = 4 // of float32

// work is how many values a row's forward pass works with at once.
type work struct{ embed, layer int64 }

// work of a ViT: its embeddings unfold the image into patches and project them; a layer has the hidden state, its norm,
// query, key, value and the intermediate state of every token, and the updates' inner products.
func (c *ViT) work(rank int) work {
	rows, cols := c.Patches()
	patches := int64(rows * cols)
	unfolded := patches * int64(c.NumChannels*c.PatchSize[0]*c.PatchSize[1])
	const hiddenStates, updates = 5, 3
	perToken := hiddenStates*int64(c.HiddenSize) + int64(c.IntermediateSize) + updates*int64(rank)
	return work{embed: unfolded + patches*int64(c.HiddenSize), layer: (patches + 1) * perToken}
}
