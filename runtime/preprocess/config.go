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

// config is a preprocessor_config.json with transformers' defaults for ViT.
type config struct {
	doResize      bool
	size          [2]int // height, width
	resample      resample
	doRescale     bool
	rescaleFactor float64
	doNormalize   bool
	mean, std     []float64 // one value for all channels, or one each
	doConvertRGB  bool
}

// processorTypes are the names under which the one processor this package knows was saved over the years. Another
// processor has other defaults and other steps, so it is refused even if it looks alike.
var processorTypes = []string{
	"ViTImageProcessor", "ViTImageProcessorFast", "ViTImageProcessorPil", "ViTFeatureExtractor",
}

// metadata are fields that change no number: they describe the file, belong to switches that must be off, or choose
// how results are batched and returned.
var metadata = []string{
	"_name_or_path", "_processor_class", "_valid_processor_keys", "crop_size", "device", "disable_grouping",
	"image_seq_length", "input_data_format", "model_input_names", "name_or_path", "pad_size", "processor_class",
	"return_tensors", "transformers_version",
}

func parseConfig(raw []byte) (*config, error) {
	// A map, because decoding into a struct would take Do_Resize for do_resize.
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(raw, &fields); err != nil {
		return nil, err
	}
	c := &config{
		doResize: true, size: [2]int{224, 224}, resample: bilinear,
		doRescale: true, rescaleFactor: 1.0 / 255,
		doNormalize: true, mean: []float64{0.5}, std: []float64{0.5},
	}
	var (
		imageProcessor, featureExtractor string
		toSquare                         = true
		dataFormat                       = "channels_first"
		resampleID                       = int(c.resample)
	)
	for _, f := range []struct {
		name, expected string
		to             any
	}{
		{"image_processor_type", "a string", &imageProcessor},
		{"feature_extractor_type", "a string", &featureExtractor},
		{"do_resize", "true or false", &c.doResize},
		{"default_to_square", "true or false", &toSquare},
		{"resample", "a whole number", &resampleID},
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
	for _, f := range []struct{ name, found string }{
		{"image_processor_type", imageProcessor},
		{"feature_extractor_type", featureExtractor},
	} {
		if f.found != "" && !slices.Contains(processorTypes, f.found) {
			return nil, fmt.Errorf("%s: expected one of %s, found %s",
				f.name, strings.Join(processorTypes, ", "), quote.Name(f.found))
		}
	}
	if !toSquare {
		return nil, fmt.Errorf("default_to_square: expected true, found false")
	}
	if dataFormat != "channels_first" {
		return nil, fmt.Errorf("data_format: expected channels_first, found %s", quote.Name(dataFormat))
	}
	if resampleID < 0 || resampleID >= len(filters) {
		return nil, fmt.Errorf("resample: expected 0 to %d, found %d", len(filters)-1, resampleID)
	}
	c.resample = resample(resampleID)
	if value, ok := take(fields, "size"); ok {
		var err error
		if c.size, err = parseSize(value); err != nil {
			return nil, err
		}
	}
	for _, f := range []struct {
		name string
		to   *[]float64
	}{{"image_mean", &c.mean}, {"image_std", &c.std}} {
		if value, ok := take(fields, f.name); ok {
			var err error
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

// parseSize reads a size given as one number or as {"height", "width"}.
func parseSize(raw json.RawMessage) (size [2]int, err error) {
	const expected = `a number or {"height", "width"}`
	var side int
	if json.Unmarshal(raw, &side) == nil {
		return [2]int{side, side}, nil
	}
	var fields map[string]json.RawMessage
	if json.Unmarshal(raw, &fields) != nil {
		return size, fmt.Errorf("size: expected %s, found %s", expected, quote.Text(string(raw)))
	}
	for i, name := range []string{"height", "width"} {
		value, ok := take(fields, name)
		if ok && json.Unmarshal(value, &size[i]) != nil {
			return size, fmt.Errorf("size: %s: expected a whole number, found %s", name, quote.Text(string(value)))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		if _, ok := take(fields, name); ok {
			return size, fmt.Errorf("size: expected %s, found %s", expected, quote.Name(name))
		}
	}
	return size, nil
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

// check holds the config against what the base takes.
func (c *config) check(channels, height, width int) error {
	if c.doResize && c.size != [2]int{height, width} {
		return fmt.Errorf("size: expected %d x %d, what the base takes, found %d x %d",
			height, width, c.size[0], c.size[1])
	}
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
