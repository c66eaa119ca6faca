package preprocess

import (
	"fmt"
	"image"
)

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

// samples are rows of decoded pixels, one behind the other.
type samples struct {
	channels, width int

	pix    []uint8
	stride int  // bytes from row to row
	step   int  // bytes from pixel to pixel
	sample int  // bytes from one channel of a pixel to the next; 0 repeats grey
	alpha  int  // where a pixel's alpha is, if images are to be laid on white; else 0
	clip   bool // 16-bit grey
}

// set takes over the decoder's pixels as they are in the file: colours not multiplied by alpha, 16 bits big-endian.
func (p *samples) set(img image.Image, onWhite bool) error {
	switch img := img.(type) {
	case *image.Gray:
		p.pix, p.stride, p.step = img.Pix, img.Stride, 1
	case *image.Gray16:
		p.pix, p.stride, p.step = img.Pix, img.Stride, 2
	case *image.RGBA: // opaque, else it would be NRGBA
		p.pix, p.stride, p.step, p.sample = img.Pix, img.Stride, 4, 1
	case *image.NRGBA:
		p.pix, p.stride, p.step, p.sample = img.Pix, img.Stride, 4, 1
	case *image.RGBA64: // opaque, else it would be NRGBA64
		p.pix, p.stride, p.step, p.sample = img.Pix, img.Stride, 8, 2
	case *image.NRGBA64:
		p.pix, p.stride, p.step, p.sample = img.Pix, img.Stride, 8, 2
	default:
		return fmt.Errorf("not a supported PNG: found pixels of type %T", img)
	}
	switch img.(type) {
	case *image.NRGBA, *image.NRGBA64:
		if onWhite {
			p.alpha = 3 * p.sample
		}
	}
	return nil
}

func (p *samples) row(dst []uint8, y int) {
	src := p.pix[y*p.stride:]
	switch {
	case p.clip:
		for x := range p.width {
			value := src[x*p.step+1]
			if src[x*p.step] != 0 {
				value = 255
			}
			for c := range p.channels {
				dst[x*p.channels+c] = value
			}
		}
	case p.alpha != 0:
		for x := range p.width {
			pixel := src[x*p.step:]
			for c := range p.channels {
				dst[x*p.channels+c] = overWhite(pixel[c*p.sample], pixel[p.alpha])
			}
		}
	case p.channels == 3:
		for x := range p.width {
			pixel := src[x*p.step:]
			dst[x*3], dst[x*3+1], dst[x*3+2] = pixel[0], pixel[p.sample], pixel[2*p.sample]
		}
	default:
		for x := range p.width {
			dst[x] = src[x*p.step]
		}
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

// neighbours are the sample nearest to a pixel, and the next nearest, of samples for two pixels each: the same one at
// either end.
func neighbours(pixel, samples int) (nearest, next int) {
	nearest = pixel / 2
	if next = nearest + 2*(pixel%2) - 1; next < 0 || next >= samples {
		next = nearest
	}
	return nearest, next
}
