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

// bmpHeader is what comes before the pixels (BITMAPCOREHEADER, BITMAPINFOHEADER and what was added to it). The
// standard library's neighbour reads three kinds of it, Pillow all.
type bmpHeader struct {
	height, width int
	topDown       bool
	bits          int
	compression   uint32
	masks         [4]uint32 // of red, green, blue and alpha
	palette       []byte
	colour        int // bytes of one in the palette
	pixels        int // where they begin
}

func bmpSize(encoded []byte) (height, width int, err error) {
	h, err := parseBMP(encoded)
	return h.height, h.width, err
}

func parseBMP(encoded []byte) (h bmpHeader, err error) {
	const file = 14
	if len(encoded) < file+12 {
		return h, io.ErrUnexpectedEOF
	}
	u16 := func(at int) int { return int(binary.LittleEndian.Uint16(encoded[at:])) }
	u32 := func(at int) uint32 { return binary.LittleEndian.Uint32(encoded[at:]) }
	offset, size, colours := int64(u32(10)), u32(file), int64(0)
	if int64(len(encoded)) < file+int64(size) {
		return h, io.ErrUnexpectedEOF
	}
	end := file + int(size)
	switch size {
	case 12:
		h.width, h.height, h.bits, h.colour = u16(file+4), u16(file+6), u16(file+10), 3
	case 40, 52, 56, 64, 108, 124:
		height := u32(file + 8)
		if h.topDown = encoded[file+11] == 0xff; h.topDown {
			height = -height
		}
		h.width, h.height = int(u32(file+4)), int(height)
		h.bits, h.compression, colours, h.colour = u16(file+14), u32(file+16), int64(u32(file+32)), 4
	default:
		return h, fmt.Errorf("expected a header of 12, 40, 52, 56, 64, 108 or 124 bytes, found %d", size)
	}
	if h.compression == bmpMasks && h.bits > 8 {
		n := 3
		if size >= 56 {
			n = 4
		}
		if len(encoded) < file+40+4*n {
			return h, io.ErrUnexpectedEOF
		}
		for i := range n {
			h.masks[i] = u32(file + 40 + 4*i)
		}
		if size == 40 {
			end += 4 * n
		}
	}
	if h.bits > 8 {
		h.pixels = int(offset)
		if offset == 0 {
			h.pixels = end
		}
		return h, h.check()
	}
	if colours == 0 {
		colours = 1 << h.bits
	}
	if colours > 1<<16 {
		return h, fmt.Errorf("expected a palette of at most 65536 colours, found %d", colours)
	}
	after := int64(end) + int64(h.colour)*colours
	h.palette = encoded[end:min(after, int64(len(encoded)))]
	if offset == int64(file)+int64(size) || offset == 0 {
		offset = after // who wrote it had forgotten the palette
	}
	h.pixels = int(offset)
	return h, h.check()
}

// check refuses what Pillow does not read either.
func (h *bmpHeader) check() error {
	if !slices.Contains([]int{1, 4, 8, 16, 24, 32}, h.bits) {
		return fmt.Errorf("expected 1, 4, 8, 16, 24 or 32 bits a pixel, found %d", h.bits)
	}
	switch h.compression {
	case bmpRaw:
	case bmpRLE8, bmpRLE4:
		if h.bits > 8 {
			return fmt.Errorf("expected 4 or 8 bits a pixel where runs are encoded, found %d", h.bits)
		}
	case bmpMasks:
		if _, err := h.layout(); err != nil {
			return err
		}
	default:
		return fmt.Errorf("expected a compression of 0 to 3, found %d", h.compression)
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

func (h *bmpHeader) layout() (layout, error) {
	usual := layout{2, 1, 0, -1}
	if h.compression != bmpMasks {
		return usual, nil
	}
	colours := [3]uint32(h.masks[:3])
	switch {
	case h.bits == 16 && (h.sixBits() || colours == [3]uint32{0x7c00, 0x3e0, 0x1f}):
		return usual, nil
	case h.bits == 24 && colours == [3]uint32{0xff0000, 0xff00, 0xff}:
		return usual, nil
	case h.bits == 32:
		if l, known := layouts[h.masks]; known {
			return l, nil
		}
	}
	return usual, fmt.Errorf("expected masks of a usual layout, found %#x for %d bits a pixel", h.masks, h.bits)
}

// sixBits tells whether green has six bits of 16, not five as the others.
func (h *bmpHeader) sixBits() bool {
	return h.compression == bmpMasks && [3]uint32(h.masks[:3]) == [3]uint32{0xf800, 0x7e0, 0x1f}
}

func decodeBMP(encoded []byte, a asked) (*picture, error) {
	h, err := parseBMP(encoded)
	if err != nil {
		return nil, fmt.Errorf("broken BMP: %w", err)
	}
	if h.pixels > len(encoded) {
		return nil, fmt.Errorf("broken BMP: expected pixels at byte %d, found %d bytes", h.pixels, len(encoded))
	}
	data := encoded[h.pixels:]
	if h.bits <= 8 {
		return h.paletted(data, a)
	}
	if err := a.inColour(); err != nil {
		return nil, err
	}
	lines, err := h.lines(data)
	if err != nil {
		return nil, err
	}
	p := &bmpPixels{lines: lines, width: h.width, step: h.bits / 8, sixBits: h.sixBits()}
	if p.layout, err = h.layout(); err != nil {
		return nil, fmt.Errorf("broken BMP: %w", err)
	}
	if !a.onWhite {
		p.alpha = -1
	}
	return &picture{rows: p}, nil
}

// bmpLines are the lines of an image in the file, each padded to four bytes.
type bmpLines struct {
	data           []byte
	stride, height int
	topDown        bool
}

// lines has all lines; the last may lack its padding.
func (h *bmpHeader) lines(data []byte) (bmpLines, error) {
	l := bmpLines{data: data, stride: (h.width*h.bits + 31) / 32 * 4, height: h.height, topDown: h.topDown}
	return l, claims(h.height, h.width, l.stride*(h.height-1)+(h.width*h.bits+7)/8, len(data))
}

func (l *bmpLines) line(y int) []byte {
	if !l.topDown {
		y = l.height - 1 - y
	}
	return l.data[y*l.stride:]
}

func (h *bmpHeader) paletted(data []byte, a asked) (*picture, error) {
	var palette [256][3]uint8
	colours := len(h.palette) / h.colour
	for i := range min(colours, len(palette)) {
		c := h.palette[i*h.colour:]
		palette[i] = [3]uint8{c[2], c[1], c[0]}
	}
	isBlackAndWhite := colours == 2 && palette[0] == [3]uint8{} && palette[1] == [3]uint8{255, 255, 255}
	if !isBlackAndWhite && (colours > len(palette) || !isGrey(palette[:colours])) {
		if err := a.inColour(); err != nil {
			return nil, err
		}
	}
	p := &indexed{width: h.width, channels: a.channels, palette: &palette}
	if h.compression == bmpRLE8 || h.compression == bmpRLE4 {
		indices, err := h.runs(data)
		if err != nil {
			return nil, fmt.Errorf("broken BMP: %w", err)
		}
		lines := bmpLines{data: indices, stride: h.width, height: h.height, topDown: h.topDown}
		p.indices = func(y int) []uint8 { return lines.line(y)[:h.width] }
		return &picture{rows: p}, nil
	}
	lines, err := h.lines(data)
	if err != nil {
		return nil, err
	}
	line := make([]uint8, h.width)
	p.indices = func(y int) []uint8 {
		packed := lines.line(y)
		for x := range line {
			bit := x * h.bits
			line[x] = packed[bit/8] >> (8 - h.bits - bit%8) & (1<<h.bits - 1)
		}
		return line
	}
	return &picture{rows: p}, nil
}

// errFewPixels is where runs end before the image does.
var errFewPixels = errors.New("not enough pixel data")

// runs decodes runs into indices, line by line as they are in the file, as Pillow does (BmpImagePlugin.py): a run ends
// with its line, what is skipped has the first colour, and what is written pixel by pixel may go on in the next line.
func (h *bmpHeader) runs(data []byte) ([]uint8, error) {
	size := h.width * h.height
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
			count = min(count, max(h.width-x, 0), size-len(indices))
			x += count
			h.run(&indices, count, value)
		case value == 0: // the line ends
			if rest := len(indices) % h.width; rest > 0 {
				skip(h.width - rest)
			}
			x = 0
		case value == 1: // the image ends
			return nil, errFewPixels
		case value == 2: // so far to the right, and so many lines on
			if at+1 >= len(data) {
				return nil, errFewPixels
			}
			skip(int(data[at]) + int(data[at+1])*h.width)
			x = len(indices) % h.width
			at += 2
		default: // pixel by pixel, to a whole number of bytes and an even place in the file
			count := min(int(value), size-len(indices))
			bytes := count
			if h.compression == bmpRLE4 {
				bytes = (count + 1) / 2
			}
			if at+bytes > len(data) {
				return nil, errFewPixels
			}
			for i := range count {
				if h.compression == bmpRLE4 {
					indices = append(indices, data[at+i/2]>>(4-4*(i%2))&15)
				} else {
					indices = append(indices, data[at+i])
				}
			}
			x += int(value)
			at += bytes
			at += (h.pixels + at) % 2
		}
	}
	return indices, nil
}

// run appends so many pixels of a value, or of its two halves in turn.
func (h *bmpHeader) run(indices *[]uint8, count int, value uint8) {
	if h.compression == bmpRLE8 {
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
