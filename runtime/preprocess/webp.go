package preprocess

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"image"
	"io"

	"golang.org/x/image/vp8"
	"golang.org/x/image/vp8l"
	"golang.org/x/image/webp"
)

// webpFile is a still image, or the first of several (RFC 9649).
type webpFile struct {
	height, width int
	lossless      bool
	hasAlpha      bool
	alpha         []byte // the chunk with the alpha of a lossy image, nil for none
	pixels        []byte // the chunk with all else
}

func openWebP(encoded []byte) (file, error) {
	f := &webpFile{}
	if err := f.parse(encoded); err != nil {
		return nil, err
	}
	return f, nil
}

func (f *webpFile) size() (height, width int) { return f.height, f.width }

// parse finds the chunks that an image is made of.
func (f *webpFile) parse(encoded []byte) error {
	const flagAnimation, flagAlpha = 0x02, 0x10
	rest, err := unwrap(encoded)
	if err != nil {
		return err
	}
	name, chunk, rest, err := nextChunk(rest)
	if err != nil {
		return err
	}
	if name != "VP8X" {
		return f.take(name, chunk)
	}
	if len(chunk) < 10 {
		return io.ErrUnexpectedEOF
	}
	width, height := 1+u24(chunk[4:]), 1+u24(chunk[7:])
	isAnimated, hasAlpha := chunk[0]&flagAnimation != 0, chunk[0]&flagAlpha != 0
	for f.pixels == nil {
		if name, chunk, rest, err = nextChunk(rest); err != nil {
			return err
		}
		switch {
		case name == "ANMF" && isAnimated:
			const frame = 16 // where it is on the canvas, and for how long
			if len(chunk) < frame {
				return io.ErrUnexpectedEOF
			}
			if chunk[0]|chunk[1]|chunk[2]|chunk[3]|chunk[4]|chunk[5] != 0 {
				return errors.New("expected the first image of an animation to fill it, found it smaller")
			}
			rest = chunk[frame:]
		case name == "ALPH":
			f.alpha = chunk
		case name == "VP8 " || name == "VP8L":
			err = f.take(name, chunk)
		}
		if err != nil {
			return err
		}
	}
	if f.height != height || f.width != width {
		return fmt.Errorf("expected an image of %d x %d pixels, as its header says, found %d x %d",
			width, height, f.width, f.height)
	}
	f.hasAlpha = hasAlpha && (f.alpha != nil || f.lossless)
	return nil
}

// unwrap is what the file's one RIFF chunk holds after the word WEBP. What is behind that is no part of the image.
func unwrap(encoded []byte) ([]byte, error) {
	const header, kind = 8, 4
	switch size := int64(binary.LittleEndian.Uint32(encoded[4:])); {
	case string(encoded[:4]) != "RIFF":
		return nil, fmt.Errorf("expected a RIFF file, found %q", encoded[:4])
	case size < kind || size > int64(len(encoded)-header):
		return nil, fmt.Errorf("expected as many bytes as the RIFF header says, %d, found %d", size, len(encoded)-header)
	default:
		return encoded[header+kind : header+size], nil
	}
}

// nextChunk splits off a chunk.
func nextChunk(data []byte) (name string, chunk, rest []byte, err error) {
	const header = 8
	if len(data) < header {
		return "", nil, nil, io.ErrUnexpectedEOF
	}
	size := int64(binary.LittleEndian.Uint32(data[4:]))
	if size > int64(len(data)-header) {
		return "", nil, nil, io.ErrUnexpectedEOF
	}
	name, data = string(data[:4]), data[header:]
	return name, data[:size], data[min(size+size%2, int64(len(data))):], nil
}

func u24(b []byte) int { return int(b[0]) | int(b[1])<<8 | int(b[2])<<16 }

// take takes in the chunk with the pixels, which begins with their number.
func (f *webpFile) take(name string, chunk []byte) error {
	f.pixels = chunk
	switch name {
	case "VP8 ": // RFC 6386, 9.1
		if len(chunk) < 10 {
			return io.ErrUnexpectedEOF
		}
		if chunk[0]&1 != 0 || string(chunk[3:6]) != "\x9d\x01\x2a" {
			return errors.New("expected a key frame")
		}
		f.width = int(binary.LittleEndian.Uint16(chunk[6:])) & 0x3fff
		f.height = int(binary.LittleEndian.Uint16(chunk[8:])) & 0x3fff
	case "VP8L":
		if len(chunk) < 5 {
			return io.ErrUnexpectedEOF
		}
		if chunk[0] != 0x2f {
			return errors.New("expected a lossless image")
		}
		bits := binary.LittleEndian.Uint32(chunk[1:])
		f.lossless = true
		f.width, f.height = 1+int(bits&0x3fff), 1+int(bits>>14&0x3fff)
		f.hasAlpha = bits>>28&1 != 0
	default:
		return fmt.Errorf("expected an image, found a chunk named %q", name)
	}
	return nil
}

func (f *webpFile) decode(a asked) (rows, error) {
	if err := a.inColour(); err != nil { // the format has no other
		return nil, err
	}
	img, err := f.image()
	if err != nil {
		return nil, fmt.Errorf("broken WebP: %w", err)
	}
	if img.Bounds().Dx() < f.width || img.Bounds().Dy() < f.height {
		return nil, fmt.Errorf("broken WebP: expected %d x %d pixels, found %v", f.width, f.height, img.Bounds())
	}
	onWhite := a.onWhite && f.hasAlpha
	switch img := img.(type) {
	case *image.NRGBA:
		p := &samples{channels: a.channels, width: f.width, pix: img.Pix, stride: img.Stride, step: 4, sample: 1}
		if onWhite {
			p.alpha = 3
		}
		return p, nil
	case *image.YCbCr:
		return newLossy(f, img, nil, 0), nil
	case *image.NYCbCrA:
		if !onWhite {
			return newLossy(f, &img.YCbCr, nil, 0), nil
		}
		return newLossy(f, &img.YCbCr, img.A, img.AStride), nil
	}
	return nil, fmt.Errorf("not a supported WebP: found pixels of type %T", img)
}

func (f *webpFile) image() (image.Image, error) {
	switch {
	case f.lossless:
		return vp8l.Decode(bytes.NewReader(f.pixels))
	case f.alpha == nil:
		d := vp8.NewDecoder()
		d.Init(bytes.NewReader(f.pixels), len(f.pixels))
		if _, err := d.DecodeFrameHeader(); err != nil {
			return nil, err
		}
		return d.DecodeFrame()
	}
	// Alpha is decoded only together with what it belongs to.
	size := make([]byte, 10)
	size[0] = 0x10
	for i, side := range []int{f.width - 1, f.height - 1} { // of at most 14 bits
		binary.LittleEndian.PutUint16(size[4+3*i:], uint16(side)) //nolint:gosec // as said
	}
	file := []byte("WEBP")
	for _, c := range []struct {
		name string
		data []byte
	}{{"VP8X", size}, {"ALPH", f.alpha}, {"VP8 ", f.pixels}} {
		file = binary.LittleEndian.AppendUint32(append(file, c.name...), uint32(len(c.data))) //nolint:gosec // of a chunk
		file = append(append(file, c.data...), make([]byte, len(c.data)%2)...)
	}
	riff := binary.LittleEndian.AppendUint32([]byte("RIFF"), uint32(len(file))) //nolint:gosec // of a file so large
	return webp.Decode(io.MultiReader(bytes.NewReader(riff), bytes.NewReader(file)))
}

// lossy are rows of a lossy image, whose chroma has a sample for 2 x 2 pixels. It is brought to every pixel and turned
// into RGB as libwebp does it (upsampling.c, yuv.h), so Pillow.
type lossy struct {
	img                   *image.YCbCr
	alpha                 []uint8 // nil is opaque
	alphaStride           int
	width, columns, lines int
}

func newLossy(f *webpFile, img *image.YCbCr, alpha []uint8, stride int) *lossy {
	return &lossy{
		img: img, alpha: alpha, alphaStride: stride,
		width: f.width, columns: (f.width + 1) / 2, lines: (f.height + 1) / 2,
	}
}

func (p *lossy) row(dst []uint8, y int) {
	above, below := neighbours(y, p.lines)
	nearest, other := above*p.img.CStride, below*p.img.CStride
	for x := range p.width {
		i, j := neighbours(x, p.columns)
		u := upsampled(p.img.Cb, nearest, other, i, j)
		v := upsampled(p.img.Cr, nearest, other, i, j)
		luma := int32(p.img.Y[y*p.img.YStride+x]) * 19077 >> 8
		to := dst[3*x:][:3]
		to[0] = clamp((luma + v*26149>>8 - 14234) >> 6)
		to[1] = clamp((luma - u*6419>>8 - v*13320>>8 + 8708) >> 6)
		to[2] = clamp((luma + u*33050>>8 - 17685) >> 6)
		if p.alpha != nil {
			alpha := p.alpha[y*p.alphaStride+x]
			to[0], to[1], to[2] = overWhite(to[0], alpha), overWhite(to[1], alpha), overWhite(to[2], alpha)
		}
	}
}

// upsampled weighs the four samples around a pixel 9 : 3 : 3 : 1 by their nearness, rounding twice as libwebp does; at
// the left and right end there are two, 3 : 1.
func upsampled(plane []uint8, nearest, other, i, j int) int32 {
	near, above := int32(plane[nearest+i]), int32(plane[other+i])
	if i == j {
		return (3*near + above + 2) >> 2
	}
	beside, across := int32(plane[nearest+j]), int32(plane[other+j])
	return ((near+beside+above+across+8+2*(beside+above))>>3 + near) >> 1
}
