package preprocess

import (
	"fmt"

	"gorgonia.org/tensor"
)

// Image turns an encoded image into a model's pixel_values, as preprocessor_config.json says. It is safe for concurrent
// use.
type Image struct {
	channels, height, width int
	onWhite                 bool // do_convert_rgb
	resize                  bool
	resample                resample
	values                  [][256]float32 // [channel][byte]: rescaling and normalization of every byte there is
}

// ParseImage reads a preprocessor_config.json for a base that takes channels×height×width; a config whose output
// differs is an error, as is one that asks for what is not done here. Absent fields have ViTImageProcessor's defaults.
func ParseImage(preprocessorConfig []byte, channels, height, width int) (*Image, error) {
	if channels != 1 && channels != 3 {
		return nil, fmt.Errorf("images: expected a base of 1 or 3 channels, found %d", channels)
	}
	if height < 1 || width < 1 || height > maxOutputSide || width > maxOutputSide {
		return nil, fmt.Errorf("images: expected a base of 1 to %d pixels a side, found %d x %d",
			maxOutputSide, height, width)
	}
	c, err := parseConfig(preprocessorConfig)
	if err == nil {
		err = c.check(channels, height, width)
	}
	if err != nil {
		return nil, fmt.Errorf("preprocessor_config.json: %w", err)
	}
	p := &Image{
		channels: channels, height: height, width: width,
		onWhite: c.doConvertRGB, resize: c.doResize, resample: c.resample, values: make([][256]float32, channels),
	}
	for channel := range p.values {
		if err := c.values(&p.values[channel], channel); err != nil {
			return nil, fmt.Errorf("preprocessor_config.json: %w", err)
		}
	}
	return p, nil
}

// Pixels decodes an image and returns its pixel_values, float32 [channels, height, width]. Its errors are the input's
// fault.
//
// A model of 3 channels sees every image in RGB: grey is repeated, palettes are looked up, of 16 bits the upper 8 are
// kept, but 16-bit grey is clipped at 255. With do_convert_rgb, transparent images are laid on white, as the processor
// does. Without it, alpha and transparent colours are dropped and nothing is blended: the processor itself would then
// refuse all but opaque RGB, and Pillow's convert("RGB") is what transformers' pipelines put before it. (They do so in
// either case, so with do_convert_rgb a transparent image differs between a pipeline and its processor.) EXIF's
// orientation is ignored, as by the processor.
//
// A model of 1 channel takes grey images only, as Pillow's convert("L") has them.
func (p *Image) Pixels(encoded []byte) (*tensor.Dense, error) {
	source, err := decode(encoded, p.channels, p.onWhite)
	if err != nil {
		return nil, err
	}
	sameSize := source.height == p.height && source.width == p.width
	if !p.resize && !sameSize {
		return nil, fmt.Errorf("image is %d x %d pixels: expected %d x %d, since do_resize is false",
			source.width, source.height, p.width, p.height)
	}
	resized := make([]uint8, p.height*p.width*p.channels) // [height, width, channels]
	switch {
	case sameSize:
		stride := p.width * p.channels
		for y := range p.height {
			source.row(resized[y*stride:][:stride], y)
		}
	case p.resample == nearest:
		resizeNearest(resized, source, p.height, p.width)
	default:
		resizeFiltered(resized, source, filters[p.resample], p.height, p.width)
	}
	return tensor.New(tensor.WithShape(p.channels, p.height, p.width), tensor.WithBacking(p.lookUp(resized))), nil
}

// lookUp turns bytes [height, width, channels] into values [channels, height, width].
func (p *Image) lookUp(resized []uint8) []float32 {
	area := p.height * p.width
	pixels := make([]float32, len(resized))
	for channel := range p.values {
		values, plane := &p.values[channel], pixels[channel*area:][:area]
		for i := range plane {
			plane[i] = values[resized[i*p.channels+channel]]
		}
	}
	return pixels
}
