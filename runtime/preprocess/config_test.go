package preprocess

import (
	"math"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"gorgonia.org/tensor"
)

func TestConfigsThatAreTaken(t *testing.T) {
	defaults := mustParse(t, `{}`, 3, 224, 224)
	for name, config := range map[string]string{
		"nulls are absent": `{"do_resize": null, "size": null, "resample": null, "image_mean": null,
			"do_convert_rgb": null, "do_center_crop": null, "data_format": null}`,
		"as transformers 5 saves it": `{"do_normalize": true, "do_rescale": true, "do_resize": true,
			"image_mean": [0.5, 0.5, 0.5], "image_processor_type": "ViTImageProcessor", "image_std": [0.5, 0.5, 0.5],
			"resample": 2, "rescale_factor": 0.00392156862745098, "size": {"height": 224, "width": 224}}`,
		"as transformers 4 saves it": `{"_valid_processor_keys": ["images", "do_resize"], "crop_size": null,
			"data_format": "channels_first", "default_to_square": true, "device": null, "disable_grouping": null,
			"do_center_crop": null, "do_convert_rgb": null, "image_processor_type": "ViTImageProcessorFast",
			"input_data_format": null, "return_tensors": null, "image_mean": [0.5, 0.5, 0.5], "resample": 2}`,
		"as feature extractors were saved": `{"do_normalize": true, "do_resize": true, "image_std": [0.5, 0.5, 0.5],
			"feature_extractor_type": "ViTFeatureExtractor", "image_mean": [0.5, 0.5, 0.5], "resample": 2,
			"size": 224}`,
		"a height and a width": `{"size": [224, 224]}`,
		"unknown but off, or empty": `{"do_pad": false, "do_reduce_labels": false, "x": "", "y": [], "z": {}, "w": null,
			"crop_size": {"height": 224, "width": 224}, "pad_size": 12}`,
		"without resizing, no size matters": `{"size": 32}`,
	} {
		t.Run(name, func(t *testing.T) {
			want := *defaults
			if strings.HasPrefix(name, "without resizing") {
				config, want.resize, want.size = `{"do_resize": false, "size": 32}`, false, size{height: 32, width: 32}
			}
			got := mustParse(t, config, 3, 224, 224)
			if diff := cmp.Diff(&want, got, cmp.AllowUnexported(Image{}, size{})); diff != "" {
				t.Errorf("expected (-), found (+):\n%s", diff)
			}
		})
	}
}

func TestConfigsThatAreRefused(t *testing.T) {
	const (
		file  = "preprocessor_config.json: "
		types = "ViTImageProcessor, ViTImageProcessorFast, ViTImageProcessorPil, ViTFeatureExtractor, " +
			"DeiTImageProcessor, DeiTImageProcessorFast, DeiTImageProcessorPil, DeiTFeatureExtractor, " +
			"BitImageProcessor, BitImageProcessorFast, BitImageProcessorPil"
		sizes = `a number, [height, width], {"height", "width"} or {"shortest_edge"}`
	)
	for _, c := range []struct{ config, want string }{
		{``, file + "unexpected end of JSON input"},
		{`[]`, file + "json: cannot unmarshal array into Go value of type map[string]json.RawMessage"},
		{
			`{"image_processor_type": "ConvNextImageProcessor"}`,
			file + "image_processor_type: expected one of " + types + `, found "ConvNextImageProcessor"`,
		},
		{
			`{"image_processor_type": "ViTImageProcessor", "feature_extractor_type": "X"}`,
			file + "feature_extractor_type: expected one of " + types + `, found "X"`,
		},
		{`{"image_processor_type": 1}`, file + "image_processor_type: expected a string, found 1"},
		{`{"do_resize": "yes"}`, file + `do_resize: expected true or false, found "yes"`},
		{`{"do_rescale": 1}`, file + "do_rescale: expected true or false, found 1"},
		{`{"do_normalize": []}`, file + "do_normalize: expected true or false, found []"},
		{`{"do_center_crop": true}`, file + "crop_size: expected 224 x 224, what the base takes, found 0 x 0"},
		{
			`{"do_center_crop": true, "crop_size": 200}`,
			file + "crop_size: expected 224 x 224, what the base takes, found 200 x 200",
		},
		{
			`{"do_center_crop": true, "crop_size": {"shortest_edge": 224}}`,
			file + `crop_size: expected a number or {"height", "width"}, found a shortest_edge of 224`,
		},
		{
			`{"do_center_crop": true, "crop_size": 224, "size": {"height": 0, "width": 9}}`,
			file + "size: expected 1 to 4096 pixels a side, found 0 x 9",
		},
		{
			`{"do_center_crop": true, "crop_size": 224, "size": {"shortest_edge": 4097}}`,
			file + "size: expected 1 to 4096 pixels a side, found a shortest_edge of 4097",
		},
		{
			`{"do_center_crop": true, "crop_size": 224, "size": {"shortest_edge": -1}}`,
			file + "size: expected 1 to 4096 pixels a side, found a shortest_edge of -1",
		},
		{
			`{"image_processor_type": "BitImageProcessor", "do_center_crop": false}`,
			file + "size: expected one that is the same for all images, or do_center_crop, found a shortest_edge of 224",
		},
		{
			`{"image_processor_type": "DeiTImageProcessor", "crop_size": 200}`,
			file + "crop_size: expected 224 x 224, what the base takes, found 200 x 200",
		},
		{`{"do_pad": true}`, file + "do_pad: not supported, found true"},
		{`{"do_something_new": true}`, file + "do_something_new: not supported, found true"},
		{`{"do_something_new": 1}`, file + "do_something_new: not supported, found 1"},
		{`{"Do_Resize": true}`, file + "Do_Resize: not supported, found true"},
		{`{"size_divisor": 32}`, file + "size_divisor: not supported, found 32"},
		{
			`{"auto_map": {"AutoImageProcessor": "own.Own"}}`,
			file + `auto_map: not supported, found {"AutoImageProcessor": "own.Own"}`,
		},
		{`{"size": 32}`, file + "size: expected 224 x 224, what the base takes, found 32 x 32"},
		{`{"size": {"height": 224}}`, file + "size: expected 224 x 224, what the base takes, found 224 x 0"},
		{`{"size": {"height": 224, "width": "w"}}`, file + `size: width: expected a whole number, found "w"`},
		{
			`{"size": {"shortest_edge": 224}}`,
			file + "size: expected one that is the same for all images, or do_center_crop, found a shortest_edge of 224",
		},
		{
			`{"size": {"height": 224, "width": 224, "longest_edge": 9}}`,
			file + "size: expected " + sizes + `, found "longest_edge"`,
		},
		{
			`{"size": {"height": 224, "width": 224, "shortest_edge": 9}}`,
			file + "size: expected " + sizes + `, found {"height": 224, "width": 224, "shortest_edge": 9}`,
		},
		{`{"size": [224]}`, file + "size: expected " + sizes + ", found [224]"},
		{`{"size": [224, null]}`, file + "size: expected " + sizes + ", found [224, null]"},
		{`{"size": [224, 224, 3]}`, file + "size: expected " + sizes + ", found [224, 224, 3]"},
		{`{"size": [448, 224]}`, file + "size: expected 224 x 224, what the base takes, found 448 x 224"},
		{`{"size": 224.5}`, file + "size: expected " + sizes + ", found 224.5"},
		{
			`{"size": 224, "default_to_square": false}`,
			file + "size: expected one that is the same for all images, or do_center_crop, found a shortest_edge of 224",
		},
		{`{"data_format": "channels_last"}`, file + `data_format: expected channels_first, found "channels_last"`},
		{`{"resample": 6}`, file + "resample: expected 0 to 5, found 6"},
		{`{"resample": -1}`, file + "resample: expected 0 to 5, found -1"},
		{`{"resample": "bilinear"}`, file + `resample: expected a whole number, found "bilinear"`},
		{`{"rescale_factor": "1/255"}`, file + `rescale_factor: expected a number, found "1/255"`},
		{`{"image_mean": [0.5, 0.5]}`, file + "image_mean: expected 3 values, one a channel, found 2"},
		{`{"image_std": [0.5, 0.5, 0.5, 0.5]}`, file + "image_std: expected 3 values, one a channel, found 4"},
		{`{"image_std": []}`, file + "image_std: expected a number or a list of numbers, found []"},
		{
			`{"image_mean": [0.5, null, 0.5]}`,
			file + "image_mean: expected a number or a list of numbers, found [0.5, null, 0.5]",
		},
		{`{"image_std": 0}`, file + "rescale_factor 0.00392156862745098, image_mean 0.5, image_std 0: " +
			"expected finite pixel values, found -Inf for byte 0"},
		{`{"rescale_factor": 1e300}`, file + "rescale_factor 1e+300, image_mean 0.5, image_std 0.5: " +
			"expected finite pixel values, found +Inf for byte 1"},
	} {
		t.Run(c.config, func(t *testing.T) {
			_, err := ParseImage([]byte(c.config), Base{ModelType: "vit", Channels: 3, Height: 224, Width: 224})
			if err == nil || err.Error() != c.want {
				t.Errorf("expected %q, found %q", c.want, err)
			}
		})
	}
}

// A DINOv2 takes images of other sizes than it was trained on, and its processor makes them.
func TestSizesThatABaseTakesBesides(t *testing.T) {
	takes := func(height, width int) bool { return height%14 == 0 && width%14 == 0 }
	for config, want := range map[string][2]int{
		`{"image_processor_type": "BitImageProcessor"}`:                                            {224, 224},
		`{"image_processor_type": "BitImageProcessor", "crop_size": {"height": 98, "width": 140}}`: {98, 140},
		`{"size": 28}`:       {28, 28},
		`{"size": [28, 42]}`: {28, 42},
		`{"image_processor_type": "BitImageProcessor", "size": [98, 140], "do_center_crop": false}`: {98, 140},
	} {
		p, err := ParseImage([]byte(config), Base{ModelType: "vit", Channels: 3, Height: 518, Width: 518, Takes: takes})
		if err != nil {
			t.Errorf("%s: %v", config, err)
			continue
		}
		if got := [2]int{p.height, p.width}; got != want {
			t.Errorf("%s: expected %v, found %v", config, want, got)
		}
		pixels, err := p.Pixels(testImage(t, "camera"))
		if err != nil || !pixels.Shape().Eq(tensor.Shape{3, want[0], want[1]}) {
			t.Errorf("%s: expected pixels of that size, found %v, %v", config, pixels, err)
		}
	}
	base := Base{ModelType: "vit", Channels: 3, Height: 518, Width: 518, Takes: takes}
	_, err := ParseImage([]byte(`{"size": 225}`), base)
	const refused = "preprocessor_config.json: size: expected 518 x 518, what the base takes, found 225 x 225"
	if err == nil || err.Error() != refused {
		t.Errorf("expected %q, found %v", refused, err)
	}
}

// A base of a type that no processor is known for has its steps only where the file names one that is.
func TestAProcessorOfAnotherModel(t *testing.T) {
	base := Base{ModelType: "beit", Channels: 3, Height: 224, Width: 224}
	if _, err := ParseImage([]byte(`{"image_processor_type": "ViTImageProcessor"}`), base); err != nil {
		t.Error(err)
	}
	const want = "preprocessor_config.json: image_processor_type: expected the name of a processor, found none, " +
		`and a base of the type "beit" has none by default`
	for _, config := range []string{`{}`, `{"image_processor_type": ""}`, `{"image_processor_type": null}`} {
		if _, err := ParseImage([]byte(config), base); err == nil || err.Error() != want {
			t.Errorf("%s: expected %q, found %v", config, want, err)
		}
	}
}

// A file that names no processor is read as that of the model's type, as AutoImageProcessor does.
func TestAProcessorWithoutAName(t *testing.T) {
	for modelType, name := range map[string]string{
		"vit": "ViTImageProcessor", "deit": "DeiTImageProcessor", "dinov2": "BitImageProcessor",
	} {
		base := Base{ModelType: modelType, Channels: 3, Height: 224, Width: 224}
		unnamed, err := ParseImage([]byte(`{}`), base)
		if err != nil {
			t.Fatal(err)
		}
		another := base
		another.ModelType = "vit"
		named, err := ParseImage([]byte(`{"image_processor_type": "`+name+`"}`), another)
		if err != nil {
			t.Fatal(err)
		}
		other, err := ParseImage([]byte(`{"image_processor_type": "ViTFeatureExtractor"}`), base)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(unnamed, named) {
			t.Errorf("%q: expected %s, found %+v", modelType, name, unnamed)
		}
		if isViT := reflect.DeepEqual(unnamed, other); isViT != (name == "ViTImageProcessor") {
			t.Errorf("%q: expected the named one to count, found %+v", modelType, other)
		}
	}
}

func TestBasesThatAreRefused(t *testing.T) {
	for _, c := range []struct {
		config                  string
		channels, height, width int
		want                    string
	}{
		{`{}`, 4, 224, 224, "images: expected a base of 1 or 3 channels, found 4"},
		{`{}`, 3, 0, 224, "images: expected a base of 1 to 4096 pixels a side, found 0 x 224"},
		{`{}`, 3, 224, 4097, "images: expected a base of 1 to 4096 pixels a side, found 224 x 4097"},
		{
			`{"size": {"height": 4, "width": 2}}`, 3, 2, 4,
			"preprocessor_config.json: size: expected 2 x 4, what the base takes, found 4 x 2",
		},
		{
			`{"do_convert_rgb": true}`, 1, 224, 224,
			"preprocessor_config.json: do_convert_rgb: expected false, since the base takes 1 channel, found true",
		},
		{
			`{"image_mean": [0.5, 0.5, 0.5]}`, 1, 224, 224,
			"preprocessor_config.json: image_mean: expected 1 values, one a channel, found 3",
		},
	} {
		base := Base{ModelType: "vit", Channels: c.channels, Height: c.height, Width: c.width}
		if _, err := ParseImage([]byte(c.config), base); err == nil || err.Error() != c.want {
			t.Errorf("%s for %dx%dx%d: expected %q, found %q", c.config, c.channels, c.height, c.width, c.want, err)
		}
	}
}

func FuzzParseImage(f *testing.F) {
	f.Add([]byte(`{"size": {"height": 224, "width": 224}, "resample": 3, "image_mean": [0.1, 0.2, 0.3]}`))
	f.Add([]byte(`{"size": 224, "do_pad": false, "image_std": 1e-40, "rescale_factor": 1e38, "x": [[{}]]}`))
	f.Fuzz(func(t *testing.T, config []byte) {
		p, err := ParseImage(config, Base{ModelType: "vit", Channels: 3, Height: 224, Width: 224})
		if err != nil {
			return
		}
		for _, values := range p.values {
			for i, value := range values {
				if math.IsNaN(float64(value)) || math.IsInf(float64(value), 0) {
					t.Errorf("byte %d: expected a finite value, found %g", i, value)
				}
			}
		}
	})
}
