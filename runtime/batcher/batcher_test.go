package batcher_test

import (
	"context"
	"errors"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"gorgonia.org/tensor"

	"github.com/switchyard-dev/switchyard/runtime/arch"
	"github.com/switchyard-dev/switchyard/runtime/batcher"
	"github.com/switchyard-dev/switchyard/runtime/engine"
	"github.com/switchyard-dev/switchyard/runtime/model"
	"github.com/switchyard-dev/switchyard/runtime/weights"
)

// gate is the real engine, held up before each batch until the test opens it.
type gate struct {
	*engine.Engine
	open   chan struct{}
	now    time.Time // on the batcher's clock, which stands still
	inputs []int     // of each batch, how many
	first  []float32 // of each row in all batches, the first value of its input
	stats  []batcher.Stats
	fail   error  // of the next batch
	panics string // where the next batch does: "run", "observe"
}

func newGate(t *testing.T) *gate {
	t.Helper()
	folder, err := weights.OpenFolder("../../hack/samples/digits/base")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = folder.Close() }()
	base, err := model.Open(folder, arch.Float32)
	if err != nil {
		t.Fatal(err)
	}
	return &gate{Engine: engine.New(base, 2), open: make(chan struct{})}
}

func (g *gate) Run(batch engine.Batch) ([]*tensor.Dense, error) {
	<-g.open
	g.inputs = append(g.inputs, len(batch.Inputs))
	for _, row := range batch.Rows {
		g.first = append(g.first, batch.Inputs[row.Input].Pixels.Float32s()[0])
	}
	g.panic("run")
	if g.fail != nil {
		err := g.fail
		g.fail = nil
		return nil, err
	}
	return g.Engine.Run(batch)
}

func (g *gate) observe(s batcher.Stats) {
	g.stats = append(g.stats, s)
	g.panic("observe")
}

func (g *gate) panic(place string) {
	if g.panics == place {
		g.panics = ""
		panic("bad luck")
	}
}

// queueOf10 has room for ten rows of one adapter, which may hold half of it: without a Cost each is a microsecond.
const queueOf10 = 20 * time.Microsecond

// inBubble runs a test in which synctest.Wait waits until every goroutine is idle: no test looks at a clock.
func inBubble(t *testing.T, test func(t *testing.T, g *gate, b *batcher.Batcher)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t)
		b := batcher.New(g, batcher.Options{
			MaxBatchRows: 4, MaxBatchTokens: 100, MaxQueue: queueOf10, Observe: g.observe,
			Now: func() time.Time { return g.now },
		})
		test(t, g, b)
		close(g.open)
		b.Close()
		g.Close()
	})
}

// rows are inputs with different answers, of few tokens.
func rows(values ...float32) []batcher.Row {
	rows := make([]batcher.Row, len(values))
	for i, v := range values {
		pixels := slices.Repeat([]float32{v, -v, 1}, 32*32)
		rows[i].Input = &engine.Input{Pixels: tensor.New(tensor.WithShape(3, 32, 32), tensor.WithBacking(pixels))}
		rows[i].Tokens = 1
	}
	return rows
}

// reply is what a Submit gave.
type reply struct {
	batcher.Answers
	err error
}

// asks are those of rows, each of an input of its own.
func asks(rows []batcher.Row) []batcher.Ask {
	asks := make([]batcher.Ask, len(rows))
	for i, row := range rows {
		asks[i] = batcher.Ask{Input: i, Adapter: row.Adapter, Tokens: row.Tokens}
	}
	return asks
}

// submit submits rows in the background and waits until they are queued, or answered.
func submit(ctx context.Context, b *batcher.Batcher, rows []batcher.Row) <-chan reply {
	return submitHolding(ctx, b, rows, func() {})
}

func submitHolding(ctx context.Context, b *batcher.Batcher, rows []batcher.Row, release func()) <-chan reply {
	replies := make(chan reply, 1)
	go func() {
		ticket, err := b.Admit(ctx, asks(rows))
		if err != nil {
			release()
			replies <- reply{err: err}
			return
		}
		defer ticket.Release()
		answers, err := ticket.Submit(ctx, rows, release)
		replies <- reply{answers, err}
	}()
	synctest.Wait()
	return replies
}

// alone is the engine's own answer to one row.
func (g *gate) alone(t *testing.T, row batcher.Row) []float32 {
	t.Helper()
	out, err := g.Engine.Run(engine.Batch{Inputs: []engine.Input{*row.Input}, Rows: []engine.Row{{}}})
	if err != nil {
		t.Fatal(err)
	}
	return out[0].Float32s()
}

func (g *gate) check(t *testing.T, asked []batcher.Row, got reply) {
	t.Helper()
	if got.err != nil || len(got.Logits) != len(asked) {
		t.Fatalf("expected %d answers, found %d, error %v", len(asked), len(got.Logits), got.err)
	}
	for i, row := range asked {
		want := g.alone(t, row)
		if !slices.EqualFunc(got.Logits[i].Float32s(), want, func(a, b float32) bool {
			return math.Float32bits(a) == math.Float32bits(b)
		}) {
			t.Errorf("row %d: expected %v, found %v", i, want, got.Logits[i].Data())
		}
	}
}

// sizes are the rows of each batch.
func (g *gate) sizes() []int {
	var sizes []int
	for _, s := range g.stats {
		sizes = append(sizes, s.Rows)
	}
	return sizes
}

func TestRowsOfDifferentRequestsShareABatch(t *testing.T) {
	inBubble(t, func(t *testing.T, g *gate, b *batcher.Batcher) {
		first, second, third := rows(1), rows(2, 3), rows(4, 5, 6)
		replies := []<-chan reply{
			submit(t.Context(), b, first), submit(t.Context(), b, second), submit(t.Context(), b, third),
		}
		s := b.Snapshot()
		if s.Waiting.Rows != 5 || s.Waiting.Requests != 2 || s.Running.Rows != 1 || s.Running.Requests != 1 {
			t.Errorf("expected 5 rows of 2 requests behind the one in the engine, found %+v", s)
		}
		for range 3 {
			g.open <- struct{}{}
		}
		for i, asked := range [][]batcher.Row{first, second, third} {
			g.check(t, asked, <-replies[i])
		}
		synctest.Wait()
		if sizes := g.sizes(); !slices.Equal(sizes, []int{1, 4, 1}) {
			t.Errorf("expected batches of 1, then 4 rows of two requests, then the last, found %v", sizes)
		}
	})
}

func TestRowsWithTheSamePointerShareAnInput(t *testing.T) {
	inBubble(t, func(t *testing.T, g *gate, b *batcher.Batcher) {
		running := submit(t.Context(), b, rows(1))
		distinct := rows(2, 3)
		first, second := []batcher.Row{distinct[0], distinct[1], distinct[0]}, distinct[1:]
		replies := []<-chan reply{submit(t.Context(), b, first), submit(t.Context(), b, second)}
		g.open <- struct{}{}
		g.open <- struct{}{}
		for i, asked := range [][]batcher.Row{first, second} {
			g.check(t, asked, <-replies[i])
		}
		<-running
		if !slices.Equal(g.inputs, []int{1, 2}) {
			t.Errorf("expected batches of 1, then 2 inputs for 4 rows, found %v", g.inputs)
		}
	})
}

// A batch is bounded in tokens as well. The queue keeps its order from batch to batch: what would fit does not overtake
// what does not, and what fits into no batch is one of its own. Within a batch the longest come first.
func TestBatchesAreBoundedInTokens(t *testing.T) {
	for _, c := range []struct {
		name   string
		tokens []int // of each row behind the one in the engine
		want   []int // rows of each batch behind it
	}{
		{"as many as there may be", []int{50, 50, 1}, []int{2, 1}},
		{"one more than there may be", []int{50, 51, 1}, []int{1, 2}},
		{"what is behind does not overtake", []int{60, 60, 1, 1, 1}, []int{1, 4}},
		{"the bound of rows comes first", []int{1, 1, 1, 1, 1}, []int{4, 1}},
		{"a long row at the front", []int{500, 1, 1}, []int{1, 2}},
		{"a long row in the midst", []int{1, 500, 1}, []int{1, 1, 1}},
		{"long rows only", []int{500, 101}, []int{1, 1}},
		{"a row as long as may be", []int{100, 1}, []int{1, 1}},
		{"rows of no tokens", []int{100, 0, 0}, []int{3}},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, g *gate, b *batcher.Batcher) {
				running := submit(t.Context(), b, rows(-1))
				var replies []<-chan reply
				var asked [][]batcher.Row
				for i, tokens := range c.tokens {
					row := rows(float32(i))
					row[0].Tokens = tokens
					asked = append(asked, row)
					replies = append(replies, submit(t.Context(), b, row))
				}
				want := []float32{-1}
				for _, n := range c.want {
					batch := make([]int, n)
					for i := range batch {
						batch[i] = len(want) - 1 + i
					}
					slices.SortStableFunc(batch, func(a, b int) int { return c.tokens[b] - c.tokens[a] })
					for _, i := range batch {
						want = append(want, float32(i))
					}
				}
				for range 1 + len(c.want) {
					g.open <- struct{}{}
				}
				<-running
				for i := range replies {
					g.check(t, asked[i], <-replies[i])
				}
				synctest.Wait()
				if sizes := g.sizes()[1:]; !slices.Equal(sizes, c.want) {
					t.Errorf("rows of %v tokens: expected batches of %v, found %v", c.tokens, c.want, sizes)
				}
				if !slices.Equal(g.first, want) {
					t.Errorf("expected the order %v, found %v", want, g.first)
				}
			})
		})
	}
}

// spreads submits a request's rows behind a row in the engine, and holds their answers and the sizes of their batches.
func spreads(t *testing.T, asked []batcher.Row, want ...int) {
	t.Helper()
	inBubble(t, func(t *testing.T, g *gate, b *batcher.Batcher) {
		running := submit(t.Context(), b, rows(9))
		replies := submit(t.Context(), b, asked)
		for range 1 + len(want) {
			g.open <- struct{}{}
		}
		<-running
		g.check(t, asked, <-replies)
		synctest.Wait()
		if sizes := g.sizes()[1:]; !slices.Equal(sizes, want) {
			t.Errorf("expected batches of %v rows, found %v", want, sizes)
		}
	})
}

// The rows of one request may be in several batches, each with its own bound.
func TestARequestOfLongRowsIsSpreadOverBatches(t *testing.T) {
	asked := rows(0, 1, 2, 3, 4)
	for i := range asked {
		asked[i].Tokens = 40
	}
	spreads(t, asked, 2, 2, 1)
}

// Heads that are asked of one input cost one row of it: they are one batch, however many they are. Those that answer
// for each token take memory for each, and count as any row does.
func TestHeadsOfOneInputAreOneBatch(t *testing.T) {
	two := rows(0, 1)
	ask := func(head *engine.Adapter) []batcher.Row {
		for i := range two {
			two[i].Adapter, two[i].Tokens = head, 60
		}
		return slices.Concat(slices.Repeat(two[:1], 7), two[1:], two[1:])
	}
	head, other := &engine.Adapter{}, &engine.Adapter{Head: arch.Head{Task: arch.Token}}
	spreads(t, ask(head), 7, 2)
	spreads(t, ask(other), 1, 1, 1, 1, 1, 1, 1, 1, 1)

	// What an adapter of another kind computes of the input is of no use to a head.
	mixed := slices.Repeat(rows(0), 4)
	for i := range mixed {
		mixed[i].Adapter, mixed[i].Tokens = head, 60
	}
	mixed[0].Adapter = other
	spreads(t, mixed, 1, 3)
	mixed[0].Adapter = nil // the base itself
	spreads(t, mixed, 4)
}

func TestStatsTellOfEachBatch(t *testing.T) {
	inBubble(t, func(t *testing.T, g *gate, b *batcher.Batcher) {
		start := g.now
		replies := []<-chan reply{submit(t.Context(), b, rows(1)), submit(t.Context(), b, rows(2, 3))}
		g.now = g.now.Add(time.Minute)
		replies = append(replies, submit(t.Context(), b, rows(4, 5, 6)))
		g.now = g.now.Add(time.Second)
		for range 3 {
			g.open <- struct{}{}
			synctest.Wait()
			g.now = g.now.Add(time.Hour)
		}
		var last reply
		for _, r := range replies {
			if last = <-r; last.err != nil {
				t.Error(last.err)
			}
		}
		at := func(began, ended time.Duration, rows int) batcher.Run {
			return batcher.Run{
				Began: start.Add(began), Ended: start.Add(ended), Rows: rows, Adapters: 1, Tokens: rows,
				ForwardBegan: start.Add(ended), ForwardEnded: start.Add(ended), // the engine's pass takes no time of this clock
			}
		}
		const first = time.Minute + time.Second
		want := []batcher.Stats{
			{Run: at(0, first, 1), Waits: []time.Duration{0}},
			{Run: at(first, first+time.Hour, 4), Waits: []time.Duration{first, time.Second}},
			{Run: at(first+time.Hour, first+2*time.Hour, 1)}, // its request was in the batch before
		}
		if !reflect.DeepEqual(g.stats, want) {
			t.Errorf("expected %+v, found %+v", want, g.stats)
		}
		if runs := []batcher.Run{want[1].Run, want[2].Run}; !reflect.DeepEqual(last.Runs, runs) ||
			!last.Queued.Equal(start.Add(time.Minute)) {
			t.Errorf("expected the last request to tell of %+v, found %+v", runs, last)
		}
	})
}

func TestAFullQueueRefusesAtOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, g *gate, b *batcher.Batcher) {
		running := submit(t.Context(), b, rows(1, 2, 3, 4)) // in the engine
		queued := submit(t.Context(), b, rows(1, 2, 3, 4, 5, 6, 7, 8, 9))
		if got := <-submit(t.Context(), b, rows(1, 2)); !errors.Is(got.err, batcher.ErrOverloaded) {
			t.Errorf("expected ErrOverloaded, found %v", got.err)
		}
		last := rows(10)
		fits := submit(t.Context(), b, last)
		for range 4 {
			g.open <- struct{}{}
		}
		if r, q := <-running, <-queued; r.err != nil || q.err != nil {
			t.Errorf("expected answers to what was admitted, found %v and %v", r.err, q.err)
		}
		g.check(t, last, <-fits)
	})
}

func TestACancelledRequestLeavesTheQueue(t *testing.T) {
	inBubble(t, func(t *testing.T, g *gate, b *batcher.Batcher) {
		running := submit(t.Context(), b, rows(1))
		ctx, cancel := context.WithCancel(t.Context())
		cancelled := submit(ctx, b, rows(1, 2, 3, 4, 5, 6, 7, 8, 9, 10)) // the queue is full
		cancel()
		if got := <-cancelled; !errors.Is(got.err, context.Canceled) {
			t.Errorf("expected the context's error at once, found %v", got.err)
		}
		asked := rows(3, 4)
		replaced := submit(t.Context(), b, asked)
		if n := b.Snapshot().Waiting.Rows; n != 2 {
			t.Errorf("expected the cancelled rows to make room, found %d rows queued", n)
		}
		g.open <- struct{}{}
		g.open <- struct{}{}
		g.check(t, asked, <-replaced)
		if got := <-running; got.err != nil {
			t.Error(got.err)
		}
		synctest.Wait()
		if n := len(g.stats); n != 2 {
			t.Errorf("expected no batch of cancelled rows, found %d batches", n)
		}
	})
}

// A caller that has gone still holds what its rows in the engine use, and no longer.
func TestRowsHoldUntilTheyHaveLeft(t *testing.T) {
	inBubble(t, func(t *testing.T, g *gate, b *batcher.Batcher) {
		var released [3]int
		ctx, cancel := context.WithCancel(t.Context())
		submitted := make(chan error, 3)
		hold := func(i, n int) {
			replies := submitHolding(ctx, b, rows(make([]float32, n)...), func() { released[i]++ })
			go func() { submitted <- (<-replies).err }()
			synctest.Wait()
		}
		hold(0, 4)  // in the engine
		hold(1, 5)  // queued
		hold(2, 10) // refused
		if err := <-submitted; !errors.Is(err, batcher.ErrOverloaded) || released != [3]int{0, 0, 1} {
			t.Errorf("expected the refused request alone to let go, found %v, %v", err, released)
		}
		cancel()
		for range 2 {
			if err := <-submitted; !errors.Is(err, context.Canceled) {
				t.Errorf("expected the context's error, found %v", err)
			}
		}
		synctest.Wait()
		if released[0] != 0 {
			t.Error("let go of what the engine still uses")
		}
		g.open <- struct{}{}
		synctest.Wait()
		if released != [3]int{1, 1, 1} {
			t.Errorf("expected each to let go once, found %v", released)
		}
		got := <-submitHolding(t.Context(), b, nil, func() { released[0]++ })
		if got.err != nil || released[0] != 2 {
			t.Errorf("no rows: expected to let go at once, found %v, %v", got.err, released)
		}
	})
}

func TestAPanicFailsItsBatchOnly(t *testing.T) {
	for _, place := range []string{"run", "observe"} {
		t.Run(place, func(t *testing.T) {
			inBubble(t, func(t *testing.T, g *gate, b *batcher.Batcher) {
				g.panics = place
				first := submit(t.Context(), b, rows(1))
				asked := rows(2)
				second := submit(t.Context(), b, asked)
				g.open <- struct{}{}
				if got := <-first; got.err == nil || !strings.Contains(got.err.Error(), "panic: bad luck") {
					t.Errorf("expected the panic as an error, found %v", got.err)
				}
				g.open <- struct{}{}
				g.check(t, asked, <-second)
			})
		})
	}
}

func TestAFailedBatchFailsItsRequestsOnly(t *testing.T) {
	inBubble(t, func(t *testing.T, g *gate, b *batcher.Batcher) {
		broken := errors.New("broken")
		g.fail = broken
		first := submit(t.Context(), b, rows(1, 2, 3, 4, 5)) // its fifth row is left to the next batch
		asked := rows(6)
		second := submit(t.Context(), b, asked)
		g.open <- struct{}{}
		if got := <-first; !errors.Is(got.err, broken) {
			t.Errorf("expected the engine's error, found %v", got.err)
		}
		g.open <- struct{}{}
		g.check(t, asked, <-second)
		synctest.Wait()
		if len(g.stats) != 2 || !errors.Is(g.stats[0].Err, broken) || g.stats[1].Rows != 1 {
			t.Errorf("expected a failed batch, then one of the row that is still wanted, found %+v", g.stats)
		}
	})
}

func TestClosingAnswersWhatWasAdmitted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t)
		b := batcher.New(g, batcher.Options{MaxBatchRows: 4, MaxBatchTokens: 100})
		asked := rows(1, 2, 3, 4, 5, 6)
		admitted := submit(t.Context(), b, asked)
		closed := make(chan struct{})
		go func() { b.Close(); close(closed) }()
		synctest.Wait()
		if got := <-submit(t.Context(), b, rows(1)); !errors.Is(got.err, batcher.ErrClosed) {
			t.Errorf("expected ErrClosed, found %v", got.err)
		}
		close(g.open)
		g.check(t, asked, <-admitted)
		<-closed
		g.Close()
	})
}
