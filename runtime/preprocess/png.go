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

// pngFile is a PNG, and what the decoder keeps to itself of its IHDR.
type pngFile struct {
	encoded       []byte
	height, width int
	depth, colour uint8
}

func openPNG(encoded []byte) (file, error) {
	config, err := png.DecodeConfig(bytes.NewReader(encoded))
	if err != nil {
		return nil, pngError(err)
	}
	// IHDR must come first; Go's decoder would take it later.
	const start, end = 8, 8 + 4 + 4 + 13 // of the chunk: length, type, data
	if len(encoded) < end || string(encoded[start+4:start+8]) != "IHDR" {
		return nil, errors.New("expected IHDR as the first chunk")
	}
	return &pngFile{encoded, config.Height, config.Width, encoded[start+16], encoded[start+17]}, nil
}

func (f *pngFile) size() (height, width int) { return f.height, f.width }

func (f *pngFile) decode(a asked) (rows, error) {
	least := (f.bits()*f.height*f.width/8 + maxDeflate - 1) / maxDeflate
	if err := claims(f.height, f.width, least, len(f.encoded)); err != nil {
		return nil, err
	}
	if !f.grey() {
		if err := a.inColour(); err != nil {
			return nil, err
		}
	}
	img, err := png.Decode(bytes.NewReader(f.encoded))
	if err != nil {
		return nil, fmt.Errorf("broken PNG: %w", pngError(err))
	}
	if img, ok := img.(*image.Paletted); ok {
		return &indexed{
			width: f.width, channels: a.channels, palette: paletteOf(img, a.onWhite),
			indices: func(y int) []uint8 { return img.Pix[y*img.Stride:][:f.width] },
		}, nil
	}
	p := &samples{channels: a.channels, width: f.width, clip: f.grey16()}
	if err := p.set(img, a.onWhite); err != nil {
		return nil, err
	}
	if p.alpha != 0 && f.colourKey() && f.depth != 1 && f.depth != 8 {
		return nil, fmt.Errorf("image has a transparent colour and %d bits a sample: expected 1 or 8", f.depth)
	}
	return p, nil
}

// paletteOf are the colours of an image, black where it has no more.
func paletteOf(img *image.Paletted, onWhite bool) *[256][3]uint8 {
	palette := new([256][3]uint8)
	for i, c := range img.Palette {
		switch c := c.(type) {
		case color.RGBA:
			palette[i] = [3]uint8{c.R, c.G, c.B}
		case color.NRGBA:
			palette[i] = [3]uint8{c.R, c.G, c.B}
			if onWhite {
				palette[i] = [3]uint8{overWhite(c.R, c.A), overWhite(c.G, c.A), overWhite(c.B, c.A)}
			}
		}
	}
	return palette
}

// pngError is what is wrong with a PNG, without the decoder's own "png: invalid format".
func pngError(err error) error {
	var format png.FormatError
	if errors.As(err, &format) {
		return errors.New(string(format))
	}
	return err
}

// The colour types of a PNG, as IHDR numbers them.
const (
	grey       = 0
	trueColour = 2
	paletted   = 3
	greyAlpha  = 4
	trueAlpha  = 6
)

// bits of one pixel in the file.
func (f *pngFile) bits() int {
	samples := map[uint8]int{grey: 1, trueColour: 3, paletted: 1, greyAlpha: 2, trueAlpha: 4}[f.colour]
	return samples * int(f.depth)
}

func (f *pngFile) grey() bool { return f.colour == grey || f.colour == greyAlpha }

// grey16 images are read by Pillow into a mode of their own, which it clips rather than scales. With alpha it scales.
func (f *pngFile) grey16() bool { return f.colour == grey && f.depth == 16 }

// colourKey images, if transparent at all, have one transparent colour. Pillow compares it in units of the file with
// pixels in units of 8 bits, so it finds the colour only where the two are the same.
func (f *pngFile) colourKey() bool { return f.colour == grey || f.colour == trueColour }
