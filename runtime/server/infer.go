package server

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"slices"
	"strconv"
	"time"

	"gorgonia.org/tensor"

	"github.com/switchyard-dev/switchyard/runtime/batcher"
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
	ctx, cancel, err := deadline(r)
	if err != nil {
		return err
	}
	defer cancel()
	body, release, err := s.readBody(w, r)
	if err != nil {
		return err
	}
	defer release()
	request, err := decodeRequest(body)
	if err != nil {
		return err
	}
	chosen, err := chooseOutputs(request.Outputs)
	if err != nil {
		return err
	}
	answers, err := s.answer(ctx, m, request)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, inferResponse{m.name, m.revision, request.ID, tensors(chosen, answers)})
	return nil
}

// answer checks what a request asks, row by row, and has it computed.
func (s *Server) answer(ctx context.Context, m model, request *inferRequest) (answers []answer, err error) {
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
	models, err := s.adaptersOf(m, asked, n)
	if err != nil {
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
	logits, err := s.batcher.Submit(ctx, rows)
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

// readBody reads a bounded body. The bytes of all bodies in flight are bounded too; release gives this one's back.
func (s *Server) readBody(w http.ResponseWriter, r *http.Request) (body []byte, release func(), err error) {
	if err := checkContent(r.Header); err != nil {
		return nil, nil, err
	}
	limit := s.options.MaxBodyBytes
	tooLarge := failure(http.StatusRequestEntityTooLarge, "the body is over the limit of %d bytes", limit)
	size := r.ContentLength
	if size > limit {
		return nil, nil, tooLarge
	}
	if size < 0 {
		size = limit // of unknown length: it may take all it is allowed
	}
	if !s.bodies.TryAcquire(size) {
		return nil, nil, tryLater(http.StatusServiceUnavailable, errors.New("too many request bodies in flight"))
	}
	release = func() { s.bodies.Release(size) }
	body, err = io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	if err == nil {
		return body, release, nil
	}
	release()
	var over *http.MaxBytesError
	if errors.As(err, &over) {
		return nil, nil, tooLarge
	}
	return nil, nil, badRequest("reading the body: %v", err)
}

func checkContent(h http.Header) error {
	if h.Get("Inference-Header-Content-Length") != "" {
		return failure(http.StatusUnsupportedMediaType, "binary tensor data is not supported yet: send JSON")
	}
	if encoding := h.Get("Content-Encoding"); encoding != "" && encoding != "identity" {
		return failure(http.StatusUnsupportedMediaType, "content encoding %s is not supported", quote.Name(encoding))
	}
	return nil
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

// images reads image: BYTES [B], each an encoded image in base64.
func (s *Server) images(ctx context.Context, in *inputTensor, shape []int) ([]*tensor.Dense, error) {
	encoded, err := in.strings(shape)
	if err != nil {
		return nil, err
	}
	rows := make([]*tensor.Dense, len(encoded))
	for i, text := range encoded {
		image, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			return nil, badRequest("input %s: row %d: expected an image in base64: %v", quote.Name(in.Name), i, err)
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

// adaptersOf resolves who is asked, for each of n rows.
func (s *Server) adaptersOf(m model, asked *inputTensor, n int) ([]model, error) {
	if asked == nil {
		return slices.Repeat([]model{m}, n), nil
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
			models[i] = m
			continue
		}
		if models[i], err = s.adapter(name); err != nil {
			return nil, fmt.Errorf("input \"adapter\": row %d: %w", i, err)
		}
	}
	return models, nil
}
