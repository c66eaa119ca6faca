package preprocess

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
)

const (
	// maxPixels bounds an image before it is decoded: above what cameras of phones commonly give (12 million). PNG takes
	// most, 8 bytes a pixel and half as much again where it is interlaced, so 192 MiB while one image is decoded.
	maxPixels = 1 << 24

	// maxSide is the longest side of a JPEG. It keeps rows and filter weights small next to the pixels; Pillow needs
	// gigabytes for the weights of one row of 1<<24 pixels.
	maxSide = 1<<16 - 1
)

// format is a kind of file, recognized by its first bytes, so that one can be refused by its name.
type format struct {
	name   string
	offset int
	magic  string
	open   func(encoded []byte) (file, error) // reads what is before the pixels; nil where it is not decoded
}

// file is an encoded image, opened.
type file interface {
	// size is as the file claims.
	size() (height, width int)
	decode(a asked) (rows, error)
}

// asked is what an image is decoded for.
type asked struct {
	channels int  // 3, or 1 for grey images alone
	onWhite  bool // whether it is laid on white where it is transparent
}

var formats = []format{
	{name: "PNG", magic: "\x89PNG\r\n\x1a\n", open: openPNG},
	{name: "JPEG", magic: "\xff\xd8\xff", open: openJPEG},
	{name: "WebP", offset: 8, magic: "WEBP", open: openWebP},
	{name: "GIF", magic: "GIF8", open: openGIF},
	{name: "BMP", magic: "BM", open: openBMP},
	{name: "TIFF", magic: "II*\x00"},
	{name: "TIFF", magic: "MM\x00*"},
	{name: "AVIF", offset: 4, magic: "ftypavif"},
	{name: "HEIC", offset: 4, magic: "ftyphei"},
}

// decode opens an image. Nothing that grows with it is allocated before its size is known to be within bounds and, as
// far as the format tells, to be plausible for the bytes at hand.
func decode(encoded []byte, a asked) (*picture, error) {
	f := formatOf(encoded)
	if f.open == nil {
		return nil, fmt.Errorf("not an image in a supported format (%s): found %s", supported(), f.name)
	}
	opened, err := f.open(encoded)
	if err != nil {
		return nil, fmt.Errorf("broken %s: %w", f.name, err)
	}
	height, width := opened.size()
	switch {
	case height < 1 || width < 1:
		return nil, fmt.Errorf("broken %s: expected at least 1 x 1 pixels, found %d x %d", f.name, width, height)
	case int64(height)*int64(width) > maxPixels:
		return nil, fmt.Errorf("image is %d x %d pixels: at most %d are decoded", width, height, maxPixels)
	case height > maxSide || width > maxSide:
		return nil, fmt.Errorf("image is %d x %d pixels: at most %d a side are decoded", width, height, maxSide)
	}
	pixels, err := opened.decode(a)
	if err != nil {
		return nil, err
	}
	return &picture{channels: a.channels, height: height, width: width, rows: pixels}, nil
}

// Area is the number of pixels that an encoded image claims to have, 0 if it is none that Pixels decodes.
func Area(encoded []byte) int64 {
	f := formatOf(encoded)
	if f.open == nil {
		return 0
	}
	opened, err := f.open(encoded)
	if err != nil {
		return 0
	}
	height, width := opened.size()
	return int64(height) * int64(width)
}

func formatOf(encoded []byte) format {
	if len(encoded) == 0 {
		return format{name: "nothing"}
	}
	for _, f := range formats {
		if len(encoded) >= f.offset && bytes.HasPrefix(encoded[f.offset:], []byte(f.magic)) {
			return f
		}
	}
	return format{name: "an unknown one"}
}

// supported are the names of the formats that are decoded.
func supported() string {
	var names []string
	for _, f := range formats {
		if f.open != nil && !slices.Contains(names, f.name) {
			names = append(names, f.name)
		}
	}
	return strings.Join(names, ", ")
}

// claims refuses an image whose file is too short for the pixels that it claims.
func claims(height, width int, least, found int) error {
	if found < least {
		return fmt.Errorf("image is %d x %d pixels: found only %d bytes", width, height, found)
	}
	return nil
}

// inColour refuses an image for a model of one channel.
func (a asked) inColour() error {
	if a.channels == 1 {
		return errColour
	}
	return nil
}

var errColour = fmt.Errorf("image is in colour: expected a grey one, since the model takes 1 channel")
