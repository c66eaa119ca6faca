package server

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/switchyard-dev/switchyard/runtime/arch"
	"github.com/switchyard-dev/switchyard/runtime/batcher"
	"github.com/switchyard-dev/switchyard/runtime/protocol"
	"github.com/switchyard-dev/switchyard/runtime/quote"
)

// BaseName in the adapter tensor asks the base model, as "" does.
const BaseName = "__base__"

// adapterInput is the tensor that names each row's adapter.
const adapterInput = "adapter"

// Request is what a client asks of a model, in whichever form it came.
type Request struct {
	Model   string // the base, or an adapter
	Version string // "": the one that is served
	Inputs  []protocol.Tensor
	Outputs []string // wanted, by name; none: all but those of tokens
	// EveryLabel tells that each row's answer will name all labels, which takes memory.
	EveryLabel bool
}

// Answers are a request's rows, answered in its order.
type Answers struct {
	Model  Model // that was asked; of the base, each row has its own
	Rows   []Answer
	chosen []output
}

// Tensors are the outputs that were asked for, in the order asked.
func (a *Answers) Tensors() []protocol.Output { return tensors(a.chosen, a.Rows) }

// Call is one request, and the memory that it holds from the first byte of its body to the last of its answer.
type Call struct {
	server *Server
	own    share
}

// Begin begins a call, unless the server drains.
func (s *Server) Begin() (*Call, error) {
	if err := s.admitting(); err != nil {
		return nil, err
	}
	return &Call{server: s, own: share{of: s.memory}}, nil
}

// TakeBody takes memory for so many more bytes of a body, or refuses the call for now.
func (c *Call) TakeBody(n int64) error { return c.Take(bodyCopies * n) }

// Take takes so many bytes of memory beside the body, or refuses the call for now; for good, what could never be had.
func (c *Call) Take(n int64) error {
	if most := c.server.options.RequestBytes - c.own.n; n > most {
		return Errorf(http.StatusRequestEntityTooLarge,
			"expected a request that takes at most %d bytes more in memory, found one of %d", most, n)
	}
	if !c.own.take(n) {
		return TryLater(http.StatusTooManyRequests, errFull)
	}
	return nil
}

// KeepBody gives back what is more than a body of n bytes takes.
func (c *Call) KeepBody(n int64) { c.own.keep(bodyCopies * n) }

// KeepAnswer gives back what is more than an answer of n bytes takes that is ready to be sent: a client that is slow to
// read holds no more.
func (c *Call) KeepAnswer(n int64) { c.own.keep(n) }

// End gives back all.
func (c *Call) End() { c.own.giveBack() }

// Answer has a request answered. Its error is any; StatusOf tells what a client sees of it.
func (c *Call) Answer(ctx context.Context, request *Request) (*Answers, error) {
	chosen, err := chooseOutputs(request.Outputs)
	if err != nil {
		return nil, err
	}
	m, err := c.server.Find(request.Model, request.Version)
	if err != nil {
		return nil, err
	}
	rows, err := c.server.answer(ctx, &m, request, chosen, &c.own)
	if err != nil {
		return nil, err
	}
	if len(request.Outputs) == 0 && !slices.ContainsFunc(rows, func(a Answer) bool { return a.Tokens != nil }) {
		chosen = slices.DeleteFunc(chosen, func(o output) bool { return o.entities }) // nobody has any
	}
	return &Answers{m, rows, chosen}, nil
}

// answer has a request's rows checked and computed. Names are resolved to revisions only here, once the body is read: a
// request whose body came slowly is not answered by a revision of long ago.
func (s *Server) answer(
	ctx context.Context, m *Model, request *Request, chosen []output, own *share,
) (answers []Answer, err error) {
	given, asked, err := s.rowsOf(request)
	if err != nil {
		return nil, err
	}
	account, n := accountOf(ctx), given.shape[0]*given.times
	account.Rows = n
	defer func() { s.metrics.observeRows(n, err) }()
	held := s.newHeld()
	inBatcher := false
	defer func() {
		if !inBatcher {
			held.release()
		}
	}()
	models, err := s.modelsOf(m, request.Version, held, asked, given, chosen)
	if err != nil {
		return nil, err
	}
	if err := s.takeRows(own, held, given, models, chosen); err != nil {
		return nil, err
	}
	ticket, err := s.batcher.Admit(ctx, s.asks(given, models))
	if err != nil {
		return nil, err
	}
	defer ticket.Release()
	account.Decoding = time.Now()
	inputs, err := given.source.decode(ctx, given)
	if err != nil {
		return nil, err
	}
	rows, err := s.rows(given, inputs, models)
	if err != nil {
		return nil, err
	}
	inBatcher = true
	computed, err := ticket.Submit(ctx, rows, held.release)
	account.Queued, account.Runs = computed.Queued, computed.Runs
	if err != nil {
		return nil, err
	}
	answers = make([]Answer, n)
	for i := range answers {
		answers[i] = Answer{Model: models[i], Read: rows[i].Tokens, text: inputs[i/given.times].text}
		if err := answers[i].set(computed.Logits[i].Float32s()); err != nil {
			return nil, fmt.Errorf("row %d: %w", i, err)
		}
	}
	return answers, s.findEntities(ctx, answers, chosen)
}

// rowsOf finds what the rows are made of, and how many they are.
func (s *Server) rowsOf(request *Request) (g *given, asked *protocol.Tensor, err error) {
	if g, asked, err = s.inputsOf(request); err != nil {
		return nil, nil, err
	}
	n, err := g.rows()
	if err != nil {
		return nil, nil, err
	}
	if n > s.options.MaxRows {
		return nil, nil, badRequest("input %s: shape: expected at most %d rows in a request, found %d",
			quote.Name(g.source.name), s.options.MaxRows, n)
	}
	g.times, err = timesAsked(asked, n, s.options.MaxRows)
	g.everyLabel = request.EveryLabel
	return g, asked, err
}

// modelsOf are those that the rows ask, held, once it is known that the rows can be answered if their data is what
// their shape says.
func (s *Server) modelsOf(
	m *Model, version string, held *held, asked *protocol.Tensor, g *given, chosen []output,
) ([]Model, error) {
	models, err := s.adaptersOf(m, version, held, asked, g)
	if err != nil {
		return nil, err
	}
	if err := checkHeads(models); err != nil {
		return nil, err
	}
	if err := checkSize(models, g.tokens(), chosen); err != nil {
		return nil, err
	}
	return models, g.holds()
}

// findEntities groups the tokens of texts that are answered for each token, if anybody asks for it. A pair of texts has
// none, as transformers' pipeline takes no pairs: its offsets are of two texts.
func (s *Server) findEntities(ctx context.Context, answers []Answer, chosen []output) error {
	if !slices.ContainsFunc(chosen, func(o output) bool { return o.entities }) {
		return nil
	}
	for i := range answers {
		a := &answers[i]
		if a.Model.Task != arch.Token || a.text == nil || a.text.isPair {
			continue
		}
		var err error
		if a.Entities, err = entities(ctx, s.options.Texts, a.text, a.Model.Labels, a.Tokens); err != nil {
			return fmt.Errorf("row %d: %w", i, err)
		}
	}
	return nil
}

// asks is what the rows will be asked, as far as it can be told before they are decoded.
func (s *Server) asks(given *given, models []Model) []batcher.Ask {
	tokens := s.takes.MaxTokens()
	if s.takes.Text != nil {
		tokens = given.tokensExpected()
	}
	asks := make([]batcher.Ask, len(models))
	for i, m := range models {
		asks[i] = batcher.Ask{Input: i / given.times, Adapter: m.adapter, Tokens: tokens}
	}
	return asks
}

// tokensExpected is how many a row of texts has, more likely less. The batcher counts what is too much of it only until
// the texts are tokenized.
func (g *given) tokensExpected() int {
	const bytesOfToken = 3
	if len(g.shape) > 1 {
		return g.shape[1]
	}
	return min(g.textSize()/(bytesOfToken*g.shape[0])+1, g.most)
}

// rows asks each row's model of its own input: those that are asked of one input share it.
func (s *Server) rows(given *given, inputs []decoded, models []Model) ([]batcher.Row, error) {
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
func checkHeads(models []Model) error {
	for i, m := range models {
		if m.Task == "" {
			return badRequest("row %d: the base %s has no classifier of its own: ask an adapter", i, quote.Name(m.Name))
		}
	}
	return nil
}

// maxLogits bounds the answer to one request.
const maxLogits = 1 << 20

// checkSize bounds the answer to rows of so many tokens at most.
func checkSize(models []Model, tokens int, chosen []output) error {
	width := 0
	for _, m := range models {
		width = max(width, len(m.Labels))
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

// timesAsked is how many adapters each of n inputs is asked of: by a shape [n, K] of the adapter tensor, K.
func timesAsked(asked *protocol.Tensor, n, most int) (int, error) {
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
func (s *Server) adaptersOf(m *Model, version string, held *held, asked *protocol.Tensor, g *given) ([]Model, error) {
	want := []int{g.shape[0]}
	if asked != nil && len(asked.Shape) == 2 {
		want = append(want, g.times)
	}
	if asked == nil {
		if m.adapter != nil {
			var err error
			if *m, err = held.acquire(m.Name); err != nil {
				return nil, err
			}
		}
		return slices.Repeat([]Model{*m}, protocol.Elements(want)), checkVersion(*m, version)
	}
	if m.adapter != nil {
		return nil, badRequest("input \"adapter\" is only for the model %s: every row of the model %s is its own",
			quote.Name(s.base.Name), quote.Name(m.Name))
	}
	shape, err := asked.Expect(protocol.BYTES, want)
	if err != nil {
		return nil, err
	}
	names, err := asked.Texts(shape)
	if err != nil {
		return nil, err
	}
	models := make([]Model, len(names))
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
