package rest_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/switchyard-dev/switchyard/runtime/adapters"
	"github.com/switchyard-dev/switchyard/runtime/batcher"
	"github.com/switchyard-dev/switchyard/runtime/server"
	"github.com/switchyard-dev/switchyard/runtime/weights"
	"github.com/switchyard-dev/switchyard/test/packages"
)

const packagesSample = "../../../hack/samples/packages"

// newPackagesFront serves the sample of texts.
func newPackagesFront(t *testing.T) *front {
	t.Helper()
	if testing.Short() {
		t.Skip("wazero compiles for a minute under the race detector")
	}
	f := newServerOf(t, "packages", packages.Base(packagesSample),
		func(e batcher.Runner) batcher.Runner { return e }, func(set *adapters.Set) {
			load, err := set.FromFolder(openFolder(t, packages.Adapters(packagesSample)), nil, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			load(t.Context())
		})
	f.listen(t)
	return f
}

// object is any JSON object.
type object = map[string]any

// post sends JSON and reads the JSON of its answer.
func post[T any](t *testing.T, f *front, path string, body any, header ...string) (answer T) {
	t.Helper()
	raw, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	code, found, _ := f.do(t, "POST", path, string(raw), header...)
	if code != http.StatusOK {
		t.Fatalf("POST %s %.200s: status %d: %s", path, raw, code, found)
	}
	return decode[T](t, found)
}

func decode[T any](t *testing.T, raw string) (answer T) {
	t.Helper()
	decoder := json.NewDecoder(strings.NewReader(raw))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&answer); err != nil {
		t.Fatalf("%v: %s", err, raw)
	}
	return answer
}

type labelScore struct {
	Label string
	Score float32
}

type entity struct {
	Group      string `json:"entity_group"`
	Score      float32
	Word       string
	Start, End int
}

type prediction struct {
	Adapter       string
	Label         string
	Score         float32
	Probabilities map[string]float32
	Entities      []entity
}

type predictions struct{ Predictions []prediction }

type classification struct {
	ID, Object, Model string
	Created           int64
	Data              []struct {
		Index   int
		Label   string
		Probs   []float32
		Classes int `json:"num_classes"`
	}
	Usage struct {
		Prompt     int `json:"prompt_tokens"`
		Total      int `json:"total_tokens"`
		Completion int `json:"completion_tokens"`
		Details    any `json:"prompt_tokens_details"`
	}
}

// answered are one adapter's rows by the Open Inference Protocol, to which other forms are held to the bit.
type answered struct {
	labels                []string
	logits, probabilities [][]float32
	label                 []string
	score                 []float32
	entities              [][]entity
}

func (f *front) askTensors(t *testing.T, name string, r *textRequest) *answered {
	t.Helper()
	outputs := f.infer(t, name, r)
	a := &answered{
		labels: f.labels(t, name), label: dataOf[string](t, outputs["label"]), score: outputs["score"].floats(t),
	}
	width := outputs["logits"].Shape[1]
	a.logits = slices.Collect(slices.Chunk(outputs["logits"].floats(t), width))
	a.probabilities = slices.Collect(slices.Chunk(outputs["probabilities"].floats(t), width))
	if found, ok := outputs["entities"]; ok {
		for _, raw := range dataOf[string](t, found) {
			a.entities = append(a.entities, decode[[]entity](t, raw))
		}
	}
	return a
}

// ranked are row i's labels with what is said of each, best first.
func (a *answered) ranked(of [][]float32, i int) []labelScore {
	found := make([]labelScore, len(a.labels))
	for n, label := range a.labels {
		found[n] = labelScore{label, of[i][n]}
	}
	slices.SortStableFunc(found, func(x, y labelScore) int { return int(math.Copysign(1, float64(y.Score-x.Score))) })
	return found
}

func (a *answered) check(t *testing.T, what string, i int, found []labelScore) {
	t.Helper()
	if want := a.ranked(a.probabilities, i); !slices.Equal(found, want) {
		t.Errorf("%s: row %d: expected %v, found %v", what, i, want, found)
	}
}

// goldenLabels are PEFT's answers to the first held-out texts of an adapter.
func goldenLabels(t *testing.T, f *front, adapter string, all []packages.Question) (texts, labels []string) {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(packagesSample, "golden.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	golden, err := weights.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	names := f.labels(t, adapter)
	for i, q := range all {
		if q.Adapter != adapter || len(texts) == maxRows {
			continue
		}
		logits, err := golden.Float32(fmt.Sprintf("logits.%s.%d", adapter, i), len(names))
		if err != nil {
			t.Fatal(err)
		}
		values := logits.Float32s()
		texts = append(texts, q.Text)
		labels = append(labels, names[slices.Index(values, slices.Max(values))])
	}
	return texts, labels
}

// Every form gives the answers of the protocol's tensors, to the bit, and PEFT's labels.
func TestFormsOfTextsAnswerAsTensorsDo(t *testing.T) {
	f := newPackagesFront(t)
	questions, err := packages.Questions(packagesSample)
	if err != nil {
		t.Fatal(err)
	}
	for _, adapter := range []string{"section", "language", "library"} {
		texts, golden := goldenLabels(t, f, adapter, questions)
		want := f.askTensors(t, adapter, (&textRequest{}).strings("text", texts...))
		if !slices.Equal(want.label, golden) {
			t.Errorf("%s: expected PEFT's labels %v, found %v", adapter, golden, want.label)
		}
		checkV1(t, f, adapter, texts, want)
		header := []string{"Switchyard-Adapter", adapter}
		single := object{"inputs": texts[0]}
		many := object{"inputs": texts}
		for i, found := range post[[][]labelScore](t, f, "/", many, header...) {
			want.check(t, "POST / of a list", i, found)
		}
		want.check(t, "POST / of one", 0, post[[][]labelScore](t, f, "/", single, header...)[0])
		want.check(t, "POST /predict of one", 0, post[[]labelScore](t, f, "/predict", single, header...))
		want.check(t, "POST /classify of one", 0, post[[]labelScore](t, f, "/classify", single, header...))
		for i, found := range post[[][]labelScore](t, f, "/classify", many, header...) {
			want.check(t, "POST /classify of a list", i, found)
		}
		var batch [][]string
		for _, text := range texts {
			batch = append(batch, []string{text})
		}
		for i, found := range post[[][]labelScore](t, f, "/predict", object{"inputs": batch}, header...) {
			want.check(t, "POST /predict of a batch", i, found)
		}
		checkClassification(t, f, adapter, texts, want)
	}
}

func checkV1(t *testing.T, f *front, adapter string, texts []string, want *answered) {
	t.Helper()
	var instances []object
	for _, text := range texts {
		instances = append(instances, object{"text": text, "adapter": adapter})
	}
	found := post[predictions](t, f, "/v1/models/packages:predict", object{"instances": instances})
	for i, p := range found.Predictions {
		probabilities := make(map[string]float32)
		for n, label := range want.labels {
			probabilities[label] = want.probabilities[i][n]
		}
		expected := prediction{Adapter: adapter, Label: want.label[i], Score: want.score[i], Probabilities: probabilities}
		if fmt.Sprint(p) != fmt.Sprint(expected) {
			t.Errorf("V1: row %d: expected %v, found %v", i, expected, p)
		}
	}
	if len(found.Predictions) != len(texts) {
		t.Errorf("V1: expected %d predictions, found %d", len(texts), len(found.Predictions))
	}
}

func checkClassification(t *testing.T, f *front, adapter string, texts []string, want *answered) {
	t.Helper()
	found := post[classification](t, f, "/v1/classify", object{"model": adapter, "input": texts})
	if !strings.HasPrefix(found.ID, "classify-") || found.Object != "list" || found.Model != adapter || found.Created < 1 {
		t.Errorf("found %q %q %q %d", found.ID, found.Object, found.Model, found.Created)
	}
	for i, row := range found.Data {
		if row.Index != i || row.Label != want.label[i] || row.Classes != len(want.labels) ||
			!slices.Equal(row.Probs, want.probabilities[i][:row.Classes]) {
			t.Errorf("row %d: expected %s of %v, found %v", i, want.label[i], want.probabilities[i], row)
		}
	}
	if found.Usage.Prompt < 3*len(texts) || found.Usage.Total != found.Usage.Prompt || found.Usage.Completion != 0 {
		t.Errorf("expected tokens of each text, found %v", found.Usage)
	}
	raw := post[classification](t, f, "/classify", object{"model": adapter, "input": texts[0], "use_activation": false})
	if !slices.Equal(raw.Data[0].Probs, want.logits[0][:len(want.labels)]) {
		t.Errorf("without activation: expected %v, found %v", want.logits[0], raw.Data[0].Probs)
	}
}

// A pair is a pair in each form that has any, beside texts alone, and a list of two is none where the form says so.
func TestPairs(t *testing.T) {
	f := newPackagesFront(t)
	const a, b = "Kodi Joystick Library", "Perl bindings of it"
	alone := f.askTensors(t, "section", (&textRequest{}).strings("text", a, b))
	pair := f.askTensors(t, "section", (&textRequest{}).strings("text", a).strings("text_pair", b))
	header := []string{"Switchyard-Adapter", "section"}
	pair.check(t, "POST /predict", 0, post[[]labelScore](t, f, "/predict", object{"inputs": []string{a, b}}, header...))
	alone.check(t, "POST /predict", 0, post[[]labelScore](t, f, "/predict", object{"inputs": []string{a}}, header...))
	mixed := post[[][]labelScore](t, f, "/predict", object{"inputs": [][]string{{a}, {a, b}, {a}}}, header...)
	alone.check(t, "POST /predict of a mixed batch", 0, mixed[0])
	pair.check(t, "POST /predict of a mixed batch", 0, mixed[1])
	alone.check(t, "POST /predict of a mixed batch", 0, mixed[2])

	asPair := object{"text": a, "text_pair": b}
	pair.check(t, "POST /", 0, post[[][]labelScore](t, f, "/", object{"inputs": asPair}, header...)[0])
	mixed = post[[][]labelScore](t, f, "/", object{"inputs": []any{a, asPair, object{"text": b}}}, header...)
	alone.check(t, "POST / of a mixed batch", 0, mixed[0])
	pair.check(t, "POST / of a mixed batch", 0, mixed[1])
	alone.check(t, "POST / of a mixed batch", 1, mixed[2])

	two := post[[][]labelScore](t, f, "/classify", object{"inputs": []string{a, b}}, header...)
	alone.check(t, "POST /classify", 0, two[0])
	alone.check(t, "POST /classify", 1, two[1])

	found := post[predictions](t, f, "/v1/models/section:predict", object{"instances": []object{{"text": a}, asPair}})
	for i, want := range []*answered{alone, pair} {
		if p := found.Predictions[i]; p.Score != want.score[0] || p.Label != want.label[0] {
			t.Errorf("V1: row %d: expected %s %g, found %v", i, want.label[0], want.score[0], p)
		}
	}
}

// Ids may be of different lengths in V1 and in vLLM's form: they are answered as each alone is.
func TestIDsOfDifferentLengths(t *testing.T) {
	f := newPackagesFront(t)
	rows := [][]int{{2, 17, 9, 3}, {2, 40, 3}, {2, 17, 9, 12, 3}}
	instances := make([]object, len(rows))
	for i, row := range rows {
		instances[i] = object{"input_ids": row}
	}
	instances[1]["attention_mask"] = []int{1, 1, 0}
	instances[2]["token_type_ids"] = []int{0, 0, 0, 1, 1}
	found := post[predictions](t, f, "/v1/models/section:predict", object{"instances": instances})
	classified := post[classification](t, f, "/classify", object{"model": "section", "input": rows})
	for i, row := range rows {
		want := f.askTensors(t, "section", ids(row))
		if probs := classified.Data[i].Probs; !slices.Equal(probs, want.probabilities[0]) {
			t.Errorf("vLLM: row %d: expected %v, found %v", i, want.probabilities[0], probs)
		}
		one := post[classification](t, f, "/classify", object{"model": "section", "input": row})
		if probs := one.Data[0].Probs; len(one.Data) != 1 || !slices.Equal(probs, want.probabilities[0]) {
			t.Errorf("vLLM: row %d alone: expected %v, found %v", i, want.probabilities[0], probs)
		}
		if one.Usage.Prompt != len(row) {
			t.Errorf("vLLM: row %d: expected %d tokens, found %d", i, len(row), one.Usage.Prompt)
		}
		request := ids(row)
		if mask, ok := instances[i]["attention_mask"].([]int); ok {
			request.mask(mask)
		}
		if types, ok := instances[i]["token_type_ids"].([]int); ok {
			request.types(types)
		}
		want = f.askTensors(t, "section", request)
		if p := found.Predictions[i]; p.Score != want.score[0] {
			t.Errorf("V1: row %d: expected %g, found %v", i, want.score[0], p)
		}
	}
}

// Entities are a flat list of one text and a list of such of several, and stand beside labels in V1.
func TestEntitiesInForms(t *testing.T) {
	f := newPackagesFront(t)
	const a, b = "Python 3 wrapper to access docker.io's control socket", "GNU C library 2.36 for Debian 12"
	outputs := f.infer(t, "versions", (&textRequest{}).strings("text", a, b))
	var want [][]entity
	for _, raw := range dataOf[string](t, outputs["entities"]) {
		want = append(want, decode[[]entity](t, raw))
	}
	if len(want[0])+len(want[1]) == 0 {
		t.Fatal("expected the sample to find something")
	}
	header := []string{"Switchyard-Adapter", "versions"}
	for _, parameters := range []object{{}, {"aggregation_strategy": "simple", "ignore_labels": []string{"O"}}} {
		one := post[[]entity](t, f, "/", object{"inputs": a, "parameters": parameters}, header...)
		if !slices.Equal(one, want[0]) {
			t.Errorf("one text: expected %v, found %v", want[0], one)
		}
	}
	several := post[[][]entity](t, f, "/", object{"inputs": []string{a, b}}, header...)
	if !slices.EqualFunc(several, want, slices.Equal[[]entity]) {
		t.Errorf("several: expected %v, found %v", want, several)
	}
	found := post[predictions](t, f, "/v1/models/packages:predict", object{"instances": []object{
		{"text": b, "adapter": []string{"versions", "section"}},
	}}).Predictions
	if len(found) != 2 || !slices.Equal(found[0].Entities, want[1]) || found[0].Adapter != "versions" ||
		found[1].Entities != nil || found[1].Label == "" || found[1].Adapter != "section" {
		t.Errorf("V1: expected the entities %v and a label, found %v", want[1], found)
	}
}

// What is said of an answer is honoured.
func TestParametersOfForms(t *testing.T) {
	f := newPackagesFront(t)
	const text = "Kodi Joystick Library"
	want := f.askTensors(t, "section", (&textRequest{}).strings("text", text))
	header := []string{"Switchyard-Adapter", "section"}
	ask := func(parameters object) []labelScore {
		t.Helper()
		return post[[][]labelScore](t, f, "/", object{"inputs": text, "parameters": parameters}, header...)[0]
	}
	logits, best := want.ranked(want.logits, 0), want.ranked(want.probabilities, 0)
	if found := ask(object{"top_k": 2}); !slices.Equal(found, best[:2]) {
		t.Errorf("top_k: expected %v, found %v", best[:2], found)
	}
	if found := ask(object{"top_k": 1000}); !slices.Equal(found, best) {
		t.Errorf("a large top_k: expected all of %v, found %v", best, found)
	}
	if found := ask(object{"function_to_apply": "none"}); !slices.Equal(found, logits) {
		t.Errorf("no function: expected the logits %v, found %v", logits, found)
	}
	if found := ask(object{"function_to_apply": "softmax", "top_k": nil}); !slices.Equal(found, best) {
		t.Errorf("softmax: expected %v, found %v", best, found)
	}
	for i, found := range ask(object{"function_to_apply": "sigmoid"}) {
		p := 1 / (1 + math.Exp(-float64(logits[i].Score)))
		if found.Label != logits[i].Label || math.Abs(float64(found.Score)-p) > 1e-6 {
			t.Errorf("sigmoid: expected %s %g, found %v", logits[i].Label, p, found)
		}
	}
	raw := post[[]labelScore](t, f, "/predict", object{"inputs": text, "raw_scores": true, "truncate": false}, header...)
	if !slices.Equal(raw, logits) {
		t.Errorf("raw_scores: expected %v, found %v", logits, raw)
	}
}

// Images are asked about in JSON, in base64 or as pixels, or as they are.
func TestFormsOfImagesAnswerAsTensorsDo(t *testing.T) {
	f := newFront(t)
	encoded := pngImage(t)
	raw := string(fromBase64(t, encoded))
	want := f.askTensors(t, "digit", (&textRequest{}).strings("image", encoded))
	header := []string{"Switchyard-Adapter", "digit"}
	want.check(t, "POST /", 0, post[[]labelScore](t, f, "/", object{"inputs": encoded}, header...))
	found := post[[][]labelScore](t, f, "/", object{"inputs": []string{encoded, encoded}}, header...)
	want.check(t, "POST / of two", 0, found[0])
	want.check(t, "POST / of two", 0, found[1])
	want.check(t, "POST /classify", 0, post[[]labelScore](t, f, "/classify", object{"inputs": encoded}, header...))
	for _, contentType := range []string{
		"image/png", "application/octet-stream", "application/x-www-form-urlencoded", "",
	} {
		code, body, _ := f.do(t, "POST", "/", raw, append(header, "Content-Type", contentType)...)
		if code != http.StatusOK {
			t.Fatalf("an image as %q: status %d: %s", contentType, code, body)
		}
		want.check(t, "POST / of an image as "+contentType, 0, decode[[]labelScore](t, body))
	}
	image := object{"image": object{"b64": encoded}, "adapter": []string{"digit", "parity", ""}}
	two := object{"instances": []object{image, image}}
	predicted := post[predictions](t, f, "/v1/models/digits:predict", two).Predictions
	var adapters []string
	for _, p := range predicted {
		adapters = append(adapters, p.Adapter)
	}
	if names := "[digit parity digits digit parity digits]"; fmt.Sprint(adapters) != names {
		t.Errorf("V1: expected the predictions of each input side by side, %s, found %v", names, adapters)
	}
	if p := predicted[3]; p.Label != want.label[0] || p.Score != want.score[0] {
		t.Errorf("V1: expected %s %g, found %v", want.label[0], want.score[0], p)
	}
}

// Pixels of V1 are nested as their shape is.
func TestPixelsOfV1(t *testing.T) {
	f := newFront(t)
	pixels := make([][][]float32, 3)
	for c := range pixels {
		for y := range 32 {
			row := make([]float32, 32)
			for x := range row {
				row[x] = float32(c+1) * float32(x-y) / 32
			}
			pixels[c] = append(pixels[c], row)
		}
	}
	request := &textRequest{Inputs: []map[string]any{{
		"name": "pixel_values", "datatype": "FP32", "shape": []int{1, 3, 32, 32}, "data": slices.Concat(pixels...),
	}}}
	raw, err := json.Marshal(pixels)
	if err != nil {
		t.Fatal(err)
	}
	flat := strings.NewReplacer("[", "", "]", "").Replace(string(raw))
	request.Inputs[0]["data"] = json.RawMessage("[" + flat + "]")
	want := f.askTensors(t, "digit", request)
	found := post[predictions](t, f, "/v1/models/digit:predict", object{"instances": []object{
		{"pixel_values": pixels}, {"pixel_values": pixels},
	}}).Predictions
	if len(found) != 2 || found[0].Score != want.score[0] || found[1].Score != want.score[0] {
		t.Errorf("expected %g twice, found %v", want.score[0], found)
	}
}

// Whom a request is for that names no model in its path.
func TestWhoIsAsked(t *testing.T) {
	f := newFront(t)
	body := func(model string) object {
		if model == "" {
			return object{"inputs": pngImage(t)}
		}
		return object{"inputs": pngImage(t), "model": model}
	}
	for _, c := range []struct {
		model, header, host string
		labels              int
	}{
		{"", "", "", 10},
		{"holes", "parity", "parity", 3},
		{"", "holes", "parity.demo.svc", 3},
		{"", "", "parity.demo.svc:8080", 2},
		{"", "", "Parity", 2},
		{"", "", "holes.:80", 3},
		{"digits", "holes", "holes", 10},
		{"__base__", "holes", "holes", 10},
		{"", "__base__", "holes", 10},
		{"", "", "digits.demo.svc", 10},
		{"", "", "nobody.demo.svc", 10},
		{"", "", "127.0.0.1:8080", 10},
		{"", "", "[::1]:8080", 10},
	} {
		var header []string
		if c.header != "" {
			header = append(header, "Switchyard-Adapter", c.header)
		}
		if c.host != "" {
			header = append(header, "Host", c.host)
		}
		for _, path := range []string{"/", "/classify"} {
			if found := post[[]labelScore](t, f, path, body(c.model), header...); len(found) != c.labels {
				t.Errorf("%s %+v: expected %d labels, found %v", path, c, c.labels, found)
			}
		}
	}
	for _, c := range []struct {
		model, header, host, message string
		code                         int
	}{
		{"nobody", "holes", "holes", `adapter \"nobody\": unknown`, 404},
		{"", "nobody", "holes", `adapter \"nobody\": unknown`, 404},
		{"", "", "broken.demo.svc", `adapter \"broken\": refused`, 503},
	} {
		raw, err := json.Marshal(body(c.model))
		if err != nil {
			t.Fatal(err)
		}
		code, found, _ := f.do(t, "POST", "/classify", string(raw), "Switchyard-Adapter", c.header, "Host", c.host)
		if code != c.code || !strings.Contains(found, c.message) {
			t.Errorf("%+v: expected %d with %s, found %d: %s", c, c.code, c.message, code, found)
		}
	}
}

// A path that names the pool leaves to the header whom it means. The Host has no say there.
func TestTheHeaderBesideAPath(t *testing.T) {
	f := newFront(t)
	for _, c := range []struct {
		path, header, model string
	}{
		{"digits", "holes", "holes"},
		{"digits", "__base__", "digits"},
		{"parity", "holes", "parity"},
	} {
		code, body, _ := f.do(t, "POST", "/v2/models/"+c.path+"/infer", imageRequest(t, 1),
			"Switchyard-Adapter", c.header, "Host", "holes.demo.svc")
		if code != http.StatusOK || !strings.Contains(body, `{"model_name":"`+c.model+`"`) {
			t.Errorf("%+v: expected the answer of %s, found %d: %s", c, c.model, code, body)
		}
	}
	instance := object{"instances": []object{{"image": object{"b64": pngImage(t)}}}}
	found := post[predictions](t, f, "/v1/models/digits:predict", instance, "Switchyard-Adapter", "holes").Predictions
	if found[0].Adapter != "holes" {
		t.Errorf("V1: expected the header's adapter, found %v", found)
	}
	found = post[predictions](t, f, "/v1/models/digits:predict", instance, "Host", "holes.demo.svc").Predictions
	if found[0].Adapter != "digits" {
		t.Errorf("V1: expected the path's model, found %v", found)
	}
	code, body, _ := f.do(t, "POST", "/v2/models/digits/infer", imageRequest(t, 1), "Switchyard-Adapter", "nobody")
	if code != http.StatusNotFound {
		t.Errorf("an unknown header: expected 404, found %d: %s", code, body)
	}
	code, body, _ = f.do(t, "POST", "/v2/models/digits/infer", imageRequest(t, 1, "parity"), "Switchyard-Adapter", "holes")
	if code != http.StatusBadRequest || !strings.Contains(body, "every row of the model") {
		t.Errorf("a header beside rows that name adapters: expected 400, found %d: %s", code, body)
	}
}

// What answers now is listed as OpenAI's clients and V1's want it.
func TestTheListOfModels(t *testing.T) {
	f := newFront(t)
	type listed struct {
		ID, Object, Root, Name string
		Created                int64
		OwnedBy                string `json:"owned_by"`
		Parent                 *string
		Ready                  bool
	}
	_, body, _ := f.do(t, "GET", "/v1/models", "")
	list := decode[struct {
		Object string
		Data   []listed
		Models []string
	}](t, body)
	if want := []string{"digits", "digit", "holes", "overflow", "parity"}; !slices.Equal(list.Models, want) ||
		list.Object != "list" || len(list.Data) != len(want) {
		t.Errorf("expected %v, found %s", want, body)
	}
	for i, name := range list.Models {
		_, body, _ := f.do(t, "GET", "/v1/models/"+name, "")
		m := decode[listed](t, body)
		isBase := name == "digits"
		if m.ID != name || m.Name != name || !m.Ready || m.Object != "model" || m.Created < 1 ||
			!strings.HasPrefix(m.Root, "sha256:") || (m.Parent == nil) != isBase || !isBase && *m.Parent != "digits" {
			t.Errorf("%s: found %s", name, body)
		}
		if fmt.Sprintf("%+v", list.Data[i].ID) != m.ID {
			t.Errorf("%s: expected the same in the list, found %+v", name, list.Data[i])
		}
	}
	for name, code := range map[string]int{"nobody": 404, "broken": 503} {
		if found, body, _ := f.do(t, "GET", "/v1/models/"+name, ""); found != code || !strings.Contains(body, name) {
			t.Errorf("%s: expected %d, found %d: %s", name, code, found, body)
		}
	}
}

// What clients of others ask to see whether a server is there.
func TestProbesOfOthersClients(t *testing.T) {
	f := newFront(t)
	if code, body, _ := f.do(t, "GET", "/", ""); code != http.StatusOK || body != `{"status":"alive"}` {
		t.Errorf("GET /: found %d: %s", code, body)
	}
	if code, body, _ := f.do(t, "GET", "/health", ""); code != http.StatusOK || body != "" {
		t.Errorf("GET /health: found %d: %s", code, body)
	}
	_, body, _ := f.do(t, "GET", "/info", "", "Switchyard-Adapter", "parity")
	info := decode[struct {
		ModelID string `json:"model_id"`
		SHA     string `json:"model_sha"`
		Type    struct {
			Classifier struct{ ID2Label, Label2ID map[string]any }
		} `json:"model_type"`
		MaxBatch int  `json:"max_client_batch_size"`
		Cuts     bool `json:"auto_truncate"`
		Version  string
	}](t, body)
	if info.ModelID != "parity" || info.MaxBatch != maxRows || info.Type.Classifier.ID2Label["1"] != "odd" ||
		!strings.HasPrefix(info.SHA, "sha256:") || !info.Cuts || info.Version != server.Version() {
		t.Errorf("GET /info: found %s", body)
	}
	f.server.Drain()
	if code, body, _ := f.do(t, "GET", "/health", ""); code != http.StatusServiceUnavailable {
		t.Errorf("GET /health of a server that drains: found %d: %s", code, body)
	}
}

// A tensor's metadata has one shape; the second of the adapter tensor is told by an extension.
func TestTheMetadataOfFanOut(t *testing.T) {
	f := newFront(t)
	_, body, _ := f.do(t, "GET", "/v2", "")
	if !strings.Contains(body, `"extensions":["binary_tensor_data","adapter_fan_out"]`) {
		t.Errorf("expected the extensions, found %s", body)
	}
	_, body, _ = f.do(t, "GET", "/v2/models/digits", "")
	const adapter = `{"name":"adapter","datatype":"BYTES","shape":[-1],"parameters":{"fan_out_shape":[-1,-1]}}`
	if !strings.Contains(body, adapter) || strings.Count(body, "parameters") != 1 {
		t.Errorf("expected %s alone to have parameters, found %s", adapter, body)
	}
}

// Every method that a path does not have is told those that it has, under a mux of its own or not.
func TestWrongMethodsOfForms(t *testing.T) {
	f := newFront(t)
	for path, allow := range map[string]string{
		"/": "GET, HEAD, POST", "/predict": "POST", "/v1/models/digit": "GET, HEAD", "/v1/models/digit:predict": "POST",
		"/v1/models/x%3Apredict": "POST",
	} {
		for _, method := range []string{"DELETE", "TRACE", "BREW", "OPTIONS"} {
			code, body, header := f.do(t, method, path, "")
			if found := header.Get("Allow"); code != http.StatusMethodNotAllowed || found != allow {
				t.Errorf("%s %s: expected 405 with Allow: %s, found %d with %q: %s", method, path, allow, code, found, body)
			}
		}
	}
	for _, path := range []string{
		"/v1/models/:predict", "/v1/models/digit:predict/", "/v1/models/digit:explain/x", "/v1/models/a/b:predict", "/x",
	} {
		if code, body, _ := f.do(t, "POST", path, "{}"); code != http.StatusNotFound || !strings.Contains(body, path) {
			t.Errorf("POST %s: expected 404, found %d: %s", path, code, body)
		}
	}
}

func fromBase64(t *testing.T, text string) []byte {
	t.Helper()
	raw, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}
