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
	"testing"

	"golang.org/x/sys/unix"

	"github.com/switchyard-dev/switchyard/runtime/adapters"
	"github.com/switchyard-dev/switchyard/runtime/engine"
	"github.com/switchyard-dev/switchyard/runtime/model"
	"github.com/switchyard-dev/switchyard/runtime/weights"
	"github.com/switchyard-dev/switchyard/test/wrappers"
)

const sample = "../../hack/samples/digits/"

func newSet(t *testing.T) *adapters.Set {
	t.Helper()
	base, err := model.Open(openFolder(t, sample+"base"))
	if err != nil {
		t.Fatal(err)
	}
	e := engine.New(base, 1)
	t.Cleanup(e.Close)
	return adapters.New(e)
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
		"dora":    "use_dora: DoRA is not supported yet",
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
