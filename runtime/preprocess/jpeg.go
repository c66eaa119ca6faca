package preprocess

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"image"
	"image/jpeg"
	"io"
	"strings"
)

const (
	// maxScans bounds the passes over a progressive image, each of which may take a few bytes and all of its blocks.
	// Encoders write about ten.
	maxScans = 100

	// maxJPEG is what may be allocated for one: a progressive image keeps all coefficients, 4 bytes each.
	maxJPEG = 192 << 20
)

// jpegFile is a JPEG, and what its markers say (ITU-T T.81, annex B).
type jpegFile struct {
	encoded       []byte
	height, width int
	components    []jpegComponent
	progressive   bool
	scans         int
	jfif, adobe   bool
	transform     uint8    // of an Adobe marker
	apart         [][2]int // where the Adobe markers are
}

type jpegComponent struct {
	id   uint8
	h, v int // samples, beside those of the others
}

// Markers.
const (
	markSOI, markEOI, markSOS   = 0xd8, 0xd9, 0xda
	markBaseline, markExtended  = 0xc0, 0xc1
	markProgressive             = 0xc2
	markDHT, markJPG, markDAC   = 0xc4, 0xc8, 0xcc
	markRST0, markRST7, markTEM = 0xd0, 0xd7, 0x01
	markAPP0, markAPP14         = 0xe0, 0xee
)

func openJPEG(encoded []byte) (file, error) {
	f := &jpegFile{encoded: encoded}
	if err := f.parse(); err != nil {
		return nil, err
	}
	return f, nil
}

func (f *jpegFile) size() (height, width int) { return f.height, f.width }

// parse reads all markers up to the end of the image, or of what there is of it.
func (f *jpegFile) parse() error {
	encoded, at := f.encoded, 2
	for at+1 < len(encoded) {
		marker := encoded[at+1]
		switch {
		case encoded[at] != 0xff:
			return fmt.Errorf("expected a marker at byte %d, found %#x", at, encoded[at])
		case marker == 0xff: // padding
			at++
			continue
		case marker == markTEM || marker >= markRST0 && marker <= markRST7:
			at += 2
			continue
		case marker == markEOI:
			return f.whole()
		}
		if at+4 > len(encoded) {
			break
		}
		end := at + 2 + int(binary.BigEndian.Uint16(encoded[at+2:]))
		if end < at+4 || end > len(encoded) {
			return io.ErrUnexpectedEOF
		}
		if err := f.take(marker, encoded[at+4:end], at, end); err != nil {
			return err
		}
		at = end
		if marker == markSOS {
			at += entropyCoded(encoded[at:])
		}
	}
	return f.whole()
}

// entropyCoded is how many bytes there are until the next marker that is no restart.
func entropyCoded(data []byte) int {
	for at := 0; ; {
		next := bytes.IndexByte(data[at:], 0xff)
		if next < 0 || at+next+1 >= len(data) {
			return len(data)
		}
		at += next
		if m := data[at+1]; m != 0 && m != 0xff && (m < markRST0 || m > markRST7) {
			return at
		}
		at++
	}
}

func (f *jpegFile) whole() error {
	if f.components == nil {
		return errors.New("it has no frame")
	}
	return nil
}

// take takes in a segment, which begins and ends there in the file.
func (f *jpegFile) take(marker uint8, segment []byte, start, end int) error {
	switch {
	case marker == markSOS:
		if f.scans++; f.scans > maxScans {
			return fmt.Errorf("expected at most %d scans, found more", maxScans)
		}
	case marker == markAPP0:
		f.jfif = f.jfif || bytes.HasPrefix(segment, []byte("JFIF\x00")) && len(segment) >= 12
	case marker == markAPP14 && bytes.HasPrefix(segment, []byte("Adobe")) && len(segment) >= 12:
		f.adobe, f.transform = true, segment[11]
		f.apart = append(f.apart, [2]int{start, end})
	case marker == markBaseline, marker == markExtended, marker == markProgressive:
		f.progressive = marker == markProgressive
		return f.frame(segment)
	case marker == markDHT, marker < markBaseline, marker > 0xcf:
	case marker == markJPG, marker == markDAC, marker > markJPG:
		return errors.New("arithmetic coding is not supported")
	default:
		return errors.New("expected a baseline, extended or progressive image, found a lossless or hierarchical one")
	}
	return nil
}

func (f *jpegFile) frame(segment []byte) error {
	if f.components != nil {
		return errors.New("it has more than one frame")
	}
	if len(segment) < 6 || len(segment) != 6+3*int(segment[5]) {
		return errors.New("its frame has a wrong length")
	}
	if segment[0] != 8 {
		return fmt.Errorf("expected 8 bits a sample, found %d", segment[0])
	}
	f.height, f.width = int(binary.BigEndian.Uint16(segment[1:])), int(binary.BigEndian.Uint16(segment[3:]))
	f.components = []jpegComponent{}
	for at := 6; at < len(segment); at += 3 {
		c := jpegComponent{id: segment[at], h: int(segment[at+1] >> 4), v: int(segment[at+1] & 15)}
		if c.h < 1 || c.h > 4 || c.v < 1 || c.v > 4 {
			return fmt.Errorf("expected 1 to 4 samples of a component, found %d x %d", c.h, c.v)
		}
		f.components = append(f.components, c)
	}
	if n := len(f.components); n != 1 && n != 3 && n != 4 {
		return fmt.Errorf("expected 1, 3 or 4 components, found %d", n)
	}
	return nil
}

// blocks are those of 8 x 8 samples, of all components.
func (f *jpegFile) blocks() int {
	if len(f.components) == 1 {
		return ((f.width + 7) / 8) * ((f.height + 7) / 8)
	}
	most, sum := jpegComponent{}, 0
	for _, c := range f.components {
		most.h, most.v = max(most.h, c.h), max(most.v, c.v)
		sum += c.h * c.v
	}
	columns := (f.width + 8*most.h - 1) / (8 * most.h)
	return columns * ((f.height + 8*most.v - 1) / (8 * most.v)) * sum
}

// inRGB tells whether the three components are red, green and blue, by the rules of libjpeg (jdapimin.c).
func (f *jpegFile) inRGB() bool {
	switch {
	case f.jfif:
		return false
	case f.adobe:
		return f.transform == 0
	}
	return f.components[0].id == 'R' && f.components[1].id == 'G' && f.components[2].id == 'B'
}

// planes has the decoder give the components as they are, whatever they mean: of three as luma and chroma, of four as
// cyan, magenta, yellow and black.
func (f *jpegFile) planes() io.Reader {
	start := []byte{0xff, markSOI}
	switch len(f.components) {
	case 3:
		start = append(start, "\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00"...)
	case 4:
		start = append(start, "\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x00"...)
	}
	parts, at := []io.Reader{bytes.NewReader(start)}, 2
	for _, marker := range f.apart {
		parts = append(parts, bytes.NewReader(f.encoded[at:marker[0]]))
		at = marker[1]
	}
	return io.MultiReader(append(parts, bytes.NewReader(f.encoded[at:]))...)
}

func (f *jpegFile) decode(a asked) (rows, error) {
	blocks := f.blocks()
	// The first pass takes a bit for each block at least.
	if err := claims(f.height, f.width, blocks/8, len(f.encoded)); err != nil {
		return nil, err
	}
	size := 64 * blocks // bytes
	if len(f.components) == 4 {
		size *= 3 // the decoder joins the planes, and they are taken apart again
	}
	if f.progressive {
		size += 4 * 64 * blocks // coefficients
	}
	if size > maxJPEG {
		return nil, fmt.Errorf("image is %d x %d pixels, progressive: it takes %d bytes to decode, at most %d are spent",
			f.width, f.height, size, maxJPEG)
	}
	if len(f.components) > 1 {
		if err := a.inColour(); err != nil {
			return nil, err
		}
	}
	img, err := jpeg.Decode(f.planes())
	if err != nil {
		return nil, fmt.Errorf("broken JPEG: %s", strings.TrimPrefix(err.Error(), "invalid JPEG format: "))
	}
	switch img := img.(type) {
	case *image.Gray:
		return &samples{channels: a.channels, width: f.width, pix: img.Pix, stride: img.Stride, step: 1}, nil
	case *image.YCbCr:
		return &luma{chroma: chromaOf(img), inRGB: f.inRGB()}, nil
	case *image.CMYK:
		return f.inks(img), nil
	}
	return nil, fmt.Errorf("not a supported JPEG: found pixels of type %T", img)
}

// chroma is two planes that have a sample for each h x v pixels, brought to every pixel as libjpeg does it with its
// "fancy upsampling" (jdsample.c): each new sample is three parts of the nearest and one of the next nearest, and which
// way halves are rounded alternates.
type chroma struct {
	luma           []uint8
	stride         int // of luma
	planes         [2][]uint8
	planeStride    int
	width, height  int // of the image
	columns, lines int // of the planes
	h, v           int
	samples        [2][]uint8 // [width], of the row asked last
	sums           []int32    // [columns]
}

func chromaOf(img *image.YCbCr) chroma {
	c := chroma{
		luma: img.Y, stride: img.YStride, planes: [2][]uint8{img.Cb, img.Cr}, planeStride: img.CStride,
		width: img.Rect.Dx(), height: img.Rect.Dy(),
	}
	s := samplings[img.SubsampleRatio]
	return c.of(s[0], s[1])
}

// samplings are how many pixels a sample of chroma is for, across and down.
var samplings = map[image.YCbCrSubsampleRatio][2]int{
	image.YCbCrSubsampleRatio444: {1, 1}, image.YCbCrSubsampleRatio440: {1, 2}, image.YCbCrSubsampleRatio422: {2, 1},
	image.YCbCrSubsampleRatio420: {2, 2}, image.YCbCrSubsampleRatio411: {4, 1}, image.YCbCrSubsampleRatio410: {4, 2},
}

func (c chroma) of(h, v int) chroma {
	c.h, c.v = h, v
	c.columns, c.lines = (c.width+h-1)/h, (c.height+v-1)/v
	c.samples = [2][]uint8{make([]uint8, c.width), make([]uint8, c.width)}
	c.sums = make([]int32, c.columns)
	return c
}

// at is the row's luma and both planes' samples for each pixel.
func (c *chroma) at(y int) (luma, first, second []uint8) {
	for i, plane := range c.planes {
		c.upsample(c.samples[i], plane, y)
	}
	return c.luma[y*c.stride:][:c.width], c.samples[0], c.samples[1]
}

func (c *chroma) upsample(dst, plane []uint8, y int) {
	line := func(y int) []uint8 { return plane[y*c.planeStride:][:c.columns] }
	above, below := y, y
	if c.v == 2 {
		above, below = neighbours(y, c.lines)
	}
	nearest, next := line(above), line(below)
	switch {
	case c.h == 1 && c.v == 1:
		copy(dst, nearest)
	case c.h == 1 && c.v == 2:
		for x := range dst {
			dst[x] = clamp((3*int32(nearest[x]) + int32(next[x]) + int32(1+y%2)) >> 2)
		}
	case c.h == 2 && c.v == 1 && c.columns > 2:
		for x := range dst {
			i, j := neighbours(x, c.columns)
			dst[x] = clamp((3*int32(nearest[i]) + int32(nearest[j]) + int32(1+x%2)) >> 2)
		}
	case c.h == 2 && c.v == 2 && c.columns > 2:
		for i := range c.sums {
			c.sums[i] = 3*int32(nearest[i]) + int32(next[i])
		}
		for x := range dst {
			i, j := neighbours(x, c.columns)
			dst[x] = clamp((3*c.sums[i] + c.sums[j] + int32(8-x%2)) >> 4)
		}
	default:
		for x := range dst {
			dst[x] = nearest[x/c.h]
		}
	}
}

// luma is rows of pixels in YCbCr, or in RGB with as many samples.
type luma struct {
	chroma

	inRGB bool
}

func (p *luma) row(dst []uint8, y int) {
	first, second, third := p.at(y)
	if p.inRGB {
		for x := range first {
			dst[3*x], dst[3*x+1], dst[3*x+2] = first[x], second[x], third[x]
		}
		return
	}
	for x := range first {
		dst[3*x], dst[3*x+1], dst[3*x+2] = toRGB(first[x], second[x], third[x])
	}
}

// toRGB is JFIF's conversion, in libjpeg's fixed point (jdcolor.c): 16 bits of fraction, rounded for each product but
// green's, whose two are rounded together.
func toRGB(y, cb, cr uint8) (r, g, b uint8) {
	luma, blue, red := int32(y), int32(cb)-128, int32(cr)-128
	r = clamp(luma + (91881*red+1<<15)>>16)
	g = clamp(luma + (-22554*blue-46802*red+1<<15)>>16)
	b = clamp(luma + (116130*blue+1<<15)>>16)
	return r, g, b
}

// inks are rows of cyan, magenta, yellow and black, as Adobe writes them: 255 is no ink.
type inks struct {
	chroma // cyan, magenta and yellow, or luma and chroma of what is left of white by them

	black     []uint8
	converted bool
}

// inks undoes what the decoder does to four components: each plane is turned, and samples for several pixels are
// repeated.
func (f *jpegFile) inks(img *image.CMYK) *inks {
	p := &inks{converted: f.adobe && f.transform != 0}
	p.width, p.height = img.Rect.Dx(), img.Rect.Dy()
	factor := f.components[0].h / f.components[1].h
	plane := func(component, factor int) []uint8 {
		columns := (p.width + factor - 1) / factor
		values := make([]uint8, 0, columns*((p.height+factor-1)/factor))
		for y := 0; y < p.height; y += factor {
			for x := 0; x < p.width; x += factor {
				values = append(values, 255-img.Pix[y*img.Stride+4*x+component])
			}
		}
		return values
	}
	p.luma, p.stride = plane(0, 1), p.width
	p.planes = [2][]uint8{plane(1, factor), plane(2, factor)}
	p.planeStride = (p.width + factor - 1) / factor
	p.chroma = p.of(factor, factor)
	p.black = plane(3, 1)
	return p
}

func (p *inks) row(dst []uint8, y int) {
	first, second, third := p.at(y)
	black := p.black[y*p.width:][:p.width]
	for x := range first {
		// libjpeg gives the inks as they are in the file, or 255 less what is left of white; Pillow turns all four.
		c, m, k := 255-first[x], 255-second[x], 255-third[x]
		if p.converted {
			c, m, k = toRGB(first[x], second[x], third[x])
		}
		paper := int32(black[x]) // 255 less Pillow's black
		dst[3*x], dst[3*x+1], dst[3*x+2] = ink(c, paper), ink(m, paper), ink(k, paper)
	}
}

// ink is what Pillow leaves of white by an ink and by black (Convert.c).
func ink(value uint8, paper int32) uint8 {
	product := int32(value)*paper + 128
	return clamp(paper - (product>>8+product)>>8)
}
