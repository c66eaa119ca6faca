package integration

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/switchyard-dev/switchyard/test/digits"
	"github.com/switchyard-dev/switchyard/test/ocisource"
	"github.com/switchyard-dev/switchyard/test/wrappers"
)

// The names of an adapter's files.
const (
	adapterConfig = "adapter_config.json"
	adapterModel  = "adapter_model.safetensors"
)

// push puts a folder into the source registry and returns its reference.
func push(t *testing.T, name, tag, folder string) string {
	t.Helper()
	ref := place.Ref(name, tag)
	if _, err := ocisource.Push(t.Context(), ref, folder); err != nil {
		t.Fatal(err)
	}
	return ref
}

// copied is a folder of the sample's adapter of that name, to be changed.
func copied(t *testing.T, name string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(filepath.Join(digits.Adapters(place.Sample()), name))); err != nil {
		t.Fatal(err)
	}
	return dir
}

// inCapitals is an adapter of other labels: other answers, so another revision.
func inCapitals(t *testing.T, name string) string {
	t.Helper()
	dir := copied(t, name)
	edit(t, filepath.Join(dir, "config.json"), func(config map[string]any) {
		labels := config["id2label"].(map[string]any)
		for id, label := range labels {
			labels[id] = strings.ToUpper(fmt.Sprint(label))
		}
	})
	return dir
}

// withNaN is an adapter with one weight that is no number.
func withNaN(t *testing.T, name string) string {
	t.Helper()
	dir := copied(t, name)
	change(t, filepath.Join(dir, adapterModel), func(raw []byte) []byte {
		binary.LittleEndian.PutUint32(raw[len(raw)-4:], math.Float32bits(float32(math.NaN())))
		return raw
	})
	return dir
}

// withoutModel is an adapter that lacks its weights' file.
func withoutModel(t *testing.T, name string) string {
	t.Helper()
	dir := copied(t, name)
	if err := os.Remove(filepath.Join(dir, adapterModel)); err != nil {
		t.Fatal(err)
	}
	return dir
}

// withoutClassifier is an adapter whose head is not among its weights.
func withoutClassifier(t *testing.T, name string) string {
	t.Helper()
	dir := copied(t, name)
	change(t, filepath.Join(dir, adapterModel), func(raw []byte) []byte {
		return wrappers.Safetensors(slices.DeleteFunc(tensors(t, raw), func(t wrappers.Tensor) bool {
			return strings.Contains(t.Name, ".classifier.")
		})...)
	})
	return dir
}

// withUnsavedClassifier is an adapter whose head was forgotten when it was trained: it has the base's, of ten labels,
// and names of its own for two.
func withUnsavedClassifier(t *testing.T, name string) string {
	t.Helper()
	dir := withoutClassifier(t, name)
	edit(t, filepath.Join(dir, adapterConfig), func(config map[string]any) { config["modules_to_save"] = nil })
	return dir
}

// ofAnotherBase is an adapter of a base whose hidden size is 64 where the sample's is 96.
func ofAnotherBase(t *testing.T) string {
	t.Helper()
	const hidden = 64
	return wrappers.Adapter(t).Rank(4).
		Update("vit.encoder.layer.0.attention.attention.query", hidden, hidden).
		Set("target_modules", []string{"query"}).
		Saved("classifier", 2, hidden).Write()
}

// tensors reads a safetensors file that is known to be sound.
func tensors(t *testing.T, raw []byte) []wrappers.Tensor {
	t.Helper()
	const length = 8
	end := length + binary.LittleEndian.Uint64(raw)
	var header map[string]json.RawMessage
	if err := json.Unmarshal(raw[length:end], &header); err != nil {
		t.Fatal(err)
	}
	var all []wrappers.Tensor
	for name, text := range header {
		if name == "__metadata__" {
			continue
		}
		var entry struct {
			DType   string `json:"dtype"`
			Shape   []int  `json:"shape"`
			Offsets [2]int `json:"data_offsets"`
		}
		if err := json.Unmarshal(text, &entry); err != nil {
			t.Fatal(err)
		}
		data := raw[end:][entry.Offsets[0]:entry.Offsets[1]]
		all = append(all, wrappers.Tensor{Name: name, DType: entry.DType, Shape: entry.Shape, Data: data})
	}
	return all
}

func edit(t *testing.T, path string, with func(map[string]any)) {
	t.Helper()
	change(t, path, func(raw []byte) []byte {
		var config map[string]any
		if err := json.Unmarshal(raw, &config); err != nil {
			t.Fatal(err)
		}
		with(config)
		raw, err := json.Marshal(config)
		if err != nil {
			t.Fatal(err)
		}
		return raw
	})
}

func change(t *testing.T, path string, with func([]byte) []byte) {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, with(raw), 0o600); err != nil {
		t.Fatal(err)
	}
}
