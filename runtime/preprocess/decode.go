package preprocess

import (
	"bytes"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/png"
)

const (
	// maxPixels bounds an image before it is decoded: above what cameras of phones commonly give (12 million), and at
	// most 8 bytes a pixel, half as much again where it is interlaced, so 192 MiB while one image is decoded.
	maxPixels = 1 << 24

	// maxSide is the longest side of a JPEG. It keeps rows and filter weights small next to the pixels; Pillow needs
	// gigabytes for the weights of one row of 1<<24 pixels.
	maxSide = 1<<16 - 1

	// maxDeflate is the most bytes that one byte of a deflate stream can stand for: 258 bytes in two bits.
	maxDeflate = 1032
)

// picture is a decoded image that is read by rows, so that no second copy of it is made.
type picture struct {
	channels, height, width int

	pix     []uint8
	stride  int            // bytes from row to row
	step    int            // bytes from pixel to pixel
	sample  int            // bytes from one channel of a pixel to the next; 0 repeats grey
	alpha   int            // where a pixel's alpha is, if images are to be laid on white; else 0
	clip    bool           // 16-bit grey
	palette *[256][3]uint8 // where pixels are indices
}

// formats are recognized by their first bytes, so that a format can be refused by its name.
var formats = []struct {
	name   string
	offset int
	magic  string
}{
	{"PNG", 0, "\x89PNG\r\n\x1a\n"},
	{"JPEG", 0, "\xff\xd8\xff"},
	{"WebP", 8, "WEBP"},
	{"GIF", 0, "GIF8"},
	{"BMP", 0, "BM"},
	{"TIFF", 0, "II*\x00"},
	{"TIFF", 0, "MM\x00*"},
	{"AVIF", 4, "ftypavif"},
	{"HEIC", 4, "ftyphei"},
}

// decode opens an image for a model of that many channels, to be laid on white where it is transparent, or not. Nothing
// that grows with the image is allocated before its size is known to be within bounds and to be plausible for the bytes
// at hand.
func decode(encoded []byte, channels int, onWhite bool) (*picture, error) {
	if format := formatOf(encoded); format != "PNG" {
		return nil, fmt.Errorf("not an image in a supported format (PNG): found %s", format)
	}
	config, err := png.DecodeConfig(bytes.NewReader(encoded))
	if err != nil {
		return nil, pngError(err)
	}
	height, width := config.Height, config.Width
	if int64(height)*int64(width) > maxPixels {
		return nil, fmt.Errorf("image is %d x %d pixels: at most %d are decoded", width, height, maxPixels)
	}
	if height > maxSide || width > maxSide {
		return nil, fmt.Errorf("image is %d x %d pixels: at most %d a side are decoded", width, height, maxSide)
	}
	header, err := headerOf(encoded)
	if err != nil {
		return nil, err
	}
	if header.bits()*height*width/8 > maxDeflate*len(encoded) {
		return nil, fmt.Errorf("image is %d x %d pixels: found only %d bytes", width, height, len(encoded))
	}
	if channels == 1 && !header.grey() {
		return nil, fmt.Errorf("image is in colour: expected a grey one, since the model takes 1 channel")
	}
	img, err := png.Decode(bytes.NewReader(encoded))
	if err != nil {
		return nil, pngError(err)
	}
	p := &picture{channels: channels, height: height, width: width, clip: header.grey16()}
	if err := p.set(img, onWhite); err != nil {
		return nil, err
	}
	if p.alpha != 0 && header.colourKey() && header.depth != 1 && header.depth != 8 {
		return nil, fmt.Errorf("image has a transparent colour and %d bits a sample: expected 1 or 8", header.depth)
	}
	return p, nil
}

// Area is the number of pixels that an encoded image claims to have, 0 if it is none that Pixels decodes.
func Area(encoded []byte) int64 {
	if formatOf(encoded) != "PNG" {
		return 0
	}
	config, err := png.DecodeConfig(bytes.NewReader(encoded))
	if err != nil {
		return 0
	}
	return int64(config.Width) * int64(config.Height)
}

func formatOf(encoded []byte) string {
	if len(encoded) == 0 {
		return "nothing"
	}
	for _, f := range formats {
		if len(encoded) >= f.offset && bytes.HasPrefix(encoded[f.offset:], []byte(f.magic)) {
			return f.name
		}
	}
	return "an unknown one"
}

// pngError names what is wrong with a PNG, without the decoder's own "png: invalid format".
func pngError(err error) error {
	var format png.FormatError
	if errors.As(err, &format) {
		return fmt.Errorf("broken PNG: %s", string(format))
	}
	return fmt.Errorf("broken PNG: %w", err)
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

// set takes over the decoder's pixels as they are in the file: colours not multiplied by alpha, 16 bits big-endian.
func (p *picture) set(img image.Image, onWhite bool) error {
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

// row writes row y to dst [width, channels].
func (p *picture) row(dst []uint8, y int) {
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

// overWhite lays a value on white, rounding as Pillow's ImagingAlphaComposite (AlphaComposite.c): weights have 7 more
// bits than alpha, and the division by 255 is by shifts.
func overWhite(value, alpha uint8) uint8 {
	const bits = 7
	weight := uint32(alpha) << bits
	sum := uint32(value)*weight + 255*(255<<bits-weight) + 0x80<<bits
	return uint8(min((sum>>8+sum)>>8>>bits, 255))
}
