package nn_test

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"

	"gorgonia.org/tensor"

	"github.com/switchyard-dev/switchyard/runtime/kernels"
	"github.com/switchyard-dev/switchyard/runtime/memory"
	"github.com/switchyard-dev/switchyard/runtime/nn"
	"github.com/switchyard-dev/switchyard/runtime/weights"
	"github.com/switchyard-dev/switchyard/test/wrappers"
)

// tiny is a model of two Linears "a.head" and "a.bare" [2, 3], of which the second has no bias, a LayerNorm "a.norm"
// [3], an Embedding "a.words" [4, 2] and a bare tensor "a.token" [3].
type tiny struct {
	head, bare *nn.Linear
	norm       *nn.LayerNorm
	words      *nn.Embedding
	token      *nn.Parameter
	layers     *nn.Layers
}

var (
	weight = []float32{1, 2, 3, 4, 5, 6}
	table  = []float32{1, 2, 3, 4, 5, 6, 7, 8}
)

func newTiny(t *testing.T) *tiny {
	t.Helper()
	root := nn.NewScope(newSource(t,
		wrappers.F32("a.head.weight", weight, 2, 3), wrappers.F32("a.head.bias", []float32{10, 20}, 2),
		wrappers.F32("a.bare.weight", weight, 2, 3),
		wrappers.F32("a.norm.weight", []float32{1, 1, 1}, 3), wrappers.F32("a.norm.bias", []float32{0, 0, 0}, 3),
		wrappers.F32("a.words.weight", table, 4, 2),
		wrappers.F32("a.token", []float32{7, 8, 9}, 3),
	), kernels.Float32)
	a := root.Sub("a")
	m := &tiny{
		head: a.Linear("head", 2, 3, true), bare: a.Linear("bare", 2, 3, false), norm: a.LayerNorm("norm", 3, 0, true),
		words: a.Embedding("words", 4, 2), token: a.Parameter("token", 3),
	}
	var err error
	if m.layers, err = root.Layers(); err != nil {
		t.Fatal(err)
	}
	return m
}

// changing is an adapter that changes a module of two or three values.
func (m *tiny) changing(t *testing.T, path string) *nn.Adapter {
	t.Helper()
	a := m.layers.NewAdapter()
	replace(t, a, path, map[string]*tensor.Dense{"weight": dense([]float32{1, 1, 1}, 3)})
	return a
}

// source has what a file has, under the same names; it is without what the file is without.
type source struct{ *weights.Tensors }

func newSource(t *testing.T, tensors ...wrappers.Tensor) source {
	t.Helper()
	parsed, err := weights.Parse(wrappers.Safetensors(tensors...))
	if err != nil {
		t.Fatal(err)
	}
	return source{parsed}
}

func (s source) Rows(dst []float32, path, param string, from int, shape ...int) (bool, error) {
	name := path + "." + param
	if _, ok := s.Info(name); !ok {
		return false, nil
	}
	return true, s.CopyRows(dst, name, shape, from)
}

func dense(values []float32, shape ...int) *tensor.Dense {
	return tensor.New(tensor.WithShape(shape...), tensor.WithBacking(values))
}

func batch(t *testing.T, segments ...nn.Segment) *nn.Batch {
	t.Helper()
	pool := kernels.NewPool(2)
	t.Cleanup(pool.Close)
	for _, s := range segments {
		if s.Adapter != nil {
			s.Adapter.Seal()
		}
	}
	return &nn.Batch{Pool: pool, Rows: segments}
}

func update(t *testing.T, a *nn.Adapter, path string, u nn.Update) {
	t.Helper()
	if err := a.Update(path, u); err != nil {
		t.Fatal(err)
	}
}

func replace(t *testing.T, a *nn.Adapter, path string, params map[string]*tensor.Dense) {
	t.Helper()
	if err := a.Replace(path, params); err != nil {
		t.Fatal(err)
	}
}

// One row x = [1, 1, 1] each: of the base, of an update, of a replacement with three outputs, and of the update again.
func TestEachSegmentHasItsOwnLinear(t *testing.T) {
	m := newTiny(t)
	updated, replaced := m.layers.NewAdapter(), m.layers.NewAdapter()
	// x·Aᵀ = [3], and 0.5 · [3]·Bᵀ = [1.5, -3].
	update(t, updated, "a.head", nn.Update{
		Down: dense([]float32{1, 1, 1}, 1, 3), Up: dense([]float32{1, -2}, 2, 1), Scale: 0.5,
	})
	replace(t, replaced, "a.head", map[string]*tensor.Dense{
		"weight": dense([]float32{1, 0, 0, 0, 1, 0, 1, 1, 1}, 3, 3), "bias": dense([]float32{0, 0, 1}, 3),
	})
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
	update(t, silent, "a.head", nn.Update{Down: dense([]float32{1, 1, 1}, 1, 3), Up: dense([]float32{1, -2}, 2, 1)})
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
	replace(t, own, "a.norm", map[string]*tensor.Dense{
		"weight": dense([]float32{2, 2, 2}, 3), "bias": dense([]float32{1, 1, 1}, 3),
	})
	replace(t, own, "a", map[string]*tensor.Dense{"token": dense([]float32{1, 2, 3}, 3)})
	shifted := m.layers.NewAdapter() // whose gain is the base's
	replace(t, shifted, "a.norm", map[string]*tensor.Dense{"bias": dense([]float32{5, 5, 5}, 3)})
	b := batch(t, nn.Segment{0, 1, nil}, nn.Segment{1, 2, own}, nn.Segment{2, 3, shifted})
	x := slices.Repeat([]float32{-1, 0, 1}, 3)
	b.LayerNorm(b.Rows, m.norm, x, x)
	high := math.Sqrt(1.5) // 1 over the deviation of [-1, 0, 1]
	near(t, "the norms", x, []float64{-high, 0, high, 1 - 2*high, 1, 1 + 2*high, 5 - high, 5, 5 + high}, 1e-6)
	if !slices.Equal(m.token.Of(own), []float32{1, 2, 3}) || !slices.Equal(m.token.Of(nil), []float32{7, 8, 9}) {
		t.Errorf("token: found %v of the adapter, %v of the base", m.token.Of(own), m.token.Of(nil))
	}
}

func near(t *testing.T, what string, got []float32, want []float64, tolerance float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: expected %d values, found %d", what, len(want), len(got))
	}
	for i := range want {
		if diff := math.Abs(float64(got[i]) - want[i]); diff > tolerance || math.IsNaN(diff) {
			t.Errorf("%s: value %d: expected %g, found %g", what, i, want[i], got[i])
		}
	}
}

// An update's own bias, a trained bias of the module, and both, are each in place of the base's or on top of it.
func TestEachSegmentHasItsOwnBias(t *testing.T) {
	m := newTiny(t)
	down, up := dense([]float32{1, 1, 1}, 1, 3), dense([]float32{1, -2}, 2, 1) // of x = [1, 1, 1]: 0.5·[3, -6]
	updated := nn.Update{Down: down, Up: up, Bias: dense([]float32{4, 8}, 2), Scale: 0.5}
	trained := map[string]*tensor.Dense{"bias": dense([]float32{-1, -2}, 2)}
	adapters := make([]*nn.Adapter, 4)
	for i := range adapters {
		adapters[i] = m.layers.NewAdapter()
	}
	for _, path := range []string{"a.head", "a.bare"} {
		update(t, adapters[1], path, updated)
		replace(t, adapters[2], path, trained)
		replace(t, adapters[3], path, trained)
		update(t, adapters[3], path, updated)
	}
	var segments []nn.Segment
	for i, a := range adapters {
		segments = append(segments, nn.Segment{i, i + 1, a})
	}
	b := batch(t, segments...)
	for _, c := range []struct {
		name  string
		layer *nn.Linear
		want  []float64 // 6 and 15 are the weight's
	}{
		{"a.head", m.head, []float64{16, 35, 16 + 1.5 + 2, 35 - 3 + 4, 5, 13, 5 + 1.5 + 2, 13 - 3 + 4}},
		{"a.bare", m.bare, []float64{6, 15, 6 + 1.5 + 2, 15 - 3 + 4, 5, 13, 5 + 1.5 + 2, 13 - 3 + 4}},
	} {
		dst := make([]float32, 8)
		b.Linear(b.Rows, slices.Repeat([]float32{1}, 4*3), nn.Product{Layer: c.layer, Dst: dst})
		near(t, c.name, dst, c.want, 0)
	}
}

// What an adapter does not give stays the base's.
func TestAWeightAloneLeavesTheBias(t *testing.T) {
	m := newTiny(t)
	a := m.layers.NewAdapter()
	replace(t, a, "a.head", map[string]*tensor.Dense{"weight": dense([]float32{1, 0, 0, 0, 1, 0}, 2, 3)})
	b := batch(t, nn.Segment{0, 1, a})
	dst := make([]float32, 2)
	b.Linear(b.Rows, []float32{3, 4, 5}, nn.Product{Layer: m.head, Dst: dst})
	near(t, "weight alone", dst, []float64{13, 24}, 0)
}

// DoRA's weights are m·W'/‖W'‖, where W' = W + s·B·A: the bias and the rows of others are as they were.
func TestDoRA(t *testing.T) {
	m := newTiny(t)
	a, up, magnitude := []float32{0.5, -1, 2}, []float32{3, -0.25}, []float32{2, -7}
	const scale = 0.5
	x := []float32{1, -2, 3}
	dora := m.layers.NewAdapter()
	update(t, dora, "a.head", nn.Update{
		Down: dense(a, 1, 3), Up: dense(up, 2, 1), Magnitude: dense(magnitude, 2), Scale: scale,
	})
	b := batch(t, nn.Segment{0, 1, nil}, nn.Segment{1, 2, dora})
	dst := make([]float32, 4)
	b.Linear(b.Rows, slices.Concat(x, x), nn.Product{Layer: m.head, Dst: dst})
	want := []float64{10 + 6, 20 + 12}
	for j, bias := range []float64{10, 20} {
		squares, y := 0.0, 0.0
		for i := range 3 {
			w := float64(weight[j*3+i]) + scale*float64(up[j])*float64(a[i])
			squares += w * w
			y += w * float64(x[i])
		}
		want = append(want, float64(magnitude[j])/math.Sqrt(squares)*y+bias)
	}
	near(t, "DoRA", dst, want, 1e-5)
}

// Of the same ids each segment looks up its own: the base's rows, an update, other rows for some ids, another table,
// and a DoRA's.
func TestEachSegmentHasItsOwnEmbedding(t *testing.T) {
	m := newTiny(t)
	updated, rows := m.layers.NewAdapter(), m.layers.NewAdapter()
	replaced, dora := m.layers.NewAdapter(), m.layers.NewAdapter()
	change := nn.Update{ // 0.5·[1, 10] for id 1, and twice that for id 3
		Down: dense([]float32{0, 1, 0, 2}, 1, 4), Up: dense([]float32{1, 10}, 2, 1), Scale: 0.5,
	}
	update(t, updated, "a.words", change)
	if err := rows.ReplaceRows("a.words", []int{0, 3}, dense([]float32{-1, -2, -3, -4}, 2, 2)); err != nil {
		t.Fatal(err)
	}
	replace(t, replaced, "a.words", map[string]*tensor.Dense{"weight": dense([]float32{9, 9, 8, 8, 7, 7, 6, 6}, 4, 2)})
	change.Magnitude = dense([]float32{3, 5}, 2)
	update(t, dora, "a.words", change)
	// Of each column over all ids.
	first := 3 / math.Sqrt(1+3.5*3.5+5*5+8*8)
	second := 5 / math.Sqrt(2*2+9*9+6*6+18*18)
	want := []float64{
		3, 4, 7, 8,
		3.5, 9, 8, 18,
		3, 4, -3, -4,
		8, 8, 6, 6,
		first * 3.5, second * 9, first * 8, second * 18,
	}
	var segments []nn.Segment
	for i, a := range []*nn.Adapter{nil, updated, rows, replaced, dora} {
		segments = append(segments, nn.Segment{2 * i, 2*i + 2, a})
	}
	b := batch(t, segments...)
	ids := slices.Repeat([]int32{1, 3}, 5)
	dst := slices.Repeat([]float32{100}, 20)
	b.Embed(b.Rows, m.words, ids, dst)
	near(t, "in place", dst, want, 1e-5)
	b.AddEmbed(b.Rows, m.words, ids, dst)
	for i := range want {
		want[i] *= 2
	}
	near(t, "on top", dst, want, 1e-5)
}

func TestAddScaledTakesEachSegmentsOwn(t *testing.T) {
	m := newTiny(t)
	own := m.layers.NewAdapter()
	replace(t, own, "a", map[string]*tensor.Dense{"token": dense([]float32{1, 2, 3}, 3)})
	b := batch(t, nn.Segment{0, 2, own}, nn.Segment{2, 3, nil})
	dst := slices.Repeat([]float32{100}, 9)
	b.AddScaled(b.Rows, m.token, []float32{1, 1, 1, 2, 2, 2, 3, 3, 3}, dst)
	near(t, "scaled", dst, []float64{101, 102, 103, 102, 104, 106, 121, 124, 127}, 0)
}

func TestWhatDoesNotFitIsRefused(t *testing.T) {
	m := newTiny(t)
	a := m.layers.NewAdapter()
	row, column := dense(make([]float32, 3), 1, 3), dense(make([]float32, 2), 2, 1)
	opposite := dense([]float32{-1, -2, -3}, 1, 3) // of the head's first output
	byID := dense(make([]float32, 4), 1, 4)
	for _, c := range []struct {
		err  error
		want string
	}{
		{a.Update("a.tail", nn.Update{Down: row, Up: column}), `module "a.tail": the model has none of that name`},
		{
			a.Update("a.norm", nn.Update{Down: row, Up: column}),
			`module "a.norm": expected a Linear or an Embedding to update, found *nn.LayerNorm`,
		},
		{
			a.Update("a.head", nn.Update{Down: dense([]float32{2, 2, 2}, 1, 3), Up: column, Scale: 3e38}),
			`module "a.head": an update scaled by 3e+38 is beyond float32`,
		},
		{
			a.Update("a.head", nn.Update{Down: row, Up: column, Bias: dense([]float32{2, 2}, 2), Scale: 3e38}),
			`module "a.head": an update scaled by 3e+38 is beyond float32`,
		},
		{
			a.Update("a.head", nn.Update{Down: column, Up: row}),
			`module "a.head": an update of [2, 1] and [1, 3] does not fit it`,
		},
		{
			a.Update("a.head", nn.Update{
				Down: opposite, Up: dense([]float32{1, 0}, 2, 1), Magnitude: dense([]float32{1, 1}, 2), Scale: 1,
			}),
			`module "a.head": DoRA: expected weights of some length at output 0, found all zero`,
		},
		{
			a.Update("a.words", nn.Update{Down: row, Up: column}),
			`module "a.words": an update of [1, 3] and [2, 1] does not fit it`,
		},
		{
			a.Update("a.words", nn.Update{Down: dense([]float32{2, 2, 2, 2}, 1, 4), Up: column, Scale: 3e38}),
			`module "a.words": an update scaled by 3e+38 is beyond float32`,
		},
		{
			a.Update("a.words", nn.Update{Down: byID, Up: column, Magnitude: dense([]float32{1, float32(math.Inf(1))}, 2)}),
			`module "a.words": DoRA: `,
		},
		{a.Replace("b", nil), `module "b": the model has none of that name`},
		{a.ReplaceRows("b", nil, row), `module "b": the model has none of that name`},
		{a.ReplaceRows("a.head", []int{0}, row), `module "a.head": rows [1, 3] do not fit it`},
		{a.ReplaceRows("a.words", []int{0, 1}, row), `module "a.words": rows [1, 3] do not fit it`},
	} {
		if c.err == nil || !strings.Contains(c.err.Error(), c.want) {
			t.Errorf("expected %q, found %v", c.want, c.err)
		}
	}
}

// What the base is without is nobody's error: a head that adapters bring. What does not fit is, and not all of a
// stranger's tensors are named.
func TestABaseThatDoesNotFit(t *testing.T) {
	var wrong []wrappers.Tensor
	for i := range 7 {
		wrong = append(wrong, wrappers.F32("l"+strconv.Itoa(i)+".weight", []float32{1}, 1, 1))
	}
	s := nn.NewScope(newSource(t, wrong...), kernels.Float32)
	s.Linear("absent", 2, 3, true)
	for i := range 7 {
		s.Linear("l"+strconv.Itoa(i), 2, 3, false)
	}
	_, err := s.Layers()
	if err == nil || !strings.Contains(err.Error(), `tensor "l4.weight": shape: expected [2, 3], found [1, 1]`) ||
		!strings.HasSuffix(err.Error(), "\nand 2 more tensors") || strings.Contains(err.Error(), "absent") {
		t.Errorf("expected five tensors named and two more counted, found %v", err)
	}
	s = nn.NewScope(newSource(t), kernels.Float32)
	s.Linear("absent", 2, 3, true)
	layers, err := s.Layers()
	if err != nil || !slices.Equal(layers.Paths(), []string{"absent"}) {
		t.Errorf("expected the layer without its weights, found %v, error %v", layers, err)
	}
}

// A head that the base is without is an adapter's alone, its norm too.
func TestWhatTheBaseLacksAnAdapterBrings(t *testing.T) {
	s := nn.NewScope(newSource(t), kernels.Float32)
	head, norm := s.Linear("dense", 2, 3, true), s.LayerNorm("norm", 2, 0, true)
	layers, err := s.Layers()
	if err != nil {
		t.Fatal(err)
	}
	own := layers.NewAdapter()
	replace(t, own, "dense", map[string]*tensor.Dense{
		"weight": dense([]float32{1, 0, 0, 0, 1, 0}, 2, 3), "bias": dense([]float32{1, 1}, 2),
	})
	replace(t, own, "norm", map[string]*tensor.Dense{
		"weight": dense([]float32{2, 2}, 2), "bias": dense([]float32{0, 10}, 2),
	})
	b := batch(t, nn.Segment{0, 1, own})
	dst := make([]float32, 2)
	b.Linear(b.Rows, []float32{3, 7, 9}, nn.Product{Layer: head, Dst: dst})
	near(t, "dense", dst, []float64{4, 8}, 0)
	b.LayerNorm(b.Rows, norm, dst, dst)
	near(t, "norm", dst, []float64{-2, 12}, 1e-6)
}

// What an adapter holds in memory is told, and hardly more than its values: of matrices whose values all are bfloat16
// two bytes each. It is given back when the adapter is freed.
func TestBytesOfAnAdapter(t *testing.T) {
	const width, rank, words = 256, 8, 128
	root := nn.NewScope(newSource(t,
		wrappers.F32("query.weight", make([]float32, width*width), width, width),
		wrappers.F32("query.bias", make([]float32, width), width),
		wrappers.F32("key.weight", make([]float32, width*width), width, width),
		wrappers.F32("norm.weight", make([]float32, width), width),
		wrappers.F32("words.weight", make([]float32, words*width), words, width),
	), kernels.Float32)
	query, key := root.Linear("query", width, width, true), root.Linear("key", width, width, false)
	root.Beside(query, key)
	root.LayerNorm("norm", width, 0, false)
	root.Embedding("words", words, width)
	layers, err := root.Layers()
	if err != nil {
		t.Fatal(err)
	}
	defer layers.Free()
	for what, c := range map[string]struct {
		change            func(a *nn.Adapter, of func(shape ...int) *tensor.Dense)
		matrices, vectors int64 // values of both
	}{
		"nothing": {func(*nn.Adapter, func(...int) *tensor.Dense) {}, 0, 0},
		"updates side by side, one with a bias and a magnitude": {func(a *nn.Adapter, of func(...int) *tensor.Dense) {
			low := nn.Update{Down: of(rank, width), Up: of(width, rank), Scale: 0.5}
			whole := low
			whole.Bias, whole.Magnitude = of(width), of(width)
			update(t, a, "query", whole)
			update(t, a, "key", low)
		}, 4 * rank * width, 2 * width},
		"an Embedding's update": {func(a *nn.Adapter, of func(...int) *tensor.Dense) {
			update(t, a, "words", nn.Update{Down: of(rank, words), Up: of(width, rank), Scale: 2})
		}, rank*words + rank*width, 0},
		"an Embedding's rows": {func(a *nn.Adapter, of func(...int) *tensor.Dense) {
			if err := a.ReplaceRows("words", []int{1, 3}, of(2, width)); err != nil {
				t.Fatal(err)
			}
		}, 2 * width, 0},
		"a table, a norm and a Linear": {func(a *nn.Adapter, of func(...int) *tensor.Dense) {
			replace(t, a, "words", map[string]*tensor.Dense{"weight": of(words, width)})
			replace(t, a, "norm", map[string]*tensor.Dense{"weight": of(width)})
			replace(t, a, "key", map[string]*tensor.Dense{"weight": of(width, width)})
		}, words*width + width*width, width},
	} {
		for bytes, value := range map[int64]float32{4: 1.001, 2: 1.5} {
			const page, line, most = 4 << 10, 64, 8 // what is rounded up to; values that lie by themselves
			before := memory.Held()
			a := layers.NewAdapter()
			c.change(a, func(shape ...int) *tensor.Dense {
				return dense(slices.Repeat([]float32{value}, tensor.Shape(shape).TotalSize()), shape...)
			})
			a.Seal()
			if held := memory.Held() - before; held != a.Bytes() {
				t.Errorf("%s of %g: told are %d bytes, held are %d", what, value, a.Bytes(), held)
			}
			if least := bytes*c.matrices + 4*c.vectors; a.Bytes() < least || a.Bytes() > least+page+most*line {
				t.Errorf("%s of %g: expected hardly more than %d bytes, found %d", what, value, least, a.Bytes())
			}
			if a.Free(); memory.Held() != before {
				t.Errorf("%s of %g: freed, and %d bytes are still held", what, value, memory.Held()-before)
			}
		}
	}
}

// An update is bfloat16 in memory only where nothing is lost: its scale may make it more than that, and so may an
// update that it lies beside.
func TestUpdatesLoseNothing(t *testing.T) {
	zero := []float32{0}
	root := nn.NewScope(newSource(t, wrappers.F32("q.weight", zero, 1, 1), wrappers.F32("k.weight", zero, 1, 1)),
		kernels.Float32)
	q, k := root.Linear("q", 1, 1, false), root.Linear("k", 1, 1, false)
	root.Beside(q, k)
	layers, err := root.Layers()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ down, up, scale, beside float32 }{
		{1.5, -0.25, 0.5, 3},
		{1.5, 1, 1.001, 3},
		{1.001, 1, 2, 3},
		{1, 1.001, 4, 3},
		{1, 1, 4, 1.001},
		{0x1.02p-120, 1, 0x1p-20, 3}, // too small to have all its digits
	} {
		a := layers.NewAdapter()
		update(t, a, "q", nn.Update{Down: dense([]float32{c.down}, 1, 1), Up: dense([]float32{c.up}, 1, 1), Scale: c.scale})
		update(t, a, "k", nn.Update{Down: dense([]float32{c.beside}, 1, 1), Up: dense([]float32{5}, 1, 1), Scale: 2})
		b := batch(t, nn.Segment{0, 1, a})
		ofQ, ofK := make([]float32, 1), make([]float32, 1)
		b.Linear(b.Rows, []float32{1}, nn.Product{Layer: q, Dst: ofQ}, nn.Product{Layer: k, Dst: ofK})
		if want, beside := float32(c.down*c.scale)*c.up, 5*(2*c.beside); ofQ[0] != want || ofK[0] != beside {
			t.Errorf("%g·%g·%g: expected %g, and %g beside it, found %g and %g",
				c.scale, c.up, c.down, want, beside, ofQ[0], ofK[0])
		}
	}
}
