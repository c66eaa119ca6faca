package artifact_test

import (
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/switchyard-dev/switchyard/controllers/artifact"
	"github.com/switchyard-dev/switchyard/runtime/arch"
	"github.com/switchyard-dev/switchyard/runtime/model"
	"github.com/switchyard-dev/switchyard/runtime/peft"
	"github.com/switchyard-dev/switchyard/test/ocisource"
	"github.com/switchyard-dev/switchyard/test/wrappers"
)

// shardedBase is a base of texts in three files, with all that may stand beside it and some that is of no account.
func shardedBase(t *testing.T) (dir string, files []string) {
	t.Helper()
	b := wrappers.Base(t, tinyText).Sharded(3)
	for _, name := range []string{
		"tokenizer.json", "tokenizer_config.json", "vocab.txt", "preprocessor_config.json",
		"added_tokens.json", "special_tokens_map.json", "README.md", "pytorch_model.bin", "model-1-of-3.safetensors",
	} {
		b.File(name, []byte(`{"name": "`+name+`"}`))
	}
	b.File("added_tokens.json", []byte(`{}`))
	return b.Write(), []string{
		"added_tokens.json", "config.json", "model-00001-of-00003.safetensors", "model-00002-of-00003.safetensors",
		"model-00003-of-00003.safetensors", "model.safetensors.index.json", "preprocessor_config.json",
		"special_tokens_map.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt",
	}
}

// A base in several files is one revision wherever it is: as a runtime opens it, as an artifact or an archive of its
// user's, in the artifact registry, and out of it again.
func TestAShardedBase(t *testing.T) {
	ctx := t.Context()
	dir, files := shardedBase(t)
	opened, err := model.Open(openFolder(t, dir), arch.Float32)
	if err != nil {
		t.Fatal(err)
	}
	packed := pack(t, artifact.Base, dir, peft.Settings{})
	if packed.Digest != opened.Digest {
		t.Errorf("packed: expected %s, found %s", opened.Digest, packed.Digest)
	}
	found := make([]string, 0, len(packed.Files))
	for _, f := range packed.Files {
		found = append(found, f.Name)
	}
	if slices.Sort(found); !slices.Equal(found, files) {
		t.Errorf("packed: expected the files %q, found %q", files, found)
	}

	ref := sourceRegistry(t) + "/bert:v1"
	if _, err := ocisource.Push(ctx, ref, dir); err != nil {
		t.Fatal(err)
	}
	archive := wrappers.Archive(t).Folder("bert/", dir).Bytes()
	for name, from := range map[string]artifact.Origin{
		"an artifact": oci(ref),
		"an archive":  {URL: web(t, gives(archive)) + "/bert.tar.gz", SHA256: hexSum(archive)},
	} {
		fetched := t.TempDir()
		if _, err := newFetcher(artifact.FetcherOptions{}).Fetch(ctx, artifact.Base, from, "", fetched); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		expectFiles(t, fetched, files...)
		if got := pack(t, artifact.Base, fetched, peft.Settings{}).Digest; got != packed.Digest {
			t.Errorf("%s: expected %s, found %s", name, packed.Digest, got)
		}
	}

	host := serve(t, keep(t.TempDir()))
	s := store(t, host, token)
	if err := s.Push(ctx, repo, packed); err != nil {
		t.Fatal(err)
	}
	expectExists(t, s, repo, packed.Digest, true)
	expectDescribed(t, s, dir, packed.Digest)
	pulled, err := pods(t, host, repo).Fetch(ctx, packed.Digest, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := model.Open(openFolder(t, pulled.Folder), arch.Float32); err != nil || again.Digest != opened.Digest {
		t.Errorf("pulled: expected %s, found %+v, %v", opened.Digest, again, err)
	}
}

// expectDescribed wants a base in the registry described as it is on disk, though its weights are not read.
func expectDescribed(t *testing.T, s *artifact.Store, dir, revision string) {
	t.Helper()
	want, err := artifact.InspectBase(openFolder(t, dir))
	if err != nil {
		t.Fatal(err)
	}
	got, err := s.Base(t.Context(), repo, revision)
	if err != nil {
		t.Fatal(err)
	}
	size := want.Bytes(arch.Float32)
	if got.Architecture != want.Architecture || got.Own != want.Own || got.Bytes(arch.Float32) != size ||
		!slices.Equal(got.Classes.Labels, want.Classes.Labels) {
		t.Errorf("expected %s with the head %d and %d bytes, found %s, %d, %d",
			want.Architecture, want.Own, size, got.Architecture, got.Own, got.Bytes(arch.Float32))
	}
}

// What a base has is told by its index, or by the header of its one file: whether it has a head of its own, above all.
func TestWhatTheRegistryKnowsOfABase(t *testing.T) {
	s := store(t, serve(t, keep(t.TempDir())), token)
	for name, b := range map[string]*wrappers.BaseFolder{
		"whole":               wrappers.Base(t, tinyText),
		"without a head":      wrappers.Base(t, tinyText).Without("classifier", "bert.pooler"),
		"sharded":             wrappers.Base(t, tinyText).Sharded(2),
		"sharded and no head": wrappers.Base(t, tinyText).Without("classifier").Sharded(2),
		"of images":           wrappers.Base(t, tinyConfig),
	} {
		t.Run(name, func(t *testing.T) {
			dir := b.Write()
			p := pack(t, artifact.Base, dir, peft.Settings{})
			if err := s.Push(t.Context(), repo, p); err != nil {
				t.Fatal(err)
			}
			expectDescribed(t, s, dir, p.Digest)
		})
	}
}

// What cannot be told of a base is the registry's fault, and worth another try; what is wrong with the base itself is
// not.
func TestTheRegistryCannotTellOfABase(t *testing.T) {
	kept := t.TempDir()
	s := store(t, serve(t, keep(kept)), token)
	push := func(b *wrappers.BaseFolder) (revision string, files map[string]string) {
		t.Helper()
		p := pack(t, artifact.Base, b.Write(), peft.Settings{})
		if err := s.Push(t.Context(), repo, p); err != nil {
			t.Fatal(err)
		}
		files = map[string]string{}
		for _, f := range p.Files {
			for _, path := range blobs(t, kept) {
				if strings.Contains(path, hex.EncodeToString(f.SHA256[:])) {
					files[f.Name] = path
				}
			}
		}
		return p.Digest, files
	}
	overwrite := func(path string, with string) {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		copy(data, with)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}

	one, files := push(wrappers.Base(t, tinyText))
	overwrite(files["model.safetensors"], strings.Repeat("x", 16))
	_, err := s.Base(t.Context(), repo, one)
	expectUnavailable(t, err, "model.safetensors: header length: expected at most")
	if err := os.Remove(files["model.safetensors"]); err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err) // what was read damaged is thrown away by the registry itself, too
	}
	_, err = s.Base(t.Context(), repo, one)
	expectUnavailable(t, err, `its file "model.safetensors" is lost`)

	many, files := push(wrappers.Base(t, tinyConfig).Sharded(2))
	overwrite(files["model.safetensors.index.json"], "{  ")
	_, err = s.Base(t.Context(), repo, many)
	expectUnavailable(t, err, "content with another digest than it is named by")

	_, err = s.Base(t.Context(), repo, "sha256:"+strings.Repeat("0", 64))
	expectUnavailable(t, err, "not found")

	lacking, _ := push(wrappers.Base(t, tinyText).Without("bert.embeddings.LayerNorm"))
	_, err = s.Base(t.Context(), repo, lacking)
	const want = `its weights: missing: "bert.embeddings.LayerNorm.weight", "bert.embeddings.LayerNorm.bias"`
	if err == nil || !strings.Contains(err.Error(), "base model "+lacking) || !strings.Contains(err.Error(), want) {
		t.Errorf("expected %q, found %v", want, err)
	}
	adapter := pack(t, artifact.Adapter, parity(), peft.Settings{})
	if err := s.Push(t.Context(), repo, adapter); err != nil {
		t.Fatal(err)
	}
	_, err = s.Base(t.Context(), repo, adapter.Digest)
	expectError(t, err, artifact.Invalid, false, "expected the file model.safetensors, found none")
}

// A source of a base lacks its weights if it has neither the one file nor the index of several.
func TestBasesThatLackTheirWeights(t *testing.T) {
	for _, c := range []struct {
		name string
		base *wrappers.BaseFolder
		text string
	}{
		{
			"shards without an index", wrappers.Base(t, tinyText).Sharded(2).File("model.safetensors.index.json", nil),
			"expected the file model.safetensors",
		},
		{
			"a pickle", wrappers.Base(t, tinyText).File("model.safetensors", nil).File("pytorch_model.bin", []byte("x")),
			"pytorch_model.bin, a pickle, which is never read: save it as safetensors",
		},
		{"no config", wrappers.Base(t, tinyText).File("config.json", nil), "expected the file config.json"},
	} {
		dir := c.base.Write()
		ref := sourceRegistry(t) + "/bert:v1"
		if _, err := ocisource.Push(t.Context(), ref, dir); err != nil {
			t.Fatal(err)
		}
		archive := wrappers.Archive(t).Folder("", dir).Bytes()
		for _, from := range []artifact.Origin{
			oci(ref), {URL: web(t, gives(archive)) + "/bert.tar.gz", SHA256: hexSum(archive)},
		} {
			_, err := newFetcher(artifact.FetcherOptions{}).Fetch(t.Context(), artifact.Base, from, "", t.TempDir())
			t.Run(c.name, func(t *testing.T) { expectError(t, err, artifact.Invalid, false, c.text) })
		}
	}

	// What an index lists and nobody has is found when the base is packed.
	dir := wrappers.Base(t, tinyText).Sharded(2).File("model-00001-of-00002.safetensors", nil).Write()
	ref, fetched := sourceRegistry(t)+"/bert:v1", t.TempDir()
	if _, err := ocisource.Push(t.Context(), ref, dir); err != nil {
		t.Fatal(err)
	}
	fetcher := newFetcher(artifact.FetcherOptions{})
	if _, err := fetcher.Fetch(t.Context(), artifact.Base, oci(ref), "", fetched); err != nil {
		t.Fatal(err)
	}
	_, err := artifact.Pack(artifact.Base, openFolder(t, fetched), peft.Settings{})
	if err == nil || !strings.Contains(err.Error(), `file "model-00001-of-00002.safetensors": no such file`) {
		t.Errorf("a shard that is not there: expected it named, found %v", err)
	}
}
