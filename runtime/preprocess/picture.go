package preprocess

// picture is a decoded image that is read by rows, so that no second copy of it is made.
type picture struct {
	channels, height, width int
	rows
}

// rows writes row y of an image to dst [width, channels].
type rows interface {
	row(dst []uint8, y int)
}

// indexed are rows of indices into a palette; one shade alone is written for a model of one channel.
type indexed struct {
	width, channels int
	palette         *[256][3]uint8
	indices         func(y int) []uint8 // [width], valid until the next call
}

func (p *indexed) row(dst []uint8, y int) {
	indices := p.indices(y)
	for x := range p.width {
		copy(dst[x*p.channels:], p.palette[indices[x]][:p.channels])
	}
}

// isGrey tells whether a palette is the shades of grey in their order, as far as it goes.
func isGrey(palette [][3]uint8) bool {
	for i, c := range palette {
		if shade := uint8(i); c != [3]uint8{shade, shade, shade} {
			return false
		}
	}
	return true
}

// overWhite lays a value on white, rounding as Pillow's ImagingAlphaComposite (AlphaComposite.c): weights have 7 more
// bits than alpha, and the division by 255 is by shifts.
func overWhite(value, alpha uint8) uint8 {
	const bits = 7
	weight := uint32(alpha) << bits
	sum := uint32(value)*weight + 255*(255<<bits-weight) + 0x80<<bits
	return uint8(min((sum>>8+sum)>>8>>bits, 255))
}

// clamp is the nearest byte.
func clamp(value int32) uint8 { return uint8(min(max(value, 0), 255)) }
