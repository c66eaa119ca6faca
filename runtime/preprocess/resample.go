package preprocess

import "math"

// resample is how pixels are taken from the old grid to the new, as Pillow numbers it.
type resample int

const (
	nearest  resample = 0
	bilinear resample = 2
	bicubic  resample = 3
)

// filter is a kernel and the distance from its centre beyond which it is zero.
type filter struct {
	support float64
	kernel  func(x float64) float64
}

// filters are Pillow's, by its numbers: nearest (not a filter), Lanczos, bilinear, bicubic, box, Hamming.
var filters = [...]filter{
	1: {3, lanczosKernel},
	2: {1, bilinearKernel},
	3: {2, bicubicKernel},
	4: {0.5, boxKernel},
	5: {1, hammingKernel},
}

// canvas is where a part of a resized image goes.
type canvas struct {
	pix        []uint8
	stride, at int  // bytes from row to row, and before the first
	rows, cols span // of the resized image
}

// span are the whole numbers from start, up to but without end.
type span struct{ start, end int }

func (s span) len() int { return s.end - s.start }

// row is where row y of the resized image goes.
func (c *canvas) row(y, channels int) []uint8 {
	return c.pix[c.at+(y-c.rows.start)*c.stride:][:c.cols.len()*channels]
}

// resizeNearest takes for each new pixel the old one under its centre, as Pillow's ImagingScaleAffine (Geometry.c).
func (c *canvas) resizeNearest(source *picture, height, width int) {
	columns := nearestIndices(source.width, width, c.cols)
	channels := source.channels
	row := make([]uint8, source.width*channels)
	read := -1
	for i, from := range nearestIndices(source.height, height, c.rows) {
		if from != read {
			source.row(row, from)
			read = from
		}
		to := c.row(c.rows.start+i, channels)
		for x, from := range columns {
			copy(to[x*channels:][:channels], row[from*channels:])
		}
	}
}

// nearestIndices maps new indices to old ones. Positions are summed up rather than multiplied, as Pillow does, which
// decides those on a border. The error of the sum is far below half a step, so no index reaches in.
func nearestIndices(in, out int, wanted span) []int {
	step := float64(in) / float64(out)
	position := step * 0.5
	indices := make([]int, 0, wanted.len())
	for i := range wanted.end {
		if i >= wanted.start {
			indices = append(indices, int(position))
		}
		position += step
	}
	return indices
}

// precision is the number of fractional bits of a weight: 32, less 8 for the pixel and 2 for overshooting sums.
const precision = 32 - 8 - 2

// half is what a sum of weighted pixels starts from, so that it is rounded rather than cut.
const half = 1 << (precision - 1)

// resizeFiltered resizes as Pillow's ImagingResample does for 8-bit channels (Resample.c): one direction after the
// other, with weights in fixed point, and bytes between the two passes. A pass whose size stays the same is left out.
//
// Pillow keeps the image between the passes. Here each row is added to the sums of the new rows it belongs to and is
// forgotten: integers give the same sums in any order, and a tall image costs no memory.
func (c *canvas) resizeFiltered(source *picture, f filter, height, width int) {
	channels := source.channels
	var before, after []window // the horizontal pass, on whichever side of the vertical it is
	between := c.cols.len()    // the width between the passes
	switch {
	case source.width == width:
	case verticalFirst(source, height, width):
		after = windows(f, source.width, width, c.cols)
		between = source.width
	default:
		before = windows(f, source.width, width, c.cols)
	}
	row := make([]uint8, source.width*channels) // [old width, channels]
	read := func(to []uint8, y int) {           // to [between, channels]
		switch {
		case after != nil:
			source.row(to, y)
		case before != nil:
			source.row(row, y)
			resizeRow(to, row, before, channels)
		default:
			source.row(row, y)
			copy(to, row[c.cols.start*channels:])
		}
	}
	if source.height == height {
		for y := c.rows.start; y < c.rows.end; y++ {
			read(c.row(y, channels), y)
		}
		return
	}

	bytes := make([]uint8, between*channels)
	emit := func(y int, sums []int32) {
		to := c.row(y, channels)
		if after == nil {
			clipAll(to, sums)
			return
		}
		clipAll(bytes, sums)
		resizeRow(to, bytes, after, channels)
	}
	vertical := windows(f, source.height, height, c.rows)
	sums := make([][]int32, len(vertical)) // of the rows begun and not yet complete, [between, channels]
	var free [][]int32
	first := 0 // the first row not yet complete; starts and ends of the windows both ascend
	for y := vertical[0].start; y < source.height && first < len(vertical); y++ {
		if vertical[first].start > y {
			continue
		}
		read(bytes, y)
		for to := first; to < len(vertical) && vertical[to].start <= y; to++ {
			if sums[to] == nil {
				sums[to], free = start(free, between*channels)
			}
			add(sums[to], bytes, vertical[to].weights[y-vertical[to].start])
		}
		for first < len(vertical) && vertical[first].end() == y+1 {
			emit(c.rows.start+first, sums[first])
			free = append(free, sums[first])
			sums[first] = nil
			first++
		}
	}
}

// verticalFirst says whether Pillow lets the vertical pass go first: since 13.0 it does for heights that shrink much
// more than widths; before, it never did. Rounded between the passes, some bytes differ by one.
func verticalFirst(source *picture, height, width int) bool {
	shorter, narrower := source.height-height, source.width-width
	return shorter > 0 && shorter > 2*narrower
}

// start returns a row of sums that holds what rounds them, out of those free if there are any.
func start(free [][]int32, n int) (row []int32, rest [][]int32) {
	if last := len(free) - 1; last >= 0 {
		row, rest = free[last], free[:last]
	} else {
		row = make([]int32, n)
	}
	for i := range row {
		row[i] = half
	}
	return row, rest
}

// add adds a row of bytes, weighted.
func add(sums []int32, bytes []uint8, weight int32) {
	sums = sums[:len(bytes)]
	for i, value := range bytes {
		sums[i] += int32(value) * weight
	}
}

// clipAll turns sums into bytes.
func clipAll(dst []uint8, sums []int32) {
	for i, sum := range sums {
		dst[i] = clip(sum)
	}
}

// resizeRow resizes one row: src [old width, channels] to dst [width, channels].
func resizeRow(dst, src []uint8, windows []window, channels int) {
	if channels == 1 {
		for x, w := range windows {
			sum := int32(half)
			for i, value := range src[w.start:w.end()] {
				sum += int32(value) * w.weights[i]
			}
			dst[x] = clip(sum)
		}
		return
	}
	for x, w := range windows {
		r, g, b := int32(half), int32(half), int32(half)
		pixels := src[3*w.start : 3*w.end()]
		for _, weight := range w.weights {
			r += int32(pixels[0]) * weight
			g += int32(pixels[1]) * weight
			b += int32(pixels[2]) * weight
			pixels = pixels[3:]
		}
		dst[3*x], dst[3*x+1], dst[3*x+2] = clip(r), clip(g), clip(b)
	}
}

// clip is the byte of a sum.
func clip(sum int32) uint8 {
	return uint8(min(max(sum>>precision, 0), 255))
}

// window is what one new pixel is made of: weights, in units of 2^-precision, of the old pixels from start on.
type window struct {
	start   int
	weights []int32
}

func (w *window) end() int { return w.start + len(w.weights) }

// windows places the filter over the centre of each new pixel that is wanted. In making an image smaller the filter is
// widened by as much, so that every old pixel counts. All windows together have about 2·support·in weights.
//
// Products are converted explicitly, else Go may fuse them with a sum and round once where Pillow rounds twice.
func windows(f filter, in, out int, wanted span) []window {
	scale := float64(in) / float64(out)
	widening := max(scale, 1)
	support := float64(f.support * widening)
	invWidening := 1 / widening
	size := 2*int(math.Ceil(support)) + 1
	weights := make([]int32, 0, wanted.len()*min(size, in))
	exact := make([]float64, min(size, in))
	all := make([]window, wanted.len())
	for i := range all {
		center := float64((float64(wanted.start+i) + 0.5) * scale)
		start := max(int(center-support+0.5), 0)
		end := min(int(center+support+0.5), in)
		exact := exact[:end-start]
		var sum float64
		for j := range exact {
			exact[j] = f.kernel(float64((float64(j+start) - center + 0.5) * invWidening))
			sum += exact[j]
		}
		from := len(weights)
		for _, weight := range exact {
			if sum != 0 {
				weight /= sum
			}
			weights = append(weights, fixedPoint(weight))
		}
		all[i] = window{start, weights[from:len(weights):len(weights)]}
	}
	return all
}

// fixedPoint rounds to the nearest, halves away from zero.
func fixedPoint(weight float64) int32 {
	scaled := float64(weight * (1 << precision)) // exact: a power of two
	if weight < 0 {
		return int32(scaled - 0.5)
	}
	return int32(scaled + 0.5)
}

func boxKernel(x float64) float64 {
	if x > -0.5 && x <= 0.5 {
		return 1
	}
	return 0
}

func bilinearKernel(x float64) float64 {
	return max(1-math.Abs(x), 0)
}

// hammingKernel is a sinc in a Hamming window, whose two constants Pillow writes in single precision.
func hammingKernel(x float64) float64 {
	const a, b = float64(float32(0.54)), float64(float32(0.46))
	x = math.Abs(x)
	switch {
	case x == 0:
		return 1
	case x >= 1:
		return 0
	}
	x = float64(x * math.Pi)
	return float64(math.Sin(x) / x * (a + float64(b*math.Cos(x))))
}

// bicubicKernel is Keys' cubic convolution with a = -1/2.
func bicubicKernel(x float64) float64 {
	const a = -0.5
	x = math.Abs(x)
	switch {
	case x < 1:
		return float64(float64((float64((a+2)*x)-(a+3))*x)*x) + 1
	case x < 2:
		return float64((float64((float64((x-5)*x)+8)*x) - 4) * a)
	}
	return 0
}

// lanczosKernel is a sinc, windowed by one three times as wide.
func lanczosKernel(x float64) float64 {
	if x < -3 || x >= 3 {
		return 0
	}
	return float64(sinc(x) * sinc(x/3))
}

func sinc(x float64) float64 {
	if x == 0 {
		return 1
	}
	x = float64(x * math.Pi)
	return math.Sin(x) / x
}
