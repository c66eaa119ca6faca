package preprocess

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/switchyard-dev/switchyard/runtime/quote"
)

// maxOutputSide bounds the model's side, and with it every buffer that has the size of the output.
const maxOutputSide = 1 << 12

// config is a preprocessor_config.json, with the defaults of the processor that it names.
type config struct {
	doResize      bool
	size          size
	resample      resample
	doCenterCrop  bool
	cropSize      size
	doRescale     bool
	rescaleFactor float64
	doNormalize   bool
	mean, std     []float64 // one value for all channels, or one each
	doConvertRGB  bool
}

// size is what an image is resized to: a height and a width, or the length of its shorter side.
type size struct{ height, width, shortest int }

func (s size) String() string {
	if s.shortest != 0 {
		return fmt.Sprintf("a shortest_edge of %d", s.shortest)
	}
	return fmt.Sprintf("%d x %d", s.height, s.width)
}

// processors are those this package knows, by the names under which they were saved over the years, with transformers'
// defaults for each. Another has other steps, so it is refused even if it looks alike.
var processors = []struct {
	modelType string // whose it is where the file names none
	names     []string
	defaults  config
	toSquare  bool // what a size of one number means
}{
	{
		modelType: "vit",
		names:     []string{"ViTImageProcessor", "ViTImageProcessorFast", "ViTImageProcessorPil", "ViTFeatureExtractor"},
		defaults: config{
			doResize: true, size: size{height: 224, width: 224}, resample: bilinear,
			doRescale: true, rescaleFactor: 1.0 / 255,
			doNormalize: true, mean: []float64{0.5}, std: []float64{0.5},
		},
		toSquare: true,
	},
	{
		modelType: "deit",
		names:     []string{"DeiTImageProcessor", "DeiTImageProcessorFast", "DeiTImageProcessorPil", "DeiTFeatureExtractor"},
		defaults: config{
			doResize: true, size: size{height: 256, width: 256}, resample: bicubic,
			doCenterCrop: true, cropSize: size{height: 224, width: 224},
			doRescale: true, rescaleFactor: 1.0 / 255,
			doNormalize: true, mean: []float64{0.5}, std: []float64{0.5},
		},
		toSquare: true,
	},
	{
		modelType: "dinov2",
		names:     []string{"BitImageProcessor", "BitImageProcessorFast", "BitImageProcessorPil"},
		defaults: config{
			doResize: true, size: size{shortest: 224}, resample: bicubic,
			doCenterCrop: true, cropSize: size{height: 224, width: 224},
			doRescale: true, rescaleFactor: 1.0 / 255,
			doNormalize:  true,
			mean:         []float64{0.48145466, 0.4578275, 0.40821073},
			std:          []float64{0.26862954, 0.26130258, 0.27577711},
			doConvertRGB: true,
		},
	},
}

// metadata are fields that change no number: they describe the file, belong to switches that must be off, or choose
// how results are batched and returned.
var metadata = []string{
	"_name_or_path", "_processor_class", "_valid_processor_keys", "device", "disable_grouping", "image_seq_length",
	"input_data_format", "model_input_names", "name_or_path", "pad_size", "processor_class",
	"return_tensors", "transformers_version",
}

func parseConfig(raw []byte, modelType string) (*config, error) {
	// A map, because decoding into a struct would take Do_Resize for do_resize.
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(raw, &fields); err != nil {
		return nil, err
	}
	c, toSquare, err := processorOf(fields, modelType)
	if err != nil {
		return nil, err
	}
	dataFormat, resampleID := "channels_first", int(c.resample)
	for _, f := range []struct {
		name, expected string
		to             any
	}{
		{"do_resize", "true or false", &c.doResize},
		{"default_to_square", "true or false", &toSquare},
		{"resample", "a whole number", &resampleID},
		{"do_center_crop", "true or false", &c.doCenterCrop},
		{"do_rescale", "true or false", &c.doRescale},
		{"rescale_factor", "a number", &c.rescaleFactor},
		{"do_normalize", "true or false", &c.doNormalize},
		{"do_convert_rgb", "true or false", &c.doConvertRGB},
		{"data_format", "a string", &dataFormat},
	} {
		if value, ok := take(fields, f.name); ok && json.Unmarshal(value, f.to) != nil {
			return nil, fmt.Errorf("%s: expected %s, found %s", f.name, f.expected, quote.Text(string(value)))
		}
	}
	if dataFormat != "channels_first" {
		return nil, fmt.Errorf("data_format: expected channels_first, found %s", quote.Name(dataFormat))
	}
	if resampleID < 0 || resampleID >= len(filters) {
		return nil, fmt.Errorf("resample: expected 0 to %d, found %d", len(filters)-1, resampleID)
	}
	c.resample = resample(resampleID)
	for _, f := range []struct {
		name     string
		to       *size
		toSquare bool
	}{{"size", &c.size, toSquare}, {"crop_size", &c.cropSize, true}} {
		if value, ok := take(fields, f.name); ok {
			if *f.to, err = parseSize(value, f.toSquare); err != nil {
				return nil, fmt.Errorf("%s: %w", f.name, err)
			}
		}
	}
	for _, f := range []struct {
		name string
		to   *[]float64
	}{{"image_mean", &c.mean}, {"image_std", &c.std}} {
		if value, ok := take(fields, f.name); ok {
			if *f.to, err = parseNumbers(value); err != nil {
				return nil, fmt.Errorf("%s: %w", f.name, err)
			}
		}
	}
	return c, refuseRest(fields)
}

// take removes a field from those that are still to be understood. Null is as good as absent, as in transformers.
func take(fields map[string]json.RawMessage, name string) (json.RawMessage, bool) {
	value, ok := fields[name]
	delete(fields, name)
	return value, ok && string(value) != "null"
}

// processorOf is the processor that a file names, or the model's if it names none, and whether its sizes of one number
// are squares.
func processorOf(fields map[string]json.RawMessage, modelType string) (c *config, toSquare bool, err error) {
	found, known := processors[0], false
	for _, p := range processors {
		if p.modelType == modelType {
			found, known = p, true
		}
	}
	for _, field := range []string{"feature_extractor_type", "image_processor_type"} { // the latter counts
		value, ok := take(fields, field)
		if !ok {
			continue
		}
		var name string
		if json.Unmarshal(value, &name) != nil {
			return nil, false, fmt.Errorf("%s: expected a string, found %s", field, quote.Text(string(value)))
		}
		if name == "" {
			continue
		}
		known = false
		var names []string
		for _, p := range processors {
			if slices.Contains(p.names, name) {
				found, known = p, true
			}
			names = append(names, p.names...)
		}
		if !known {
			return nil, false, fmt.Errorf("%s: expected one of %s, found %s", field, strings.Join(names, ", "), quote.Name(name))
		}
	}
	if !known {
		return nil, false, fmt.Errorf("image_processor_type: expected the name of a processor, found none, "+
			"and a base of the type %s has none by default", quote.Name(modelType))
	}
	defaults := found.defaults
	return &defaults, found.toSquare, nil
}

// parseSize reads a size given as one number, as [height, width], as {"height", "width"} or as {"shortest_edge"}.
func parseSize(raw json.RawMessage, toSquare bool) (s size, err error) {
	const expected = `a number, [height, width], {"height", "width"} or {"shortest_edge"}`
	var side int
	if json.Unmarshal(raw, &side) == nil {
		if toSquare {
			return size{height: side, width: side}, nil
		}
		return size{shortest: side}, nil
	}
	var sides []*int // pointers, as null would be 0
	if json.Unmarshal(raw, &sides) == nil && len(sides) == 2 && !slices.Contains(sides, nil) {
		return size{height: *sides[0], width: *sides[1]}, nil
	}
	var fields map[string]json.RawMessage
	if json.Unmarshal(raw, &fields) != nil {
		return s, fmt.Errorf("expected %s, found %s", expected, quote.Text(string(raw)))
	}
	for _, f := range []struct {
		name string
		to   *int
	}{{"height", &s.height}, {"width", &s.width}, {"shortest_edge", &s.shortest}} {
		value, ok := take(fields, f.name)
		if ok && json.Unmarshal(value, f.to) != nil {
			return s, fmt.Errorf("%s: expected a whole number, found %s", f.name, quote.Text(string(value)))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		if _, ok := take(fields, name); ok {
			return s, fmt.Errorf("expected %s, found %s", expected, quote.Name(name))
		}
	}
	if s.shortest != 0 && (s.height != 0 || s.width != 0) {
		return s, fmt.Errorf("expected %s, found %s", expected, quote.Text(string(raw)))
	}
	return s, nil
}

// parseNumbers reads a list of numbers, or one that stands for all.
func parseNumbers(raw json.RawMessage) ([]float64, error) {
	var one float64
	if json.Unmarshal(raw, &one) == nil {
		return []float64{one}, nil
	}
	var list []*float64 // pointers, because a null in a list of numbers would silently be 0
	if json.Unmarshal(raw, &list) != nil || len(list) == 0 || slices.Contains(list, nil) {
		return nil, fmt.Errorf("expected a number or a list of numbers, found %s", quote.Text(string(raw)))
	}
	numbers := make([]float64, len(list))
	for i, number := range list {
		numbers[i] = *number
	}
	return numbers, nil
}

// refuseRest refuses fields that nobody has understood, unless they are switched off, empty or known to change nothing.
func refuseRest(fields map[string]json.RawMessage) error {
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		if slices.Contains(metadata, name) {
			continue
		}
		var value any
		if err := json.Unmarshal(fields[name], &value); err != nil {
			return fmt.Errorf("%s: %w", quote.Text(name), err)
		}
		switch v := value.(type) {
		case nil:
			continue
		case bool:
			if !v {
				continue
			}
		case string:
			if v == "" {
				continue
			}
		case []any:
			if len(v) == 0 {
				continue
			}
		case map[string]any:
			if len(v) == 0 {
				continue
			}
		}
		return fmt.Errorf("%s: not supported, found %s", quote.Text(name), quote.Text(string(fields[name])))
	}
	return nil
}

// check holds the config against what the base takes, and returns the size of what comes out.
func (c *config) check(channels, height, width int, takes func(height, width int) bool) (out [2]int, err error) {
	out = [2]int{height, width}
	field, found := "size", c.size
	switch {
	case c.doCenterCrop:
		field, found = "crop_size", c.cropSize
		if found.shortest != 0 {
			return out, fmt.Errorf(`crop_size: expected a number or {"height", "width"}, found %v`, found)
		}
	case !c.doResize:
		return out, c.checkChannels(channels)
	case found.shortest != 0:
		return out, fmt.Errorf("size: expected one that is the same for all images, or do_center_crop, found %v", found)
	}
	if c.doResize && (max(c.size.height, c.size.width, c.size.shortest) > maxOutputSide ||
		min(c.size.height, c.size.width) < 1 && c.size.shortest < 1) && c.doCenterCrop {
		return out, fmt.Errorf("size: expected 1 to %d pixels a side, found %v", maxOutputSide, c.size)
	}
	if to := [2]int{found.height, found.width}; to != out {
		if takes == nil || max(to[0], to[1]) > maxOutputSide || !takes(to[0], to[1]) {
			return out, fmt.Errorf("%s: expected %d x %d, what the base takes, found %v", field, height, width, found)
		}
		out = to
	}
	return out, c.checkChannels(channels)
}

// checkChannels holds what is said of channels against how many there are.
func (c *config) checkChannels(channels int) error {
	if c.doConvertRGB && channels != 3 {
		return fmt.Errorf("do_convert_rgb: expected false, since the base takes %d channel, found true", channels)
	}
	if !c.doNormalize {
		return nil
	}
	for _, f := range []struct {
		name   string
		values []float64
	}{{"image_mean", c.mean}, {"image_std", c.std}} {
		if n := len(f.values); n != 1 && n != channels {
			return fmt.Errorf("%s: expected %d values, one a channel, found %d", f.name, channels, n)
		}
	}
	return nil
}

// values fills in what each byte of a channel becomes, in transformers' steps and types: the product in float64 and
// rounded to float32, then difference and quotient in float32, by a mean and a deviation that were rounded before.
func (c *config) values(values *[256]float32, channel int) error {
	mean := float32(c.mean[channel%len(c.mean)])
	std := float32(c.std[channel%len(c.std)])
	for i := range values {
		value := float32(i)
		if c.doRescale {
			value = float32(float64(i) * c.rescaleFactor)
		}
		if c.doNormalize {
			value = float32(value-mean) / std
		}
		if math.IsNaN(float64(value)) || math.IsInf(float64(value), 0) {
			return fmt.Errorf("rescale_factor %g, image_mean %g, image_std %g: expected finite pixel values, "+
				"found %g for byte %d", c.rescaleFactor, mean, std, value, i)
		}
		values[i] = value
	}
	return nil
}
