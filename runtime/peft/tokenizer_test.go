package peft_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/switchyard-dev/switchyard/runtime/peft"
	"github.com/switchyard-dev/switchyard/runtime/weights"
	"github.com/switchyard-dev/switchyard/test/wrappers"
)

// tokenizerJSON is a tokenizer.json of that kind, as Python's tokenizers wrote it (hack/golden/texts.py).
func tokenizerJSON(t testing.TB, kind string) []byte {
	t.Helper()
	return readText(t, kind, "tokenizer.json")
}

func readText(t testing.TB, path ...string) []byte {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(append([]string{"..", "preprocess", "text", "testdata"}, path...)...))
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func readTokenizer(t testing.TB, raw []byte) *peft.Tokenizer {
	t.Helper()
	tokenizer, err := peft.ReadTokenizer(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	return tokenizer
}

type object = map[string]any

// edited is a tokenizer.json that was read, changed and written again, its keys in another order.
func edited(t testing.TB, raw []byte, change func(file object)) []byte {
	t.Helper()
	var file object
	if err := json.Unmarshal(raw, &file); err != nil {
		t.Fatal(err)
	}
	change(file)
	again, err := json.MarshalIndent(file, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return again
}

func part(file object, path ...any) object {
	var at any = file
	for _, step := range path {
		switch step := step.(type) {
		case string:
			at = at.(object)[step]
		case int:
			at = at.([]any)[step]
		}
	}
	return at.(object)
}

// check checks the tokenizer in these files beside an adapter.
func check(t testing.TB, base *peft.Tokenizer, files map[string][]byte) error {
	t.Helper()
	a := wrappers.Adapter(t)
	for name, data := range files {
		a.File(name, data)
	}
	folder, err := weights.OpenFolder(a.Write())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = folder.Close() }()
	if peft.BringsTokenizer(folder) != (len(files) > 0) {
		t.Errorf("expected to be told of the files %v", slices.Collect(maps.Keys(files)))
	}
	return peft.CheckTokenizer(folder, base)
}

// A Trainer leaves its tokenizer beside the adapter, with how it cut and padded in it, and in the form of its own
// version of the library.
func TestTheSameTokenizerIsFine(t *testing.T) {
	for name, c := range map[string]struct {
		kind   string
		change func(file object)
	}{
		"WordPiece, written anew": {"wordpiece", func(object) {}},
		"BPE, written anew":       {"bytelevel", func(object) {}},
		"BPE of bytes, anew":      {"bytefallback", func(object) {}},
		"Unigram, written anew":   {"unigram", func(object) {}},
		"cut and padded, with another decoder": {"wordpiece", func(file object) {
			file["truncation"] = object{"direction": "Right", "max_length": 128, "strategy": "LongestFirst", "stride": 0}
			file["padding"] = object{"strategy": "BatchLongest", "direction": "Right", "pad_id": 0, "pad_token": "[PAD]"}
			file["decoder"], file["version"] = nil, "2.0"
		}},
		"a special token that takes the space before it": {"wordpiece", func(file object) {
			part(file, "added_tokens", 4)["lstrip"] = true
		}},
		"accents stripped because of lower case": {"wordpiece", func(file object) {
			part(file, "normalizer")["strip_accents"] = true
		}},
		"a sequence of one": {"wordpiece", func(file object) {
			file["pre_tokenizer"] = object{"type": "Sequence", "pretokenizers": []any{file["pre_tokenizer"]}}
		}},
		"a BPE of old": {"bytelevel", func(file object) {
			model := part(file, "model")
			for _, since := range []string{"type", "byte_fallback", "ignore_merges", "fuse_unk"} {
				delete(model, since)
			}
			model["continuing_subword_prefix"], model["end_of_word_suffix"] = "", ""
			merges := model["merges"].([]any)
			for i, pair := range merges {
				merges[i] = pair.([]any)[0].(string) + " " + pair.([]any)[1].(string)
			}
			delete(part(file, "pre_tokenizer"), "use_regex")
		}},
		"a Metaspace of old": {"unigram", func(file object) {
			file["pre_tokenizer"] = object{
				"type": "Metaspace", "replacement": "▁", "str_rep": "▁", "add_prefix_space": true,
			}
		}},
	} {
		raw := tokenizerJSON(t, c.kind)
		err := check(t, readTokenizer(t, raw), map[string][]byte{
			"tokenizer.json": edited(t, raw, c.change), "tokenizer_config.json": []byte(`{"model_max_length": 128}`),
			"added_tokens.json": []byte("not read, as transformers does not"),
		})
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := check(t, readTokenizer(t, tokenizerJSON(t, "unigram")), nil); err != nil {
		t.Errorf("none: %v", err)
	}
	if err := check(t, nil, map[string][]byte{"tokenizer.json": []byte("{")}); err != nil {
		t.Errorf("a base that takes no texts: %v", err)
	}
}

// What transformers 4 and 5 really write beside an adapter (hack/golden/saved.py) is the tokenizer that they were
// given.
func TestWhatTransformersSavesIsTheSameTokenizer(t *testing.T) {
	saved, err := filepath.Glob("testdata/tokenizers/*.json")
	if err != nil || len(saved) < 8 {
		t.Fatalf("expected a file of each kind and version, found %v, %v", saved, err)
	}
	for _, path := range saved {
		kind, _, _ := strings.Cut(filepath.Base(path), "-")
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		base := tokenizerJSON(t, kind)
		if bytes.Equal(raw, base) {
			t.Errorf("%s: expected another form of it", path)
		}
		if err := check(t, readTokenizer(t, base), map[string][]byte{"tokenizer.json": raw}); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestAnotherTokenizerIsRefused(t *testing.T) {
	const ending = ": the base's tokenizer is used for all of its adapters"
	for name, c := range map[string]struct {
		kind   string
		change func(file object)
		err    string
	}{
		"a word more": {"wordpiece", func(file object) {
			part(file, "model", "vocab")["customer"] = 600
		}, `vocabulary: expected the base's 600 words, found 601`},
		"two words that changed places": {"wordpiece", func(file object) {
			vocab := part(file, "model", "vocab")
			vocab["a"], vocab["b"] = vocab["b"], vocab["a"]
		}, `vocabulary: expected the base's 600 words, found as many others`},
		"another score": {"unigram", func(file object) {
			file["model"].(object)["vocab"].([]any)[9].([]any)[1] = -1.5
		}, `words, found as many others`},
		"a token added": {"wordpiece", func(file object) {
			file["added_tokens"] = append(file["added_tokens"].([]any), object{"id": 600, "content": "[USER]"})
		}, `added_tokens: 600: expected none, found "[USER]"`},
		"a token renamed": {"wordpiece", func(file object) {
			part(file, "added_tokens", 4)["content"] = "<mask>"
		}, `added_tokens: 4: expected "[MASK]", found "<mask>"`},
		"a token that is no longer special": {"wordpiece", func(file object) {
			part(file, "added_tokens", 4)["special"] = false
		}, `added_tokens: 4 "[MASK]": expected special true, single_word false, lstrip false, rstrip false, ` +
			`normalized false, found special false, single_word`},
		"a token less": {"wordpiece", func(file object) {
			file["added_tokens"] = file["added_tokens"].([]any)[:4]
		}, `added_tokens: 4: expected "[MASK]", found none`},
		"a pair less": {"bytelevel", func(file object) {
			model := part(file, "model")
			model["merges"] = model["merges"].([]any)[1:]
		}, `merges: expected the base's `},
		"pairs in another order": {"bytelevel", func(file object) {
			merges := part(file, "model")["merges"].([]any)
			merges[0], merges[1] = merges[1], merges[0]
		}, `pairs, found as many others`},
		"cased": {"wordpiece", func(file object) {
			part(file, "normalizer")["lowercase"] = false
		}, `normalizer: expected the base's {"clean_text":true,"handle_chinese_chars":true,"lowercase":true,` +
			`"strip_accents":true,"type":"BertNormalizer"}, found {"clean_text":true,"handle_chinese_chars":true,` +
			`"type":"BertNormalizer"}`},
		"accents kept": {"wordpiece", func(file object) {
			part(file, "normalizer")["strip_accents"] = false
		}, `normalizer: expected the base's {`},
		"a space before the text": {"bytelevel", func(file object) {
			part(file, "pre_tokenizer")["add_prefix_space"] = true
		}, `pre_tokenizer: expected the base's {"type":"ByteLevel"}, found {"add_prefix_space":true,"type":"ByteLevel"}`},
		"no space before the text": {"unigram", func(file object) {
			file["pre_tokenizer"] = object{"type": "Metaspace", "replacement": "▁", "add_prefix_space": false}
		}, `pre_tokenizer: expected the base's {"prepend_scheme":"always",`},
		"another template": {"wordpiece", func(file object) {
			processor := part(file, "post_processor")
			processor["single"] = processor["pair"]
		}, `post_processor: expected the base's {"pair":[`},
		"another unknown token": {"wordpiece", func(file object) {
			part(file, "model")["unk_token"] = "[PAD]"
		}, `model: expected the base's {"continuing_subword_prefix":"##",`},
	} {
		raw := tokenizerJSON(t, c.kind)
		err := check(t, readTokenizer(t, raw), map[string][]byte{"tokenizer.json": edited(t, raw, c.change)})
		var misfit *peft.MisfitError
		if !errors.As(err, &misfit) || !strings.HasPrefix(err.Error(), "tokenizer.json: ") ||
			!strings.Contains(err.Error(), c.err) || !strings.HasSuffix(err.Error(), ending) {
			t.Errorf("%s: expected a misfit with %q, found %v", name, c.err, err)
		}
	}
}

// Old BERTs, and what slow tokenizers leave, say it by a vocab.txt.
func TestVocabularies(t *testing.T) {
	vocab := readText(t, "vocab", "vocab.txt")
	words, err := peft.ReadVocabulary(bytes.NewReader(vocab))
	if err != nil {
		t.Fatal(err)
	}
	file := readTokenizer(t, tokenizerJSON(t, "wordpiece"))
	for _, c := range []struct {
		name  string
		base  *peft.Tokenizer
		files map[string][]byte
		err   string
	}{
		{"the same", words, map[string][]byte{"vocab.txt": vocab}, ""},
		{"the tokenizer made of it", words, map[string][]byte{"tokenizer.json": tokenizerJSON(t, "wordpiece")}, ""},
		{"what a tokenizer was made of", file, map[string][]byte{"vocab.txt": vocab}, ""},
		{
			"a word more", file,
			map[string][]byte{"vocab.txt": append(slices.Clone(vocab), "customer\n"...)},
			"vocab.txt: vocabulary: expected the base's 600 words, found 601",
		},
		{
			"a token that the base has no place for", words,
			map[string][]byte{"tokenizer.json": edited(t, tokenizerJSON(t, "wordpiece"), func(file object) {
				file["added_tokens"] = append(file["added_tokens"].([]any), object{"id": 600, "content": "[USER]"})
			})},
			`tokenizer.json: added tokens: 600: expected none, found "[USER]"`,
		},
		{
			"added tokens", file,
			map[string][]byte{"vocab.txt": vocab, "added_tokens.json": []byte(`{"[USER]": 600}`)},
			`added_tokens.json: added tokens: 600: expected none, found "[USER]"`,
		},
		{"known tokens", file, map[string][]byte{"added_tokens.json": []byte(`{"[MASK]": 4}`)}, ""},
		{
			"known tokens of other names", file,
			map[string][]byte{"added_tokens.json": []byte(`{"<mask>": 4}`)},
			`added_tokens.json: added tokens: 4: expected "[MASK]", found "<mask>"`,
		},
		{
			"tokens of a config", file,
			map[string][]byte{"tokenizer_config.json": []byte(
				`{"added_tokens_decoder": {"4": {"content": "[MASK]"}, "601": {"content": "[USER]", "special": true}}}`,
			)},
			`tokenizer_config.json: added tokens: 601: expected none, found "[USER]"`,
		},
		{
			"a config without any", file,
			map[string][]byte{"tokenizer_config.json": []byte(`{"model_max_length": 5, "do_lower_case": true}`)},
			"",
		},
	} {
		err := check(t, c.base, c.files)
		if c.err == "" && err != nil || c.err != "" && (err == nil || !strings.HasPrefix(err.Error(), c.err)) {
			t.Errorf("%s: expected %q, found %v", c.name, c.err, err)
		}
	}
}

// A base's tokens may stand beside its vocab.txt; an adapter's tokenizer has to have the same.
func TestTokensBesideABasesVocabulary(t *testing.T) {
	vocab := readText(t, "vocab", "vocab.txt")
	base := func(config, added string) *peft.Tokenizer {
		words, err := peft.ReadVocabulary(bytes.NewReader(vocab))
		if err != nil {
			t.Fatal(err)
		}
		if err := words.Add([]byte(config), []byte(added)); err != nil {
			t.Fatal(err)
		}
		return words
	}
	const tokens = `{"[E1]": 600, "version": 601}`
	legacy := base(`{}`, tokens)
	decoder := base(
		`{"added_tokens_decoder": {"4": {"content": "[MASK]"}, "600": {"content": "[E1]"}}}`, `{"not read": 7}`,
	)
	whole := func(added ...any) []byte {
		return edited(t, tokenizerJSON(t, "wordpiece"), func(file object) {
			file["added_tokens"] = append(file["added_tokens"].([]any), added...)
		})
	}
	e1, version := object{"id": 600, "content": "[E1]"}, object{"id": 601, "content": "version"}
	for _, c := range []struct {
		name  string
		base  *peft.Tokenizer
		files map[string][]byte
		err   string
	}{
		{"the same", legacy, map[string][]byte{"vocab.txt": vocab, "added_tokens.json": []byte(tokens)}, ""},
		{
			"the same by a config", decoder,
			map[string][]byte{
				"vocab.txt": vocab, "tokenizer_config.json": []byte(`{"added_tokens_decoder": {"600": {"content": "[E1]"}}}`),
			},
			"",
		},
		{"the tokenizer made of it", legacy, map[string][]byte{"tokenizer.json": whole(e1, version)}, ""},
		{"some of them alone", legacy, map[string][]byte{"added_tokens.json": []byte(`{"[E1]": 600}`)}, ""},
		{
			"another of that id", legacy,
			map[string][]byte{"vocab.txt": vocab, "added_tokens.json": []byte(`{"[E2]": 600, "version": 601}`)},
			`added_tokens.json: added tokens: 600: expected "[E1]", found "[E2]"`,
		},
		{
			"one more", decoder,
			map[string][]byte{"vocab.txt": vocab, "added_tokens.json": []byte(tokens)},
			`added_tokens.json: added tokens: 601: expected none, found "version"`,
		},
		{
			"none", legacy,
			map[string][]byte{"vocab.txt": vocab},
			`vocab.txt: added tokens: 600: expected "[E1]", found none`,
		},
		{
			"one less", legacy,
			map[string][]byte{"vocab.txt": vocab, "added_tokens.json": []byte(`{"[E1]": 600}`)},
			`vocab.txt: added tokens: 601: expected "version", found none`,
		},
		{
			"one less in a tokenizer.json", legacy,
			map[string][]byte{"tokenizer.json": whole(e1)},
			`tokenizer.json: added tokens: 601: expected "version", found none`,
		},
		{
			"a vocabulary beside a tokenizer.json that has more", readTokenizer(t, whole(e1)),
			map[string][]byte{"vocab.txt": vocab},
			`vocab.txt: added tokens: 600: expected "[E1]", found none`,
		},
	} {
		err := check(t, c.base, c.files)
		if c.err == "" && err != nil || c.err != "" && (err == nil || !strings.HasPrefix(err.Error(), c.err)) {
			t.Errorf("%s: expected %q, found %v", c.name, c.err, err)
		}
	}
	for _, c := range []struct{ config, added, err string }{
		{`{}`, `{"x": null}`, `added_tokens.json: "x": expected an id, found null`},
		{`[]`, `{}`, "tokenizer_config.json: "},
	} {
		words := base(`{}`, `{}`)
		if err := words.Add([]byte(c.config), []byte(c.added)); err == nil || !strings.HasPrefix(err.Error(), c.err) {
			t.Errorf("%s, %s: expected %q, found %v", c.config, c.added, c.err, err)
		}
	}
}

// What cannot be read is refused shortly, and none of it is taken for the base's.
func TestTokenizersThatCannotBeRead(t *testing.T) {
	base := readTokenizer(t, tokenizerJSON(t, "wordpiece"))
	for _, c := range []struct{ file, content, err string }{
		{"tokenizer.json", ``, "tokenizer.json: unexpected EOF"},
		{"tokenizer.json", `[]`, "tokenizer.json: expected an object at byte 1, found ["},
		{"tokenizer.json", `null`, "tokenizer.json: expected an object at byte 4, found null"},
		{"tokenizer.json", `{"model": {"vocab"`, "tokenizer.json: "},
		{"tokenizer.json", `{} {}`, "tokenizer.json: expected one JSON object, found more behind it"},
		{"tokenizer.json", `{}`, "tokenizer.json: vocabulary: expected the base's 600 words, found 0"},
		{"tokenizer.json", `{"model": {"vocab": {"a": null}}}`, `tokenizer.json: vocab: "a": expected an id, found null`},
		{"tokenizer.json", `{"model": {"vocab": {"a": -1}}}`, `tokenizer.json: vocab: "a": expected an id, found -1`},
		{"tokenizer.json", `{"model": {"vocab": [["a", null]]}}`, "tokenizer.json: vocab: 0: expected a piece and its score"},
		{"tokenizer.json", `{"model": {"vocab": [["a"]]}}`, "tokenizer.json: vocab: 0: expected a piece and its score"},
		{"tokenizer.json", `{"model": {"merges": ["a b", ["a"]]}}`, "tokenizer.json: merges: 1: expected two words"},
		{"tokenizer.json", `{"model": {"vocab": {"a": 99999999999}}}`, "tokenizer.json: expected at most 1048576 words"},
		{"tokenizer.json", `{"added_tokens": [{"content": "x"}]}`, `tokenizer.json: added_tokens: "x": expected an id`},
		{"tokenizer.json", `{"added_tokens": [{"id": null, "content": "x"}]}`, `added_tokens: "x": expected an id`},
		{"tokenizer.json", `{"normalizer": ` + strings.Repeat("[", 1<<15), "tokenizer.json: "},
		{
			"tokenizer.json", `{"normalizer": "` + strings.Repeat("x", 4<<20) + `"}`,
			"tokenizer.json: normalizer: expected at most 4194304 bytes, found 4194306",
		},
		{
			"tokenizer.json", `{"model": {"vocab": [["` + strings.Repeat("x", 1<<16) + `", 0]]}}`,
			"tokenizer.json: vocab: 0: expected at most 65536 bytes, found 65543",
		},
		{
			"tokenizer.json", `{"model": {"merges": ["` + strings.Repeat("x", 1<<16) + `"]}}`,
			"tokenizer.json: merges: 0: expected at most 65536 bytes, found 65538",
		},
		{"vocab.txt", strings.Repeat("x", 1<<17), "vocab.txt: bufio.Scanner: token too long"},
		{"vocab.txt", strings.Repeat("\n", 1<<20+1), "vocab.txt: expected at most 1048576 words, found more"},
		{"added_tokens.json", `{"x": null}`, `added_tokens.json: "x": expected an id, found null`},
		{"added_tokens.json", `[]`, "added_tokens.json: expected an object of ids: "},
		{
			"tokenizer_config.json", `{"added_tokens_decoder": {"x": {}}}`,
			`tokenizer_config.json: added_tokens_decoder: expected ids, found "x"`,
		},
		{"added_tokens.json", strings.Repeat(" ", 1<<20+1), `file "added_tokens.json": expected at most 1048576 bytes`},
	} {
		err := check(t, base, map[string][]byte{c.file: []byte(c.content)})
		if err == nil || !strings.Contains(err.Error(), c.err) || len(err.Error()) > 1000 {
			t.Errorf("%s %.40s: expected %q, found %v", c.file, c.content, c.err, err)
		}
	}
}

// What a file takes in memory follows its size, whatever it is full of.
func TestATokenizerCostsWhatItsSizeIs(t *testing.T) {
	list := func(n int, element string) string { return strings.TrimSuffix(strings.Repeat(element+",", n), ",") }
	for name, raw := range map[string]string{
		"words":   `{"model": {"vocab": ` + many(100_000, `"w%d": 7`) + `}}`,
		"pieces":  `{"model": {"vocab": [` + list(100_000, `["piece", -1.5]`) + `]}}`,
		"merges":  `{"model": {"merges": [` + list(100_000, `["a", "b"]`) + `]}}`,
		"tokens":  `{"added_tokens": [` + list(60_000, `{"id": 7, "content": "x"}`) + `]}`,
		"numbers": `{"normalizer": [` + list(1_000_000, `0`) + `]}`,
		"objects": `{"normalizer": [` + list(100_000, `{"a": 1}`) + `]}`,
		"nesting": `{"normalizer": ` + strings.Repeat("[", 9000) + strings.Repeat("]", 9000) + `}`,
		"skipped": `{"decoder": [` + list(1_000_000, `0`) + `]}`,
	} {
		var err error
		found := allocating(func() { _, err = peft.ReadTokenizer(strings.NewReader(raw)) })
		most := uint64(4<<20 + 128*min(len(raw), 4<<20) + 16*len(raw)) // no more than 4 MiB is kept
		t.Logf("%s: %d bytes for a file of %d (%.60v)", name, found, len(raw), err)
		if found > most {
			t.Errorf("%s: expected at most %d bytes allocated for a file of %d, found %d", name, most, len(raw), found)
		}
	}
}

// Whatever a tokenizer.json holds, it is read or refused shortly, the same each time, and is itself.
func FuzzTokenizer(f *testing.F) {
	for _, kind := range []string{"wordpiece", "bytelevel", "bytefallback", "unigram"} {
		f.Add(tokenizerJSON(f, kind))
	}
	base := readTokenizer(f, tokenizerJSON(f, "wordpiece"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		read, err := peft.ReadTokenizer(bytes.NewReader(raw))
		if err != nil {
			if len(err.Error()) > 1000 {
				t.Fatalf("expected a short error, found %d bytes", len(err.Error()))
			}
			return
		}
		again, err := peft.ReadTokenizer(bytes.NewReader(raw))
		if err != nil || again.Differs(read) != "" {
			t.Fatalf("expected the same again, found %q, %v", again.Differs(read), err)
		}
		if what := read.Differs(base); len(what) > 2000 {
			t.Fatalf("expected a short message, found %d bytes", len(what))
		}
	})
}
