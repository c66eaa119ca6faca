package rest_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/switchyard-dev/switchyard/runtime/model"
	"github.com/switchyard-dev/switchyard/runtime/preprocess/text"
	"github.com/switchyard-dev/switchyard/runtime/preprocess/tokenfiles"
	"github.com/switchyard-dev/switchyard/test/wrappers"
)

const (
	// maxTokens is what the golden files of the tokenizer are cut to, and so the length of the base that they go to.
	maxTokens = 24
	// wordy is a base of texts with a tokenizer.
	wordy = `{
		"model_type": "bert", "architectures": ["BertForSequenceClassification"], "vocab_size": 700, "hidden_size": 8,
		"num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 12, "max_position_embeddings": 24,
		"id2label": {"0": "a", "1": "b", "2": "c"}
	}`
	tokenized = "../../preprocess/text/testdata/wordpiece"
)

// compiled keeps the compiled tokenizer for the tests of one run.
var compiled string

func TestMain(m *testing.M) {
	var err error
	if compiled, err = os.MkdirTemp("", "switchyard-server-"); err != nil {
		panic(err)
	}
	code := m.Run()
	_ = os.RemoveAll(compiled)
	os.Exit(code)
}

// openTokenizer opens the tokenizer of a base that has one.
func openTokenizer(t *testing.T, base *model.Base) *text.Tokenizer {
	t.Helper()
	files := tokenfiles.Files{
		Tokenizer: base.Tokenizer, Config: base.TokenizerConfig, Vocab: base.Vocab, Added: base.AddedTokens,
		Specials: base.SpecialTokens,
	}
	if !files.Any() {
		return nil
	}
	resolved, err := files.Resolve(base.Description.ModelType, base.Description.Text.MaxTokens)
	if err != nil {
		t.Fatal(err)
	}
	tokenizer, err := text.Open(t.Context(), resolved, text.Options{Instances: 2, Memory: 64 << 20, CacheDir: compiled})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tokenizer.Close(t.Context()) })
	return tokenizer
}

// newWordyFront serves a base that takes texts, with the adapters of newFrontOf.
func newWordyFront(t *testing.T) *front {
	t.Helper()
	if testing.Short() {
		t.Skip("wazero compiles for a minute under the race detector")
	}
	tokenizer, err := os.ReadFile(filepath.Join(tokenized, "tokenizer.json"))
	if err != nil {
		t.Fatal(err)
	}
	return newFrontOf(t, wrappers.Base(t, wordy).File("tokenizer.json", tokenizer).Write())
}

// encoded is a text as Python's tokenizers encodes it (hack/golden/texts.py); Pair is nil of a text alone.
type encoded struct {
	Text    string
	Pair    *string
	IDs     []int
	Types   []int
	Offsets [][2]int // in characters
}

// readEncoded are the golden texts: those alone, and the pairs.
func readEncoded(t *testing.T) (alone, pairs []encoded) {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(tokenized, "golden.json"))
	if err != nil {
		t.Fatal(err)
	}
	var golden struct{ Cases []encoded }
	if err := json.Unmarshal(raw, &golden); err != nil {
		t.Fatal(err)
	}
	for _, c := range golden.Cases {
		if c.Pair == nil {
			alone = append(alone, c)
		} else {
			pairs = append(pairs, c)
		}
	}
	if len(alone) < 50 || len(pairs) < 3 {
		t.Fatalf("expected golden texts and pairs, found %d and %d", len(alone), len(pairs))
	}
	return alone, pairs
}

// strings adds a tensor of strings.
func (r *textRequest) strings(name string, values ...string) *textRequest {
	r.Inputs = append(r.Inputs, map[string]any{
		"name": name, "datatype": "BYTES", "shape": []int{len(values)}, "data": values,
	})
	return r
}

// texts begins a request about texts, or pairs of them.
func texts(cases ...encoded) *textRequest {
	var first, second []string
	for _, c := range cases {
		first = append(first, c.Text)
		if c.Pair != nil {
			second = append(second, *c.Pair)
		}
	}
	r := (&textRequest{}).strings("text", first...)
	if second != nil {
		r.strings("text_pair", second...)
	}
	return r
}

// tokensOf begins the same request with the ids of the texts, padded to one length.
func tokensOf(cases ...encoded) *textRequest {
	longest := 0
	for _, c := range cases {
		longest = max(longest, len(c.IDs))
	}
	padded := func(values []int) []int { return append(slices.Clone(values), make([]int, longest-len(values))...) }
	var rows, mask, types [][]int
	for _, c := range cases {
		rows, types = append(rows, padded(c.IDs)), append(types, padded(c.Types))
		mask = append(mask, padded(slices.Repeat([]int{1}, len(c.IDs))))
	}
	return ids(rows...).mask(mask...).types(types...)
}

// A text is answered as the ids of its tokens are, whatever script it is in and however long; a pair too, by its types.
func TestTextsAreAnsweredAsTheirTokens(t *testing.T) {
	f := newWordyFront(t)
	alone, pairs := readEncoded(t)
	cut := 0
	for cases := range slices.Chunk(slices.Concat(alone[:64], pairs), maxRows) {
		if cases[len(cases)-1].Pair != nil && cases[0].Pair == nil {
			t.Fatal("a request has pairs, or none")
		}
		for _, c := range cases {
			if len(c.IDs) == maxTokens {
				cut++
			}
		}
		asked := slices.Repeat([]string{"topics", "", "tags", "names"}, maxRows)[:len(cases)]
		want := f.infer(t, "texts", tokensOf(cases...).ask(asked...).want("logits", "token_logits", "label"))
		got := f.infer(t, "texts", texts(cases...).ask(asked...).want("logits", "token_logits", "label"))
		for name, w := range want {
			if g := got[name]; !slices.Equal(g.Shape, w.Shape) || string(g.Data) != string(w.Data) {
				t.Errorf("%q: %s: expected %v %s, found %v %s", cases[0].Text, name, w.Shape, w.Data, g.Shape, g.Data)
			}
		}
	}
	if cut == 0 {
		t.Error("expected texts among them that are cut to the model's length, found none")
	}
	single := pairs[0]
	single.Pair = nil
	if a, b := f.infer(t, "topics", texts(single)), f.infer(t, "topics", texts(pairs[0])); string(a["logits"].Data) ==
		string(b["logits"].Data) {
		t.Error("expected the second text to count")
	}
}

// transformers' pipeline takes no pairs, so a pair has no entities, whatever its second text has; what is asked of its
// tokens it has.
func TestAPairHasNoEntities(t *testing.T) {
	f := newWordyFront(t)
	const n = 6
	var first, second []string
	for i := range n {
		first, second = append(first, "a"), append(second, strings.Repeat("word ", i)+"🤖 日本 🤖")
	}
	names := slices.Repeat([]string{"names"}, n)
	r := (&textRequest{}).strings("text", first...).strings("text_pair", second...).ask(names...)
	if got := dataOf[string](t, f.infer(t, "texts", r)["entities"]); !slices.Equal(got, make([]string, n)) {
		t.Errorf("expected none, found %q", got)
	}
	alone := (&textRequest{}).strings("text", second...).ask(names...)
	for i, entities := range dataOf[string](t, f.infer(t, "texts", alone)["entities"]) {
		if !json.Valid([]byte(entities)) {
			t.Errorf("%q alone: expected a list, found %q", second[i], entities)
		}
	}
	offsets := f.infer(t, "texts", r.want("token_offsets"))["token_offsets"]
	if len(offsets.Shape) != 3 || offsets.Shape[0] != n {
		t.Errorf("expected the offsets of %d pairs, found %v", n, offsets.Shape)
	}
}

// Offsets count characters, not bytes nor halves of UTF-16, and stand beside the logits of the same tokens.
func TestTheOffsetsOfTokens(t *testing.T) {
	f := newWordyFront(t)
	alone, _ := readEncoded(t)
	astral := func(c encoded) bool { return strings.ContainsFunc(c.Text, func(r rune) bool { return r > 0xffff }) }
	var cases []encoded
	for _, c := range alone {
		if astral(c) && len(cases) < maxRows-2 || strings.Contains(c.Text, "combining") || strings.Contains(c.Text, "日本") {
			cases = append(cases, c)
		}
	}
	if len(cases) < 4 || !slices.ContainsFunc(cases, astral) {
		t.Fatalf("expected texts with characters beyond 16 bits, found %d", len(cases))
	}
	cases = cases[:min(len(cases), maxRows)]
	asked := slices.Repeat([]string{"names"}, len(cases))
	asked[1] = "topics" // which has no answer for each token, and so no tokens
	got := f.infer(t, "texts", texts(cases...).ask(asked...).want("token_offsets", "token_logits"))
	longest := 0
	for i, c := range cases {
		if asked[i] == "names" {
			longest = max(longest, len(c.IDs))
		}
	}
	offsets, logits := got["token_offsets"], got["token_logits"]
	if want := []int{len(cases), longest, 2}; offsets.Datatype != "INT32" || !slices.Equal(offsets.Shape, want) {
		t.Fatalf("token_offsets: expected INT32 %v, found %s %v", want, offsets.Datatype, offsets.Shape)
	}
	if want := []int{len(cases), longest, 4}; !slices.Equal(logits.Shape, want) {
		t.Fatalf("token_logits: expected %v, found %v", want, logits.Shape)
	}
	values := dataOf[int](t, offsets)
	for i, c := range cases {
		want := make([]int, 2*longest)
		if asked[i] == "names" {
			for n, o := range c.Offsets {
				want[2*n], want[2*n+1] = o[0], o[1]
			}
		}
		if row := values[i*2*longest : (i+1)*2*longest]; !slices.Equal(row, want) {
			t.Errorf("row %d, %q: expected %v, found %v", i, c.Text, want, row)
		}
	}
	// Ids are of no text: they have no places in one.
	byID := f.infer(t, "names", tokensOf(cases[0]).want("token_offsets"))["token_offsets"]
	if !slices.Equal(byID.Shape, []int{1, len(cases[0].IDs), 2}) ||
		slices.ContainsFunc(dataOf[int](t, byID), func(v int) bool { return v != 0 }) {
		t.Errorf("of ids: expected zeros, found %v %s", byID.Shape, byID.Data)
	}
}

// Classifiers of texts and of tokens share a request: each row has the outputs that it can have.
func TestEntitiesBesideLabels(t *testing.T) {
	f := newWordyFront(t)
	const said = "Ada Lovelace met 🙂 Charles Babbage in London"
	rows := []string{said, said, said, ""}
	got := f.infer(t, "texts", (&textRequest{}).strings("text", rows...).ask("names", "topics", "", "names"))
	found, labels := dataOf[string](t, got["entities"]), dataOf[string](t, got["label"])
	if n := dataOf[int](t, got["num_labels"]); !slices.Equal(n, []int{0, 2, 3, 0}) {
		t.Errorf("num_labels: expected [0 2 3 0], found %v", n)
	}
	if labels[0] != "" || labels[1] == "" || labels[2] == "" || found[1] != "" || found[2] != "" || found[3] != "[]" {
		t.Errorf("expected labels of texts and entities of tokens, found %q and %q", labels, found)
	}
	offsets := dataOf[int](t, f.infer(t, "names", (&textRequest{}).strings("text", said).
		want("token_offsets"))["token_offsets"])
	begins, ends := map[int]bool{}, map[int]bool{}
	for token := range slices.Chunk(offsets, 2) {
		begins[token[0]], ends[token[1]] = true, true
	}
	var entities []struct {
		Group string `json:"entity_group"`
		Score float64
		Word  string
		Start int
		End   int
	}
	if err := json.Unmarshal([]byte(found[0]), &entities); err != nil {
		t.Fatal(err)
	}
	if len(entities) == 0 {
		t.Fatal("expected entities, found none: with other weights there may be some")
	}
	characters, last := []rune(said), 0
	for _, e := range entities {
		if e.Start < last || e.End <= e.Start || e.End > len(characters) || !begins[e.Start] || !ends[e.End] ||
			!(e.Score > 0.25 && e.Score <= 1) || e.Group != "PER" && e.Group != "LOC" {
			t.Errorf("expected runs of tokens, one behind the other, found %+v", e)
			continue
		}
		own := strings.ToLower(string(characters[e.Start:e.End]))
		if word := strings.TrimPrefix(strings.ReplaceAll(e.Word, " ", ""), "##"); word != strings.ReplaceAll(own, " ", "") {
			t.Errorf("%+v: expected the word %q", e, own)
		}
		last = e.End
	}
	// Nobody who asks by ids says what the text was, and who has no tokens has no entities to list.
	byID := f.infer(t, "names", ids([]int{2, 50, 3}))
	if e := dataOf[string](t, byID["entities"]); !slices.Equal(e, []string{""}) {
		t.Errorf("of ids: expected none, found %q", e)
	}
	if o, ok := f.infer(t, "topics", (&textRequest{}).strings("text", said))["entities"]; ok {
		t.Errorf("of a text: expected no such output, found %s", o.Data)
	}
}

func TestMetadataOfABaseWithATokenizer(t *testing.T) {
	f := newWordyFront(t)
	expectLines(t, "the base", f.describe(t, "texts"),
		"input_ids INT64 [-1 -1]", "text BYTES [-1]", "text_pair BYTES [-1]", "entities BYTES [-1]",
		"token_offsets INT32 [-1 -1 2]")
	expectLines(t, "an adapter", f.describe(t, "names"), "text BYTES [-1]", "text_pair BYTES [-1]")
}

func TestTextsRefused(t *testing.T) {
	f := newWordyFront(t)
	raw := func(inputs ...string) string { return `{"inputs": [` + strings.Join(inputs, ", ") + `]}` }
	input := func(name, datatype, shape, data string) string {
		return fmt.Sprintf(`{"name": %q, "datatype": %q, "shape": %s, "data": %s}`, name, datatype, shape, data)
	}
	long := strings.Repeat("x", tokenfiles.MaxText(16)/2+1)
	for _, c := range []struct {
		name, body string
		code       int
		message    string
	}{
		{
			"a text too long", (&textRequest{}).strings("text", "a", long+long).body(t), http.StatusUnprocessableEntity,
			`input "text": row 1: expected a text of at most 65536 bytes, found 65538`,
		},
		{
			"a pair too long", (&textRequest{}).strings("text", long).strings("text_pair", long).body(t),
			http.StatusUnprocessableEntity, `input "text": row 0: expected a text of at most 65536 bytes, found 65538`,
		},
		{
			"two dimensions", raw(input("text", "BYTES", "[1,2]", `["a","b"]`)), 400,
			`input "text": shape: expected [B], found [1, 2]`,
		},
		{"no rows", raw(input("text", "BYTES", "[0]", `[]`)), 400, `input "text": shape: expected [B], found [0]`},
		{
			"another datatype", raw(input("text", "INT64", "[1]", `[1]`)), 400,
			`input "text": datatype: expected BYTES, found "INT64"`,
		},
		{
			"a number", raw(input("text", "BYTES", "[2]", `["a",1]`)), 400,
			`input "text": row 1: expected a string, found 1`,
		},
		{
			"null", raw(input("text", "BYTES", "[2]", `[null,"a"]`)), 400,
			`input "text": row 0: expected a string, found null`,
		},
		{
			"fewer texts than rows", raw(input("text", "BYTES", "[2]", `["a"]`)), 400,
			`input "text": data: expected 2 elements`,
		},
		{
			"fewer pairs than texts",
			raw(input("text", "BYTES", "[2]", `["a","b"]`), input("text_pair", "BYTES", "[1]", `["c"]`)), 400,
			`input "text_pair": shape: expected [2], found [1]`,
		},
		{
			"a pair that is null",
			raw(input("text", "BYTES", "[2]", `["a","b"]`), input("text_pair", "BYTES", "[2]", `["c",null]`)), 400,
			`input "text_pair": row 1: expected a string, found null`,
		},
		{
			"a pair alone", raw(input("text_pair", "BYTES", "[1]", `["a"]`)), 400,
			`input "text_pair" is not one of [input_ids text]`,
		},
		{
			"a pair of ids", ids([]int{2, 3}).strings("text_pair", "a").body(t), 400,
			`input "text_pair" is not one of [input_ids text]`,
		},
		{
			"a mask of a text", (&textRequest{}).strings("text", "a").mask([]int{1}).body(t), 400,
			`input "attention_mask" is not one of [input_ids text]`,
		},
		{
			"texts and ids", (&textRequest{}).strings("text", "a").tensor("input_ids", []int{2, 3}).body(t), 400,
			`expected one input beside adapter, found "text" and "input_ids"`,
		},
		{
			"half a character", raw(input("text", "BYTES", "[1]", `["\ud83d"]`)), 400, `"text": row 0: `,
		},
		{
			"too many rows", (&textRequest{}).strings("text", slices.Repeat([]string{"a"}, maxRows+1)...).body(t), 400,
			`input "text": shape: expected at most 8 rows in a request, found 9`,
		},
		{
			"an adapter of nobody", (&textRequest{}).strings("text", "a", "b").ask("topics", "nobody").body(t), 404,
			`input "adapter": row 1: adapter "nobody": unknown`,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, body, _ := f.do(t, "POST", "/v2/models/texts/infer", c.body)
			var refusal struct{ Error string }
			if err := json.Unmarshal([]byte(body), &refusal); err != nil {
				t.Errorf("expected {\"error\": …}, found %s", body)
			}
			if code != c.code || !strings.Contains(refusal.Error, c.message) {
				t.Errorf("expected %d with %q, found %d: %s", c.code, c.message, code, refusal.Error)
			}
			again := f.infer(t, "texts", (&textRequest{}).strings("text", "a"))
			if labels := dataOf[string](t, again["label"]); len(labels) != 1 || labels[0] == "" {
				t.Errorf("the next request: expected a label, found %q", labels)
			}
		})
	}
}

// A base of images takes no texts, and says what it takes.
func TestATextToABaseOfImages(t *testing.T) {
	f := newFront(t)
	code, body, _ := f.do(t, "POST", "/v2/models/digits/infer", (&textRequest{}).strings("text", "a").body(t))
	if code != http.StatusBadRequest || !strings.Contains(body, `input \"text\" is not one of [pixel_values image]`) {
		t.Errorf("expected 400 with what it takes, found %d: %s", code, body)
	}
}
