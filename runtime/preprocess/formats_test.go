package preprocess

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// changed is a copy with other bytes from there on.
func changed(encoded []byte, at int, with string) []byte {
	encoded = slices.Clone(encoded)
	copy(encoded[at:], with)
	return encoded
}

// after is where something ends in a file.
func after(t *testing.T, encoded []byte, what string) int {
	t.Helper()
	at := bytes.Index(encoded, []byte(what))
	if at < 0 {
		t.Fatalf("expected %q in the file, found none", what)
	}
	return at + len(what)
}

func TestImagesOfOtherFormatsThatAreRefused(t *testing.T) {
	jpg, progressive := testImage(t, "jpeg-exif.jpg"), testImage(t, "jpeg-progressive.jpg")
	frame := after(t, jpg, "\xff\xc0")
	scan := after(t, progressive, "\xff\xda") - 2
	lossy, lossless := testImage(t, "webp-lossy.webp"), testImage(t, "webp-lossless.webp")
	animated := testImage(t, "webp-animated.webp")
	plain, bitmap, rle := testImage(t, "gif-plain.gif"), testImage(t, "bmp-rgb.bmp"), testImage(t, "bmp-rle8.bmp")
	u32 := func(n uint32) string { return string(binary.LittleEndian.AppendUint32(nil, n)) }
	for _, c := range []struct {
		name    string
		encoded []byte
		want    string
	}{
		{"JPEG, signature alone", jpg[:3], "broken JPEG: it has no frame"},
		{"JPEG, cut in a marker", jpg[:frame+5], "broken JPEG: unexpected EOF"},
		{"JPEG, cut in its pixels", jpg[:len(jpg)-40], "broken JPEG: short Huffman data"},
		{"JPEG, 12 bits", changed(jpg, frame+2, "\x0c"), "broken JPEG: expected 8 bits a sample, found 12"},
		{
			"JPEG, lossless", changed(jpg, frame-1, "\xc3"),
			"broken JPEG: expected a baseline, extended or progressive image, found a lossless or hierarchical one",
		},
		{"JPEG, arithmetic coding", changed(jpg, frame-1, "\xc9"), "broken JPEG: arithmetic coding is not supported"},
		{"JPEG, no height", changed(jpg, frame+3, "\x00\x00"), "broken JPEG: expected at least 1 x 1 pixels, found 83 x 0"},
		{
			"JPEG, too large", changed(jpg, frame+3, "\xff\xff\xff\xff"),
			"image is 65535 x 65535 pixels: at most 16777216 are decoded",
		},
		{
			"JPEG, larger than its file", changed(jpg, frame+3, "\x0f\xff\x0f\xff"),
			"image is 4095 x 4095 pixels: found only 1280 bytes",
		},
		{"JPEG, two components", changed(jpg, frame+7, "\x02"), "broken JPEG: its frame has a wrong length"},
		{
			"JPEG, samplings nobody has", changed(jpg, frame+9, "\x91"),
			"broken JPEG: expected 1 to 4 samples of a component, found 9 x 1",
		},
		{"JPEG, two frames", slices.Concat(jpg[:frame+17], jpg[frame-2:]), "broken JPEG: it has more than one frame"},
		{
			"JPEG, a hundred passes more", slices.Concat(
				progressive[:scan],
				bytes.Repeat([]byte("\xff\xda\x00\x08\x01\x01\x00\x00\x00\x00"), maxScans+1), progressive[scan:],
			), "broken JPEG: expected at most 100 scans, found more",
		},
		{"JPEG, no marker", changed(jpg, 20, "no"), "broken JPEG: expected a marker at byte 20, found 0x6e"},

		{"WebP, not RIFF", changed(lossy, 0, "RIFX"), `broken WebP: expected a RIFF file, found "RIFX"`},
		{
			"WebP, cut", lossy[:len(lossy)-40],
			"broken WebP: expected as many bytes as the RIFF header says, 602, found 562",
		},
		{"WebP, shorter than its pixels", changed(lossy, 4, "\x40\x00\x00\x00"), "broken WebP: unexpected EOF"},
		{
			"WebP, of no length", changed(lossy, 4, "\x00\x00\x00\x00"),
			"broken WebP: expected as many bytes as the RIFF header says, 0, found 602",
		},
		{
			"WebP, another chunk first", changed(lossy, 12, "VP9 "),
			`broken WebP: expected an image, found a chunk named "VP9 "`,
		},
		{"WebP, no key frame", changed(lossy, 20, "\x31"), "broken WebP: expected a key frame"},
		{
			"WebP, too large", changed(lossy, 26, "\xff\x3f\xff\x3f"),
			"image is 16383 x 16383 pixels: at most 16777216 are decoded",
		},
		{"WebP, no pixels", changed(lossy, 26, "\x00\x00"), "broken WebP: expected at least 1 x 1 pixels, found 0 x 61"},
		{"WebP, not lossless", changed(lossless, 20, "\x2e"), "broken WebP: expected a lossless image"},
		{
			"WebP, lossless and broken", changed(lossless, 25, strings.Repeat("\xff", 40)),
			"broken WebP: vp8l: invalid color cache parameters",
		},
		{
			"WebP, a first image in a corner", changed(animated, after(t, animated, "ANMF")+4, "\x01"),
			"broken WebP: expected the first image of an animation to fill it, found it smaller",
		},
		{
			"WebP, smaller than its canvas", changed(animated, 24, "\x60"),
			"broken WebP: expected an image of 97 x 61 pixels, as its header says, found 83 x 61",
		},

		{"GIF, cut in its palette", plain[:20], "broken GIF: unexpected EOF"},
		{"GIF, cut in its pixels", plain[:len(plain)-40], "broken GIF: not enough image data"},
		{"GIF, no image", slices.Concat(plain[:13+48], []byte(";")), "broken GIF: it has no image"},
		{
			"GIF, an unknown block", slices.Concat(plain[:13+48], []byte("?")),
			"broken GIF: expected a block at byte 61, found 0x3f",
		},
		{
			"GIF, too large", changed(plain, 6, "\xff\xff\xff\xff"),
			"image is 65535 x 65535 pixels: at most 16777216 are decoded",
		},
		{
			"GIF, an image larger than its file",
			changed(changed(plain, 6, "\xff\x0f\xff\x0f"), after(t, plain, "\x2c\x00\x00\x00\x00"),
				"\xff\x0f\xff\x0f"), "image is 4095 x 4095 pixels: found only 1059 bytes",
		},
		{
			"GIF, beyond its screen", changed(plain, after(t, plain, "\x2c"), "\x01"),
			"broken GIF: frame bounds larger than image bounds",
		},

		{
			"BMP, a header of another size", changed(bitmap, 14, u32(41)),
			"broken BMP: expected a header of 12, 40, 52, 56, 64, 108 or 124 bytes, found 41",
		},
		{"BMP, cut in its pixels", bitmap[:len(bitmap)-40], "image is 19 x 13 pixels: found only 740 bytes"},
		{
			"BMP, larger than its file", changed(bitmap, 18, u32(4095)+u32(4095)),
			"image is 4095 x 4095 pixels: found only 780 bytes",
		},
		{
			"BMP, too large", changed(bitmap, 18, u32(1<<31)+u32(1<<30)),
			"image is 2147483648 x 1073741824 pixels: at most 16777216 are decoded",
		},
		{
			"BMP, a depth of 2", changed(bitmap, 28, "\x02"),
			"broken BMP: expected 1, 4, 8, 16, 24 or 32 bits a pixel, found 2",
		},
		{"BMP, a JPEG in it", changed(bitmap, 30, u32(4)), "broken BMP: expected a compression of 0 to 3, found 4"},
		{
			"BMP, runs of colours", changed(bitmap, 30, u32(1)),
			"broken BMP: expected 4 or 8 bits a pixel where runs are encoded, found 24",
		},
		{
			"BMP, masks nobody has", changed(testImage(t, "bmp-565.bmp"), 54, u32(0xf000)),
			"broken BMP: expected masks of a usual layout, found [0xf000 0x7e0 0x1f 0x0] for 16 bits a pixel",
		},
		{
			"BMP, a palette without an end", changed(rle, 46, u32(1<<17)),
			"broken BMP: expected a palette of at most 65536 colours, found 131072",
		},
		{
			"BMP, pixels behind its end", changed(bitmap, 10, u32(1<<20)),
			"broken BMP: expected pixels at byte 1048576, found 834 bytes",
		},
		{"BMP, runs that end", rle[:len(rle)-8], "broken BMP: not enough pixel data"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := mustParse(t, `{}`, 3, 224, 224)
			if _, err := p.Pixels(c.encoded); err == nil || err.Error() != c.want {
				t.Errorf("expected %q, found %v", c.want, err)
			}
		})
	}
}

// A model of one channel takes no colours, whatever the format.
func TestColoursThatAModelRefuses(t *testing.T) {
	p := mustParse(t, `{"size": 16}`, 1, 16, 16)
	for _, name := range []string{
		"jpeg-exif.jpg", "jpeg-cmyk.jpg", "webp-lossy.webp", "webp-lossless.webp", "gif-plain.gif", "bmp-rgb.bmp",
		"bmp-palette-4.bmp",
	} {
		if _, err := p.Pixels(testImage(t, name)); err != errColour { //nolint:errorlint // as it is
			t.Errorf("%s: expected %q, found %v", name, errColour, err)
		}
	}
}

// EXIF's orientation changes nothing, in no format.
func TestOrientationOfAJPEGIsIgnored(t *testing.T) {
	p := mustParse(t, `{"size": 16}`, 3, 16, 16)
	turned := testImage(t, "jpeg-exif.jpg")
	exif := after(t, turned, "\xff\xe1")
	upright := slices.Concat(turned[:exif-2], turned[exif+int(binary.BigEndian.Uint16(turned[exif:])):])
	if !slices.Equal(values(t, p, turned), values(t, p, upright)) {
		t.Error("an image with another orientation has other pixels")
	}
}

// What a small file says of itself allocates little, and what is decoded no more than the bounds.
func TestMemoryOfOtherFormatsIsBounded(t *testing.T) {
	if testing.Short() {
		t.Skip("not in the short form")
	}
	const mib = 1 << 20
	jpg, progressive := testImage(t, "jpeg-exif.jpg"), testImage(t, "jpeg-progressive.jpg")
	larger := func(encoded []byte, frame string) []byte { // with bytes behind its end that make 4096 x 4096 plausible
		at := after(t, encoded, frame)
		return slices.Concat(changed(encoded, at+3, "\x10\x00\x10\x00"), make([]byte, 100_000))
	}
	for _, c := range []struct {
		name    string
		encoded []byte
		most    uint64
	}{
		{"a JPEG's claims", changed(jpg, after(t, jpg, "\xff\xc0")+3, "\x10\x00\x10\x00"), mib},
		{"a JPEG that is not whole", larger(jpg, "\xff\xc0"), 32 * mib},
		{"a progressive JPEG that is not whole", larger(progressive, "\xff\xc2"), maxJPEG},
		{"a GIF's claims", changed(testImage(t, "gif-plain.gif"), 6, "\x00\x10\x00\x10"), 2 * mib},
		{"a BMP's claims", changed(testImage(t, "bmp-rgb.bmp"), 18, "\x00\x10\x00\x00\x00\x10\x00\x00"), mib},
		{"a BMP's runs", changed(testImage(t, "bmp-rle8.bmp"), 18, "\x00\x10\x00\x00\x00\x10\x00\x00"), 20 * mib},
		{"a WebP's claims", changed(testImage(t, "webp-lossy.webp"), 26, "\x00\x10\x00\x10"), 32 * mib},
		{"a lossless WebP's", changed(testImage(t, "webp-lossless.webp"), 21, "\xff\xcf\xff\x03"), 192 * mib},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := mustParse(t, `{"resample": 1}`, 3, 224, 224)
			expectAllocated(t, p, c.encoded, c.most)
		})
	}
}

// Of an image that is far longer than wide only the middle is ever computed.
func TestAStripTakesNoMoreThanItsMiddle(t *testing.T) {
	p := mustParse(t, `{"image_processor_type": "BitImageProcessor"}`, 3, 224, 224)
	strip := encodeGrey(t, maxSide, 1)
	expectAllocated(t, p, strip, 12<<20)
	_ = values(t, p, strip) // it is answered
}

func FuzzJPEG(f *testing.F) { fuzzFormat(f, ".jpg", "\xff\xd8\xff") }
func FuzzWebP(f *testing.F) { fuzzFormat(f, ".webp", "RIFF") }
func FuzzGIF(f *testing.F)  { fuzzFormat(f, ".gif", "GIF89a") }
func FuzzBMP(f *testing.F)  { fuzzFormat(f, ".bmp", "BM") }

// fuzzFormat decodes what is like the images of a format: an answer twice the same, or an error.
func fuzzFormat(f *testing.F, extension, magic string) {
	paths, err := filepath.Glob(filepath.Join("testdata", "images", "*"+extension))
	if err != nil || len(paths) == 0 {
		f.Fatalf("expected images %s, found none: %v", extension, err)
	}
	for _, path := range paths {
		encoded, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		if len(encoded) < 8<<10 {
			f.Add(encoded, true)
		}
	}
	p := mustParse(f, `{"size": {"shortest_edge": 9}, "do_center_crop": true, "crop_size": 8}`, 3, 8, 8)
	f.Fuzz(func(t *testing.T, encoded []byte, onWhite bool) {
		encoded = append([]byte(magic), encoded[min(len(magic), len(encoded)):]...)
		if Area(encoded) > 1<<16 {
			t.Skip("larger than is good for the rate of tries")
		}
		own := *p
		own.onWhite = onWhite
		pixels, err := own.Pixels(encoded)
		if err != nil {
			if strings.Contains(err.Error(), "pixels of type") {
				t.Errorf("expected every type of the decoder to be known: %v", err)
			}
			return
		}
		if again := values(t, &own, encoded); !slices.Equal(again, pixels.Data().([]float32)) {
			t.Error("expected the same pixels twice")
		}
	})
}
