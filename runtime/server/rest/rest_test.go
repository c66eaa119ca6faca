package rest_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"image"
	"image/png"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"gorgonia.org/tensor"

	"github.com/switchyard-dev/switchyard/runtime/adapters"
	"github.com/switchyard-dev/switchyard/runtime/arch"
	"github.com/switchyard-dev/switchyard/runtime/batcher"
	"github.com/switchyard-dev/switchyard/runtime/engine"
	"github.com/switchyard-dev/switchyard/runtime/model"
	"github.com/switchyard-dev/switchyard/runtime/preprocess"
	"github.com/switchyard-dev/switchyard/runtime/server"
	"github.com/switchyard-dev/switchyard/runtime/server/rest"
	"github.com/switchyard-dev/switchyard/runtime/weights"
	"github.com/switchyard-dev/switchyard/test/wrappers"
)

const sample = "../../../hack/samples/digits"

const (
	maxBodyBytes = 1 << 20
	// requestBytes is enough for 32 bodies of an eighth of that, and their rows.
	requestBytes = 32*3*maxBodyBytes/8 + 512<<10
	maxRows      = 8
	adapterBytes = 1 << 30 // a power of 2: what is over it is exact
)

// front is a server over the real sample, with one adapter beside it that is refused and one that never ends loading.
type front struct {
	URL     string
	client  *http.Client
	server  *server.Server
	handler http.Handler
	set     *adapters.Set
	metrics http.Handler
}

func newFront(t *testing.T) *front {
	t.Helper()
	return newFrontOver(t, func(e batcher.Runner) batcher.Runner { return e })
}

// newFrontOver puts something before the engine.
func newFrontOver(t *testing.T, before func(batcher.Runner) batcher.Runner) *front {
	t.Helper()
	f := newServer(t, before)
	f.listen(t)
	return f
}

func (f *front) listen(t *testing.T) {
	t.Helper()
	over := httptest.NewServer(f.handler)
	t.Cleanup(over.Close)
	f.URL, f.client = over.URL, over.Client()
}

// newServer is a front without a network.
func newServer(t *testing.T, before func(batcher.Runner) batcher.Runner) *front {
	t.Helper()
	return newServerOf(t, "digits", filepath.Join(sample, "base"), before, func(set *adapters.Set) {
		load, err := set.FromFolder(openFolder(t, filepath.Join(sample, "adapters")), nil, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		load(t.Context())
		set.Load("broken", func() (*weights.Folder, error) { return weights.OpenFolder(t.TempDir()) })
		overflow := wrappers.Adapter(t).Unset("target_modules").
			Tensor(wrappers.F32("base_model.model.classifier.weight", slices.Repeat([]float32{3e38}, 2*96), 2, 96)).
			Tensor(wrappers.F32("base_model.model.classifier.bias", []float32{3e38, 3e38}, 2)).Write()
		set.Load("overflow", func() (*weights.Folder, error) { return weights.OpenFolder(overflow) })
	})
}

// newServerOf is a front without a network, over the base in a folder.
func newServerOf(
	t *testing.T, name, dir string, before func(batcher.Runner) batcher.Runner, load func(*adapters.Set),
) *front {
	t.Helper()
	base, err := model.Open(openFolder(t, dir), arch.Float32)
	if err != nil {
		t.Fatal(err)
	}
	var images *preprocess.Image
	if size := base.Description.Image; size != nil && base.Preprocessor != nil {
		if images, err = preprocess.ParseImage(base.Preprocessor, preprocess.Base{
			ModelType: base.Description.ModelType,
			Channels:  size.Channels, Height: size.Height, Width: size.Width, Takes: size.Takes,
		}); err != nil {
			t.Fatal(err)
		}
	}
	eng := engine.New(base, 2)
	t.Cleanup(eng.Close)
	set := adapters.New(eng)
	registry := prometheus.NewRegistry()
	queue := batcher.New(before(eng), batcher.Options{
		MaxBatchRows: 4, MaxBatchTokens: 1 << 10, Observe: server.NewBatchObserver(registry),
	})
	t.Cleanup(queue.Close)
	s := server.New(set, queue, images, server.Options{
		Name: name, RequestBytes: requestBytes, MaxRows: maxRows, MaxRowsInFlight: 64,
		Registry: registry, AdapterBytes: adapterBytes, Texts: openTokenizer(t, base),
	})
	load(set)
	set.Told()
	handler := rest.New(s, rest.Options{MaxBodyBytes: maxBodyBytes, Log: slog.New(slog.DiscardHandler)})
	return &front{server: s, handler: handler, set: set, metrics: promhttp.HandlerFor(registry, promhttp.HandlerOpts{})}
}

func openFolder(t *testing.T, path string) *weights.Folder {
	t.Helper()
	folder, err := weights.OpenFolder(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = folder.Close() })
	return folder
}

// do sends a request and returns its answer.
func (f *front) do(t *testing.T, method, path, body string, header ...string) (code int, answer string, h http.Header) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, f.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		request.Header.Set(header[i], header[i+1])
	}
	if host := request.Header.Get("Host"); host != "" {
		request.Host = host
	}
	response, err := f.client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	raw, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(raw), response.Header
}

// pngImage is a held-out image in base64.
func pngImage(t *testing.T) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(sample, "images", "0000.png"))
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(raw)
}

// imageRequest asks about the same image so many times; adapters, if any, as the adapter tensor.
func imageRequest(t *testing.T, rows int, names ...string) string {
	t.Helper()
	inputs := []map[string]any{{
		"name": "image", "datatype": "BYTES", "shape": []int{rows}, "data": slices.Repeat([]string{pngImage(t)}, rows),
	}}
	if len(names) > 0 {
		inputs = append(inputs, map[string]any{
			"name": "adapter", "datatype": "BYTES", "shape": []int{len(names)}, "data": names,
		})
	}
	raw, err := json.Marshal(map[string]any{"inputs": inputs})
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// zeros is the JSON of n zeros.
func zeros(n int) string { return "[" + strings.TrimSuffix(strings.Repeat("0,", n), ",") + "]" }

// pixelRequest is one input pixel_values of that shape and data.
func pixelRequest(shape, data string) string {
	return fmt.Sprintf(`{"inputs": [{"name": "pixel_values", "datatype": "FP32", "shape": %s, "data": %s}]}`, shape, data)
}

func (f *front) labels(t *testing.T, name string) []string {
	t.Helper()
	a, err := f.set.Get(name)
	if err != nil {
		t.Fatal(err)
	}
	return a.Labels
}

func TestEveryOutputOfAMixedBatch(t *testing.T) {
	f := newFront(t)
	code, body, _ := f.do(t, "POST", "/v2/models/digits/infer",
		strings.Replace(imageRequest(t, 5, "parity", "", "holes", "__base__", "parity"), "{", `{"id": "seven",`, 1))
	if code != http.StatusOK {
		t.Fatalf("status %d: %s", code, body)
	}
	var response struct {
		Model   string `json:"model_name"`
		Version string `json:"model_version"`
		ID      string `json:"id"`
		Outputs []struct {
			Name, Datatype string
			Shape          []int
			Data           []any
		}
	}
	if err := json.Unmarshal([]byte(body), &response); err != nil {
		t.Fatal(err)
	}
	if response.Model != "digits" || response.ID != "seven" || !strings.HasPrefix(response.Version, "sha256:") {
		t.Errorf("expected model digits, its version and id seven, found %q, %q, %q",
			response.Model, response.Version, response.ID)
	}
	want := []string{
		"logits FP32 [5 10]", "num_labels INT32 [5]", "probabilities FP32 [5 10]", "label BYTES [5]", "score FP32 [5]",
		"revision BYTES [5]",
	}
	data := make(map[string][]any)
	for i, out := range response.Outputs {
		if got := fmt.Sprintf("%s %s %v", out.Name, out.Datatype, out.Shape); got != want[i] {
			t.Errorf("output %d: expected %s, found %s", i, want[i], got)
		}
		data[out.Name] = out.Data
	}
	if got := fmt.Sprint(data["num_labels"]); got != "[2 10 3 10 2]" {
		t.Errorf("num_labels: expected [2 10 3 10 2], found %s", got)
	}
	base, _ := f.set.Base()
	parity, holes := f.labels(t, "parity"), f.labels(t, "holes")
	for i, labels := range [][]string{parity, base.Classes.Labels, holes, base.Classes.Labels, parity} {
		logits, probabilities := data["logits"][i*10:i*10+10], data["probabilities"][i*10:i*10+10]
		best, sum := 0, 0.0
		for j := range labels {
			if sum += math.Exp(logits[j].(float64)); logits[j].(float64) > logits[best].(float64) {
				best = j
			}
		}
		for j := range 10 {
			logit, p := logits[j].(float64), probabilities[j].(float64)
			if j >= len(labels) && (logit != -3.4028235e+38 || p != 0) {
				t.Errorf("row %d, label %d: expected the padding, found logit %g and probability %g", i, j, logit, p)
			}
			if want := math.Exp(logit) / sum; math.Abs(p-want) > 1e-6 {
				t.Errorf("row %d, label %d: expected probability %g, found %g", i, j, want, p)
			}
		}
		if label, score := data["label"][i], data["score"][i]; label != labels[best] || score != probabilities[best] {
			t.Errorf("row %d: expected label %s with score %g, found %s with %g",
				i, labels[best], probabilities[best], label, score)
		}
	}
	revisions := data["revision"]
	if revisions[0] != revisions[4] || revisions[0] == revisions[2] || revisions[1] != response.Version {
		t.Errorf("expected each row's own revision, found %v", revisions)
	}
}

func TestAnAdapterIsAModelOfItsOwn(t *testing.T) {
	f := newFront(t)
	_, metadata, _ := f.do(t, "GET", "/v2/models/holes", "")
	var model struct {
		Versions []string
		Inputs   []struct{ Name string }
	}
	if err := json.Unmarshal([]byte(metadata), &model); err != nil || len(model.Versions) != 1 {
		t.Fatalf("expected metadata with one version, found %s", metadata)
	}
	if strings.Contains(metadata, `"adapter"`) || !strings.Contains(metadata, `"shape":[-1,3]`) {
		t.Errorf("expected three labels and no adapter input, found %s", metadata)
	}
	path := "/v2/models/holes/versions/" + model.Versions[0]
	for _, path := range []string{path, path + "/ready", "/v2/models/holes/ready"} {
		if code, body, _ := f.do(t, "GET", path, ""); code != http.StatusOK {
			t.Errorf("GET %s: status %d: %s", path, code, body)
		}
	}
	body := strings.Replace(imageRequest(t, 2), `"inputs"`, `"outputs": [{"name": "label"}], "inputs"`, 1)
	code, answer, _ := f.do(t, "POST", path+"/infer", body)
	if code != http.StatusOK || strings.Count(answer, `"datatype"`) != 1 || !strings.Contains(answer, `"name":"label"`) {
		t.Errorf("expected the label alone, found status %d: %s", code, answer)
	}
}

func TestPixelsMayBeFlatOrNested(t *testing.T) {
	f := newFront(t)
	row := zeros(32)
	plane := "[" + strings.TrimSuffix(strings.Repeat(row+",", 32), ",") + "]"
	nested := "[[" + plane + ", " + plane + ",\n" + plane + "]]"
	_, flatAnswer, _ := f.do(t, "POST", "/v2/models/digits/infer", pixelRequest("[1,3,32,32]", zeros(3*32*32)))
	code, nestedAnswer, _ := f.do(t, "POST", "/v2/models/digits/infer", pixelRequest("[1,3,32,32]", nested))
	if code != http.StatusOK || flatAnswer != nestedAnswer {
		t.Errorf("expected the answer to the flat list, found status %d: %s", code, nestedAnswer)
	}
}

// fanOut asks about the same image twice; each is asked of several adapters, by a tensor of that shape.
func fanOut(shape string, names ...string) string {
	quoted := make([]string, len(names))
	for i, name := range names {
		quoted[i] = strconv.Quote(name)
	}
	return fmt.Sprintf(`{"inputs": [{"name": "pixel_values", "datatype": "FP32", "shape": [2,3,32,32], "data": %s},
		{"name": "adapter", "datatype": "BYTES", "shape": %s, "data": [%s]}]}`,
		zeros(2*3*32*32), shape, strings.Join(quoted, ","))
}

// Inputs that are asked of several adapters each are answered as if each stood there for each of them.
func TestOneInputIsAskedOfSeveralAdapters(t *testing.T) {
	f := newFront(t)
	request := func(pixels []string, shape, names string) string {
		return fmt.Sprintf(`{"inputs": [{"name": "pixel_values", "datatype": "FP32", "shape": [%d,3,32,32], "data": [%s]},
			{"name": "adapter", "datatype": "BYTES", "shape": %s, "data": %s}]}`,
			len(pixels), strings.Join(pixels, ","), shape, names)
	}
	ones := strings.ReplaceAll(zeros(3*32*32), "0", "1")
	first, second := strings.Trim(zeros(3*32*32), "[]"), strings.Trim(ones, "[]")
	code, fanned, _ := f.do(t, "POST", "/v2/models/digits/infer",
		request([]string{first, second}, "[2,3]", `[["parity", "holes", ""], ["digit", "parity", "parity"]]`))
	_, single, _ := f.do(t, "POST", "/v2/models/digits/infer",
		request([]string{first, first, first, second, second, second}, "[6]",
			`["parity", "holes", "", "digit", "parity", "parity"]`))
	if code != http.StatusOK || fanned != single || !strings.Contains(fanned, `"shape":[6,10]`) {
		t.Errorf("expected\n%s\nfound status %d:\n%s", single, code, fanned)
	}
}

// manyMembers are n members of an object.
func manyMembers(n int) string {
	members := make([]string, n)
	for i := range members {
		members[i] = fmt.Sprintf(`"m%d": 1`, i)
	}
	return strings.Join(members, ",")
}

// Every bad request is refused with its reason, and the next good one works.
func TestBadRequests(t *testing.T) {
	f := newFront(t)
	const pool = "/v2/models/digits/infer"
	encoded := pngImage(t)
	good := imageRequest(t, 1)
	named := func(names ...string) string { return imageRequest(t, 2, names...) }
	tensor := func(name, datatype, shape, data string) string {
		return fmt.Sprintf(`{"inputs": [{"name": %q, "datatype": %q, "shape": %s, "data": %s}]}`, name, datatype, shape, data)
	}
	nan := "[" + strings.Repeat("0,", 3*32*32) + "NaN" + strings.Repeat(",0", 3*32*32-1) + "]"
	huge := strings.Replace(nan, "NaN", "1e39", 1)
	text := strings.Replace(nan, "NaN", `"x"`, 1)
	cases := []struct {
		name, method, path, body string
		code                     int
		message                  string
	}{
		{"a path that is no text", "GET", "/%ff", "", 404, `GET "/\xff": Not Found`},
		{"a path to be cleaned", "POST", "/v2//models/digits/infer", good, 404, "Not Found"},
		{"a path that goes up", "GET", "/v2/x/../models", "", 404, "Not Found"},
		{"a path with a slash behind", "GET", "/v2/models/", "", 404, "Not Found"},
		{"unknown route", "GET", "/v3", "", 404, `GET "/v3": Not Found`},
		{"wrong method", "GET", pool, "", 405, "Method Not Allowed"},
		{"unknown model", "POST", "/v2/models/nobody/infer", good, 404, `adapter "nobody": unknown`},
		{"refused model", "POST", "/v2/models/broken/infer", good, 503, `"broken": refused: file "adapter_config.json"`},
		{"refused model's metadata", "GET", "/v2/models/broken", "", 503, `refused: file "adapter_config.json"`},
		{"unknown version", "POST", "/v2/models/parity/versions/1/infer", good, 404, `version: expected sha256:`},

		{"no JSON", "POST", pool, `hello`, 400, "malformed request: at byte 0"},
		{"empty body", "POST", pool, ``, 400, "malformed request"},
		{"cut JSON", "POST", pool, good[:len(good)-2], 400, "unexpected EOF"},
		{"two documents", "POST", pool, good + good, 400, "malformed request"},
		{"not an object", "POST", pool, `[]`, 400, "malformed request"},
		{"unknown member", "POST", pool, `{"input": []}`, 400, "at /input"},
		{
			"unknown member of an input", "POST", pool, `{"inputs": [{"name": "image", "dtype": "BYTES"}]}`, 400,
			`input "image": at /inputs/0/dtype`,
		},
		{
			"too many inputs", "POST", pool, `{"inputs": [` + strings.Repeat("{},", 16) + `{}]}`, 400,
			"expected at most 16 members, found more",
		},
		{
			"too many dimensions", "POST", pool, pixelRequest(zeros(17), "[]"), 400,
			`input "pixel_values": at /inputs/0/shape`,
		},
		{"too many outputs", "POST", pool, `{"outputs": [` + strings.Repeat("{},", 16) + `{}]}`, 400, "at most 16 members"},
		{"too many parameters", "POST", pool, `{"parameters": {` + manyMembers(17) + `}}`, 400, "at most 16 members"},
		{
			"inputs that are no list", "POST", pool, `{"inputs": {}}`, 400,
			"at /inputs (byte 11): expected a list, found a JSON {",
		},
		{
			"an endless id", "POST", pool, `{"id": "` + strings.Repeat("x", 257) + `"}`, 400,
			"id: expected at most 256 bytes, found 257",
		},
		{"member twice", "POST", pool, `{"inputs": [], "inputs": []}`, 400, "duplicate"},
		{"deep nesting", "POST", pool, `{"inputs":` + strings.Repeat("[", 20000), 400, "malformed request"},
		{"parameter", "POST", pool, `{"parameters": {"priority": 1}, "inputs": []}`, 400, `parameter "priority" is not`},
		{
			"a parameter of an output", "POST", pool,
			`{"outputs": [{"name": "label", "parameters": {"classification": 3}}]}`, 400,
			`output "label": parameter "classification" is not supported`,
		},
		{
			"unknown output", "POST", pool, `{"outputs": [{"name": "labels"}], "inputs": []}`, 400,
			`output "labels" is not one of [logits num_labels`,
		},
		{"output twice", "POST", pool, `{"outputs": [{"name": "label"}, {"name": "label"}]}`, 400, "asked for twice"},

		{"no input", "POST", pool, `{"inputs": []}`, 400, "expected one of the inputs [pixel_values image], found none"},
		{"unknown input", "POST", pool, tensor("text", "BYTES", "[1]", `["a"]`), 400, `input "text" is not one of`},
		{"input twice", "POST", pool, `{"inputs": [{"name": "image"}, {"name": "image"}]}`, 400, `"image" is given twice`},
		{
			"two inputs", "POST", pool, `{"inputs": [{"name": "image"}, {"name": "pixel_values"}]}`, 400,
			`expected one input beside adapter, found "image" and "pixel_values"`,
		},
		{
			"no data", "POST", pool, `{"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1]}]}`, 400,
			`input "image": data: expected a list`,
		},

		{
			"datatype", "POST", pool, tensor("pixel_values", "FP64", "[1,3,32,32]", "[]"), 400,
			`input "pixel_values": datatype: expected FP32, found "FP64"`,
		},
		{
			"dimensions", "POST", pool, pixelRequest("[3,32,32]", "[]"), 400,
			`input "pixel_values": shape: expected [B, 3, 32, 32], found [3, 32, 32]`,
		},
		{"another size", "POST", pool, pixelRequest("[1,3,224,224]", "[]"), 400, "expected [B, 3, 32, 32], found [1, 3, 224"},
		{"no rows", "POST", pool, pixelRequest("[0,3,32,32]", "[]"), 400, "found [0, 3, 32, 32]"},
		{"negative rows", "POST", pool, pixelRequest("[-1,3,32,32]", "[]"), 400, "found [-1, 3, 32, 32]"},
		{"absurd rows", "POST", pool, pixelRequest("[9223372036854775807,3,32,32]", "[]"), 400, "shape: expected [B, 3"},
		{"rows beyond int64", "POST", pool, pixelRequest("[9223372036854775808,3,32,32]", "[]"), 400, "malformed request"},
		{
			"too many rows", "POST", pool, pixelRequest("[9,3,32,32]", "[]"), 400,
			`input "pixel_values": shape: expected at most 8 rows in a request, found 9`,
		},
		{
			"too few pixels", "POST", pool, pixelRequest("[1,3,32,32]", zeros(5)), 400,
			"flat or in lists nested as the shape [1, 3, 32, 32]: a list of 3072 at depth 0, found 5",
		},
		{"too many pixels", "POST", pool, pixelRequest("[1,3,32,32]", zeros(3073)), 400, "data: expected 3072 elements"},
		{
			"nested otherwise", "POST", pool, pixelRequest("[1,3,32,32]", "[["+zeros(5)+"]]"), 400,
			"in lists nested as the shape [1, 3, 32, 32]",
		},
		{"NaN", "POST", pool, pixelRequest("[2,3,32,32]", nan), 400, `input "pixel_values": row 1: at /inputs/0/data/3072`},
		{
			"beyond FP32", "POST", pool, pixelRequest("[2,3,32,32]", huge), 400,
			`input "pixel_values": row 1: expected a finite FP32, found 1e39`,
		},
		{
			"text for a pixel", "POST", pool, pixelRequest("[2,3,32,32]", text), 400,
			`input "pixel_values": row 1: expected a finite FP32, found "x"`,
		},
		{
			"answer not finite", "POST", pool, named("parity", "overflow"), 422,
			"row 1: the model's answer to it is not finite",
		},

		{
			"no base64", "POST", pool, tensor("image", "BYTES", "[2]", `["`+encoded+`", "%%"]`), 400,
			`input "image": row 1: expected base64`,
		},
		{"no image", "POST", pool, tensor("image", "BYTES", "[2]", `["`+encoded+`", "AAAA"]`), 422, `input "image": row 1: `},
		{
			"broken image", "POST", pool, tensor("image", "BYTES", "[1]", `["`+encoded[:40]+`"]`), 422,
			`input "image": row 0: `,
		},
		{
			"number for an image", "POST", pool, tensor("image", "BYTES", "[1]", `[7]`), 400,
			`input "image": row 0: expected a string, found 7`,
		},
		{
			"image and its rows", "POST", pool, tensor("image", "BYTES", "[2]", `["`+encoded+`"]`), 400,
			"a list of 2 at depth 0, found 1",
		},

		{
			"unknown adapter", "POST", pool, named("parity", "nobody"), 404,
			`input "adapter": row 1: adapter "nobody": unknown`,
		},
		{
			"refused adapter", "POST", pool, named("parity", "broken"), 503,
			`input "adapter": row 1: adapter "broken": refused`,
		},
		{"adapters too few", "POST", pool, named("parity"), 400, `input "adapter": shape: expected [2], found [1]`},
		{
			"as many adapters of other inputs", "POST", pool, fanOut("[1,2]", "parity", "parity"), 400,
			`input "adapter": shape: expected [2] or [2, K], found [1, 2]`,
		},
		{
			"no adapters", "POST", pool, fanOut("[2,0]"), 400,
			`input "adapter": shape: expected [2] or [2, K], found [2, 0]`,
		},
		{
			"too many adapters", "POST", pool, fanOut("[2,9223372036854775807]", "parity"), 400,
			`input "adapter": shape: expected at most 8 rows in a request, found [2, 9223372036854775807] of them`,
		},
		{
			"fewer adapters than their shape", "POST", pool, fanOut("[2,2]", "parity", "holes", "parity"), 400,
			`input "adapter": data: expected`,
		},
		{
			"an unknown one of several", "POST", pool, fanOut("[2,2]", "parity", "holes", "parity", "nobody"), 404,
			`input "adapter": row 3: adapter "nobody": unknown`,
		},
		{
			"adapter of an adapter", "POST", "/v2/models/parity/infer", named("parity", "holes"), 400,
			`input "adapter" is only for the model "digits"`,
		},
		{"body over the limit", "POST", pool, strings.Repeat(" ", maxBodyBytes+1), 413, "over the limit of 1048576 bytes"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			code, body, _ := f.do(t, c.method, c.path, c.body)
			var refusal struct{ Error string }
			if err := json.Unmarshal([]byte(body), &refusal); err != nil {
				t.Errorf("expected {\"error\": …}, found %s", body)
			}
			if code != c.code || !strings.Contains(refusal.Error, c.message) {
				t.Errorf("expected %d with %q, found %d: %s", c.code, c.message, code, body)
			}
			if code, body, _ := f.do(t, "POST", pool, good); code != http.StatusOK {
				t.Errorf("the next request: status %d: %s", code, body)
			}
		})
	}
}

func TestBadHeaders(t *testing.T) {
	f := newFront(t)
	for _, c := range []struct {
		header, value string
		code          int
		message       string
	}{
		{"Inference-Header-Content-Length", "10", 400, "malformed request: at /inputs (byte 10): unexpected EOF"},
		{"Inference-Header-Content-Length", "1000000", 400, "expected 1000000 bytes of JSON, found a body of"},
		{"Inference-Header-Content-Length", "-1", 400, `expected a number of bytes, found \"-1\"`},
		{"Content-Encoding", "gzip", 415, `content encoding \"gzip\" is not supported`},
		{"Switchyard-Timeout-Ms", "soon", 400, `Switchyard-Timeout-Ms: expected a positive number, found \"soon\"`},
		{"Switchyard-Timeout-Ms", "0", 400, `expected a positive number, found \"0\"`},
	} {
		code, body, _ := f.do(t, "POST", "/v2/models/digits/infer", imageRequest(t, 1), c.header, c.value)
		if code != c.code || !strings.Contains(body, c.message) {
			t.Errorf("%s: %s: expected %d with %s, found %d: %s", c.header, c.value, c.code, c.message, code, body)
		}
	}
}

func TestAWrongMethodIsToldTheRightOne(t *testing.T) {
	f := newFront(t)
	for _, c := range []struct{ method, path, allow string }{
		{"GET", "/v2/models/digits/infer", "POST"},
		{"POST", "/v2/models/digits", "GET, HEAD"},
	} {
		code, body, header := f.do(t, c.method, c.path, "")
		if allow := header.Get("Allow"); code != http.StatusMethodNotAllowed || allow != c.allow {
			t.Errorf("%s %s: expected 405 with Allow: %s, found %d with %q: %s", c.method, c.path, c.allow, code, allow, body)
		}
	}
}

// Many images that are small files and large pictures would hold the decoders for minutes.
func TestThePixelsOfARequestAreBounded(t *testing.T) {
	f := newFront(t)
	var encoded bytes.Buffer
	if err := png.Encode(&encoded, image.NewGray(image.Rect(0, 0, 10000, 6000))); err != nil {
		t.Fatal(err)
	}
	data := strings.TrimSuffix(strings.Repeat(`"`+base64.StdEncoding.EncodeToString(encoded.Bytes())+`",`, 8), ",")
	code, body, _ := f.do(t, "POST", "/v2/models/digits/infer", fmt.Sprintf(
		`{"inputs": [{"name": "image", "datatype": "BYTES", "shape": [8], "data": [%s]}]}`, data))
	if code != http.StatusUnprocessableEntity || !strings.Contains(body, "row 0: image is 10000 x 6000 pixels") {
		t.Errorf("expected the first to be refused for itself, found %d: %s", code, body)
	}
	encoded.Reset()
	if err := png.Encode(&encoded, image.NewGray(image.Rect(0, 0, 4096, 4096))); err != nil {
		t.Fatal(err)
	}
	if area := preprocess.Area(encoded.Bytes()); area != 4096*4096 {
		t.Errorf("area: expected %d, found %d", 4096*4096, area)
	}
}

// Clients that send a header and nothing more, or read nothing of their answers, hold up nobody.
func TestSlowClientsHoldUpNobody(t *testing.T) {
	f := newFront(t)
	address := strings.TrimPrefix(f.URL, "http://")
	header := "POST /v2/models/digits/infer HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
	for range 2 {
		silent, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = silent.Close() }()
		if _, err := fmt.Fprintf(silent, header, maxBodyBytes); err != nil {
			t.Fatal(err)
		}
		deaf, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = deaf.Close() }()
		body := imageRequest(t, 8)
		if _, err := fmt.Fprintf(deaf, header+"%s", len(body), body); err != nil {
			t.Fatal(err)
		}
	}
	for range 8 {
		if code, body, _ := f.do(t, "POST", "/v2/models/digits/infer", imageRequest(t, 8)); code != http.StatusOK {
			t.Errorf("status %d: %s", code, body)
		}
	}
}

// A body without a length is cut off at the limit.
func TestAChunkedBodyIsBounded(t *testing.T) {
	f := newFront(t)
	for range 5 { // what is refused is not held: four such bodies would be more than may be in flight
		endless := io.LimitReader(repeating(' '), 64*maxBodyBytes)
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, f.URL+"/v2/models/digits/infer", endless)
		if err != nil {
			t.Fatal(err)
		}
		response, err := f.client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		if response.StatusCode != http.StatusRequestEntityTooLarge {
			t.Errorf("expected 413, found %d", response.StatusCode)
		}
	}
}

type repeating byte

func (r repeating) Read(p []byte) (int, error) {
	copy(p, bytes.Repeat([]byte{byte(r)}, len(p)))
	return len(p), nil
}

func TestReadinessWaitsForLoadingAndEndsWithDraining(t *testing.T) {
	f := newFront(t)
	ready := func() (int, string) {
		code, body, _ := f.do(t, "GET", "/v2/health/ready", "")
		return code, body
	}
	if code, body := ready(); code != http.StatusOK {
		t.Errorf("all loaded or refused: expected 200, found %d: %s", code, body)
	}
	f.set.Expect("late")
	if code, body := ready(); code != http.StatusServiceUnavailable || !strings.Contains(body, "still loading") {
		t.Errorf("one is loading: expected 503, found %d: %s", code, body)
	}
	code, body, header := f.do(t, "POST", "/v2/models/late/infer", imageRequest(t, 1))
	if code != http.StatusServiceUnavailable || header.Get("Retry-After") == "" {
		t.Errorf("an adapter still loading: expected 503 with Retry-After, found %d: %s", code, body)
	}
	f.set.Load("late", func() (*weights.Folder, error) {
		return weights.OpenFolder(filepath.Join(sample, "adapters", "parity"))
	})
	if code, body, _ := f.do(t, "POST", "/v2/models/late/infer", imageRequest(t, 1)); code != http.StatusOK {
		t.Errorf("loaded: expected 200, found %d: %s", code, body)
	}
	if code, body, header := f.do(t, "GET", "/v2/models/broken/ready", ""); code != http.StatusServiceUnavailable ||
		header.Get("Retry-After") != "" {
		t.Errorf("refused: expected 503 without Retry-After, found %d: %s", code, body)
	}

	f.server.Drain()
	if code, body := ready(); code != http.StatusServiceUnavailable {
		t.Errorf("draining: expected 503, found %d: %s", code, body)
	}
	if code, body, _ := f.do(t, "GET", "/v2/models/digits/ready", ""); code != http.StatusServiceUnavailable {
		t.Errorf("a model of a server that drains: expected 503, found %d: %s", code, body)
	}
	if code, body, _ := f.do(t, "GET", "/v2/health/live", ""); code != http.StatusOK {
		t.Errorf("draining is alive: expected 200, found %d: %s", code, body)
	}
	code, body, _ = f.do(t, "POST", "/v2/models/digits/infer", imageRequest(t, 1))
	if code != http.StatusServiceUnavailable {
		t.Errorf("draining: expected 503, found %d: %s", code, body)
	}
}

// held is an engine that waits for the test before each batch, and tells when it has one.
type held struct {
	batcher.Runner
	taken, open chan struct{}
}

func (h *held) Run(batch engine.Batch) ([]*tensor.Dense, error) {
	select {
	case h.taken <- struct{}{}:
	default: // nobody asks
	}
	<-h.open
	return h.Runner.Run(batch)
}

// While the engine is busy, a request past its deadline has its 504, and rows beyond the bound their 429.
func TestABusyEngine(t *testing.T) {
	var engine *held
	f := newFrontOver(t, func(e batcher.Runner) batcher.Runner {
		engine = &held{Runner: e, taken: make(chan struct{}, 1), open: make(chan struct{})}
		return engine
	})
	release := sync.OnceFunc(func() { close(engine.open) })
	defer release()
	const path = "/v2/models/digits/infer"
	var waiting sync.WaitGroup
	codes := make(chan int, 9)
	ask := func(rows int) {
		waiting.Go(func() {
			code, _, _ := f.do(t, "POST", path, imageRequest(t, rows))
			codes <- code
		})
	}
	ask(1)
	<-engine.taken
	code, body, _ := f.do(t, "POST", path, imageRequest(t, 1), "Switchyard-Timeout-Ms", "20")
	if code != http.StatusGatewayTimeout {
		t.Errorf("past its deadline: expected 504, found %d: %s", code, body)
	}
	// All the rows there may be, with the one that the engine has: the one that nobody waits for any more is gone.
	for _, rows := range []int{maxRows, maxRows, maxRows, maxRows, maxRows, maxRows, maxRows, maxRows - 1} {
		ask(rows)
	}
	for !strings.Contains(f.scrape(), "switchyard_queue_rows 63\n") { // until all of them wait
		if len(codes) > 0 {
			t.Fatalf("expected all requests to wait, found one answered with %d", <-codes)
		}
	}
	code, body, header := f.do(t, "POST", path, imageRequest(t, 1))
	if code != http.StatusTooManyRequests || header.Get("Retry-After") == "" ||
		!strings.Contains(body, "too many rows in flight") { // the queue, which has one row less, would say otherwise
		t.Errorf("beyond the bound: expected 429 with Retry-After, found %d: %s", code, body)
	}
	release()
	waiting.Wait()
	close(codes)
	for code := range codes {
		if code != http.StatusOK {
			t.Errorf("a request that was admitted: expected 200, found %d", code)
		}
	}
	if code, body, _ := f.do(t, "POST", path, imageRequest(t, maxRows)); code != http.StatusOK {
		t.Errorf("with the engine free again: expected 200, found %d: %s", code, body)
	}
}

func TestModelsAreListedWithTheirState(t *testing.T) {
	f := newFront(t)
	f.set.Expect("late")
	_, body, _ := f.do(t, "GET", "/v2/models", "")
	var list struct {
		Models []struct{ Name, State, Reason string }
	}
	if err := json.Unmarshal([]byte(body), &list); err != nil {
		t.Fatal(err)
	}
	got := make([]string, 0, len(list.Models))
	for _, m := range list.Models {
		got = append(got, m.Name+" "+m.State)
		if (m.State == "UNAVAILABLE") != strings.Contains(m.Reason, "adapter_config.json") {
			t.Errorf("%s %s: reason %q", m.Name, m.State, m.Reason)
		}
	}
	want := []string{
		"digits READY", "broken UNAVAILABLE", "digit READY", "holes READY", "late LOADING", "overflow READY", "parity READY",
	}
	if !slices.Equal(got, want) {
		t.Errorf("expected %v, found %v", want, got)
	}
}

func (f *front) scrape() string {
	recorder := httptest.NewRecorder()
	f.metrics.ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	return recorder.Body.String()
}

func TestMetricsCountWhatHappened(t *testing.T) {
	f := newFront(t)
	f.do(t, "POST", "/v2/models/digits/infer", imageRequest(t, 3, "parity", "holes", ""))
	f.do(t, "POST", "/v2/models/digits/infer", imageRequest(t, 2, "parity", "nobody"))
	f.do(t, "GET", "/nowhere", "")
	metrics := f.scrape()
	for _, line := range []string{
		`switchyard_requests_total{code="200",route="POST /v2/models/{model}/infer"} 1`,
		`switchyard_requests_total{code="404",route="POST /v2/models/{model}/infer"} 1`,
		`switchyard_requests_total{code="404",route="none"} 1`,
		`switchyard_rows_total{code="200"} 3`,
		`switchyard_rows_total{code="404"} 2`,
		`switchyard_batch_rows_sum 3`,
		`switchyard_batch_adapters_sum 3`,
		`switchyard_adapters{state="served"} 4`,
		`switchyard_adapters{state="refused"} 1`,
		`switchyard_queue_rows 0`,
		`switchyard_queue_seconds_count 1`,
		`switchyard_engine_seconds_count 1`,
		`switchyard_request_seconds_count{route="POST /v2/models/{model}/infer"} 2`,
		`switchyard_batch_failures_total 0`,
	} {
		if !strings.Contains(metrics, line+"\n") {
			t.Errorf("expected the line %s in\n%s", line, metrics)
		}
	}
	if !strings.Contains(metrics, "\nswitchyard_adapter_bytes ") ||
		strings.Contains(metrics, "\nswitchyard_adapter_bytes 0\n") {
		t.Errorf("expected switchyard_adapter_bytes above 0 in\n%s", metrics)
	}
}
