package nn_test

import (
	"math"
	"slices"
	"strings"
	"testing"

	"gorgonia.org/tensor"

	"github.com/switchyard-dev/switchyard/runtime/kernels"
	"github.com/switchyard-dev/switchyard/runtime/nn"
	"github.com/switchyard-dev/switchyard/runtime/weights"
	"github.com/switchyard-dev/switchyard/test/wrappers"
)

// tiny is a model of one Linear "a.head" [2, 3], a LayerNorm "a.norm" [3] and a bare tensor "a.token" [3].
type tiny struct {
	head   *nn.Linear
	norm   *nn.LayerNorm
	token  *nn.Parameter
	layers *nn.Layers
}

var weight = []float32{1, 2, 3, 4, 5, 6}

func newTiny(t *testing.T) *tiny {
	t.Helper()
	source, err := weights.Parse(wrappers.Safetensors(
		wrappers.F32("a.head.weight", weight, 2, 3), wrappers.F32("a.head.bias", []float32{10, 20}, 2),
		wrappers.F32("a.norm.weight", []float32{1, 1, 1}, 3), wrappers.F32("a.norm.bias", []float32{0, 0, 0}, 3),
		wrappers.F32("a.token", []float32{7, 8, 9}, 3),
	))
	if err != nil {
		t.Fatal(err)
	}
	root := nn.NewScope(source)
	a := root.Sub("a")
	m := &tiny{head: a.Linear("head", 2, 3, true), norm: a.LayerNorm("norm", 3, 0), token: a.Parameter("token", 3)}
	if m.layers, _, err = root.Layers(); err != nil {
		t.Fatal(err)
	}
	return m
}

func dense(values []float32, shape ...int) *tensor.Dense {
	return tensor.New(tensor.WithShape(shape...), tensor.WithBacking(values))
}

func batch(t *testing.T, segments ...nn.Segment) *nn.Batch {
	t.Helper()
	pool := kernels.NewPool(2)
	t.Cleanup(pool.Close)
	return &nn.Batch{Pool: pool, Rows: segments}
}

// One row x = [1, 1, 1] each: of the base, of an update, of a replacement with three outputs, and of the update again.
func TestEachSegmentHasItsOwnLinear(t *testing.T) {
	m := newTiny(t)
	updated, replaced := m.layers.NewAdapter(), m.layers.NewAdapter()
	// x·Aᵀ = [3], and 0.5 · [3]·Bᵀ = [1.5, -3].
	if err := updated.Update("a.head", dense([]float32{1, 1, 1}, 1, 3), dense([]float32{1, -2}, 2, 1), 0.5); err != nil {
		t.Fatal(err)
	}
	if err := replaced.Replace("a.head", map[string]*tensor.Dense{
		"weight": dense([]float32{1, 0, 0, 0, 1, 0, 1, 1, 1}, 3, 3), "bias": dense([]float32{0, 0, 1}, 3),
	}); err != nil {
		t.Fatal(err)
	}
	if m.head.Out(nil) != 2 || m.head.Out(updated) != 2 || m.head.Out(replaced) != 3 {
		t.Errorf("outputs: expected 2, 2 and 3, found %d, %d and %d",
			m.head.Out(nil), m.head.Out(updated), m.head.Out(replaced))
	}
	b := batch(t, nn.Segment{0, 1, nil}, nn.Segment{1, 2, updated}, nn.Segment{2, 3, replaced}, nn.Segment{3, 4, updated})
	const stride, untouched = 3, -1
	dst := slices.Repeat([]float32{untouched}, 4*stride)
	b.Linear(b.Rows, slices.Repeat([]float32{1}, 4*3), nn.Product{Layer: m.head, Dst: dst, Stride: stride})
	want := []float32{
		16, 35, untouched,
		17.5, 32, untouched,
		1, 1, 4,
		17.5, 32, untouched,
	}
	if !slices.Equal(dst, want) {
		t.Errorf("expected %v, found %v", want, dst)
	}
}

// lora_alpha may be 0: the update is there and adds nothing.
func TestAScaleOfZeroAddsNothing(t *testing.T) {
	m := newTiny(t)
	silent := m.layers.NewAdapter()
	if err := silent.Update("a.head", dense([]float32{1, 1, 1}, 1, 3), dense([]float32{1, -2}, 2, 1), 0); err != nil {
		t.Fatal(err)
	}
	b := batch(t, nn.Segment{0, 1, silent})
	dst := make([]float32, 2)
	b.Linear(b.Rows, []float32{1, 1, 1}, nn.Product{Layer: m.head, Dst: dst})
	if want := []float32{16, 35}; !slices.Equal(dst, want) {
		t.Errorf("expected the base's %v, found %v", want, dst)
	}
}

func TestEachSegmentHasItsOwnNormAndParameters(t *testing.T) {
	m := newTiny(t)
	own := m.layers.NewAdapter()
	for path, params := range map[string]map[string]*tensor.Dense{
		"a.norm": {"weight": dense([]float32{2, 2, 2}, 3), "bias": dense([]float32{1, 1, 1}, 3)},
		"a":      {"token": dense([]float32{1, 2, 3}, 3)},
	} {
		if err := own.Replace(path, params); err != nil {
			t.Fatal(err)
		}
	}
	b := batch(t, nn.Segment{0, 1, nil}, nn.Segment{1, 2, own})
	x := []float32{-1, 0, 1, -1, 0, 1}
	b.LayerNorm(b.Rows, m.norm, x, x)
	high := float32(math.Sqrt(1.5)) // 1 over the deviation of [-1, 0, 1]
	for i, want := range []float32{-high, 0, high, 1 - 2*high, 1, 1 + 2*high} {
		if diff := x[i] - want; diff > 1e-6 || diff < -1e-6 {
			t.Errorf("value %d: expected %g, found %g", i, want, x[i])
		}
	}
	if !slices.Equal(m.token.Of(own), []float32{1, 2, 3}) || !slices.Equal(m.token.Of(nil), []float32{7, 8, 9}) {
		t.Errorf("token: found %v of the adapter, %v of the base", m.token.Of(own), m.token.Of(nil))
	}
}

func TestRowsBecomeSegments(t *testing.T) {
	m := newTiny(t)
	x, y := m.layers.NewAdapter(), m.layers.NewAdapter()
	inputs := make([]nn.Input, 4)
	for i := range inputs {
		inputs[i].Pixels = make([]float32, i+1) // as many tokens
	}
	b := nn.NewBatch(nil, inputs, []*nn.Adapter{x, x, nil, y}, func(in nn.Input) int { return len(in.Pixels) })
	if want := []nn.Segment{{0, 2, x}, {2, 3, nil}, {3, 4, y}}; !slices.Equal(b.Rows, want) {
		t.Errorf("in rows: expected %v, found %v", want, b.Rows)
	}
	if want := []nn.Segment{{0, 3, x}, {3, 6, nil}, {6, 10, y}}; !slices.Equal(b.Tokens, want) {
		t.Errorf("in tokens: expected %v, found %v", want, b.Tokens)
	}
	if want := []nn.Segment{{0, 10, x}, {10, 15, nil}, {15, 20, y}}; !slices.Equal(b.Each(5), want) {
		t.Errorf("in fives: expected %v, found %v", want, b.Each(5))
	}
	if b.NumTokens() != 10 {
		t.Errorf("expected 10 tokens, found %d", b.NumTokens())
	}
}

func TestWhatDoesNotFitIsRefused(t *testing.T) {
	m := newTiny(t)
	a := m.layers.NewAdapter()
	row, column := dense(make([]float32, 3), 1, 3), dense(make([]float32, 2), 2, 1)
	for _, c := range []struct {
		err  error
		want string
	}{
		{a.Update("a.tail", row, column, 1), `module "a.tail": the model has none of that name`},
		{a.Update("a.norm", row, column, 1), `module "a.norm": an update`},
		{a.Update("a.head", dense([]float32{2, 2, 2}, 1, 3), column, 3e38), `scaled by 3e+38 is beyond float32`},
		{a.Update("a.head", column, row, 1), `module "a.head": an update of [2, 1] and [1, 3] does not fit it`},
		{a.Replace("b", nil), `module "b": the model has none of that name`},
	} {
		if c.err == nil || !strings.Contains(c.err.Error(), c.want) {
			t.Errorf("expected %q, found %v", c.want, c.err)
		}
	}
}
