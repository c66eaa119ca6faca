package adapters_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/switchyard-dev/switchyard/runtime/adapters"
	"github.com/switchyard-dev/switchyard/runtime/arch"
	"github.com/switchyard-dev/switchyard/runtime/engine"
	"github.com/switchyard-dev/switchyard/runtime/memory"
	"github.com/switchyard-dev/switchyard/runtime/model"
	"github.com/switchyard-dev/switchyard/runtime/peft"
	"github.com/switchyard-dev/switchyard/runtime/weights"
	"github.com/switchyard-dev/switchyard/test/wrappers"
)

const sample = "../../hack/samples/digits/"

func newSet(t testing.TB) *adapters.Set {
	t.Helper()
	return newSetOf(t, sample+"base")
}

func newSetOf(t testing.TB, dir string) *adapters.Set {
	t.Helper()
	base, err := model.Open(openFolder(t, dir), arch.Float32)
	if err != nil {
		t.Fatal(err)
	}
	e := engine.New(base, 1)
	t.Cleanup(e.Close)
	return adapters.New(e)
}

func openFolder(t testing.TB, path string) *weights.Folder {
	t.Helper()
	folder, err := weights.OpenFolder(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = folder.Close() })
	return folder
}

// refused is a folder of adapters that cannot be served, and what the refusal must say of each.
func refused(t *testing.T, dir string) map[string]string {
	t.Helper()
	const key = "base_model.model.vit.layers.0.attention.q_proj.lora_"
	const path = "vit.layers.0.attention.q_proj"
	good := func() *wrappers.AdapterFolder {
		return wrappers.Adapter(t).Unset("modules_to_save").Update(path, 96, 96)
	}
	nan := slices.Repeat([]float32{0}, 8*96)
	nan[100] = float32(math.NaN())
	for name, a := range map[string]*wrappers.AdapterFolder{
		"pickle": good().File("adapter_model.safetensors", nil).File("adapter_model.bin", []byte("\x80\x02}q")),
		"cut":    good().File("adapter_model.safetensors", good().Model()[:300]),
		"nan": wrappers.Adapter(t).Unset("modules_to_save").
			Tensor(wrappers.F32(key+"A.weight", nan, 8, 96)).
			Tensor(wrappers.F32(key+"B.weight", make([]float32, 96*8), 96, 8)),
		"shape":   wrappers.Adapter(t).Unset("modules_to_save").Update(path, 96, 64),
		"rank":    good().Set("r", 0),
		"type":    good().Set("peft_type", "LOHA"),
		"dora":    good().Set("use_dora", true),
		"qalora":  good().Set("use_qalora", true),
		"module":  good().Update("vit.layers.9.attention.q_proj", 96, 96),
		"unknown": good().Set("use_magic", true),
		"empty":   good().File("adapter_config.json", nil),
	} {
		if err := os.Rename(a.Write(), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.Rename(good().Write(), outside); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(dir, "symlink")); err != nil {
		t.Fatal(err)
	}
	fifo := good().File("adapter_model.safetensors", nil).Write()
	if err := unix.Mkfifo(filepath.Join(fifo, "adapter_model.safetensors"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(fifo, filepath.Join(dir, "fifo")); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(good().Write(), filepath.Join(dir, "digits")); err != nil {
		t.Fatal(err)
	}
	return map[string]string{
		"pickle":  "adapter_model.bin: expected adapter_model.safetensors, found a pickle",
		"cut":     "adapter_model.safetensors: ",
		"nan":     `tensor "` + key + `A.weight": expected finite values, found NaN at element 100`,
		"shape":   `key "` + key + `A.weight": shape: expected [8, 96], found [8, 64]`,
		"rank":    "r: expected an integer from 1 to",
		"type":    `peft_type: expected "LORA", found "LOHA"`,
		"dora":    `key "` + key + `magnitude_vector": missing, though use_dora is true`,
		"qalora":  "use_qalora: QA-LoRA is not supported, found true",
		"module":  `no module "vit.layers.9.attention.q_proj" in the base ViTForImageClassification`,
		"unknown": `"use_magic": unknown field`,
		"empty":   `file "adapter_config.json": no such file`,
		"symlink": "expected a path inside the folder, found one that leaves it",
		"fifo":    `file "adapter_model.safetensors": expected a regular file, found a named pipe`,
		"digits":  `name: "digits" stands for the base model`,
	}
}

// Whatever lies in the folder, each bad adapter is refused with its reason, in the log too, and the good are served.
func TestAFolderOfGoodAndBad(t *testing.T) {
	dir := t.TempDir()
	want := refused(t, dir)
	for _, name := range []string{"digit", "parity", "holes"} {
		if err := os.CopyFS(filepath.Join(dir, name), os.DirFS(sample+"adapters/"+name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{".hidden", "bad\xff", "new\nline"} { // no request can spell them
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "README.md"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	set := newSet(t)
	load, err := set.FromFolder(openFolder(t, dir), []string{"digits"}, slog.New(slog.NewJSONHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	var loading *adapters.LoadingError
	if _, err := set.Get("parity"); !errors.As(err, &loading) {
		t.Errorf("before loading: expected a LoadingError, found %v", err)
	}
	load(t.Context())

	for name, reason := range want {
		var refusal *adapters.RefusedError
		if _, err := set.Get(name); !errors.As(err, &refusal) || !strings.Contains(err.Error(), reason) {
			t.Errorf("%s: expected a refusal with %q, found %v", name, reason, err)
		}
		if !strings.Contains(log.String(), fmt.Sprintf(`"msg":"adapter refused","adapter":%q`, name)) {
			t.Errorf("%s: its refusal is not in the log", name)
		}
	}
	if n := strings.Count(log.String(), "name: expected printable UTF-8"); n != 2 {
		t.Errorf("expected two names refused in the log, found %d", n)
	}
	served := 0
	for _, e := range set.List() {
		if e.Err == nil {
			served++
		}
	}
	if served != 3 || len(set.List()) != 3+len(want) {
		t.Errorf("expected 3 served and %d refused, found %d of %d", len(want), served, len(set.List()))
	}
	var unknown *adapters.UnknownError
	for _, name := range []string{"nobody", ".hidden", "bad\xff", "README.md", ""} {
		if _, err := set.Get(name); !errors.As(err, &unknown) {
			t.Errorf("%q: expected an UnknownError, found %v", name, err)
		}
	}
}

// The same files under the same name are the same revision; other weights under it are another.
func TestARevisionIsOfTheFiles(t *testing.T) {
	set := newSet(t)
	load := func(name, folder string) string {
		entry := set.Load(name, func() (*weights.Folder, error) { return weights.OpenFolder(sample + "adapters/" + folder) })
		if entry.Err != nil {
			t.Fatal(entry.Err)
		}
		return entry.Adapter.Digest
	}
	parity := load("a", "parity")
	if again, other := load("b", "parity"), load("a", "holes"); again != parity || other == parity {
		t.Errorf("expected %s again and another, found %s and %s", parity, again, other)
	}
	if a, err := set.Get("a"); err != nil || a.Digest == parity {
		t.Errorf("expected the new revision under the name, found %v, %v", a, err)
	}
}

func TestAPanicWhileLoadingIsARefusal(t *testing.T) {
	set := newSet(t)
	entry := set.Load("x", func() (*weights.Folder, error) { panic("hostile") })
	var refusal *adapters.RefusedError
	if !errors.As(entry.Err, &refusal) || !strings.Contains(entry.Err.Error(), "hostile") {
		t.Errorf("expected a refusal, found %v", entry.Err)
	}
}

func open(t *testing.T, set *adapters.Set, name string) *adapters.Lease {
	t.Helper()
	lease, err := set.Open(func() (*weights.Folder, error) {
		return weights.OpenFolder(sample + "adapters/" + name)
	}, peft.Settings{})
	if err != nil {
		t.Fatal(err)
	}
	return lease
}

// loaded is the revisions in memory, "digest names leases" each, sorted.
func loaded(set *adapters.Set, letters map[string]string) string {
	var texts []string
	for _, r := range set.Loaded() {
		if r.Bytes == 0 {
			return "a revision without bytes"
		}
		texts = append(texts, fmt.Sprint(letters[r.Digest], r.Names, r.Leases))
	}
	slices.Sort(texts)
	return strings.Join(texts, ", ")
}

// A revision is loaded once for all its names, and freed when the last name and the last row let go of it.
func TestARevisionLivesAsLongAsItIsHeld(t *testing.T) {
	set := newSet(t)
	a, b := open(t, set, "parity"), open(t, set, "holes")
	letters := map[string]string{a.Adapter().Digest: "a ", b.Adapter().Digest: "b "}
	step := func(want string) {
		t.Helper()
		if got := loaded(set, letters); got != want {
			t.Errorf("expected %q, found %q", want, got)
		}
	}
	step("a 0 1, b 0 1")
	set.Serve("x", a)
	set.Serve("y", a)
	a.Release()
	a.Release()
	step("a 2 0, b 0 1")
	again := open(t, set, "parity") // another load of what is there
	step("a 2 1, b 0 1")
	again.Release()

	row, err := set.Acquire("x")
	if err != nil {
		t.Fatal(err)
	}
	set.Serve("x", b)
	set.Serve("x", b)
	step("a 1 1, b 1 1")
	set.Drop("y")
	step("a 0 1, b 1 1")
	if now, err := set.Get("x"); err != nil || now != b.Adapter() || row.Adapter() == now {
		t.Errorf("expected the new revision for new rows and the old one for the row under way, found %v", err)
	}
	row.Release()
	step("b 1 1")
	b.Release()
	set.Refuse("x", errors.New("no more"))
	step("")
	var untold *adapters.UntoldError
	if _, err := set.Acquire("y"); !errors.As(err, &untold) {
		t.Errorf("not told which names there are: expected an UntoldError, found %v", err)
	}
	set.Told()
	var unknown *adapters.UnknownError
	if _, err := set.Acquire("y"); !errors.As(err, &unknown) {
		t.Errorf("dropped: expected an UnknownError, found %v", err)
	}
}

// While names move, no row finds its name without a revision, or goes back to a former one.
func TestNamesMoveUnderLoad(t *testing.T) {
	set := newSet(t)
	leases := []*adapters.Lease{open(t, set, "parity"), open(t, set, "holes"), open(t, set, "digit")}
	place := make(map[string]int)
	for i, l := range leases {
		place[l.Adapter().Digest] = i
	}
	set.Serve("x", leases[0])
	moved := make(chan struct{})
	var rows sync.WaitGroup
	for range 4 {
		rows.Go(func() {
			last := 0
			for {
				l, err := set.Acquire("x")
				if err != nil {
					t.Error(err)
					return
				}
				at := place[l.Adapter().Digest]
				if at < last {
					t.Errorf("revision %d after %d", at, last)
				}
				last = at
				l.Release()
				select {
				case <-moved:
					if last == len(leases)-1 {
						return
					}
				default:
				}
			}
		})
	}
	for _, l := range leases {
		set.Serve("x", l)
		l.Release()
	}
	close(moved)
	rows.Wait()
	if n := len(set.Loaded()); n != 1 {
		t.Errorf("expected the last revision alone in memory, found %d", n)
	}
}

// While a name moves from revision to revision and back, each of which is freed and loaded again, every row is answered
// by the one that it holds, to the bit, and no memory is left behind.
func TestRevisionsAreFreedUnderLoad(t *testing.T) {
	base, err := model.Open(openFolder(t, sample+"base"), arch.Float32)
	if err != nil {
		t.Fatal(err)
	}
	e, before := engine.New(base, 2), memory.Held()
	set := adapters.New(e)
	run := func(a *engine.Adapter) []float32 {
		answers, err := e.Run(engine.Batch{Inputs: []engine.Input{e.Zeros()}, Rows: []engine.Row{{Adapter: a}}})
		if err != nil {
			t.Error(err)
			return nil
		}
		return answers[0].Float32s()
	}
	names := []string{"parity", "holes", "digit"}
	want := make(map[string][]float32) // by digest
	for _, name := range names {
		l := open(t, set, name)
		want[l.Adapter().Digest] = run(l.Adapter())
		l.Release()
	}
	first := open(t, set, names[0])
	set.Serve("x", first)
	first.Release()
	swapped := make(chan struct{})
	var rows sync.WaitGroup
	for range 4 {
		rows.Go(func() {
			for {
				l, err := set.Acquire("x")
				if err != nil {
					t.Error(err)
					return
				}
				if got := run(l.Adapter()); !slices.Equal(got, want[l.Adapter().Digest]) {
					t.Errorf("expected %v, found %v", want[l.Adapter().Digest], got)
				}
				l.Release()
				select {
				case <-swapped:
					return
				default:
				}
			}
		})
	}
	swaps := 300
	if testing.Short() {
		swaps = 60
	}
	for i := range swaps {
		l := open(t, set, names[i%len(names)])
		set.Serve("x", l)
		l.Release()
	}
	close(swapped)
	rows.Wait()
	set.Drop("x")
	e.Close()
	if held := memory.Held() - before; held != 0 {
		t.Errorf("expected no memory left behind, found %d bytes", held)
	}
}

// A revision that was freed answers nobody: whoever holds it no more and asks it all the same gets an error.
func TestAFreedRevisionAnswersNobody(t *testing.T) {
	set := newSet(t)
	held := memory.Held()
	l := open(t, set, "parity")
	if memory.Held() != held+l.Adapter().Bytes() {
		t.Errorf("expected %d bytes more, found %d", l.Adapter().Bytes(), memory.Held()-held)
	}
	l.Release()
	if memory.Held() != held {
		t.Errorf("expected all memory back, found %d bytes more", memory.Held()-held)
	}
	if err := set.Try(l); err == nil || !strings.Contains(err.Error(), "panic") {
		t.Errorf("expected an error, found %v", err)
	}
}

func TestATrialTellsWhetherTheAnswerIsANumber(t *testing.T) {
	set := newSet(t)
	good := open(t, set, "parity")
	if err := set.Try(good); err != nil {
		t.Error(err)
	}
	folder := wrappers.Adapter(t).Unset("target_modules").
		Tensor(wrappers.F32("base_model.model.classifier.weight", slices.Repeat([]float32{3e38}, 2*96), 2, 96)).
		Tensor(wrappers.F32("base_model.model.classifier.bias", []float32{3e38, 3e38}, 2)).Write()
	overflow, err := set.Open(func() (*weights.Folder, error) { return weights.OpenFolder(folder) }, peft.Settings{})
	if err != nil {
		t.Fatal(err)
	}
	if err := set.Try(overflow); err == nil || !strings.Contains(err.Error(), "expected a finite number") {
		t.Errorf("expected a refusal, found %v", err)
	}
}

// Adapters of texts are tried by a text, those of tokens too, and over a base that has no head of its own.
func TestATrialOfTexts(t *testing.T) {
	const bert = `{
		"model_type": "bert", "architectures": ["BertModel"], "vocab_size": 30, "hidden_size": 8, "num_hidden_layers": 1,
		"num_attention_heads": 2, "intermediate_size": 8, "max_position_embeddings": 16
	}`
	set := newSetOf(t, wrappers.Base(t, bert).Without("classifier").Write())
	const labels = 1 << 8 // of weights of all signs there are: one of them goes beyond float32
	var weight []float32
	for label := range labels {
		for i := range 8 {
			weight = append(weight, []float32{3e38, -3e38}[label>>i&1])
		}
	}
	overflow := wrappers.F32("base_model.model.classifier.weight", weight, labels, 8)
	bias := wrappers.F32("base_model.model.classifier.bias", slices.Repeat([]float32{3e38}, labels), labels)
	for _, task := range []string{"SEQ_CLS", "TOKEN_CLS"} {
		adapter := func() *wrappers.AdapterFolder {
			return wrappers.Adapter(t).Set("task_type", task).Unset("target_modules")
		}
		for name, c := range map[string]struct {
			adapter *wrappers.AdapterFolder
			want    string
		}{
			"good":     {adapter().Saved("classifier", 2, 8), ""},
			"overflow": {adapter().Tensor(overflow).Tensor(bias), "expected a finite number, found "},
		} {
			dir := c.adapter.Write()
			lease, err := set.Open(func() (*weights.Folder, error) { return weights.OpenFolder(dir) }, peft.Settings{})
			if err != nil {
				t.Fatal(err)
			}
			err = set.Try(lease)
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s %s: expected error %q, found %v", name, task, c.want, err)
			}
		}
	}
}
