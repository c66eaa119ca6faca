package preprocess

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"hash/crc32"
	"image"
	"image/png"
	"runtime"
	"slices"
	"strings"
	"testing"
)

func TestImagesThatAreRefused(t *testing.T) {
	good := testImage(t, "colour2-8bit")
	for _, c := range []struct {
		name    string
		encoded []byte
		want    string
	}{
		{"nothing", nil, "not an image in a supported format (PNG, JPEG, WebP, GIF, BMP): found nothing"},
		{
			"text", []byte("hello"),
			"not an image in a supported format (PNG, JPEG, WebP, GIF, BMP): found an unknown one",
		},
		{"JPEG", []byte("\xff\xd8\xff\xe0\x00\x10JFIF"), "broken JPEG: unexpected EOF"},
		{
			"WebP", []byte("RIFF\x10\x00\x00\x00WEBPVP8 "),
			"broken WebP: expected as many bytes as the RIFF header says, 16, found 8",
		},
		{"GIF", []byte("GIF89a"), "broken GIF: unexpected EOF"},
		{"BMP", []byte("BM\x00\x00"), "broken BMP: unexpected EOF"},
		{"TIFF", []byte("II*\x00"), "not an image in a supported format (PNG, JPEG, WebP, GIF, BMP): found TIFF"},
		{
			"HEIC", []byte("\x00\x00\x00\x18ftypheic"),
			"not an image in a supported format (PNG, JPEG, WebP, GIF, BMP): found HEIC",
		},
		{
			"AVIF", []byte("\x00\x00\x00\x18ftypavif"),
			"not an image in a supported format (PNG, JPEG, WebP, GIF, BMP): found AVIF",
		},
		{"signature alone", good[:8], "broken PNG: unexpected EOF"},
		{"header alone", good[:33], "broken PNG: unexpected EOF"},
		{"cut in its pixels", good[:len(good)-40], "broken PNG: not enough pixel data"},
		{"without IEND", good[:len(good)-12], "broken PNG: unexpected EOF"},
		{"wrong checksum of the header", flipped(good, 29), "broken PNG: invalid checksum"},
		{"wrong checksum of the pixels", flipped(good, len(good)-13), "broken PNG: invalid checksum"},
		{"no width", header(0, 9, 8, trueColour), "broken PNG: non-positive dimension"},
		{"no height", header(9, 0, 8, trueColour), "broken PNG: non-positive dimension"},
		{"negative", header(0x80000001, 9, 8, trueColour), "broken PNG: non-positive dimension"},
		{
			"too many pixels", header(100000, 100000, 8, trueColour),
			"image is 100000 x 100000 pixels: at most 16777216 are decoded",
		},
		{
			"one pixel too many", header(4096, 4097, 8, trueColour),
			"image is 4096 x 4097 pixels: at most 16777216 are decoded",
		},
		{"too wide", header(1<<24, 1, 8, trueColour), "image is 16777216 x 1 pixels: at most 65535 a side are decoded"},
		{"too tall", header(1, 1<<24, 8, trueColour), "image is 1 x 16777216 pixels: at most 65535 a side are decoded"},
		{"most pixels, no data", header(4096, 4096, 16, trueAlpha), "image is 4096 x 4096 pixels: found only 33 bytes"},
		{"another depth", header(9, 9, 3, grey), "broken PNG: png: unsupported feature: bit depth 3, color type 0"},
		{
			"IHDR is not first", slices.Concat(good[:8], chunk("tEXt", []byte("a\x00b")), good[8:]),
			"broken PNG: expected IHDR as the first chunk",
		},
		{
			"pixels beyond the image", pngOf(1, 1, 8, grey, chunk("IDAT", deflate(0, 1, 0, 2))),
			"broken PNG: too much pixel data",
		},
		{
			"fewer pixels than the image", pngOf(2, 2, 8, grey, chunk("IDAT", deflate(0, 1, 2, 0))),
			"broken PNG: not enough pixel data",
		},
		{"pixels of no filter", pngOf(1, 1, 8, grey, chunk("IDAT", deflate(9, 1))), "broken PNG: bad filter type"},
		{
			"pixels that are not deflated", pngOf(1, 1, 8, grey, chunk("IDAT", []byte("pixels"))),
			"broken PNG: zlib: invalid header",
		},
		{
			"a palette of 257 colours", pngOf(1, 1, 8, paletted, chunk("PLTE", make([]byte, 3*257))),
			"broken PNG: bad PLTE length",
		},
		{"no palette", pngOf(1, 1, 8, paletted, chunk("IDAT", deflate(0, 0))), "broken PNG: chunk out of order"},
		{
			"text without an end", slices.Concat(good[:33], []byte("\x7f\xff\xff\xfftEXtabc")),
			"broken PNG: unexpected EOF",
		},
		{
			"text of a negative length", slices.Concat(good[:33], []byte("\xff\xff\xff\xfftEXtabc")),
			"broken PNG: Bad chunk length: 4294967295",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := mustParse(t, `{}`, 3, 224, 224)
			if _, err := p.Pixels(c.encoded); err == nil || err.Error() != c.want {
				t.Errorf("expected %q, found %q", c.want, err)
			}
		})
	}
}

func TestImagesThatAModelRefuses(t *testing.T) {
	for _, c := range []struct {
		config   string
		channels int
		image    string
		want     string
	}{
		{`{"size": 16}`, 1, "colour2-8bit", "image is in colour: expected a grey one, since the model takes 1 channel"},
		{`{"size": 16}`, 1, "palette-8bit", "image is in colour: expected a grey one, since the model takes 1 channel"},
		{
			`{"do_resize": false}`, 3, "colour2-8bit",
			"image is 13 x 9 pixels: expected 16 x 16, since do_resize is false",
		},
		{
			`{"size": 16, "do_convert_rgb": true}`, 3, "key-rgb-16bit",
			"image has a transparent colour and 16 bits a sample: expected 1 or 8",
		},
	} {
		p := mustParse(t, c.config, c.channels, 16, 16)
		if _, err := p.Pixels(testImage(t, c.image)); err == nil || err.Error() != c.want {
			t.Errorf("%s with %s: expected %q, found %q", c.image, c.config, c.want, err)
		}
	}
}

func TestAncillaryChunksChangeNothing(t *testing.T) {
	p := mustParse(t, `{"size": 16}`, 3, 16, 16)
	good := testImage(t, "colour2-8bit")
	want := values(t, p, good)
	with := func(kind string, data []byte) []byte { return slices.Concat(good[:33], chunk(kind, data), good[33:]) }
	for name, encoded := range map[string][]byte{
		"data after the end":       slices.Concat(good, []byte("and more")),
		"a megabyte of text":       with("tEXt", make([]byte, 1<<20)),
		"a colour profile":         with("iCCP", []byte("name\x00\x00broken")),
		"gamma":                    with("gAMA", []byte{0, 0, 0, 1}),
		"EXIF that is empty":       with("eXIf", nil),
		"a chunk nobody knows yet": with("xyZw", []byte("?")),
	} {
		if got := values(t, p, encoded); !slices.Equal(got, want) {
			t.Errorf("%s: expected the same pixels as without", name)
		}
	}
}

// The processor does not turn images, whatever their EXIF says.
func TestOrientationIsIgnored(t *testing.T) {
	p := mustParse(t, `{"size": 16}`, 3, 16, 16)
	if !slices.Equal(values(t, p, testImage(t, "exif-turned")), values(t, p, testImage(t, "exif-upright"))) {
		t.Error("an image with another orientation has other pixels")
	}
}

// What is allocated follows the bytes sent, the bounds and the model's size, not what a file says of itself.
func TestMemoryIsBounded(t *testing.T) {
	const mib = 1 << 20
	good := testImage(t, "colour2-8bit")
	largest := encodeGrey(t, 4096, 4096)
	for _, c := range []struct {
		name    string
		encoded []byte
		max     uint64
	}{
		{"claims of a header", header(4096, 4096, 16, trueAlpha), mib},
		{"claims of a chunk", slices.Concat(good[:33], []byte("\x7f\xff\xff\xfftEXtabc")), mib},
		{"claims of pixels", slices.Concat(good[:33], []byte("\x7f\xff\xff\xffIDAT"), deflate(0, 0)), mib},
		{"as wide as can be", encodeGrey(t, maxSide, 1), 12 * mib},
		{"as tall as can be", encodeGrey(t, 1, maxSide), 12 * mib},
		{"as large as can be", largest, 1<<24 + 12*mib},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := mustParse(t, `{"resample": 1}`, 3, 224, 224)
			expectAllocated(t, p, c.encoded, c.max)
		})
	}
}

// expectAllocated decodes an image, with an error or not, and wants no more bytes to be allocated for it.
func expectAllocated(t *testing.T, p *Image, encoded []byte, most uint64) {
	t.Helper()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, _ = p.Pixels(encoded)
	runtime.ReadMemStats(&after)
	if found := after.TotalAlloc - before.TotalAlloc; found > most {
		t.Errorf("expected at most %d bytes to be allocated, found %d", most, found)
	}
}

func FuzzPixels(f *testing.F) {
	for _, name := range []string{
		"bytes", "colour0-1bit", "colour0-16bit-interlaced", "colour2-8bit", "colour4-8bit", "colour6-16bit",
		"colour6-8bit-interlaced", "exif-turned", "exif-upright", "key-rgb-16bit", "palette-2bit-alpha", "palette-8bit",
	} {
		f.Add(testImage(f, name), []byte(nil), uint8(2), uint8(16), uint8(16), true)
		f.Add(testImage(f, name), make([]byte, 200), uint8(1), uint8(9), uint8(40), false)
	}
	f.Add(testImage(f, "noise-1x40"), []byte(nil), uint8(0), uint8(7), uint8(3), false)
	f.Fuzz(func(t *testing.T, encoded, scanLines []byte, id, height, width uint8, onWhite bool) {
		p := &Image{
			channels: 3, height: max(int(height), 1), width: max(int(width), 1),
			onWhite: onWhite, resize: true,
			size:     size{height: max(int(height), 1), width: max(int(width), 1)},
			resample: resample(id % uint8(len(filters))),
			values:   make([][256]float32, 3),
		}
		for c := range p.values {
			for i := range p.values[c] {
				p.values[c][i] = float32(i)
			}
		}
		encoded = repaired(encoded, scanLines)
		if config, err := png.DecodeConfig(bytes.NewReader(encoded)); err == nil && config.Width*config.Height > 1<<16 {
			t.Skip("larger than is good for the rate of tries")
		}
		pixels, err := p.Pixels(encoded)
		if err != nil {
			if strings.Contains(err.Error(), "pixels of type") {
				t.Errorf("expected every type of the decoder to be known: %v", err)
			}
			return
		}
		for _, value := range pixels.Data().([]float32) {
			if value < 0 || value > 255 {
				t.Fatalf("expected bytes, found %g", value)
			}
		}
		if again := values(t, p, encoded); !slices.Equal(again, pixels.Data().([]float32)) {
			t.Error("expected the same pixels twice")
		}
	})
}

// repaired sets the signature and the checksums of a PNG right, and deflates scanLines, if there are any, in place of
// its own, so that fuzzing reaches what is behind them.
func repaired(encoded, scanLines []byte) []byte {
	rest := encoded[min(8, len(encoded)):]
	repaired := []byte("\x89PNG\r\n\x1a\n")
	for len(rest) >= 12 {
		length := int(binary.BigEndian.Uint32(rest))
		if length > len(rest)-12 {
			break
		}
		kind, data := string(rest[4:8]), rest[8:8+length]
		if kind == "IDAT" && len(scanLines) > 0 {
			data = deflate(scanLines...)
		}
		repaired = append(repaired, chunk(kind, data)...)
		rest = rest[12+length:]
	}
	return append(repaired, rest...)
}

// flipped is a copy with one bit wrong.
func flipped(encoded []byte, at int) []byte {
	encoded = slices.Clone(encoded)
	encoded[at] ^= 1
	return encoded
}

// chunk is one chunk of a PNG, with its length and checksum.
func chunk(kind string, data []byte) []byte {
	encoded := binary.BigEndian.AppendUint32(nil, uint32(len(data)))
	encoded = append(append(encoded, kind...), data...)
	return binary.BigEndian.AppendUint32(encoded, crc32.ChecksumIEEE(encoded[4:]))
}

// header is a PNG up to its IHDR.
func header(width, height uint32, depth, colour uint8) []byte {
	data := binary.BigEndian.AppendUint32(nil, width)
	data = binary.BigEndian.AppendUint32(data, height)
	return append([]byte("\x89PNG\r\n\x1a\n"), chunk("IHDR", append(data, depth, colour, 0, 0, 0))...)
}

// pngOf is a PNG of these chunks and an end.
func pngOf(width, height uint32, depth, colour uint8, chunks ...[]byte) []byte {
	return slices.Concat(header(width, height, depth, colour), slices.Concat(chunks...), chunk("IEND", nil))
}

func deflate(data ...byte) []byte {
	var b bytes.Buffer
	w := zlib.NewWriter(&b)
	_, _ = w.Write(data) // a bytes.Buffer takes everything
	_ = w.Close()
	return b.Bytes()
}

// encodeGrey is a PNG of one shade.
func encodeGrey(t *testing.T, width, height int) []byte {
	t.Helper()
	img := image.NewGray(image.Rect(0, 0, width, height))
	for i := range img.Pix {
		img.Pix[i] = 77
	}
	var b bytes.Buffer
	if err := png.Encode(&b, img); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}
