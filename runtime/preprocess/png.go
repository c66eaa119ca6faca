package preprocess

import (
	"bytes"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/png"
)

// maxDeflate is the most bytes that one byte of a deflate stream can stand for: 258 bytes in two bits.
const maxDeflate = 1032

func pngSize(encoded []byte) (height, width int, err error) {
	config, err := png.DecodeConfig(bytes.NewReader(encoded))
	if err != nil {
		return 0, 0, pngError(err)
	}
	return config.Height, config.Width, nil
}

func decodePNG(encoded []byte, a asked) (*picture, error) {
	height, width, err := pngSize(encoded)
	if err != nil {
		return nil, err
	}
	header, err := headerOf(encoded)
	if err != nil {
		return nil, err
	}
	if err := claims(height, width, (header.bits()*height*width/8+maxDeflate-1)/maxDeflate, len(encoded)); err != nil {
		return nil, err
	}
	if !header.grey() {
		if err := a.inColour(); err != nil {
			return nil, err
		}
	}
	img, err := png.Decode(bytes.NewReader(encoded))
	if err != nil {
		return nil, fmt.Errorf("broken PNG: %w", pngError(err))
	}
	p := &samples{channels: a.channels, width: width, clip: header.grey16()}
	if err := p.set(img, a.onWhite); err != nil {
		return nil, err
	}
	if p.alpha != 0 && header.colourKey() && header.depth != 1 && header.depth != 8 {
		return nil, fmt.Errorf("image has a transparent colour and %d bits a sample: expected 1 or 8", header.depth)
	}
	return &picture{rows: p}, nil
}

// pngError is what is wrong with a PNG, without the decoder's own "png: invalid format".
func pngError(err error) error {
	var format png.FormatError
	if errors.As(err, &format) {
		return errors.New(string(format))
	}
	return err
}

// pngHeader is what the decoder keeps to itself of IHDR.
type pngHeader struct{ depth, colour uint8 }

// The colour types of a PNG, as IHDR numbers them.
const (
	grey       = 0
	trueColour = 2
	paletted   = 3
	greyAlpha  = 4
	trueAlpha  = 6
)

// headerOf reads IHDR, which must come first; Go's decoder would take it later.
func headerOf(encoded []byte) (pngHeader, error) {
	const start, end = 8, 8 + 4 + 4 + 13 // of the chunk: length, type, data
	if len(encoded) < end || string(encoded[start+4:start+8]) != "IHDR" {
		return pngHeader{}, errors.New("broken PNG: expected IHDR as the first chunk")
	}
	return pngHeader{depth: encoded[start+16], colour: encoded[start+17]}, nil
}

// bits of one pixel in the file.
func (h pngHeader) bits() int {
	samples := map[uint8]int{grey: 1, trueColour: 3, paletted: 1, greyAlpha: 2, trueAlpha: 4}[h.colour]
	return samples * int(h.depth)
}

func (h pngHeader) grey() bool { return h.colour == grey || h.colour == greyAlpha }

// grey16 images are read by Pillow into a mode of their own, which it clips rather than scales. With alpha it scales.
func (h pngHeader) grey16() bool { return h.colour == grey && h.depth == 16 }

// colourKey images, if transparent at all, have one transparent colour. Pillow compares it in units of the file with
// pixels in units of 8 bits, so it finds the colour only where the two are the same.
func (h pngHeader) colourKey() bool { return h.colour == grey || h.colour == trueColour }

// samples are rows of a PNG's or a WebP's decoded pixels.
type samples struct {
	channels, width int

	pix     []uint8
	stride  int            // bytes from row to row
	step    int            // bytes from pixel to pixel
	sample  int            // bytes from one channel of a pixel to the next; 0 repeats grey
	alpha   int            // where a pixel's alpha is, if images are to be laid on white; else 0
	clip    bool           // 16-bit grey
	palette *[256][3]uint8 // where pixels are indices
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
	case *image.Paletted:
		p.pix, p.stride, p.step = img.Pix, img.Stride, 1
		p.palette = new([256][3]uint8)
		for i, c := range img.Palette {
			switch c := c.(type) {
			case color.RGBA:
				p.palette[i] = [3]uint8{c.R, c.G, c.B}
			case color.NRGBA:
				p.palette[i] = [3]uint8{c.R, c.G, c.B}
				if onWhite {
					p.palette[i] = [3]uint8{overWhite(c.R, c.A), overWhite(c.G, c.A), overWhite(c.B, c.A)}
				}
			}
		}
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
	case p.palette != nil:
		for x := range p.width {
			copy(dst[x*p.channels:], p.palette[src[x]][:p.channels])
		}
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
