package nn

// Patches cuts the images of the batch into patches and projects each: [patches of all rows, width], an image's row by
// row.
func (b *Batch) Patches(projection *Linear, channels int, patch [2]int) []float32 {
	at := 0
	var patches []Segment
	for _, s := range b.Rows {
		start := at
		for _, in := range b.Inputs[s.Start:s.End] {
			rows, cols := in.Grid(patch)
			at += rows * cols
		}
		patches = append(patches, Segment{start, at, s.Adapter})
	}
	projected := b.Floats(at * projection.out)
	defer b.Free(b.Mark())
	unfolded := b.Floats(at * projection.in)[:0]
	for _, in := range b.Inputs {
		unfolded = in.unfold(unfolded, channels, patch)
	}
	b.Linear(patches, unfolded, Product{Layer: projection, Dst: projected})
	return projected
}

// unfold appends each patch of the image as the convolution's weight lies: channel by channel, row by row.
func (in Input) unfold(to []float32, channels int, patch [2]int) []float32 {
	rows, cols := in.Grid(patch)
	for row := range rows {
		for col := range cols {
			for channel := range channels {
				for y := range patch[0] {
					at := (channel*in.Height+row*patch[0]+y)*in.Width + col*patch[1]
					to = append(to, in.Pixels[at:at+patch[1]]...)
				}
			}
		}
	}
	return to
}
