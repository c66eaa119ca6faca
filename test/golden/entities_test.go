package golden

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/switchyard-dev/switchyard/runtime/adapters"
	"github.com/switchyard-dev/switchyard/runtime/arch"
	"github.com/switchyard-dev/switchyard/runtime/batcher"
	"github.com/switchyard-dev/switchyard/runtime/engine"
	"github.com/switchyard-dev/switchyard/runtime/model"
	"github.com/switchyard-dev/switchyard/runtime/preprocess/text"
	"github.com/switchyard-dev/switchyard/runtime/preprocess/tokenfiles"
	"github.com/switchyard-dev/switchyard/runtime/server"
	"github.com/switchyard-dev/switchyard/runtime/server/rest"
	"github.com/switchyard-dev/switchyard/runtime/weights"
)

// entitiesOf is testdata/entities/golden.json: what transformers' pipeline finds, by tokenizer.
type entitiesOf struct {
	Unknown map[string]string `json:"unknown"`
	Found   map[string][]struct {
		Text     string   `json:"text"`
		Entities []entity `json:"entities"`
	} `json:"found"`
}

type entity struct {
	Group string  `json:"entity_group"`
	Score float64 `json:"score"`
	Word  string  `json:"word"`
	Start int     `json:"start"`
	End   int     `json:"end"`
}

// A classifier of tokens, asked over HTTP, finds in texts what transformers' pipeline finds with the strategy "simple".
func TestEntitiesAgreeWithTransformers(t *testing.T) {
	if testing.Short() {
		t.Skip("wazero compiles for a minute under the race detector")
	}
	raw, err := os.ReadFile(filepath.Join(testdata, "entities", "golden.json"))
	if err != nil {
		t.Fatal(err)
	}
	var golden entitiesOf
	if err := json.Unmarshal(raw, &golden); err != nil {
		t.Fatal(err)
	}
	base, err := model.Open(openFolder(t, filepath.Join(testdata, "entities", "base")), arch.Float32)
	if err != nil {
		t.Fatal(err)
	}
	cache := t.TempDir() // the module is compiled once for all of them
	for kind, cases := range golden.Found {
		t.Run(kind, func(t *testing.T) {
			config, err := json.Marshal(map[string]string{"unk_token": golden.Unknown[kind]})
			if err != nil {
				t.Fatal(err)
			}
			url := serveTexts(t, base, tokenfiles.Files{Tokenizer: readTokenizer(t, kind), Config: config}, cache)
			for _, c := range cases {
				found := findEntities(t, url, c.Text)
				if len(found) != len(c.Entities) {
					t.Fatalf("%q: expected %d entities, found %d: %+v", c.Text, len(c.Entities), len(found), found)
				}
				for i, want := range c.Entities {
					got := found[i]
					off := math.Abs(got.Score - want.Score)
					if got.Score = want.Score; got != want || !(off <= tolerance) {
						t.Errorf("%q: expected %+v, found %+v, scores apart by %g", c.Text, want, found[i], off)
					}
				}
			}
		})
	}
}

func readTokenizer(t *testing.T, kind string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("../../runtime/preprocess/text/testdata", kind, "tokenizer.json"))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// serveTexts serves a base of texts by HTTP; the compiled tokenizer is kept in a folder.
func serveTexts(t *testing.T, base *model.Base, files tokenfiles.Files, cache string) (url string) {
	t.Helper()
	resolved, err := files.Resolve(base.Description.ModelType, base.Description.Text.MaxTokens)
	if err != nil {
		t.Fatal(err)
	}
	texts, err := text.Open(t.Context(), resolved, text.Options{Instances: 1, Memory: 64 << 20, CacheDir: cache})
	if err != nil {
		t.Fatal(err)
	}
	e := engine.New(base, 2)
	t.Cleanup(func() {
		e.Close()
		_ = texts.Close(t.Context())
	})
	return listen(t, e, texts)
}

// listen serves an engine's base as "base" by HTTP, with the adapters in these folders under the folders' names.
func listen(t *testing.T, e *engine.Engine, texts *text.Tokenizer, folders ...string) (url string) {
	t.Helper()
	set := adapters.New(e)
	for _, path := range folders {
		open := func() (*weights.Folder, error) { return weights.OpenFolder(path) }
		if entry := set.Load(filepath.Base(path), open); entry.Err != nil {
			t.Fatal(entry.Err)
		}
	}
	set.Told()
	queue := batcher.New(e, batcher.Options{MaxBatchRows: 16, MaxBatchTokens: 1 << 10})
	front := server.New(set, queue, nil, server.Options{
		Name: "base", RequestBytes: 64 << 20, MaxRows: 16, MaxRowsInFlight: 64,
		Registry: prometheus.NewRegistry(), Texts: texts,
	})
	options := rest.Options{MaxBodyBytes: 1 << 20, Log: slog.New(slog.DiscardHandler)}
	listening := httptest.NewServer(rest.New(front, options))
	t.Cleanup(func() {
		listening.Close()
		queue.Close()
	})
	return listening.URL
}

// tensorOf is an input of a request.
func tensorOf(name, datatype string, data any, shape ...int) map[string]any {
	return map[string]any{"name": name, "datatype": datatype, "shape": shape, "data": data}
}

// post sends JSON and returns what is answered.
func post(t *testing.T, url string, body any) (code int, answer []byte) {
	t.Helper()
	raw, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	if answer, err = io.ReadAll(response.Body); err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, answer
}

func findEntities(t *testing.T, url, asked string) (found []entity) {
	t.Helper()
	_, raw := post(t, url+"/v2/models/base/infer", map[string]any{
		"inputs":  []any{tensorOf("text", "BYTES", []string{asked}, 1)},
		"outputs": []any{map[string]any{"name": "entities"}},
	})
	var answer struct {
		Error   string `json:"error"`
		Outputs []struct {
			Data []string `json:"data"`
		} `json:"outputs"`
	}
	if err := json.Unmarshal(raw, &answer); err != nil || answer.Error != "" {
		t.Fatalf("%q: %v %s", asked, err, answer.Error)
	}
	if err := json.Unmarshal([]byte(answer.Outputs[0].Data[0]), &found); err != nil {
		t.Fatal(err)
	}
	return found
}
