package preprocess

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
)

// Compressions of a BMP.
const (
	bmpRaw, bmpRLE8, bmpRLE4, bmpMasks = 0, 1, 2, 3
)

// bmpFile is a BMP, and what comes before its pixels (BITMAPCOREHEADER, BITMAPINFOHEADER and what was added to it). The
// standard library's neighbour reads three kinds of it, Pillow all.
type bmpFile struct {
	encoded       []byte
	height, width int
	topDown       bool
	bits          int
	compression   uint32
	masks         [4]uint32 // of red, green, blue and alpha
	palette       []byte
	colour        int // bytes of one in the palette
	pixels        int // where they begin
}

func openBMP(encoded []byte) (file, error) {
	f := &bmpFile{encoded: encoded}
	if err := f.parse(); err != nil {
		return nil, err
	}
	return f, f.check()
}

func (f *bmpFile) size() (height, width int) { return f.height, f.width }

func (f *bmpFile) parse() error {
	encoded := f.encoded
	const file = 14
	if len(encoded) < file+12 {
		return io.ErrUnexpectedEOF
	}
	u16 := func(at int) int { return int(binary.LittleEndian.Uint16(encoded[at:])) }
	u32 := func(at int) uint32 { return binary.LittleEndian.Uint32(encoded[at:]) }
	offset, size, colours := int64(u32(10)), u32(file), int64(0)
	if int64(len(encoded)) < file+int64(size) {
		return io.ErrUnexpectedEOF
	}
	end := file + int(size)
	switch size {
	case 12:
		f.width, f.height, f.bits, f.colour = u16(file+4), u16(file+6), u16(file+10), 3
	case 40, 52, 56, 64, 108, 124:
		height := u32(file + 8)
		if f.topDown = encoded[file+11] == 0xff; f.topDown {
			height = -height
		}
		f.width, f.height = int(u32(file+4)), int(height)
		f.bits, f.compression, colours, f.colour = u16(file+14), u32(file+16), int64(u32(file+32)), 4
	default:
		return fmt.Errorf("expected a header of 12, 40, 52, 56, 64, 108 or 124 bytes, found %d", size)
	}
	if f.compression == bmpMasks && f.bits > 8 {
		n := 3
		if size >= 56 {
			n = 4
		}
		if len(encoded) < file+40+4*n {
			return io.ErrUnexpectedEOF
		}
		for i := range n {
			f.masks[i] = u32(file + 40 + 4*i)
		}
		if size == 40 {
			end += 4 * n
		}
	}
	if f.bits > 8 {
		f.pixels = int(offset)
		if offset == 0 {
			f.pixels = end
		}
		return nil
	}
	if colours == 0 {
		colours = 1 << f.bits
	}
	if colours > 1<<16 {
		return fmt.Errorf("expected a palette of at most 65536 colours, found %d", colours)
	}
	after := int64(end) + int64(f.colour)*colours
	f.palette = encoded[end:min(after, int64(len(encoded)))]
	if offset == int64(file)+int64(size) || offset == 0 {
		offset = after // who wrote it had forgotten the palette
	}
	f.pixels = int(offset)
	return nil
}

// check refuses what Pillow does not read either.
func (f *bmpFile) check() error {
	if !slices.Contains([]int{1, 4, 8, 16, 24, 32}, f.bits) {
		return fmt.Errorf("expected 1, 4, 8, 16, 24 or 32 bits a pixel, found %d", f.bits)
	}
	switch f.compression {
	case bmpRaw:
	case bmpRLE8, bmpRLE4:
		if f.bits > 8 {
			return fmt.Errorf("expected 4 or 8 bits a pixel where runs are encoded, found %d", f.bits)
		}
	case bmpMasks:
		if _, err := f.layout(); err != nil {
			return err
		}
	default:
		return fmt.Errorf("expected a compression of 0 to 3, found %d", f.compression)
	}
	return nil
}

// layout is where in a pixel of 24 or 32 bits red, green, blue and alpha are, 0 bytes of alpha being none.
type layout struct{ red, green, blue, alpha int }

// layouts are those that Pillow knows, by their masks.
var layouts = map[[4]uint32]layout{
	{0xff0000, 0xff00, 0xff, 0}:          {2, 1, 0, -1},
	{0xff000000, 0xff0000, 0xff00, 0}:    {3, 2, 1, -1},
	{0xff000000, 0xff00, 0xff, 0}:        {3, 1, 0, -1},
	{0xff000000, 0xff0000, 0xff00, 0xff}: {3, 2, 1, 0},
	{0xff, 0xff00, 0xff0000, 0xff000000}: {0, 1, 2, 3},
	{0xff0000, 0xff00, 0xff, 0xff000000}: {2, 1, 0, 3},
	{0xff000000, 0xff00, 0xff, 0xff0000}: {3, 1, 0, 2},
	{}:                                   {2, 1, 0, 3},
}

func (f *bmpFile) layout() (layout, error) {
	usual := layout{2, 1, 0, -1}
	if f.compression != bmpMasks {
		return usual, nil
	}
	colours := [3]uint32(f.masks[:3])
	switch {
	case f.bits == 16 && (f.sixBits() || colours == [3]uint32{0x7c00, 0x3e0, 0x1f}):
		return usual, nil
	case f.bits == 24 && colours == [3]uint32{0xff0000, 0xff00, 0xff}:
		return usual, nil
	case f.bits == 32:
		if l, known := layouts[f.masks]; known {
			return l, nil
		}
	}
	return usual, fmt.Errorf("expected masks of a usual layout, found %#x for %d bits a pixel", f.masks, f.bits)
}

// sixBits tells whether green has six bits of 16, not five as the others.
func (f *bmpFile) sixBits() bool {
	return f.compression == bmpMasks && [3]uint32(f.masks[:3]) == [3]uint32{0xf800, 0x7e0, 0x1f}
}

func (f *bmpFile) decode(a asked) (rows, error) {
	if f.pixels > len(f.encoded) {
		return nil, fmt.Errorf("broken BMP: expected pixels at byte %d, found %d bytes", f.pixels, len(f.encoded))
	}
	data := f.encoded[f.pixels:]
	if f.bits <= 8 {
		return f.paletted(data, a)
	}
	if err := a.inColour(); err != nil {
		return nil, err
	}
	lines, err := f.lines(data)
	if err != nil {
		return nil, err
	}
	p := &bmpPixels{lines: lines, width: f.width, step: f.bits / 8, sixBits: f.sixBits()}
	if p.layout, err = f.layout(); err != nil {
		return nil, fmt.Errorf("broken BMP: %w", err)
	}
	if !a.onWhite {
		p.alpha = -1
	}
	return p, nil
}

// bmpLines are the lines of an image in the file, each padded to four bytes.
type bmpLines struct {
	data           []byte
	stride, height int
	topDown        bool
}

// lines has all lines; the last may lack its padding.
func (f *bmpFile) lines(data []byte) (bmpLines, error) {
	l := bmpLines{data: data, stride: (f.width*f.bits + 31) / 32 * 4, height: f.height, topDown: f.topDown}
	return l, claims(f.height, f.width, l.stride*(f.height-1)+(f.width*f.bits+7)/8, len(data))
}

func (l *bmpLines) line(y int) []byte {
	if !l.topDown {
		y = l.height - 1 - y
	}
	return l.data[y*l.stride:]
}

func (f *bmpFile) paletted(data []byte, a asked) (rows, error) {
	var palette [256][3]uint8
	colours := len(f.palette) / f.colour
	for i := range min(colours, len(palette)) {
		c := f.palette[i*f.colour:]
		palette[i] = [3]uint8{c[2], c[1], c[0]}
	}
	isBlackAndWhite := colours == 2 && palette[0] == [3]uint8{} && palette[1] == [3]uint8{255, 255, 255}
	if !isBlackAndWhite && (colours > len(palette) || !isGrey(palette[:colours])) {
		if err := a.inColour(); err != nil {
			return nil, err
		}
	}
	p := &indexed{width: f.width, channels: a.channels, palette: &palette}
	if f.compression == bmpRLE8 || f.compression == bmpRLE4 {
		indices, err := f.runs(data)
		if err != nil {
			return nil, fmt.Errorf("broken BMP: %w", err)
		}
		lines := bmpLines{data: indices, stride: f.width, height: f.height, topDown: f.topDown}
		p.indices = func(y int) []uint8 { return lines.line(y)[:f.width] }
		return p, nil
	}
	lines, err := f.lines(data)
	if err != nil {
		return nil, err
	}
	line := make([]uint8, f.width)
	p.indices = func(y int) []uint8 {
		packed := lines.line(y)
		for x := range line {
			bit := x * f.bits
			line[x] = packed[bit/8] >> (8 - f.bits - bit%8) & (1<<f.bits - 1)
		}
		return line
	}
	return p, nil
}

// errFewPixels is where runs end before the image does.
var errFewPixels = errors.New("not enough pixel data")

// runs decodes runs into indices, line by line as they are in the file, as Pillow does (BmpImagePlugin.py): a run ends
// with its line, what is skipped has the first colour, and what is written pixel by pixel may go on in the next line.
func (f *bmpFile) runs(data []byte) ([]uint8, error) {
	size := f.width * f.height
	indices := make([]uint8, 0, size)
	skip := func(n int) { indices = append(indices, make([]uint8, min(n, size-len(indices)))...) }
	at, x := 0, 0
	for len(indices) < size {
		if at+1 >= len(data) {
			return nil, errFewPixels
		}
		count, value := int(data[at]), data[at+1]
		at += 2
		switch {
		case count > 0:
			count = min(count, max(f.width-x, 0), size-len(indices))
			x += count
			f.run(&indices, count, value)
		case value == 0: // the line ends
			if rest := len(indices) % f.width; rest > 0 {
				skip(f.width - rest)
			}
			x = 0
		case value == 1: // the image ends
			return nil, errFewPixels
		case value == 2: // so far to the right, and so many lines on
			if at+1 >= len(data) {
				return nil, errFewPixels
			}
			skip(int(data[at]) + int(data[at+1])*f.width)
			x = len(indices) % f.width
			at += 2
		default: // pixel by pixel, to a whole number of bytes and an even place in the file
			count := min(int(value), size-len(indices))
			bytes := count
			if f.compression == bmpRLE4 {
				bytes = (count + 1) / 2
			}
			if at+bytes > len(data) {
				return nil, errFewPixels
			}
			for i := range count {
				if f.compression == bmpRLE4 {
					indices = append(indices, data[at+i/2]>>(4-4*(i%2))&15)
				} else {
					indices = append(indices, data[at+i])
				}
			}
			x += int(value)
			at += bytes
			at += (f.pixels + at) % 2
		}
	}
	return indices, nil
}

// run appends so many pixels of a value, or of its two halves in turn.
func (f *bmpFile) run(indices *[]uint8, count int, value uint8) {
	if f.compression == bmpRLE8 {
		*indices = append(*indices, bytes.Repeat([]byte{value}, count)...)
		return
	}
	for i := range count {
		*indices = append(*indices, value>>4)
		if i%2 == 1 {
			(*indices)[len(*indices)-1] = value & 15
		}
	}
}

// bmpPixels are rows of pixels of 16, 24 or 32 bits.
type bmpPixels struct {
	lines bmpLines
	layout

	width, step int
	sixBits     bool
}

func (p *bmpPixels) row(dst []uint8, y int) {
	line := p.lines.line(y)
	for x := range p.width {
		pixel, to := line[x*p.step:], dst[3*x:][:3]
		switch {
		case p.step == 2:
			of := int(binary.LittleEndian.Uint16(pixel))
			to[2] = uint8(of & 31 * 255 / 31)
			if p.sixBits {
				to[1], to[0] = uint8(of>>5&63*255/63), uint8(of>>11&31*255/31)
			} else {
				to[1], to[0] = uint8(of>>5&31*255/31), uint8(of>>10&31*255/31)
			}
		case p.alpha >= 0:
			alpha := pixel[p.alpha]
			to[0], to[1] = overWhite(pixel[p.red], alpha), overWhite(pixel[p.green], alpha)
			to[2] = overWhite(pixel[p.blue], alpha)
		default:
			to[0], to[1], to[2] = pixel[p.red], pixel[p.green], pixel[p.blue]
		}
	}
}
