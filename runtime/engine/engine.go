// Package engine answers batches whose rows mix adapters: it sorts rows by adapter once, so that each adapter is one
// contiguous segment in every layer, runs the base's forward pass, and puts the answers back in the order asked.
//
// Invariant: a row's logits are bitwise the same alone and in any batch, whatever its neighbours, their order and the
// number of workers.
package engine

import (
	"bytes"
	"fmt"
	"math"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"gorgonia.org/tensor"

	"github.com/switchyard-dev/switchyard/runtime/arch"
	"github.com/switchyard-dev/switchyard/runtime/kernels"
	"github.com/switchyard-dev/switchyard/runtime/model"
	"github.com/switchyard-dev/switchyard/runtime/nn"
	"github.com/switchyard-dev/switchyard/runtime/peft"
)

// Engine runs one base model. Safe for concurrent use.
type Engine struct {
	base      *model.Base
	pool      *kernels.Pool
	arenas    arenas // between batches
	tokenizer func() (*peft.Tokenizer, error)
}

// Adapter is an adapter compiled for an engine's base. It does not change until it is freed.
type Adapter struct {
	Digest  string // its revision
	Head    arch.Head
	Labels  []string
	Problem arch.Problem
	nn      *nn.Adapter
	work    int64
}

// Work is how many multiply-adds a token takes for its updates, beside the base's.
func (a *Adapter) Work() int64 {
	if a == nil {
		return 0
	}
	return a.work
}

// IsHead tells whether it changes nothing but a head that looks at a few tokens: asked of an input that others are
// asked of, it costs next to nothing. A head that answers for each token takes memory for each.
func (a *Adapter) IsHead() bool { return a != nil && a.Head.Task != arch.Token && a.nn.IsHead() }

// Bytes is the memory its weights hold.
func (a *Adapter) Bytes() int64 { return a.nn.Bytes() }

// Free gives its weights' memory back. No batch with rows of it may be under way; one that follows fails.
func (a *Adapter) Free() { a.nn.Free() }

// Input is what rows ask about: an image, or a text's tokens.
type Input struct {
	Pixels *tensor.Dense // float32 [channels, height, width], preprocessed; nil for a text
	IDs    []int32       // token ids
	Types  []int32       // the ids' types; nil: all 0
}

// Batch is inputs and what is asked of them; many rows may share an input.
type Batch struct {
	Inputs []Input
	Rows   []Row
	// Whole has the last layer computed of all tokens, as if a head looked at each. It changes no bit of an answer, and is
	// there to be measured.
	Whole bool
	// Forward, if it is there, takes the time of the model's forward pass.
	Forward *Stopwatch
}

// Stopwatch takes the time of something by a clock. Ended is zero if it did not come to its end.
type Stopwatch struct {
	Now          func() time.Time
	Began, Ended time.Time
}

// time takes the time of a function; without a stopwatch, nobody's.
func (s *Stopwatch) time(f func()) {
	if s == nil {
		f()
		return
	}
	s.Began = s.Now()
	f()
	s.Ended = s.Now()
}

// Row asks one adapter of one input.
type Row struct {
	Input   int      // index in the batch's Inputs
	Adapter *Adapter // nil is the bare base
}

// New is an engine that computes on so many processors.
func New(base *model.Base, workers int) *Engine {
	return &Engine{
		base: base, pool: kernels.NewPool(workers),
		tokenizer: sync.OnceValues(func() (*peft.Tokenizer, error) { return tokenizerOf(base) }),
	}
}

func tokenizerOf(base *model.Base) (*peft.Tokenizer, error) {
	switch {
	case base.Description.Text != nil && base.Tokenizer != nil:
		return peft.ReadTokenizer(bytes.NewReader(base.Tokenizer))
	case base.Description.Text != nil && base.Vocab != nil:
		tokenizer, err := peft.ReadVocabulary(bytes.NewReader(base.Vocab))
		if err != nil {
			return nil, err
		}
		return tokenizer, tokenizer.Add(base.TokenizerConfig, base.AddedTokens)
	}
	return nil, nil //nolint:nilnil // as Tokenizer says
}

// Close ends the engine's workers. No Run may be under way or follow. The base is left as it is.
func (e *Engine) Close() {
	e.pool.Close()
	e.arenas.get().Free()
}

// Description is the base as its config describes it.
func (e *Engine) Description() *arch.Description { return e.base.Description }

// Work is how many multiply-adds a token takes in the base's Linears.
func (e *Engine) Work() int64 { return e.base.Layers.Work() }

// BaseDigest is the base's revision.
func (e *Engine) BaseDigest() string { return e.base.Digest }

// Tokenizer is what the base's files say of tokens; nil if they say nothing. It is read when it is first asked for.
func (e *Engine) Tokenizer() (*peft.Tokenizer, error) { return e.tokenizer() }

// Compile lays out an adapter's weights for the base.
func (e *Engine) Compile(a *peft.Adapter) (*Adapter, error) {
	compiled, complete := e.base.Layers.NewAdapter(), false
	defer func() {
		if !complete { // refused, or a panic
			compiled.Free()
		}
	}()
	compiled.Head = a.Head
	if err := fill(compiled, a); err != nil {
		return nil, err
	}
	compiled.Seal()
	complete = true
	return &Adapter{
		Digest: a.Digest, Head: e.base.Description.Heads[a.Head], Labels: a.Labels, Problem: a.Problem, nn: compiled,
		work: compiled.Work(),
	}, nil
}

// Uniform is an adapter that updates every Linear of the base with that rank, or none with rank 0, and that answers
// also where the base cannot. It is there to be measured, and freed: its answers mean nothing.
func (e *Engine) Uniform(rank int) (*Adapter, error) {
	compiled, err := e.base.Layers.Uniform(rank)
	if err != nil {
		return nil, fmt.Errorf("engine: %w", err)
	}
	compiled.Head = max(e.base.Description.Own, 0)
	return &Adapter{Head: e.base.Description.Heads[compiled.Head], nn: compiled, work: compiled.Work()}, nil
}

// fill has a compiled adapter change what an adapter changes.
func fill(compiled *nn.Adapter, a *peft.Adapter) error {
	for _, s := range a.Saved { // before the updates, which add to the biases among them
		if err := compiled.Replace(s.Module, s.Params); err != nil {
			return err
		}
	}
	for _, r := range a.Rows {
		if err := compiled.ReplaceRows(r.Module, r.IDs, r.Values); err != nil {
			return err
		}
	}
	for _, u := range a.Updates {
		update := nn.Update{Down: u.A, Up: u.B, Bias: u.Bias, Magnitude: u.Magnitude, Scale: u.Scale}
		if err := compiled.Update(u.Module, update); err != nil {
			return err
		}
	}
	return nil
}

// Run answers a batch, in the order of its rows: logits [labels] of each, or [tokens, labels] of one whose head answers
// for each token. A panic in it is this batch's error, with its stack, and nobody else's.
func (e *Engine) Run(batch Batch) (answers []*tensor.Dense, err error) {
	defer failed(&err)
	asked, err := e.lay(batch)
	if err != nil {
		return nil, err
	}
	arena := e.arenas.get()
	defer e.arenas.put(arena)
	return e.answer(asked, arena), nil
}

// Try answers one row of zeros. Its memory is its own and as small as the row, so that it may run beside batches: it
// neither takes theirs, which they would have to replace, nor waits for it.
func (e *Engine) Try(a *Adapter) (answer *tensor.Dense, err error) {
	defer failed(&err)
	asked, err := e.lay(Batch{Inputs: []Input{e.Zeros()}, Rows: []Row{{Input: 0, Adapter: a}}})
	if err != nil {
		return nil, err
	}
	arena := &nn.Arena{}
	defer arena.Free()
	return e.answer(asked, arena)[0], nil
}

// failed, deferred, makes a panic an error.
func failed(err *error) {
	if v := recover(); v != nil {
		*err = fmt.Errorf("engine: panic: %v\n%s", v, debug.Stack())
	}
}

// asked is a batch that was checked, its rows sorted by adapter.
type asked struct {
	inputs []nn.Input
	rows   []nn.Row
	order  []int // of each of the rows, its place in the batch
	whole  bool
	watch  *Stopwatch
}

// lay checks a batch and sorts its rows.
func (e *Engine) lay(batch Batch) (*asked, error) {
	inputs := make([]nn.Input, len(batch.Inputs))
	for i, in := range batch.Inputs {
		var err error
		if inputs[i], err = e.input(in); err != nil {
			return nil, fmt.Errorf("engine: input %d: %w", i, err)
		}
	}
	if len(batch.Rows) == 0 {
		return nil, fmt.Errorf("engine: a batch of no rows")
	}
	order := sortByAdapter(batch.Rows)
	rows := make([]nn.Row, len(order))
	same := firstOfEach(inputs)
	for i, row := range order {
		r := batch.Rows[row]
		switch {
		case r.Input < 0 || r.Input >= len(inputs):
			return nil, fmt.Errorf("engine: row %d: expected an input below %d, found %d", row, len(inputs), r.Input)
		case r.Adapter != nil:
			rows[i].Adapter = r.Adapter.nn
		case e.base.Description.Own < 0:
			return nil, fmt.Errorf("engine: row %d: the base %s has no head to answer it", row, e.base.Description.Architecture)
		}
		rows[i].Input = same[r.Input]
	}
	return &asked{inputs: inputs, rows: rows, order: order, whole: batch.Whole, watch: batch.Forward}, nil
}

// answer computes what was asked, in the batch's order, with an arena that nobody else works with.
func (e *Engine) answer(a *asked, arena *nn.Arena) []*tensor.Dense {
	b := nn.NewBatch(e.pool, arena, a.inputs, a.rows, e.base.Model.Tokens, e.base.Description.Own)
	b.Whole = a.whole
	var found []*tensor.Dense
	a.watch.time(func() { found = e.base.Model.Forward(b) })
	answers := make([]*tensor.Dense, len(a.order))
	for i := range found {
		answers[a.order[i]] = found[i]
	}
	return answers
}

// firstOfEach tells of each input which is the first that is the same, bit by bit.
func firstOfEach(inputs []nn.Input) []int {
	first := make([]int, len(inputs))
	alike := make(map[uint64][]int, len(inputs))
	for i := range inputs {
		first[i] = i
		hash := inputs[i].Hash()
		for _, other := range alike[hash] {
			if inputs[i].Same(&inputs[other]) {
				first[i] = other
				break
			}
		}
		if first[i] == i {
			alike[hash] = append(alike[hash], i)
		}
	}
	return first
}

// arenas keep one for the next batch, the largest: of batches that run at once each has one, and all others are freed.
type arenas struct {
	mu   sync.Mutex
	idle *nn.Arena // nil while a batch works with it
}

func (a *arenas) get() *nn.Arena {
	a.mu.Lock()
	defer a.mu.Unlock()
	arena := a.idle
	a.idle = nil
	if arena == nil {
		arena = &nn.Arena{}
	}
	return arena
}

func (a *arenas) put(arena *nn.Arena) {
	arena.Reset()
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.idle == nil:
		a.idle = arena
	case arena.Most() > a.idle.Most():
		a.idle.Free()
		a.idle = arena
	default:
		arena.Free()
	}
}

// Tokens is how many tokens the model makes of an input, or why the input cannot be computed.
func (e *Engine) Tokens(in Input) (int, error) {
	checked, err := e.input(in)
	if err != nil {
		return 0, err
	}
	return e.base.Model.Tokens(checked), nil
}

// Zeros is an input that says nothing: a black image, or the first token of the vocabulary.
func (e *Engine) Zeros() Input {
	if size := e.base.Description.Image; size != nil {
		return Input{Pixels: e.pool.NewDense(make([]float32, size.Channels*size.Height*size.Width),
			size.Channels, size.Height, size.Width)}
	}
	return Input{IDs: make([]int32, 1)}
}

// Sample is an input of about so many tokens, or of as many as every image has; each number makes another. It says
// nothing: it is there to be measured.
func (e *Engine) Sample(tokens, number int) Input {
	if text := e.base.Description.Text; text != nil {
		ids := make([]int32, min(max(tokens, 1), text.MaxTokens))
		for i := range ids {
			ids[i] = int32(number % text.Vocabulary) //nolint:gosec // an id of the vocabulary
		}
		return Input{IDs: ids}
	}
	size := *e.base.Description.Image
	if patch := size.Patch; patch[0] > 0 {
		side := max(int(math.Sqrt(float64(tokens))), 1)
		size.Height, size.Width = side*patch[0], side*patch[1]
	}
	pixels := make([]float32, size.Channels*size.Height*size.Width)
	for i := range pixels {
		pixels[i] = float32(number)
	}
	return Input{Pixels: e.pool.NewDense(pixels, size.Channels, size.Height, size.Width)}
}

// input checks an input against what the base takes.
func (e *Engine) input(in Input) (nn.Input, error) {
	d := e.base.Description
	if d.Image != nil {
		if in.Pixels == nil {
			return nn.Input{}, fmt.Errorf("expected pixel values, found none")
		}
		pixels, ok := in.Pixels.Data().([]float32)
		shape := in.Pixels.Shape()
		if !ok || len(shape) != 3 || shape[0] != d.Image.Channels || !d.Image.Takes(shape[1], shape[2]) {
			return nn.Input{}, fmt.Errorf("expected float32 [%d, %d, %d], found %v %v",
				d.Image.Channels, d.Image.Height, d.Image.Width, in.Pixels.Dtype(), shape)
		}
		return nn.Input{Pixels: pixels, Height: shape[1], Width: shape[2]}, nil
	}
	if n := len(in.IDs); n < 1 || n > d.Text.MaxTokens {
		return nn.Input{}, fmt.Errorf("expected 1 to %d tokens, found %d", d.Text.MaxTokens, n)
	}
	if in.Types != nil && len(in.Types) != len(in.IDs) {
		return nn.Input{}, fmt.Errorf("expected as many types as ids, %d, found %d", len(in.IDs), len(in.Types))
	}
	if i := slices.IndexFunc(in.IDs, func(id int32) bool { return id < 0 || int(id) >= d.Text.Vocabulary }); i >= 0 {
		return nn.Input{}, fmt.Errorf("token %d: expected an id from 0 to %d, found %d", i, d.Text.Vocabulary-1, in.IDs[i])
	}
	most := max(d.Text.Types, 1) // a model without types takes those that say nothing
	if i := slices.IndexFunc(in.Types, func(t int32) bool { return t < 0 || int(t) >= most }); i >= 0 {
		return nn.Input{}, fmt.Errorf("token %d: expected a type from 0 to %d, found %d", i, most-1, in.Types[i])
	}
	return nn.Input{IDs: in.IDs, Types: in.Types}, nil
}

// sortByAdapter orders row numbers so that an adapter's rows stand together, adapters in the order of their first row.
func sortByAdapter(rows []Row) []int {
	place := make(map[*Adapter]int)
	order := make([]int, len(rows))
	for i, r := range rows {
		order[i] = i
		if _, ok := place[r.Adapter]; !ok {
			place[r.Adapter] = len(place)
		}
	}
	slices.SortStableFunc(order, func(a, b int) int { return place[rows[a].Adapter] - place[rows[b].Adapter] })
	return order
}
