package server

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/switchyard-dev/switchyard/runtime/arch"
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
	own := &share{of: s.memory}
	defer own.giveBack()
	raw, err := s.respond(w, r, m, own)
	if err != nil {
		return err
	}
	own.keep(int64(len(raw))) // a client that is slow to read holds no more
	writeRaw(w, http.StatusOK, raw)
	return nil
}

// respond reads a request and has it answered, in JSON.
func (s *Server) respond(w http.ResponseWriter, r *http.Request, m model, own *share) ([]byte, error) {
	ctx, cancel, err := deadline(r)
	if err != nil {
		return nil, err
	}
	defer cancel()
	body, err := s.readBody(w, r, own)
	if err != nil {
		return nil, err
	}
	request, err := decodeRequest(body)
	if err != nil {
		return nil, err
	}
	chosen, err := chooseOutputs(request.Outputs)
	if err != nil {
		return nil, err
	}
	answers, err := s.answer(ctx, &m, r.PathValue("version"), request, chosen, own)
	if err != nil {
		return nil, err
	}
	if len(request.Outputs) == 0 && !slices.ContainsFunc(answers, func(a answer) bool { return a.tokens != nil }) {
		chosen = slices.DeleteFunc(chosen, func(o output) bool { return o.entities }) // nobody has any
	}
	return json.Marshal(&inferResponse{m.name, m.revision, request.ID, tensors(chosen, answers)})
}

// answer checks what a request asks, row by row, and has it computed. Names are resolved to revisions only here, once
// the body is read: a request whose body came slowly is not answered by a revision of long ago.
func (s *Server) answer(
	ctx context.Context, m *model, version string, request *inferRequest, chosen []output, own *share,
) (answers []answer, err error) {
	given, asked, err := s.inputsOf(request)
	if err != nil {
		return nil, err
	}
	n, err := given.rows()
	if err != nil {
		return nil, err
	}
	if n > s.options.MaxRows {
		return nil, badRequest("input %s: shape: expected at most %d rows in a request, found %d",
			quote.Name(given.source.name), s.options.MaxRows, n)
	}
	if given.times, err = timesAsked(asked, n, s.options.MaxRows); err != nil {
		return nil, err
	}
	n *= given.times
	defer func() { s.metrics.observeRows(n, err) }()
	held := s.newHeld()
	inBatcher := false
	defer func() {
		if !inBatcher {
			held.release()
		}
	}()
	models, err := s.adaptersOf(m, version, held, asked, given)
	if err != nil {
		return nil, err
	}
	if err := checkHeads(models); err != nil {
		return nil, err
	}
	if err := checkSize(models, given.tokens(), chosen); err != nil {
		return nil, err
	}
	if err := given.plausible(); err != nil {
		return nil, err
	}
	if err := s.takeRows(own, held, given, models, chosen); err != nil {
		return nil, err
	}
	if !held.rows.take(int64(n)) {
		return nil, tryLater(http.StatusTooManyRequests, errors.New("too many rows in flight"))
	}
	inputs, err := given.source.decode(ctx, given)
	if err != nil {
		return nil, err
	}
	rows, err := s.rows(given, inputs, models)
	if err != nil {
		return nil, err
	}
	inBatcher = true
	logits, err := s.batcher.Submit(ctx, rows, held.release)
	if err != nil {
		return nil, err
	}
	answers = make([]answer, n)
	for i, l := range logits {
		values := l.Float32s()
		if slices.ContainsFunc(values, func(v float32) bool { return math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) }) {
			return nil, failure(http.StatusUnprocessableEntity, "row %d: the model's answer to it is not finite", i)
		}
		answers[i] = answer{model: models[i], text: inputs[i/given.times].text}
		if models[i].task == arch.Token {
			answers[i].tokens = values
		} else {
			answers[i].logits = values
		}
	}
	return answers, s.findEntities(ctx, answers, chosen)
}

// findEntities groups the tokens of texts that are answered for each token, if anybody asks for it. A pair of texts has
// none, as transformers' pipeline takes no pairs: its offsets are of two texts.
func (s *Server) findEntities(ctx context.Context, answers []answer, chosen []output) error {
	if !slices.ContainsFunc(chosen, func(o output) bool { return o.entities }) {
		return nil
	}
	for i := range answers {
		a := &answers[i]
		if a.model.task != arch.Token || a.text == nil || a.text.isPair {
			continue
		}
		var err error
		if a.entities, err = entities(ctx, s.options.Texts, a.text, a.model.labels, a.tokens); err != nil {
			return fmt.Errorf("row %d: %w", i, err)
		}
	}
	return nil
}

// rows asks each row's model of its own input: those that are asked of one input share it.
func (s *Server) rows(given *given, inputs []decoded, models []model) ([]batcher.Row, error) {
	rows := make([]batcher.Row, 0, len(models))
	for i, in := range inputs {
		tokens, err := s.adapters.Tokens(*in.input)
		if err != nil {
			return nil, badRequest("input %s: row %d: %v", quote.Name(given.source.name), i, err)
		}
		for _, m := range models[i*given.times : (i+1)*given.times] {
			rows = append(rows, batcher.Row{Input: in.input, Adapter: m.adapter, Tokens: tokens})
		}
	}
	return rows, nil
}

// checkHeads refuses rows for a base that has no head to answer them.
func checkHeads(models []model) error {
	for i, m := range models {
		if m.task == "" {
			return badRequest("row %d: the base %s has no classifier of its own: ask an adapter", i, quote.Name(m.name))
		}
	}
	return nil
}

// maxLogits bounds the answer to one request.
const maxLogits = 1 << 20

// checkSize bounds the answer to rows of so many tokens at most.
func checkSize(models []model, tokens int, chosen []output) error {
	width := 0
	for _, m := range models {
		width = max(width, len(m.labels))
	}
	if slices.ContainsFunc(chosen, func(o output) bool { return o.tokens }) {
		width *= tokens
	}
	if n := width * len(models); n > maxLogits {
		return badRequest("expected an answer of at most %d logits, found %d rows of %d: ask for fewer rows",
			maxLogits, len(models), width)
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

// timesAsked is how many adapters each of n inputs is asked of: by a shape [n, K] of the adapter tensor, K.
func timesAsked(asked *inputTensor, n, most int) (int, error) {
	if asked == nil || len(asked.Shape) != 2 {
		return 1, nil
	}
	times := asked.Shape[1]
	if asked.Shape[0] != int64(n) || times < 1 {
		return 0, badRequest("input \"adapter\": shape: expected [%d] or [%d, K], found %s", n, n, quote.Shape(asked.Shape))
	}
	if times > int64(most/n) {
		return 0, badRequest("input \"adapter\": shape: expected at most %d rows in a request, found %s of them",
			most, quote.Shape(asked.Shape))
	}
	return int(times), nil
}

// adaptersOf resolves who is asked, and holds them: the models of an input side by side. m, from the path, may have
// moved to another revision since it was looked up.
func (s *Server) adaptersOf(m *model, version string, held *held, asked *inputTensor, g *given) ([]model, error) {
	want := []int{g.shape[0]}
	if asked != nil && len(asked.Shape) == 2 {
		want = append(want, g.times)
	}
	if asked == nil {
		if m.adapter != nil {
			var err error
			if *m, err = held.acquire(m.name); err != nil {
				return nil, err
			}
		}
		return slices.Repeat([]model{*m}, product(want)), checkVersion(*m, version)
	}
	if m.adapter != nil {
		return nil, badRequest("input \"adapter\" is only for the model %s: every row of the model %s is its own",
			quote.Name(s.base.name), quote.Name(m.name))
	}
	shape, err := asked.expect("BYTES", want)
	if err != nil {
		return nil, err
	}
	names, err := asked.strings(shape)
	if err != nil {
		return nil, err
	}
	models := make([]model, len(names))
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
