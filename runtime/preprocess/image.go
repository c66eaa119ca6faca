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
	size                    size
	crop                    bool
	resample                resample
	values                  [][256]float32 // [channel][byte]: rescaling and normalization of every byte there is
}

// Base is what a base takes.
type Base struct {
	ModelType               string // of its config.json
	Channels, Height, Width int
	Takes                   func(height, width int) bool // images of other sizes, too; nil is none
}

// ParseImage reads a preprocessor_config.json for a base. A config whose output is not what the base takes is an error,
// as is one that asks for what is not done here. Absent fields have the defaults of the processor that it names or, if
// it names none, of the one of the base's model type, as transformers' AutoImageProcessor finds it.
func ParseImage(preprocessorConfig []byte, base Base) (*Image, error) {
	channels, height, width := base.Channels, base.Height, base.Width
	if channels != 1 && channels != 3 {
		return nil, fmt.Errorf("images: expected a base of 1 or 3 channels, found %d", channels)
	}
	if height < 1 || width < 1 || height > maxOutputSide || width > maxOutputSide {
		return nil, fmt.Errorf("images: expected a base of 1 to %d pixels a side, found %d x %d",
			maxOutputSide, height, width)
	}
	c, err := parseConfig(preprocessorConfig, base.ModelType)
	var out [2]int
	if err == nil {
		out, err = c.check(channels, height, width, base.Takes)
	}
	if err != nil {
		return nil, fmt.Errorf("preprocessor_config.json: %w", err)
	}
	p := &Image{
		channels: channels, height: out[0], width: out[1], onWhite: c.doConvertRGB,
		resize: c.doResize, size: c.size, crop: c.doCenterCrop, resample: c.resample,
		values: make([][256]float32, channels),
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
	source, err := decode(encoded, asked{channels: p.channels, onWhite: p.onWhite})
	if err != nil {
		return nil, err
	}
	if !p.resize && !p.crop && (source.height != p.height || source.width != p.width) {
		return nil, fmt.Errorf("image is %d x %d pixels: expected %d x %d, since do_resize is false",
			source.width, source.height, p.width, p.height)
	}
	pixels := p.lookUp(p.resized(source))
	return tensor.New(tensor.WithShape(p.channels, p.height, p.width), tensor.WithBacking(pixels)), nil
}

// Values is how many values the pixel_values of one image are.
func (p *Image) Values() int { return p.channels * p.height * p.width }

// resized is the image in its new size, or the middle of it, [height, width, channels]. What is smaller than its crop
// is laid on black. Of an image far longer than wide most is never computed.
func (p *Image) resized(source *picture) []uint8 {
	height, width := source.height, source.width
	if p.resize {
		height, width = p.size.of(source.height, source.width)
	}
	top, left := floorHalf(height-p.height), floorHalf(width-p.width)
	to := canvas{
		pix:    make([]uint8, p.height*p.width*p.channels),
		stride: p.width * p.channels,
		rows:   span{max(top, 0), min(top+p.height, height)},
		cols:   span{max(left, 0), min(left+p.width, width)},
		at:     (max(-top, 0)*p.width + max(-left, 0)) * p.channels,
	}
	if p.resample == nearest {
		to.resizeNearest(source, height, width)
	} else {
		to.resizeFiltered(source, filters[p.resample], height, width)
	}
	return to.pix
}

// of is the size to which an image is resized. The longer side is cut to whole pixels, as transformers does.
func (s size) of(height, width int) (newHeight, newWidth int) {
	if s.shortest == 0 {
		return s.height, s.width
	}
	longer := func(long, short int) int { return int(float64(s.shortest*long) / float64(short)) }
	if width <= height {
		return longer(height, width), s.shortest
	}
	return s.shortest, longer(width, height)
}

// floorHalf is half of n, rounded down.
func floorHalf(n int) int { return n >> 1 }

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
