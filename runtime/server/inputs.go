package server

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"runtime"
	"slices"

	"gorgonia.org/tensor"

	"github.com/switchyard-dev/switchyard/runtime/arch"
	"github.com/switchyard-dev/switchyard/runtime/engine"
	"github.com/switchyard-dev/switchyard/runtime/preprocess"
	"github.com/switchyard-dev/switchyard/runtime/preprocess/text"
	"github.com/switchyard-dev/switchyard/runtime/protocol"
	"github.com/switchyard-dev/switchyard/runtime/quote"
)

// input is one of the protocol's inputs, as this base takes it: what the rows are made of.
type input struct {
	name, datatype string
	shape          []int    // the first dimension is any; others may be, too
	beside         []string // tensors of the same datatype and shape that may stand beside it
	decode         func(ctx context.Context, g *given) ([]decoded, error)
}

// decoded is a row's input, and the text that it was made of if there was one.
type decoded struct {
	input *engine.Input
	text  *textInput
}

// textInput is a text, or a pair of them, and the tokens.
type textInput struct {
	text     string // the first
	isPair   bool
	encoding *text.Encoding
}

// given is an input of a request, and those beside it by name.
type given struct {
	source  *input
	tensors map[string]*protocol.Tensor
	shape   []int
	most    int // tokens of a text; 1 of an image
	times   int // that each row is asked: of so many adapters

	everyLabel bool // is named in each row's answer
}

// inputsFor are the inputs that the base takes.
func (s *Server) inputsFor() []input {
	if s.takes.Text != nil {
		shape := []int{protocol.AnySize, protocol.AnySize}
		inputs := []input{{"input_ids", protocol.INT64, shape, []string{"attention_mask", "token_type_ids"}, s.tokens}}
		if s.options.Texts != nil {
			inputs = append(inputs, input{"text", protocol.BYTES, []int{protocol.AnySize}, []string{"text_pair"}, s.texts})
		}
		return inputs
	}
	size := s.takes.Image
	shape := []int{protocol.AnySize, size.Channels, size.Height, size.Width}
	if size.Patch[0] > 0 {
		shape[2], shape[3] = protocol.AnySize, protocol.AnySize
	}
	inputs := []input{{"pixel_values", protocol.FP32, shape, nil, s.pixels}}
	if s.preprocess != nil {
		inputs = append(inputs, input{"image", protocol.BYTES, []int{protocol.AnySize}, nil, s.images})
	}
	return inputs
}

func (s *Server) input(name string) *input {
	for i := range s.inputs {
		if s.inputs[i].name == name {
			return &s.inputs[i]
		}
	}
	return nil
}

func (s *Server) inputNames() []string {
	return each(s.inputs, func(in *input) string { return in.name })
}

// inputsOf finds the one input that the rows are made of with what stands beside it, and the adapter tensor if there is
// one.
func (s *Server) inputsOf(request *Request) (g *given, asked *protocol.Tensor, err error) {
	tensors := map[string]*protocol.Tensor{}
	for i := range request.Inputs {
		in := &request.Inputs[i]
		if in.Name == adapterInput {
			asked = in
			continue
		}
		tensors[in.Name] = in
		if source := s.input(in.Name); source != nil {
			if g != nil {
				return nil, nil, badRequest("expected one input beside adapter, found %s and %s",
					quote.Name(g.source.name), quote.Name(in.Name))
			}
			g = &given{source: source, tensors: tensors, most: s.MaxTokens()}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(tensors)) {
		if s.input(name) == nil && (g == nil || !slices.Contains(g.source.beside, name)) {
			return nil, nil, badRequest("input %s is not one of %v", quote.Name(name), s.inputNames())
		}
	}
	if g == nil {
		return nil, nil, badRequest("expected one of the inputs %v, found none", s.inputNames())
	}
	return g, asked, nil
}

// MaxTokens is how many a text has at most; 1 where images are asked about, which are not answered token by token.
func (s *Server) MaxTokens() int {
	if takes := s.takes.Text; takes != nil {
		return takes.MaxTokens
	}
	return 1
}

// rows checks the tensors' types and shapes, and returns how many rows they are.
func (g *given) rows() (n int, err error) {
	in := g.tensors[g.source.name]
	if g.shape, err = in.Expect(g.source.datatype, g.source.shape); err != nil {
		return 0, err
	}
	for _, name := range g.source.beside {
		if beside := g.tensors[name]; beside != nil {
			if _, err := beside.Expect(g.source.datatype, g.shape); err != nil {
				return 0, err
			}
		}
	}
	return g.shape[0], nil
}

// holds refuses a shape that has more elements than its data can be.
func (g *given) holds() error { return g.tensors[g.source.name].Holds(g.shape) }

// tokens is how many a row of a text has at most.
func (g *given) tokens() int {
	if len(g.shape) == 2 {
		return g.shape[1]
	}
	return g.most
}

// pixels reads pixel_values: FP32 [B, C, H, W].
func (s *Server) pixels(_ context.Context, g *given) ([]decoded, error) {
	values, err := g.tensors[g.source.name].Floats(g.shape)
	if err != nil {
		return nil, err
	}
	rows := make([]decoded, g.shape[0])
	size := len(values) / len(rows)
	for i := range rows {
		rows[i].input = &engine.Input{
			Pixels: tensor.New(tensor.WithShape(g.shape[1:]...), tensor.WithBacking(values[i*size:(i+1)*size])),
		}
	}
	return rows, nil
}

// maxArea bounds the pixels of the images of one request: a small file can be a large picture, and 16 of the largest
// take seconds to decode.
const maxArea = 1 << 28

// images reads image: BYTES [B], each an encoded image.
func (s *Server) images(ctx context.Context, g *given) ([]decoded, error) {
	in := g.tensors[g.source.name]
	encoded, err := in.Blobs(g.shape)
	if err != nil {
		return nil, err
	}
	rows := make([]decoded, len(encoded))
	area := int64(0)
	for i, image := range encoded {
		pixelsOf := preprocess.Area(image)
		if area += pixelsOf; area > maxArea {
			return nil, Errorf(http.StatusRequestEntityTooLarge,
				"input %s: row %d: expected images of at most %d pixels in a request, found more", quote.Name(in.Name), i, maxArea)
		}
		pixels, err := s.decodeImage(ctx, image, pixelsOf)
		if err != nil {
			return nil, fmt.Errorf("input %s: row %d: %w", quote.Name(in.Name), i, err)
		}
		rows[i].input = &engine.Input{Pixels: pixels}
	}
	return rows, nil
}

// pixelBytes is what decoding takes for a pixel at most: of the largest image that there is, arch.DecodingBytes.
const pixelBytes = 12

// decodeImage decodes one image of so many pixels, when there is room for it: a small file can be a large picture.
func (s *Server) decodeImage(ctx context.Context, image []byte, area int64) (*tensor.Dense, error) {
	share := int64(arch.DecodingBytes / runtime.GOMAXPROCS(0)) // at least: there is a CPU for each
	room := min(max(pixelBytes*area, share), arch.DecodingBytes)
	if err := s.decoding.Acquire(ctx, room); err != nil {
		return nil, err
	}
	defer s.decoding.Release(room)
	pixels, err := s.preprocess.Pixels(image)
	if err != nil {
		return nil, &Error{Code: http.StatusUnprocessableEntity, err: err}
	}
	return pixels, nil
}

// tokens reads input_ids: INT64 [B, S], with attention_mask and token_type_ids of the same shape. A row is as long as
// its mask; what is behind is padding, and left out.
func (s *Server) tokens(_ context.Context, g *given) ([]decoded, error) {
	read := map[string][]int32{}
	for _, name := range append([]string{g.source.name}, g.source.beside...) {
		in := g.tensors[name]
		if in == nil {
			continue
		}
		values, err := in.Integers(g.shape)
		if err != nil {
			return nil, err
		}
		read[name] = values
	}
	rows, length := make([]decoded, g.shape[0]), g.shape[1]
	for i := range rows {
		from, to := i*length, (i+1)*length
		if mask := read["attention_mask"]; mask != nil {
			n, err := maskedLength(mask[from:to])
			if err != nil {
				return nil, badRequest("input \"attention_mask\": row %d: %v", i, err)
			}
			to = from + n
		}
		rows[i].input = &engine.Input{IDs: read["input_ids"][from:to]}
		if types := read["token_type_ids"]; types != nil {
			rows[i].input.Types = types[from:to]
		}
	}
	return rows, nil
}

// texts reads text: BYTES [B], with text_pair of the same shape.
func (s *Server) texts(ctx context.Context, g *given) ([]decoded, error) {
	in := g.tensors[g.source.name]
	texts, err := in.Texts(g.shape)
	if err != nil {
		return nil, err
	}
	pairs := make([]*string, len(texts))
	if second := g.tensors["text_pair"]; second != nil {
		if pairs, err = second.OptionalTexts(g.shape); err != nil {
			return nil, err
		}
	}
	rows := make([]decoded, len(texts))
	for i := range texts {
		encoding, err := s.options.Texts.Encode(ctx, texts[i], pairs[i], true)
		var refused *text.InputError
		if errors.As(err, &refused) {
			err = &Error{Code: http.StatusUnprocessableEntity, err: err}
		}
		if err != nil {
			return nil, fmt.Errorf("input %s: row %d: %w", quote.Name(in.Name), i, err)
		}
		rows[i] = decoded{
			&engine.Input{IDs: encoding.IDs, Types: s.typesOf(encoding)},
			&textInput{texts[i], pairs[i] != nil, encoding},
		}
	}
	return rows, nil
}

// typesOf are the types of a text's tokens, where the model has any: transformers does not give them to others.
func (s *Server) typesOf(e *text.Encoding) []int32 {
	if s.takes.Text.Types < 2 {
		return nil
	}
	return e.Types
}

// maskedLength is the number of tokens that a mask leaves: ones, then zeros. A mask with holes, or with padding first,
// means positions that differ from model to model, so it is refused.
func maskedLength(mask []int32) (int, error) {
	n := slices.Index(mask, 0)
	if n < 0 {
		n = len(mask)
	}
	for i, v := range mask {
		switch {
		case v != 0 && v != 1:
			return 0, fmt.Errorf("expected 0 or 1, found %d at %d", v, i)
		case v == 1 && i > n:
			return 0, fmt.Errorf("expected ones, then zeros, found a 1 at %d behind a 0 at %d: "+
				"padding on the left, or in the midst, is not supported", i, n)
		}
	}
	if n == 0 {
		return 0, errors.New("expected at least one token, found none")
	}
	return n, nil
}
