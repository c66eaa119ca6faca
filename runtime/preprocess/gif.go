package preprocess

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"image"
	"image/gif"
	"io"
	"strings"
)

// maxLZW is the most pixels that one byte of LZW can stand for: 4096 of them in 12 bits.
const maxLZW = 4096 * 8 / 12

// gifFile is a GIF, and what comes before the pixels of its first image (GIF89a).
type gifFile struct {
	encoded       []byte
	height, width int             // of the screen
	frame         image.Rectangle // of the first image on it
	palette       []byte          // red, green and blue of each colour
	transparent   int             // an index, or -1
}

func openGIF(encoded []byte) (file, error) {
	f := &gifFile{encoded: encoded}
	if err := f.parse(); err != nil {
		return nil, err
	}
	return f, nil
}

func (f *gifFile) size() (height, width int) { return f.height, f.width }

// parse reads up to the first image.
func (f *gifFile) parse() error {
	encoded := f.encoded
	const screen = 13
	if len(encoded) < screen {
		return io.ErrUnexpectedEOF
	}
	u16 := func(at int) int { return int(binary.LittleEndian.Uint16(encoded[at:])) }
	f.width, f.height, f.transparent = u16(6), u16(8), -1
	at := screen
	table := func(flags byte) []byte {
		if flags&0x80 == 0 {
			return nil
		}
		from, size := min(at, len(encoded)), 3<<(flags&7+1)
		at += size
		return encoded[from:min(at, len(encoded))]
	}
	f.palette = table(encoded[10])
	for {
		const extension, separator, trailer, control, descriptor = 0x21, 0x2c, 0x3b, 0xf9, 10
		switch {
		case at >= len(encoded):
			return io.ErrUnexpectedEOF
		case encoded[at] == separator && at+descriptor <= len(encoded):
			left, top := u16(at+1), u16(at+3)
			f.frame = image.Rect(left, top, left+u16(at+5), top+u16(at+7))
			flags := encoded[at+descriptor-1]
			at += descriptor
			if own := table(flags); own != nil {
				f.palette = own
			}
			return nil
		case encoded[at] == extension && at+2 < len(encoded):
			if encoded[at+1] == control && encoded[at+2] == 4 && at+6 < len(encoded) {
				if f.transparent = -1; encoded[at+3]&1 != 0 {
					f.transparent = int(encoded[at+6])
				}
			}
			at += 2
			for at < len(encoded) && encoded[at] != 0 { // its blocks
				at += 1 + int(encoded[at])
			}
			at++
		case encoded[at] == trailer:
			return errors.New("it has no image")
		case encoded[at] == separator, encoded[at] == extension:
			return io.ErrUnexpectedEOF
		default:
			return fmt.Errorf("expected a block at byte %d, found %#x", at, encoded[at])
		}
	}
}

// decode gives the first image, as it is drawn on an empty screen. Pillow leaves what is around it transparent, or
// in the palette's first colour where none is.
func (f *gifFile) decode(a asked) (rows, error) {
	area := f.frame.Dx() * f.frame.Dy()
	if err := claims(f.frame.Dy(), f.frame.Dx(), (area+maxLZW-1)/maxLZW, len(f.encoded)); err != nil {
		return nil, err
	}
	var palette [256][3]uint8
	colours := palette[:len(f.palette)/3]
	for i := range colours {
		colours[i] = [3]uint8(f.palette[3*i:])
	}
	if !isGrey(colours) {
		if err := a.inColour(); err != nil {
			return nil, err
		}
	}
	img, err := gif.Decode(bytes.NewReader(f.encoded))
	if err != nil {
		return nil, fmt.Errorf("broken GIF: %s", strings.TrimPrefix(err.Error(), "gif: "))
	}
	pixels, ok := img.(*image.Paletted)
	if !ok || pixels.Rect != f.frame {
		return nil, fmt.Errorf("broken GIF: expected an image of %v, found %T of %v", f.frame, img, img.Bounds())
	}
	around := uint8(0)
	if f.transparent >= 0 {
		around = uint8(f.transparent) //nolint:gosec // a byte of the file
		if a.onWhite {
			palette[around] = [3]uint8{255, 255, 255}
		}
	}
	line := make([]uint8, f.width)
	return &indexed{
		width: f.width, channels: a.channels, palette: &palette,
		indices: func(y int) []uint8 {
			for x := range line {
				line[x] = around
			}
			if y >= f.frame.Min.Y && y < f.frame.Max.Y {
				copy(line[f.frame.Min.X:], pixels.Pix[(y-f.frame.Min.Y)*pixels.Stride:][:f.frame.Dx()])
			}
			return line
		},
	}, nil
}
