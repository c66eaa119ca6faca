package rest_test

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/switchyard-dev/switchyard/runtime/adapters"
	"github.com/switchyard-dev/switchyard/runtime/batcher"
	"github.com/switchyard-dev/switchyard/runtime/server"
	"github.com/switchyard-dev/switchyard/runtime/weights"
	"github.com/switchyard-dev/switchyard/test/wrappers"
)

// bert is a small base of texts: 16 tokens at most, of 30 ids and 2 types.
const bert = `{
	"model_type": "bert", "architectures": ["BertForSequenceClassification"], "vocab_size": 30, "hidden_size": 8,
	"num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 12, "max_position_embeddings": 16,
	"id2label": {"0": "a", "1": "b", "2": "c"}
}`

// lowest fills a row's logits up: the lowest float32.
const lowest = -math.MaxFloat32

func newTextFront(t *testing.T) *front {
	t.Helper()
	return newFrontOf(t, wrappers.Base(t, bert).Write())
}

// newFrontOf serves a base of texts as "texts", with an adapter of each kind: topics of texts, one class of two; names,
// one class of four for each token; tags, any of three; and a grade, which is a number.
func newFrontOf(t *testing.T, dir string) *front {
	t.Helper()
	adapter := func(task string, labels int, config string) *wrappers.AdapterFolder {
		a := wrappers.Adapter(t).Set("task_type", task).Set("target_modules", []string{"query"}).
			Update("bert.encoder.layer.0.attention.self.query", 8, 8).Saved("classifier", labels, 8)
		if config != "" {
			a.File("config.json", []byte(config))
		}
		return a
	}
	f := newServerOf(t, "texts", dir, func(e batcher.Runner) batcher.Runner { return e }, func(set *adapters.Set) {
		for name, a := range map[string]*wrappers.AdapterFolder{
			"topics": adapter("SEQ_CLS", 2, ""),
			"names":  adapter("TOKEN_CLS", 4, `{"id2label": {"0": "O", "1": "B-PER", "2": "I-PER", "3": "B-LOC"}}`),
			"tags":   adapter("SEQ_CLS", 3, `{"num_labels": 3, "problem_type": "multi_label_classification"}`),
			"grade":  adapter("SEQ_CLS", 1, ""),
		} {
			dir := a.Write()
			entry := set.Load(name, func() (*weights.Folder, error) { return weights.OpenFolder(dir) })
			if entry.Err != nil {
				t.Fatal(entry.Err)
			}
		}
	})
	f.listen(t)
	return f
}

// textRequest is a request in the making.
type textRequest struct {
	Inputs  []map[string]any    `json:"inputs"`
	Outputs []map[string]string `json:"outputs,omitempty"`
}

// ids begins a request about rows of ids.
func ids(rows ...[]int) *textRequest { return (&textRequest{}).tensor("input_ids", rows...) }

// tensor adds a tensor of integers, a row as long as the first.
func (r *textRequest) tensor(name string, rows ...[]int) *textRequest {
	r.Inputs = append(r.Inputs, map[string]any{
		"name": name, "datatype": "INT64", "shape": []int{len(rows), len(rows[0])}, "data": rows,
	})
	return r
}

func (r *textRequest) mask(rows ...[]int) *textRequest { return r.tensor("attention_mask", rows...) }

func (r *textRequest) types(rows ...[]int) *textRequest { return r.tensor("token_type_ids", rows...) }

// ask names each row's adapter.
func (r *textRequest) ask(names ...string) *textRequest {
	r.Inputs = append(r.Inputs, map[string]any{
		"name": "adapter", "datatype": "BYTES", "shape": []int{len(names)}, "data": names,
	})
	return r
}

// want names the outputs.
func (r *textRequest) want(names ...string) *textRequest {
	for _, name := range names {
		r.Outputs = append(r.Outputs, map[string]string{"name": name})
	}
	return r
}

func (r *textRequest) body(t *testing.T) string {
	t.Helper()
	raw, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// outputTensor is one output of an answer.
type outputTensor struct {
	Name, Datatype string
	Shape          []int
	Data           json.RawMessage
}

func (o outputTensor) floats(t *testing.T) []float32 { return dataOf[float32](t, o) }

func dataOf[T any](t *testing.T, o outputTensor) (values []T) {
	t.Helper()
	if err := json.Unmarshal(o.Data, &values); err != nil {
		t.Fatalf("%s: %v: %s", o.Name, err, o.Data)
	}
	return values
}

// infer asks a model and returns the outputs by name.
func (f *front) infer(t *testing.T, name string, r *textRequest) map[string]outputTensor {
	t.Helper()
	code, body, _ := f.do(t, "POST", "/v2/models/"+name+"/infer", r.body(t))
	if code != http.StatusOK {
		t.Fatalf("status %d: %s", code, body)
	}
	var response struct{ Outputs []outputTensor }
	if err := json.Unmarshal([]byte(body), &response); err != nil {
		t.Fatal(err)
	}
	outputs := make(map[string]outputTensor)
	for _, o := range response.Outputs {
		outputs[o.Name] = o
	}
	return outputs
}

// A row is what its mask leaves of it, whatever stands behind and however long the others are.
func TestPaddingIsLeftOut(t *testing.T) {
	f := newTextFront(t)
	one, two := []int{2, 5, 3}, []int{2, 6, 7, 8, 3}
	long := func(row []int, n int) []int { return append(slices.Clone(row), make([]int, n-len(row))...) }
	want := slices.Concat(
		f.infer(t, "topics", ids(one))["logits"].floats(t), f.infer(t, "topics", ids(two))["logits"].floats(t))
	for name, r := range map[string]*textRequest{
		"with zeros": ids([]int{2, 5, 3, 0, 0}, two).mask([]int{1, 1, 1, 0, 0}, []int{1, 1, 1, 1, 1}),
		"with anything": ids([]int{2, 5, 3, 99, -7, 1}, []int{2, 6, 7, 8, 3, 30}).
			mask([]int{1, 1, 1, 0, 0, 0}, []int{1, 1, 1, 1, 1, 0}),
		"longer than a row may be": ids(long(one, 20), long(two, 20)).
			mask(long([]int{1, 1, 1}, 20), long([]int{1, 1, 1, 1, 1}, 20)),
		"with types": ids([]int{2, 5, 3, 0, 0}, two).mask([]int{1, 1, 1, 0, 0}, []int{1, 1, 1, 1, 1}).
			types([]int{0, 0, 0, 9, 9}, []int{0, 0, 0, 0, 0}),
	} {
		if got := f.infer(t, "topics", r)["logits"].floats(t); !slices.Equal(got, want) {
			t.Errorf("%s: expected the rows alone, %v, found %v", name, want, got)
		}
	}
	unmasked := f.infer(t, "topics", ids([]int{2, 5, 3, 0, 0}))["logits"].floats(t)
	if slices.Equal(unmasked, want[:2]) {
		t.Errorf("without a mask: expected every token to count, found the answer of the first three, %v", unmasked)
	}
	typed := f.infer(t, "topics", ids(two).types([]int{0, 0, 0, 1, 1}))["logits"].floats(t)
	if slices.Equal(typed, want[2:]) {
		t.Errorf("types of 1: expected them to count, found the answer of 0, %v", typed)
	}
}

// A flat list is read as nested lists are.
func TestIDsMayBeFlat(t *testing.T) {
	f := newTextFront(t)
	nested := ids([]int{2, 5, 3}, []int{2, 6, 3})
	flat := ids([]int{2, 5, 3}, []int{2, 6, 3})
	flat.Inputs[0]["data"] = []int{2, 5, 3, 2, 6, 3}
	want, got := f.infer(t, "texts", nested), f.infer(t, "texts", flat)
	if w, g := want["logits"].floats(t), got["logits"].floats(t); !slices.Equal(w, g) {
		t.Errorf("expected %v, found %v", w, g)
	}
}

func TestBadTexts(t *testing.T) {
	f := newTextFront(t)
	const pool = "/v2/models/texts/infer"
	row := []int{2, 5, 6, 3}
	raw := func(name, datatype, shape, data string) string {
		return fmt.Sprintf(`{"inputs": [{"name": %q, "datatype": %q, "shape": %s, "data": %s}]}`, name, datatype, shape, data)
	}
	for _, c := range []struct {
		name, body string
		message    string
	}{
		{
			"a mask with a hole", ids(row, row).mask([]int{1, 1, 1, 1}, []int{1, 0, 1, 1}).body(t),
			`input "attention_mask": row 1: expected ones, then zeros, found a 1 at 2 behind a 0 at 1: ` +
				`padding on the left, or in the midst, is not supported`,
		},
		{
			"padding on the left", ids(row, row).mask([]int{0, 0, 1, 1}, []int{1, 1, 1, 1}).body(t),
			`input "attention_mask": row 0: expected ones, then zeros, found a 1 at 2 behind a 0 at 0: padding on the left`,
		},
		{
			"a mask of nothing", ids(row, row).mask([]int{1, 1, 1, 1}, []int{0, 0, 0, 0}).body(t),
			`input "attention_mask": row 1: expected at least one token, found none`,
		},
		{
			"a mask of weights", ids(row).mask([]int{1, 1, 2, 0}).body(t),
			`input "attention_mask": row 0: expected 0 or 1, found 2 at 2`,
		},
		{
			"a mask of another length", ids(row).mask([]int{1, 1, 1}).body(t),
			`input "attention_mask": shape: expected [1, 4], found [1, 3]`,
		},
		{
			"types of fewer rows", ids(row, row).types(row).body(t),
			`input "token_type_ids": shape: expected [2, 4], found [1, 4]`,
		},
		{
			"a mask alone", (&textRequest{}).mask([]int{1, 1}).body(t), `input "attention_mask" is not one of [input_ids]`,
		},
		{
			"an image", raw("pixel_values", "FP32", "[1]", "[1]"), `input "pixel_values" is not one of [input_ids]`,
		},
		{
			"a text without a tokenizer", raw("text", "BYTES", "[1]", `["a"]`), `input "text" is not one of [input_ids]`,
		},

		{
			"an id too large", ids(row, []int{2, 5, 30, 3}).body(t),
			`input "input_ids": row 1: token 2: expected an id from 0 to 29, found 30`,
		},
		{
			"a negative id", ids([]int{-1, 5, 6, 3}, row).body(t),
			`input "input_ids": row 0: token 0: expected an id from 0 to 29, found -1`,
		},
		{
			"an id beyond int32", ids(row, []int{2, 5, math.MaxInt32 + 1, 3}).body(t),
			`input "input_ids": row 1: expected an integer from -2147483648 to 2147483647, found 2147483648`,
		},
		{
			"a fraction", raw("input_ids", "INT64", "[2,2]", "[[1,2],[3,4.5]]"),
			`input "input_ids": row 1: expected an integer from -2147483648 to 2147483647, found 4.5`,
		},
		{
			"a string", raw("input_ids", "INT64", "[1,2]", `[1,"2"]`), `input "input_ids": row 0: expected an integer`,
		},
		{
			"a type too large", ids(row, row).types([]int{0, 0, 0, 0}, []int{0, 1, 2, 0}).body(t),
			`input "input_ids": row 1: token 2: expected a type from 0 to 1, found 2`,
		},
		{
			"too long", ids(make([]int, 17), make([]int, 17)).body(t),
			`input "input_ids": row 0: expected 1 to 16 tokens, found 17`,
		},
		{
			"too long behind its mask", ids(make([]int, 20)).mask(append(slices.Repeat([]int{1}, 17), 0, 0, 0)).body(t),
			`input "input_ids": row 0: expected 1 to 16 tokens, found 17`,
		},

		{
			"another datatype", raw("input_ids", "INT32", "[1,2]", "[1,2]"),
			`input "input_ids": datatype: expected INT64, found "INT32"`,
		},
		{
			"one dimension", raw("input_ids", "INT64", "[2]", "[1,2]"),
			`input "input_ids": shape: expected [B, S], found [2]`,
		},
		{"no tokens", raw("input_ids", "INT64", "[1,0]", "[]"), `shape: expected [B, S], found [1, 0]`},
		{
			"fewer values", raw("input_ids", "INT64", "[2,2]", "[[1,2],[3]]"),
			`input "input_ids": data: expected 4 elements, flat or in lists nested as the shape [2, 2]`,
		},
		{
			"absurd length", raw("input_ids", "INT64", "[2,2147483647]", "[1,2]"),
			`input "input_ids": data: expected 4294967294 elements`,
		},
		{
			"an answer too large", strings.Replace(raw("input_ids", "INT64", "[2,2147483647]", "[1,2]"), "{",
				`{"outputs": [{"name": "token_logits"}], `, 1),
			"expected an answer of at most 1048576 logits, found 2 rows of 6442450941: ask for fewer rows",
		},
		{
			"too many rows", ids(slices.Repeat([][]int{row}, 9)...).body(t),
			`input "input_ids": shape: expected at most 8 rows in a request, found 9`,
		},
		{"no input", `{"inputs": []}`, "expected one of the inputs [input_ids], found none"},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, body, _ := f.do(t, "POST", pool, c.body)
			var refusal struct{ Error string }
			if err := json.Unmarshal([]byte(body), &refusal); err != nil {
				t.Errorf("expected {\"error\": …}, found %s", body)
			}
			if code != http.StatusBadRequest || !strings.Contains(refusal.Error, c.message) {
				t.Errorf("expected 400 with %q, found %d: %s", c.message, code, refusal.Error)
			}
			if code, body, _ := f.do(t, "POST", pool, ids(row).body(t)); code != http.StatusOK {
				t.Errorf("the next request: status %d: %s", code, body)
			}
		})
	}
}

// A row that is answered token by token stands beside rows of texts: it has no labels of its own, and what it has is
// sent if it is asked for.
func TestTokensBesideSequences(t *testing.T) {
	f := newTextFront(t)
	request := func() *textRequest {
		return ids([]int{2, 5, 3, 0}, []int{2, 6, 7, 3}, []int{2, 8, 0, 0}, []int{2, 9, 3, 0}).
			mask([]int{1, 1, 1, 0}, []int{1, 1, 1, 1}, []int{1, 1, 0, 0}, []int{1, 1, 1, 0}).
			ask("names", "topics", "names", "")
	}
	plain := f.infer(t, "texts", request())
	if o, ok := plain["token_logits"]; ok {
		t.Errorf("expected no logits of tokens without asking, found %s", o.Data)
	}
	if got, want := dataOf[int](t, plain["num_labels"]), []int{0, 2, 0, 3}; !slices.Equal(got, want) {
		t.Errorf("num_labels: expected %v, found %v", want, got)
	}
	const width = 4 // the widest head, which answers token by token
	logits, probabilities := plain["logits"], plain["probabilities"]
	if !slices.Equal(logits.Shape, []int{4, width}) || !slices.Equal(probabilities.Shape, []int{4, width}) {
		t.Fatalf("expected [4, 4], found logits %v, probabilities %v", logits.Shape, probabilities.Shape)
	}
	labels, scores := dataOf[string](t, plain["label"]), plain["score"].floats(t)
	for row, n := range []int{0, 2, 0, 3} {
		l, p := logits.floats(t)[row*width:(row+1)*width], probabilities.floats(t)[row*width:(row+1)*width]
		for i := n; i < width; i++ {
			if l[i] != lowest || p[i] != 0 {
				t.Errorf("row %d, label %d: expected the padding, found %g and %g", row, i, l[i], p[i])
			}
		}
		if n == 0 && (labels[row] != "" || scores[row] != 0) {
			t.Errorf("row %d: expected no label, found %q with %g", row, labels[row], scores[row])
		}
		if n > 0 && (labels[row] == "" || scores[row] != slices.Max(p)) {
			t.Errorf("row %d: expected the likeliest label, found %q with %g of %v", row, labels[row], scores[row], p)
		}
	}

	asked := f.infer(t, "texts", request().want("token_logits", "num_labels"))
	if len(asked) != 2 {
		t.Errorf("expected the two outputs that were asked for, found %v", asked)
	}
	const tokens = 3 // of the longest row that is answered token by token
	all := asked["token_logits"]
	if !slices.Equal(all.Shape, []int{4, tokens, width}) || all.Datatype != "FP32" {
		t.Fatalf("token_logits: expected FP32 [4, 3, 4], found %s %v", all.Datatype, all.Shape)
	}
	values := all.floats(t)
	const size = tokens * width
	padding := slices.Repeat([]float32{lowest}, size)
	first := f.infer(t, "names", ids([]int{2, 5, 3}).want("token_logits"))["token_logits"]
	third := f.infer(t, "names", ids([]int{2, 8}).want("token_logits"))["token_logits"]
	for row, want := range [][]float32{
		first.floats(t), padding, slices.Concat(third.floats(t), padding[:width]), padding,
	} {
		if got := values[row*size : (row+1)*size]; !slices.Equal(got, want) {
			t.Errorf("row %d: expected %v, found %v", row, want, got)
		}
	}
}

// A text that is asked of several adapters is answered as it is by each.
func TestOneTextIsAskedOfSeveralAdapters(t *testing.T) {
	f := newTextFront(t)
	fanned := ids([]int{2, 5, 3}, []int{2, 6, 7}).ask("names", "topics", "", "topics", "names", "names").
		want("logits", "token_logits", "label", "revision")
	fanned.Inputs[1]["shape"] = []int{2, 3}
	single := ids([]int{2, 5, 3}, []int{2, 5, 3}, []int{2, 5, 3}, []int{2, 6, 7}, []int{2, 6, 7}, []int{2, 6, 7}).
		ask("names", "topics", "", "topics", "names", "names").want("logits", "token_logits", "label", "revision")
	got, want := f.infer(t, "texts", fanned), f.infer(t, "texts", single)
	if len(got) != 4 || !reflect.DeepEqual(got, want) {
		t.Errorf("expected %v, found %v", want, got)
	}
}

// Where nobody answers token by token there is nothing of that to send.
func TestTokenLogitsOfSequences(t *testing.T) {
	f := newTextFront(t)
	got := f.infer(t, "topics", ids([]int{2, 5, 3}, []int{2, 6, 3}).want("token_logits", "label"))
	if o := got["token_logits"]; !slices.Equal(o.Shape, []int{2, 0, 2}) || len(o.floats(t)) > 0 {
		t.Errorf("expected no token, [2, 0, 2], found %v: %s", o.Shape, o.Data)
	}
	if labels := dataOf[string](t, got["label"]); len(labels) != 2 {
		t.Errorf("expected two labels, found %v", labels)
	}
}

// What the outputs mean is each row's own.
func TestProbabilitiesByProblem(t *testing.T) {
	f := newTextFront(t)
	row := []int{2, 5, 6, 3}
	got := f.infer(t, "texts", ids(row, row, row).ask("topics", "tags", "grade"))
	const width = 3
	logits, probabilities := got["logits"].floats(t), got["probabilities"].floats(t)
	labels, scores := dataOf[string](t, got["label"]), got["score"].floats(t)
	softmax := func(l []float32, i int) float64 {
		sum := 0.0
		for _, v := range l {
			sum += math.Exp(float64(v))
		}
		return math.Exp(float64(l[i])) / sum
	}
	for r, c := range []struct {
		labels int
		want   func(l []float32, i int) float64
	}{
		{2, softmax},
		{3, func(l []float32, i int) float64 { return 1 / (1 + math.Exp(-float64(l[i]))) }},
		{1, func(l []float32, i int) float64 { return float64(l[i]) }},
	} {
		l, p := logits[r*width:][:c.labels], probabilities[r*width:(r+1)*width]
		for i := range width {
			want := 0.0
			if i < c.labels {
				want = c.want(l, i)
			}
			if diff := math.Abs(float64(p[i]) - want); diff > 1e-6 || math.IsNaN(diff) {
				t.Errorf("row %d, label %d: expected %g, found %g", r, i, want, p[i])
			}
		}
		best := slices.Index(l, slices.Max(l))
		if want := fmt.Sprint("LABEL_", best); labels[r] != want || scores[r] != p[best] {
			t.Errorf("row %d: expected %s with %g, found %s with %g", r, want, p[best], labels[r], scores[r])
		}
	}
}

// metadata is what a model says of its tensors, a line for each.
func (f *front) describe(t *testing.T, name string) string {
	t.Helper()
	code, body, _ := f.do(t, "GET", "/v2/models/"+name, "")
	var m struct {
		Inputs, Outputs []struct {
			Name, Datatype string
			Shape          []int
		}
	}
	if err := json.Unmarshal([]byte(body), &m); err != nil || code != http.StatusOK {
		t.Fatalf("status %d: %s", code, body)
	}
	var lines []string
	for _, tensor := range slices.Concat(m.Inputs, m.Outputs) {
		lines = append(lines, fmt.Sprintf("%s %s %v", tensor.Name, tensor.Datatype, tensor.Shape))
	}
	return strings.Join(lines, "\n")
}

func expectLines(t *testing.T, name, found string, lines ...string) {
	t.Helper()
	for _, line := range lines {
		if !strings.Contains("\n"+found+"\n", "\n"+line+"\n") {
			t.Errorf("%s: expected the line %s in\n%s", name, line, found)
		}
	}
}

func TestMetadataOfTexts(t *testing.T) {
	f := newTextFront(t)
	base := f.describe(t, "texts")
	expectLines(t, "the base", base,
		"input_ids INT64 [-1 -1]", "attention_mask INT64 [-1 -1]", "token_type_ids INT64 [-1 -1]", "adapter BYTES [-1]",
		"logits FP32 [-1 -1]", "num_labels INT32 [-1]", "token_logits FP32 [-1 -1 -1]")
	for _, name := range []string{"pixel_values", "image", "text"} {
		if strings.Contains(base, name+" ") {
			t.Errorf("the base: expected no input %s in\n%s", name, base)
		}
	}
	adapter := f.describe(t, "names")
	expectLines(t, "an adapter", adapter, "input_ids INT64 [-1 -1]", "logits FP32 [-1 4]", "token_logits FP32 [-1 -1 4]")
	if strings.Contains(adapter, "adapter ") {
		t.Errorf("an adapter: expected no input adapter in\n%s", adapter)
	}
}

const dinov2 = `{
	"model_type": "dinov2", "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "mlp_ratio": 2,
	"image_size": 8, "patch_size": 4, "num_labels": 3
}`

// DINOv2 takes images of any size that is made of whole patches, and says so.
func TestImagesOfAnySize(t *testing.T) {
	f := newServerOf(t, "images", wrappers.Base(t, dinov2).Write(),
		func(e batcher.Runner) batcher.Runner { return e }, func(*adapters.Set) {})
	f.listen(t)
	expectLines(t, "the base", f.describe(t, "images"), "pixel_values FP32 [-1 3 -1 -1]", "logits FP32 [-1 -1]")
	for _, c := range []struct {
		shape   string
		pixels  int
		code    int
		message string
	}{
		{"[2,3,8,8]", 2 * 3 * 8 * 8, 200, `"shape":[2,3]`},
		{"[1,3,4,12]", 3 * 4 * 12, 200, `"shape":[1,3]`},
		{
			"[1,3,6,8]", 3 * 6 * 8, 400,
			`input \"pixel_values\": row 0: expected float32 [3, 8, 8], found float32 (3, 6, 8)`,
		},
		{
			"[1,1,8,8]", 64, 400, `input \"pixel_values\": shape: expected [B, 3, H, W], found [1, 1, 8, 8]`,
		},
		{"[1,3,0,8]", 0, 400, "found [1, 3, 0, 8]"},
	} {
		code, body, _ := f.do(t, "POST", "/v2/models/images/infer", pixelRequest(c.shape, zeros(c.pixels)))
		if code != c.code || !strings.Contains(body, c.message) {
			t.Errorf("%s: expected %d with %s, found %d: %s", c.shape, c.code, c.message, code, body)
		}
	}
}

// A base that is the trunk alone answers nothing itself, and is asked through adapters.
func TestABaseWithoutAHead(t *testing.T) {
	config := strings.Replace(bert, "BertForSequenceClassification", "BertModel", 1)
	f := newFrontOf(t, wrappers.Base(t, config).Without("classifier").Write())
	row := []int{2, 5, 3}
	for name, c := range map[string]struct {
		request *textRequest
		message string
	}{
		"the base":  {ids(row), `row 0: the base "texts" has no classifier of its own: ask an adapter`},
		"among all": {ids(row, row).ask("topics", ""), `row 1: the base "texts" has no classifier of its own`},
		"by name":   {ids(row).ask(server.BaseName), `row 0: the base "texts" has no classifier of its own`},
	} {
		code, body, _ := f.do(t, "POST", "/v2/models/texts/infer", c.request.body(t))
		var refusal struct{ Error string }
		if err := json.Unmarshal([]byte(body), &refusal); err != nil || code != http.StatusBadRequest ||
			!strings.Contains(refusal.Error, c.message) {
			t.Errorf("%s: expected 400 with %q, found %d: %s", name, c.message, code, body)
		}
	}
	got := f.infer(t, "texts", ids(row, row).ask("names", "topics"))
	if n := dataOf[int](t, got["num_labels"]); !slices.Equal(n, []int{0, 2}) {
		t.Errorf("adapters: expected num_labels [0, 2], found %v", n)
	}
	expectLines(t, "the base", f.describe(t, "texts"), "logits FP32 [-1 -1]", "adapter BYTES [-1]")
}

// A base may answer token by token itself.
func TestABaseOfTokens(t *testing.T) {
	config := strings.Replace(bert, "BertForSequenceClassification", "BertForTokenClassification", 1)
	f := newFrontOf(t, wrappers.Base(t, config).Write())
	got := f.infer(t, "texts", ids([]int{2, 5, 6, 3}).want("token_logits", "num_labels"))
	if o := got["token_logits"]; !slices.Equal(o.Shape, []int{1, 4, 3}) || string(got["num_labels"].Data) != "[0]" {
		t.Errorf("expected token_logits [1, 4, 3] and no labels, found %v, %s", o.Shape, got["num_labels"].Data)
	}
}
