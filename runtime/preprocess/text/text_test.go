package text_test

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/switchyard-dev/switchyard/runtime/preprocess/text"
	"github.com/switchyard-dev/switchyard/runtime/preprocess/tokenfiles"
)

// golden is what HuggingFace's own library makes of texts (hack/golden/texts.py).
type golden struct {
	MaxTokens int             `json:"max_tokens"`
	Vocab     string          `json:"vocab"` // the file's name; "" is vocab.txt
	Config    json.RawMessage `json:"config"`
	Files     struct {
		Added    json.RawMessage `json:"added_tokens.json"`
		Specials json.RawMessage `json:"special_tokens_map.json"`
	} `json:"files"`
	Cases []struct {
		Text    string   `json:"text"`
		Pair    *string  `json:"pair"`
		IDs     []int32  `json:"ids"`
		Types   []int32  `json:"types"`
		Special []int    `json:"special"`
		Offsets [][2]int `json:"offsets"`
	} `json:"cases"`
}

func read(t testing.TB, path ...string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(append([]string{"testdata"}, path...)...))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func readGolden(t testing.TB, path ...string) (g golden) {
	t.Helper()
	if err := json.Unmarshal(read(t, path...), &g); err != nil {
		t.Fatal(err)
	}
	if testing.Short() { // under the race detector the module takes its time
		g.Cases = g.Cases[:min(20, len(g.Cases))]
	}
	return g
}

func open(t testing.TB, files tokenfiles.Files, most int) *text.Tokenizer {
	t.Helper()
	resolved, err := files.Resolve("bert", most)
	if err != nil {
		t.Fatal(err)
	}
	tokenizer, err := text.Open(t.Context(), resolved, text.Options{Instances: 2, Memory: room, CacheDir: cache})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tokenizer.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
	return tokenizer
}

// room is enough for small vocabularies.
const room = 64 << 20

// cache keeps the compiled module for the tests of one run.
var cache string

func TestMain(m *testing.M) {
	var err error
	if cache, err = os.MkdirTemp("", "switchyard-text-"); err != nil {
		panic(err)
	}
	code := m.Run()
	_ = os.RemoveAll(cache)
	os.Exit(code)
}

func (g *golden) compare(t *testing.T, tokenizer *text.Tokenizer) {
	t.Helper()
	for _, c := range g.Cases {
		e, err := tokenizer.Encode(t.Context(), c.Text, c.Pair, true)
		if err != nil {
			t.Errorf("%q: %v", c.Text, err)
			continue
		}
		special := make([]bool, len(c.Special))
		for i := range special {
			special[i] = c.Special[i] == 1
		}
		if !slices.Equal(e.IDs, c.IDs) || !slices.Equal(e.Types, c.Types) || !slices.Equal(e.Special, special) ||
			!slices.Equal(e.Offsets, c.Offsets) {
			t.Errorf("%q, %v: expected %+v, found %+v", c.Text, c.Pair, c, *e)
		}
	}
}

func TestTokensAreThoseOfPythonsLibrary(t *testing.T) {
	for _, kind := range []string{"wordpiece", "bytelevel", "bytefallback", "unigram"} {
		t.Run(kind, func(t *testing.T) {
			g := readGolden(t, kind, "golden.json")
			g.compare(t, open(t, tokenfiles.Files{Tokenizer: read(t, kind, "tokenizer.json")}, g.MaxTokens))
		})
	}
}

// A BERT that has no tokenizer.json gets the one that transformers would make.
func TestAVocabularyIsEnoughForABERT(t *testing.T) {
	for _, name := range []string{
		"lower", "cased", "chinese", "accents", "lower-accents", "objects", "decoder", "twice",
		"added", "added-cased", "added-special", "added-decoder", "map", "map-words",
	} {
		t.Run(name, func(t *testing.T) {
			g := readGolden(t, "vocab", name+".json")
			g.compare(t, open(t, g.vocabulary(t), g.MaxTokens))
		})
	}
}

// vocabulary is the files of a BERT that has no tokenizer.json.
func (g *golden) vocabulary(t *testing.T) tokenfiles.Files {
	t.Helper()
	return tokenfiles.Files{
		Vocab: read(t, "vocab", cmp.Or(g.Vocab, "vocab.txt")), Config: g.Config,
		Added: g.Files.Added, Specials: g.Files.Specials,
	}
}

// Texts that are too long lose their beginning where tokenizer_config.json says so.
func TestTextsCutOnTheLeft(t *testing.T) {
	for _, kind := range []string{"wordpiece", "bytelevel", "bytefallback", "unigram"} {
		t.Run(kind, func(t *testing.T) {
			g := readGolden(t, kind, "left.json")
			g.compare(t, open(t, tokenfiles.Files{Tokenizer: read(t, kind, "tokenizer.json"), Config: g.Config}, g.MaxTokens))
		})
	}
	t.Run("vocabulary", func(t *testing.T) {
		g := readGolden(t, "vocab", "left.json")
		g.compare(t, open(t, g.vocabulary(t), g.MaxTokens))
	})
}

// broken is a tokenizer that traps on pairs of texts alone: their template names a token that nobody knows.
func broken(t *testing.T, tokenizer string) string {
	t.Helper()
	at := strings.Index(tokenizer, `"pair":`)
	if at < 0 {
		t.Fatal("expected a template of pairs, found none")
	}
	return tokenizer[:at] + strings.Replace(tokenizer[at:], `"id":"[SEP]"`, `"id":"[X]"`, 1)
}

func TestBadTokenizers(t *testing.T) {
	good := string(read(t, "wordpiece", "tokenizer.json"))
	for what, json := range map[string]string{
		"empty": "", "no JSON": "{", "no model": `{"version": "1.0"}`,
		"an unknown model": `{"version": "1.0", "model": {"type": "X"}}`,
		// Loads, and traps on its first text, or its first pair.
		"a template of an unknown token": strings.Replace(good, `"special_tokens":{"[CLS]":`, `"special_tokens":{"[X]":`, 1),
		"a template of pairs alone":      broken(t, good),
	} {
		resolved := tokenfiles.Resolved{Tokenizer: []byte(json), MaxTokens: 8}
		tokenizer, err := text.Open(t.Context(), resolved, text.Options{Instances: 1, Memory: room, CacheDir: cache})
		if err == nil {
			_ = tokenizer.Close(t.Context())
			t.Errorf("%s: expected an error, found none", what)
		} else if len(err.Error()) > 1000 {
			t.Errorf("%s: expected a short error, found %d bytes", what, len(err.Error()))
		}
	}
}

func TestTextsRefused(t *testing.T) {
	tokenizer := open(t, tokenfiles.Files{Tokenizer: read(t, "wordpiece", "tokenizer.json")}, 16)
	most := tokenfiles.MaxText(16)
	long := strings.Repeat("x", most/2+1)
	for _, c := range []struct {
		text string
		pair *string
		err  string
	}{
		{long + long, nil, "expected a text of at most 65536 bytes, found 65538"},
		{long, &long, "expected a text of at most 65536 bytes, found 65538"},
		{"a\xffb", nil, "expected UTF-8"},
	} {
		_, err := tokenizer.Encode(t.Context(), c.text, c.pair, false)
		var refused *text.InputError
		if !errors.As(err, &refused) || err.Error() != c.err {
			t.Errorf("expected %q, found %v", c.err, err)
		}
	}
	e, err := tokenizer.Encode(t.Context(), strings.Repeat("a ", most/2), nil, false)
	if err != nil || len(e.IDs) != 16 {
		t.Errorf("the longest: expected 16 tokens, found %v, %v", e, err)
	}
}

// A call that takes too long ends, and its instance is thrown away.
func TestACallThatTakesTooLong(t *testing.T) {
	tokenizer := open(t, tokenfiles.Files{Tokenizer: read(t, "wordpiece", "tokenizer.json")}, 16)
	tokenizer.Wait(time.Millisecond)
	for _, what := range []string{"a long text", "another, for which an instance has to be made"} {
		_, err := tokenizer.Encode(t.Context(), strings.Repeat("a ", tokenfiles.MaxText(16)/2), nil, false)
		var refused *text.InputError
		if err == nil || errors.As(err, &refused) || err.Error() != "the tokenizer did not end within 1ms" {
			t.Errorf("%s: expected it to be ended, found %v", what, err)
		}
		if in := tokenizer.MemoryInUse(); len(in) != 0 {
			t.Errorf("%s: expected no instance kept, found %d", what, len(in))
		}
	}
	tokenizer.Wait(time.Minute)
	if e, err := tokenizer.Encode(t.Context(), "a text", nil, false); err != nil || len(e.IDs) < 3 {
		t.Errorf("the next text: expected its tokens, found %+v, %v", e, err)
	}
}

// The module is compiled once for all processes that have the folder.
func TestTheModuleIsCompiledOnce(t *testing.T) {
	if testing.Short() {
		t.Skip("not in the short form: the race detector compiles for a minute")
	}
	dir := t.TempDir()
	resolved := tokenfiles.Resolved{Tokenizer: read(t, "wordpiece", "tokenizer.json"), MaxTokens: 16}
	kept := map[string]time.Time{}
	for process := range 2 {
		tokenizer, err := text.Open(t.Context(), resolved, text.Options{Instances: 1, Memory: room, CacheDir: dir})
		if err != nil {
			t.Fatal(err)
		}
		if err := tokenizer.Close(t.Context()); err != nil {
			t.Error(err)
		}
		found := map[string]time.Time{}
		if err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() {
				return err
			}
			info, err := entry.Info()
			found[path] = info.ModTime()
			return err
		}); err != nil {
			t.Fatal(err)
		}
		if process == 0 && len(found) > 0 {
			kept = found
		} else if !maps.Equal(found, kept) || len(kept) == 0 {
			t.Errorf("process %d: expected what was compiled to be kept and read again, %v, found %v", process, kept, found)
		}
	}
}

// An instance that has trapped is thrown away, and the next text is encoded by another.
func TestATrapCostsOneInstance(t *testing.T) {
	whole := string(read(t, "wordpiece", "tokenizer.json"))
	resolved := tokenfiles.Resolved{Tokenizer: []byte(whole), MaxTokens: 16}
	tokenizer, err := text.Open(t.Context(), resolved, text.Options{Instances: 1, Memory: room, CacheDir: cache})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tokenizer.Close(context.WithoutCancel(t.Context())) })
	want, err := tokenizer.Encode(t.Context(), "a text", nil, false)
	if err != nil {
		t.Fatal(err)
	}
	tokenizer.Replace([]byte(broken(t, whole)))
	for range 3 {
		second := "b"
		_, err := tokenizer.Encode(t.Context(), "a", &second, false)
		var refused *text.InputError
		if err == nil || errors.As(err, &refused) || !strings.Contains(err.Error(), "the tokenizer gave up: ") {
			t.Errorf("expected a trap, found %v", err)
		}
		if in := tokenizer.MemoryInUse(); len(in) != 0 {
			t.Errorf("expected no instance kept, found %d", len(in))
		}
		if got, err := tokenizer.Encode(t.Context(), "a text", nil, false); err != nil || !slices.Equal(got.IDs, want.IDs) {
			t.Errorf("after a trap: expected %v, found %+v, %v", want.IDs, got, err)
		}
	}
}

// More callers than instances: each gets its own text's tokens.
func TestManyCallersAtOnce(t *testing.T) {
	g := readGolden(t, "bytelevel", "golden.json")
	tokenizer := open(t, tokenfiles.Files{Tokenizer: read(t, "bytelevel", "tokenizer.json")}, g.MaxTokens)
	var callers sync.WaitGroup
	for caller := range 8 {
		callers.Go(func() {
			for i := range g.Cases {
				c := g.Cases[(i+caller*7)%len(g.Cases)]
				e, err := tokenizer.Encode(t.Context(), c.Text, c.Pair, false)
				if err != nil || !slices.Equal(e.IDs, c.IDs) {
					t.Errorf("%q: expected %v, found %v, %v", c.Text, c.IDs, e, err)
					return
				}
			}
		})
	}
	callers.Wait()
	if in := tokenizer.MemoryInUse(); len(in) < 1 || len(in) > 2 {
		t.Errorf("expected as many instances as may be used at once, 2 at most, found %d", len(in))
	}
}

// The module that is committed is what its digest says and, where the compiler is at hand, what its source makes.
func TestTheModuleIsWhatItsSourceMakes(t *testing.T) {
	module, err := os.ReadFile("tokenizer.wasm")
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(module)
	digest, err := os.ReadFile("tokenizer.wasm.sha256")
	if err != nil {
		t.Fatal(err)
	}
	if want := hex.EncodeToString(sum[:]) + "  tokenizer.wasm\n"; string(digest) != want {
		t.Fatalf("tokenizer.wasm.sha256: expected %q, found %q", want, digest)
	}
	list := exec.CommandContext(t.Context(), "rustup", "target", "list", "--toolchain", "1.95.0", "--installed")
	out, err := list.Output()
	if testing.Short() || err != nil || !slices.Contains(strings.Fields(string(out)), "wasm32-unknown-unknown") {
		t.Skip("no Rust 1.95.0 with the target wasm32-unknown-unknown: the module was held to its digest alone")
	}
	made := filepath.Join(t.TempDir(), "made.wasm")
	build := exec.CommandContext(t.Context(), "../../../hack/tokenizer/build", made)
	if said, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	again, err := os.ReadFile(made)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(again, module) {
		t.Errorf("hack/tokenizer/build makes another module: %x, of %d bytes", sha256.Sum256(again), len(again))
	}
}
