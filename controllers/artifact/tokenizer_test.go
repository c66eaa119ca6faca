package artifact_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/switchyard-dev/switchyard/controllers/artifact"
	"github.com/switchyard-dev/switchyard/runtime/peft"
	"github.com/switchyard-dev/switchyard/test/ocisource"
	"github.com/switchyard-dev/switchyard/test/wrappers"
)

func readText(t *testing.T, path ...string) []byte {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(append([]string{"../../runtime/preprocess/text/testdata"}, path...)...))
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// tuned is an adapter for tinyText.
func tuned(t *testing.T) *wrappers.AdapterFolder {
	t.Helper()
	return wrappers.Adapter(t).Set("task_type", "SEQ_CLS").
		Update("bert.encoder.layer.0.attention.self.query", 8, 8).Saved("classifier", 2, 8)
}

// An adapter comes with the tokenizer that lies beside it, which is held to its base's and goes no further: it changes
// no answer, and so no revision.
func TestTokenizersBesideAdapters(t *testing.T) {
	ctx := t.Context()
	host, s := sourceRegistry(t), store(t, serve(t, keep(t.TempDir())), token)
	fetcher := newFetcher(artifact.FetcherOptions{})
	tokenizer := readText(t, "wordpiece", "tokenizer.json")
	dir := wrappers.Base(t, tinyText).File("tokenizer.json", tokenizer).Write()
	packed := pack(t, artifact.Base, dir, peft.Settings{})
	if err := s.Push(ctx, repo, packed); err != nil {
		t.Fatal(err)
	}
	base, err := s.Base(ctx, repo, packed.Digest)
	if err != nil || base.Tokenizer == nil {
		t.Fatalf("expected a tokenizer, found %v, %v", base.Tokenizer, err)
	}
	alone := pack(t, artifact.Adapter, tuned(t).Write(), peft.Settings{})
	for name, c := range map[string]struct {
		file    string
		content []byte
		err     string
	}{
		"the-same":       {"tokenizer.json", tokenizer, ""},
		"its-vocabulary": {"vocab.txt", readText(t, "vocab", "vocab.txt"), ""},
		"another": {
			"tokenizer.json", readText(t, "bytelevel", "tokenizer.json"), "tokenizer.json: vocabulary: expected the base's ",
		},
		"another-vocabulary": {"vocab.txt", []byte("a\nb\n"), "vocab.txt: vocabulary: expected the base's "},
		"more-tokens":        {"added_tokens.json", []byte(`{"[USER]": 5000}`), "added_tokens.json: added tokens: 5000: "},
		"more-in-the-config": {
			"tokenizer_config.json", []byte(`{"added_tokens_decoder": {"5000": {"content": "[USER]"}}}`),
			"tokenizer_config.json: added tokens: 5000: ",
		},
	} {
		ref := host + "/adapters/" + name + ":v1"
		if _, err := ocisource.Push(ctx, ref, tuned(t).File(c.file, c.content).Write()); err != nil {
			t.Fatal(err)
		}
		fetched := t.TempDir()
		if _, err := fetcher.Fetch(ctx, artifact.Adapter, oci(ref), "", fetched); err != nil {
			t.Fatal(err)
		}
		expectFiles(t, fetched, "adapter_config.json", "adapter_model.safetensors", c.file)
		info, err := artifact.InspectAdapter(openFolder(t, fetched), base, peft.Settings{})
		var misfit *peft.MisfitError
		switch {
		case c.err != "" && (!errors.As(err, &misfit) || !strings.HasPrefix(err.Error(), c.err)):
			t.Errorf("%s: expected a misfit with %q, found %v", name, c.err, err)
		case c.err == "" && (err != nil || info.Digest != alone.Digest):
			t.Errorf("%s: expected %s, found %s, %v", name, alone.Digest, info.Digest, err)
		}
		if p := pack(t, artifact.Adapter, fetched, peft.Settings{}); p.Digest != alone.Digest {
			t.Errorf("%s, packed: expected %s, found %s", name, alone.Digest, p.Digest)
		}
	}
}

func TestWhatTheRegistryKnowsOfATokenizer(t *testing.T) {
	kept := t.TempDir()
	s := store(t, serve(t, keep(kept)), token)
	tokenizer := readText(t, "unigram", "tokenizer.json")
	for name, c := range map[string]struct {
		base *wrappers.BaseFolder
		has  bool
	}{
		"a tokenizer.json": {wrappers.Base(t, tinyText).File("tokenizer.json", tokenizer), true},
		"a vocab.txt":      {wrappers.Base(t, tinyText).File("vocab.txt", readText(t, "vocab", "vocab.txt")), true},
		"a vocab.txt with tokens": {
			wrappers.Base(t, tinyText).File("vocab.txt", readText(t, "vocab", "vocab.txt")).
				File("added_tokens.json", []byte(`{"[E1]": 600}`)).File("tokenizer_config.json", []byte(`{}`)), true,
		},
		"neither": {wrappers.Base(t, tinyText), false},
	} {
		p := pack(t, artifact.Base, c.base.Write(), peft.Settings{})
		if err := s.Push(t.Context(), repo, p); err != nil {
			t.Fatal(err)
		}
		if found, err := s.Base(t.Context(), repo, p.Digest); err != nil || (found.Tokenizer != nil) != c.has {
			t.Errorf("%s: expected %v, found %v, %v", name, c.has, found.Tokenizer, err)
		}
	}
	added := wrappers.Base(t, tinyText).File("vocab.txt", readText(t, "vocab", "vocab.txt")).
		File("added_tokens.json", []byte(`{"[E1]": 600}`)).Write()
	p := pack(t, artifact.Base, added, peft.Settings{})
	if err := s.Push(t.Context(), repo, p); err != nil {
		t.Fatal(err)
	}
	known, err := s.Base(t.Context(), repo, p.Digest)
	if err != nil {
		t.Fatal(err)
	}
	inspected, err := artifact.InspectBase(openFolder(t, added))
	if err != nil {
		t.Fatal(err)
	}
	for from, base := range map[string]artifact.BaseModel{"the registry": known, "the folder": inspected} {
		other := tuned(t).File("added_tokens.json", []byte(`{"[E2]": 600}`)).Write()
		const want = `added_tokens.json: added tokens: 600: expected "[E1]", found "[E2]"`
		_, err := artifact.InspectAdapter(openFolder(t, other), base, peft.Settings{})
		if err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("by %s: expected %q, found %v", from, want, err)
		}
	}
	bad := wrappers.Base(t, tinyText).File("tokenizer.json", []byte(`{"model": {"vocab": {"a": null}}}`)).Write()
	const want = `tokenizer.json: vocab: "a": expected an id, found null`
	if _, err := artifact.InspectBase(openFolder(t, bad)); err == nil || err.Error() != want {
		t.Errorf("a bad one: expected %q, found %v", want, err)
	}
	p = pack(t, artifact.Base, bad, peft.Settings{})
	if err := s.Push(t.Context(), repo, p); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Base(t.Context(), repo, p.Digest); err == nil || err.Error() != "base model "+p.Digest+": "+want {
		t.Errorf("a bad one that was stored all the same: expected %q, found %v", want, err)
	}
}
