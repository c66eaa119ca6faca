package dinov2

import (
	"math"

	"github.com/switchyard-dev/switchyard/runtime/arch"
	"github.com/switchyard-dev/switchyard/runtime/nn"
)

// positions are the position embeddings of a batch's images, of any size: those trained, or resized to the grid of the
// image's patches.
type positions struct {
	batch   *nn.Batch
	config  *arch.DINOv2
	trained []float32 // [1 + patches, hidden]
	resized map[[2]int][]float32
}

// of is the positions of an image's tokens, [tokens, hidden]. transformers takes the trained grid for a square, and
// resizes it wherever the image is none or has another number of patches.
func (p *positions) of(in nn.Input) []float32 {
	hidden := p.config.HiddenSize
	rows, cols := in.Grid(p.config.PatchSize)
	trained := len(p.trained)/hidden - 1
	if rows*cols == trained && in.Height == in.Width {
		return p.trained
	}
	size := [2]int{rows, cols}
	if known, ok := p.resized[size]; ok {
		return known
	}
	side := int(math.Sqrt(float64(trained)))
	out := p.batch.Floats((1 + rows*cols) * hidden)
	copy(out, p.trained[:hidden])
	bicubic(out[hidden:], rows, cols, p.trained[hidden:], side, hidden)
	if p.resized == nil {
		p.resized = map[[2]int][]float32{}
	}
	p.resized[size] = out
	return out
}

// bicubic resizes a square grid of vectors [side, side, width] to dst [rows, cols, width], as PyTorch's
// interpolate(mode="bicubic", align_corners=False) does: no smoothing, and beyond the edge what is at the edge.
func bicubic(dst []float32, rows, cols int, src []float32, side, width int) {
	down, across := taps(rows, side), taps(cols, side)
	for y, v := range down {
		for x, h := range across {
			out := dst[(y*cols+x)*width : (y*cols+x+1)*width]
			clear(out)
			for i, wy := range v.weight {
				for j, wx := range h.weight {
					at := (v.index[i]*side + h.index[j]) * width
					w := wy * wx
					for k, value := range src[at : at+width] {
						out[k] += float32(w * value)
					}
				}
			}
		}
	}
}

// tap is the four places that a resized place is mixed of.
type tap struct {
	index  [4]int
	weight [4]float32
}

// taps resizes a line of n places to one of size places, by Keys' cubic with a = -0.75.
func taps(size, n int) []tap {
	const a = -0.75
	near := func(x float32) float32 { return ((a+2)*x-(a+3))*x*x + 1 }
	far := func(x float32) float32 { return ((a*x-5*a)*x+8*a)*x - 4*a }
	all := make([]tap, size)
	scale := float32(n) / float32(size)
	for i := range all {
		at := scale*(float32(i)+0.5) - 0.5
		first := math.Floor(float64(at))
		t := at - float32(first)
		all[i].weight = [4]float32{far(t + 1), near(t), near(1 - t), far(2 - t)}
		for j := range all[i].index {
			all[i].index[j] = min(max(int(first)-1+j, 0), n-1)
		}
	}
	return all
}
