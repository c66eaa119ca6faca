package preprocess

import (
	"bytes"
	"compress/zlib"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"gorgonia.org/tensor"
)

// goldenCase is one line of testdata/golden.json, which make_golden.py describes.
type goldenCase struct {
	Image                   string
	Channels, Height, Width int
	Config                  map[string]any
	Resized                 string
	PixelValues             string `json:"pixel_values"`
}

func (c goldenCase) name() string {
	return fmt.Sprintf("%s to %dx%dx%d %v", c.Image, c.Channels, c.Height, c.Width, c.Config)
}

func goldenCases(t *testing.T) []goldenCase {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("testdata", "golden.json"))
	if err != nil {
		t.Fatal(err)
	}
	var cases []goldenCase
	if err := json.Unmarshal(raw, &cases); err != nil {
		t.Fatal(err)
	}
	if len(cases) == 0 {
		t.Fatal("golden.json: expected cases, found none")
	}
	if testing.Short() { // some of each kind
		const every = 17
		var some []goldenCase
		for i := 0; i < len(cases); i += every {
			some = append(some, cases[i])
		}
		return some
	}
	return cases
}

// parse is ParseImage of a config given as a map.
func (c goldenCase) parse(t *testing.T, config map[string]any) *Image {
	t.Helper()
	raw, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	p, err := ParseImage(raw, Base{ModelType: "vit", Channels: c.Channels, Height: c.Height, Width: c.Width})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// resized is the image's bytes as resizing and cropping leave them.
func (c goldenCase) resized(t *testing.T) []byte {
	t.Helper()
	// Neither rescaled nor normalized, pixel values are the bytes.
	config := map[string]any{"do_rescale": false, "do_normalize": false}
	for name, value := range c.Config {
		if _, ok := config[name]; !ok {
			config[name] = value
		}
	}
	planes := values(t, c.parse(t, config), testImage(t, c.Image))
	resized := make([]byte, len(planes))
	area := c.Height * c.Width
	for i, value := range planes {
		resized[i%area*c.Channels+i/area] = byte(value)
	}
	return resized
}

func TestResizedBytesArePillows(t *testing.T) {
	for _, c := range goldenCases(t) {
		if strings.HasSuffix(c.Image, ".jpg") {
			continue
		}
		t.Run(c.name(), func(t *testing.T) { compare(t, c.Resized, c.resized(t)) })
	}
}

// The inverse transform of a JPEG is not defined to the bit: libjpeg's and the standard library's round otherwise here
// and there. No byte is far off, and resizing evens out most.
func TestJPEGsAreNearlyPillows(t *testing.T) {
	const nearly, most, share = 1, 3, 0.999
	var off, all int // pixels of which a channel is, of images that were not magnified: that makes many of one
	for _, c := range goldenCases(t) {
		if !strings.HasSuffix(c.Image, ".jpg") {
			continue
		}
		t.Run(c.name(), func(t *testing.T) {
			want, got := inflated(t, c.Resized), c.resized(t)
			if len(want) != len(got) {
				t.Fatalf("expected %d bytes, found %d", len(want), len(got))
			}
			opened, err := openJPEG(testImage(t, c.Image))
			if err != nil {
				t.Fatal(err)
			}
			pixels, here := len(want)/c.Channels, 0
			for pixel := range pixels {
				isOff := false
				for channel := range c.Channels {
					i := pixel*c.Channels + channel
					d := max(want[i], got[i]) - min(want[i], got[i])
					if d > most {
						t.Fatalf("channel %d of pixel %d: expected %d, found %d", channel, pixel, want[i], got[i])
					}
					isOff = isOff || d > nearly
				}
				if isOff {
					here++
				}
			}
			height, width := opened.size()
			t.Logf("%d x %d: %d of %d pixels are more than %d off, none more than %d", width, height, here, pixels, nearly, most)
			if resized := height != c.Height || width != c.Width; resized && height*width >= pixels {
				off, all = off+here, all+pixels
			}
		})
	}
	t.Logf("after a resize to no more pixels: %d of %d are more than %d off", off, all, nearly)
	if all == 0 || float64(off) > (1-share)*float64(all) {
		t.Errorf("expected at least %.1f %% of the pixels within %d after a resize", 100*share, nearly)
	}
}

func TestPixelValuesAreTransformers(t *testing.T) {
	for _, c := range goldenCases(t) {
		if c.PixelValues == "" {
			continue
		}
		t.Run(c.name(), func(t *testing.T) {
			var raw []byte
			for _, value := range values(t, c.parse(t, c.Config), testImage(t, c.Image)) {
				raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(value))
			}
			compare(t, c.PixelValues, raw)
		})
	}
}

func TestPixelsAreSharedSafely(t *testing.T) {
	p := mustParse(t, `{"size": 32, "resample": 3}`, 3, 32, 32)
	names := []string{"camera", "noise-61x47", "palette-8bit-alpha", "colour0-16bit"}
	var wg sync.WaitGroup
	for _, name := range names {
		encoded := testImage(t, name)
		want := values(t, p, encoded)
		for range 4 {
			wg.Go(func() {
				got, err := p.Pixels(encoded)
				if err != nil {
					t.Errorf("%s: %v", name, err)
					return
				}
				if diff := cmp.Diff(want, got.Data()); diff != "" {
					t.Errorf("%s: alone (-), beside others (+):\n%s", name, diff)
				}
			})
		}
	}
	wg.Wait()
}

func TestPixelsAreFloat32OfTheModelsShape(t *testing.T) {
	p := mustParse(t, `{"size": {"height": 20, "width": 30}}`, 3, 20, 30)
	pixels, err := p.Pixels(testImage(t, "camera"))
	if err != nil {
		t.Fatal(err)
	}
	if want := (tensor.Shape{3, 20, 30}); !pixels.Shape().Eq(want) || pixels.Dtype() != tensor.Float32 {
		t.Errorf("expected float32 %v, found %v %v", want, pixels.Dtype(), pixels.Shape())
	}
}

func BenchmarkPixels(b *testing.B) {
	encoded := testImage(b, "camera") // 640 x 480
	p := mustParse(b, `{}`, 3, 224, 224)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := p.Pixels(encoded); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkResize is BenchmarkPixels without decoding.
func BenchmarkResize(b *testing.B) {
	source, err := decode(testImage(b, "camera"), asked{channels: 3})
	if err != nil {
		b.Fatal(err)
	}
	whole := span{0, 224}
	to := canvas{pix: make([]uint8, 224*224*3), stride: 224 * 3, rows: whole, cols: whole}
	for b.Loop() {
		to.resizeFiltered(source, filters[bilinear], 224, 224)
	}
}

func mustParse(t testing.TB, config string, channels, height, width int) *Image {
	t.Helper()
	p, err := ParseImage([]byte(config), Base{ModelType: "vit", Channels: channels, Height: height, Width: width})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// testImage is a file of testdata/images, a PNG if the name does not say otherwise.
func testImage(t testing.TB, name string) []byte {
	t.Helper()
	if filepath.Ext(name) == "" {
		name += ".png"
	}
	encoded, err := os.ReadFile(filepath.Join("testdata", "images", name))
	if err != nil {
		t.Fatal(err)
	}
	return encoded
}

func values(t testing.TB, p *Image, encoded []byte) []float32 {
	t.Helper()
	pixels, err := p.Pixels(encoded)
	if err != nil {
		t.Fatal(err)
	}
	return pixels.Data().([]float32)
}

// compare holds a result against golden.json, where short results stand whole and long ones as digests.
func compare(t *testing.T, want string, got []byte) {
	t.Helper()
	if digest, ok := strings.CutPrefix(want, "sha256:"); ok {
		sum := sha256.Sum256(got)
		if found := hex.EncodeToString(sum[:]); found != digest {
			t.Errorf("expected sha256 %s, found %s", digest, found)
		}
		return
	}
	whole, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(want, "base64:"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(whole, got) {
		t.Errorf("expected (-), found (+):\n%s", cmp.Diff(whole, got))
	}
}

// inflated is a result of golden.json that stands there whole.
func inflated(t *testing.T, result string) []byte {
	t.Helper()
	deflated, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(result, "zlib:"))
	if err != nil {
		t.Fatal(err)
	}
	r, err := zlib.NewReader(bytes.NewReader(deflated))
	if err != nil {
		t.Fatal(err)
	}
	whole, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return whole
}
