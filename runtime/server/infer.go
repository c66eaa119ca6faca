package server

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"time"

	"gorgonia.org/tensor"

	"github.com/switchyard-dev/switchyard/runtime/adapters"
	"github.com/switchyard-dev/switchyard/runtime/batcher"
	"github.com/switchyard-dev/switchyard/runtime/preprocess"
	"github.com/switchyard-dev/switchyard/runtime/quote"
)

// BaseName in the adapter tensor asks the base model, as "" does.
const BaseName = "__base__"

// adapterInput is the tensor that names each row's adapter.
const adapterInput = "adapter"

type inferResponse struct {
	ModelName    string         `json:"model_name"`
	ModelVersion string         `json:"model_version"`
	ID           string         `json:"id,omitempty"`
	Outputs      []outputTensor `json:"outputs"`
}

// infer answers POST /v2/models/{model}[/versions/{version}]/infer.
func (s *Server) infer(w http.ResponseWriter, r *http.Request) error {
	if err := s.admitting(); err != nil {
		return err
	}
	m, err := s.lookup(r)
	if err != nil {
		return err
	}
	response, err := s.respond(w, r, m)
	if err != nil {
		return err
	}
	// What the body held has been given back by now: a client that is slow to read holds up nobody.
	writeJSON(w, http.StatusOK, response)
	return nil
}

// respond reads a request and has it answered.
func (s *Server) respond(w http.ResponseWriter, r *http.Request, m model) (*inferResponse, error) {
	ctx, cancel, err := deadline(r)
	if err != nil {
		return nil, err
	}
	defer cancel()
	body, release, err := s.readBody(w, r)
	if err != nil {
		return nil, err
	}
	defer release()
	request, err := decodeRequest(body)
	if err != nil {
		return nil, err
	}
	chosen, err := chooseOutputs(request.Outputs)
	if err != nil {
		return nil, err
	}
	answers, err := s.answer(ctx, &m, r.PathValue("version"), request)
	if err != nil {
		return nil, err
	}
	return &inferResponse{m.name, m.revision, request.ID, tensors(chosen, answers)}, nil
}

// answer checks what a request asks, row by row, and has it computed. Names are resolved to revisions only here, once
// the body is read: a request whose body came slowly is not answered by a revision of long ago.
func (s *Server) answer(
	ctx context.Context, m *model, version string, request *inferRequest,
) (answers []answer, err error) {
	given, source, asked, err := s.inputsOf(request)
	if err != nil {
		return nil, err
	}
	shape, err := given.expect(source.datatype, source.shape)
	if err != nil {
		return nil, err
	}
	n := shape[0]
	if n > s.options.MaxRows {
		return nil, badRequest("input %s: shape: expected at most %d rows in a request, found %d",
			quote.Name(given.Name), s.options.MaxRows, n)
	}
	defer func() { s.metrics.observeRows(n, err) }()
	held := &held{s.adapters, make(map[string]*adapters.Lease)}
	inBatcher := false
	defer func() {
		if !inBatcher {
			held.release()
		}
	}()
	models, err := s.adaptersOf(m, version, held, asked, n)
	if err != nil {
		return nil, err
	}
	if err := checkWidth(models); err != nil {
		return nil, err
	}
	if !s.rowsHeld.TryAcquire(int64(n)) {
		return nil, tryLater(http.StatusTooManyRequests, errors.New("too many rows in flight"))
	}
	defer s.rowsHeld.Release(int64(n))
	inputs, err := source.decode(ctx, given, shape)
	if err != nil {
		return nil, err
	}
	rows := make([]batcher.Row, n)
	for i, input := range inputs {
		rows[i] = batcher.Row{Input: input, Adapter: models[i].adapter}
	}
	inBatcher = true
	logits, err := s.batcher.Submit(ctx, rows, held.release)
	if err != nil {
		return nil, err
	}
	answers = make([]answer, n)
	for i, l := range logits {
		if slices.ContainsFunc(l, func(v float32) bool { return math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) }) {
			return nil, failure(http.StatusUnprocessableEntity, "row %d: the model's answer to it is not finite", i)
		}
		answers[i] = answer{l, models[i].labels, models[i].revision}
	}
	return answers, nil
}

// maxLogits bounds the answer to one request: of each logit some 25 bytes are sent, as it is and as a probability.
const maxLogits = 1 << 20

func checkWidth(rows []model) error {
	width := 0
	for _, m := range rows {
		width = max(width, len(m.labels))
	}
	if n := width * len(rows); n > maxLogits {
		return badRequest("expected an answer of at most %d logits, found %d rows of %d: ask for fewer rows",
			maxLogits, len(rows), width)
	}
	return nil
}

// deadline takes the request's own deadline from its header.
func deadline(r *http.Request) (context.Context, context.CancelFunc, error) {
	header := r.Header.Get("Switchyard-Timeout-Ms")
	if header == "" {
		return r.Context(), func() {}, nil
	}
	ms, err := strconv.ParseInt(header, 10, 32)
	if err != nil || ms < 1 {
		return nil, nil, badRequest("header Switchyard-Timeout-Ms: expected a positive number, found %s", quote.Name(header))
	}
	ctx, cancel := context.WithTimeout(r.Context(), time.Duration(ms)*time.Millisecond)
	return ctx, cancel, nil
}

// inputsOf finds the one input that the rows are made of, and the adapter tensor if there is one.
func (s *Server) inputsOf(request *inferRequest) (given *inputTensor, source *input, asked *inputTensor, err error) {
	for i := range request.Inputs {
		in := &request.Inputs[i]
		if in.Name == adapterInput {
			asked = in
			continue
		}
		if given != nil {
			return nil, nil, nil, badRequest("expected one input beside adapter, found %s and %s",
				quote.Name(given.Name), quote.Name(in.Name))
		}
		given = in
	}
	if given == nil {
		return nil, nil, nil, badRequest("expected one of the inputs %v, found none", s.inputNames())
	}
	if source = s.input(given.Name); source == nil {
		return nil, nil, nil, badRequest("input %s is not one of %v", quote.Name(given.Name), s.inputNames())
	}
	return given, source, asked, nil
}

// pixels reads pixel_values: FP32 [B, C, H, W].
func (s *Server) pixels(_ context.Context, in *inputTensor, shape []int) ([]*tensor.Dense, error) {
	values, err := in.floats(shape)
	if err != nil {
		return nil, err
	}
	rows := make([]*tensor.Dense, shape[0])
	size := len(values) / len(rows)
	for i := range rows {
		rows[i] = tensor.New(tensor.WithShape(shape[1:]...), tensor.WithBacking(values[i*size:(i+1)*size]))
	}
	return rows, nil
}

// maxArea bounds the pixels of the images of one request: a small file can be a large picture, and 16 of the largest
// take seconds to decode.
const maxArea = 1 << 28

// images reads image: BYTES [B], each an encoded image in base64.
func (s *Server) images(ctx context.Context, in *inputTensor, shape []int) ([]*tensor.Dense, error) {
	encoded, err := in.strings(shape)
	if err != nil {
		return nil, err
	}
	rows := make([]*tensor.Dense, len(encoded))
	area := int64(0)
	for i, text := range encoded {
		image, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			return nil, badRequest("input %s: row %d: expected an image in base64: %v", quote.Name(in.Name), i, err)
		}
		if area += preprocess.Area(image); area > maxArea {
			return nil, failure(http.StatusRequestEntityTooLarge,
				"input %s: row %d: expected images of at most %d pixels in a request, found more", quote.Name(in.Name), i, maxArea)
		}
		if rows[i], err = s.decodeImage(ctx, image); err != nil {
			return nil, fmt.Errorf("input %s: row %d: %w", quote.Name(in.Name), i, err)
		}
	}
	return rows, nil
}

// decodeImage decodes one image, when one of the places for it is free: a small file can be a large picture.
func (s *Server) decodeImage(ctx context.Context, image []byte) (*tensor.Dense, error) {
	if err := s.decoding.Acquire(ctx, 1); err != nil {
		return nil, err
	}
	defer s.decoding.Release(1)
	pixels, err := s.preprocess.Pixels(image)
	if err != nil {
		return nil, &statusError{code: http.StatusUnprocessableEntity, err: err}
	}
	return pixels, nil
}

// adaptersOf resolves who is asked, for each of n rows, and holds them. m, from the path, may have moved to another
// revision since it was looked up.
func (s *Server) adaptersOf(m *model, version string, held *held, asked *inputTensor, n int) ([]model, error) {
	if asked == nil {
		if m.adapter != nil {
			var err error
			if *m, err = held.acquire(m.name); err != nil {
				return nil, err
			}
		}
		return slices.Repeat([]model{*m}, n), checkVersion(*m, version)
	}
	if m.adapter != nil {
		return nil, badRequest("input \"adapter\" is only for the model %s: every row of the model %s is its own",
			quote.Name(s.base.name), quote.Name(m.name))
	}
	if len(asked.Shape) == 2 {
		return nil, badRequest("input \"adapter\": shape: expected [%d]; several adapters for one input, [B, K], "+
			"are not supported yet, found %s", n, quote.Shape(asked.Shape))
	}
	shape, err := asked.expect("BYTES", []int{n})
	if err != nil {
		return nil, err
	}
	names, err := asked.strings(shape)
	if err != nil {
		return nil, err
	}
	models := make([]model, n)
	for i, name := range names {
		if name == "" || name == BaseName {
			models[i] = *m
			continue
		}
		if models[i], err = held.acquire(name); err != nil {
			return nil, fmt.Errorf("input \"adapter\": row %d: %w", i, err)
		}
	}
	return models, nil
}
