package wrappers

import (
	"hash/fnv"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"gorgonia.org/tensor"

	"github.com/switchyard-dev/switchyard/runtime/arch"
)

// BaseFolder is a base model in the making. Nothing is checked, so that tests can build wrong ones.
type BaseFolder struct {
	t       testing.TB
	tensors []Tensor // by name
	files   map[string][]byte
	shards  int
}

// Base begins a base with that config.json and all that it may hold, every head's weights too: small values, different
// from tensor to tensor and the same at any time.
func Base(t testing.TB, config string) *BaseFolder {
	t.Helper()
	names, err := arch.Tensors([]byte(config))
	if err != nil {
		t.Fatal(err)
	}
	d, err := arch.Parse([]byte(config), names)
	if err != nil {
		t.Fatal(err)
	}
	shapes := make(map[string][]int, len(names))
	for _, m := range d.Modules {
		for _, p := range m.Params {
			if stored, ok := d.Stored(m.Path, p.Name); ok {
				shapes[stored.Tensor] = stored.Shape
			}
		}
	}
	b := &BaseFolder{t: t, files: map[string][]byte{"config.json": []byte(config)}}
	for _, name := range names {
		shape := shapes[name]
		b.tensors = append(b.tensors, F32(name, small(name, tensor.Shape(shape).TotalSize()), shape...))
	}
	return b
}

// small are values by a seed, as a trained model's may be.
func small(seed string, n int) []float32 {
	hash := fnv.New64()
	_, _ = hash.Write([]byte(seed)) // never fails
	rng := rand.New(rand.NewPCG(hash.Sum64(), 0))
	values := make([]float32, n)
	for i := range values {
		values[i] = float32(rng.NormFloat64()) / 4
	}
	return values
}

// Without leaves out the tensors of which a name, or the name of a module, is one of these.
func (b *BaseFolder) Without(names ...string) *BaseFolder {
	b.tensors = slices.DeleteFunc(b.tensors, func(t Tensor) bool {
		return slices.ContainsFunc(names, func(name string) bool {
			return t.Name == name || strings.HasPrefix(t.Name, name+".")
		})
	})
	return b
}

// Tensor adds a tensor, in place of one of the same name.
func (b *BaseFolder) Tensor(t Tensor) *BaseFolder {
	b.Without(t.Name)
	b.tensors = append(b.tensors, t)
	return b
}

// Renamed gives every tensor the name that change makes of its own.
func (b *BaseFolder) Renamed(change func(name string) string) *BaseFolder {
	for i := range b.tensors {
		b.tensors[i].Name = change(b.tensors[i].Name)
	}
	return b
}

// Sharded spreads the tensors over so many files, and an index over them.
func (b *BaseFolder) Sharded(files int) *BaseFolder {
	b.shards = files
	return b
}

// File adds a file, or puts other content in place of one of the base's own; nil leaves that out.
func (b *BaseFolder) File(name string, data []byte) *BaseFolder {
	b.files[name] = data
	return b
}

// Names are the tensors' names.
func (b *BaseFolder) Names() []string {
	names := make([]string, len(b.tensors))
	for i, t := range b.tensors {
		names[i] = t.Name
	}
	return names
}

// weights are the files of the tensors.
func (b *BaseFolder) weights() map[string][]byte {
	if b.shards == 0 {
		return map[string][]byte{"model.safetensors": Safetensors(b.tensors...)}
	}
	files, index := map[string][]byte{}, map[string]string{}
	size := (len(b.tensors) + b.shards - 1) / b.shards
	n := 0
	for part := range slices.Chunk(b.tensors, size) {
		n++
		name := "model-" + padded(n) + "-of-" + padded(b.shards) + ".safetensors"
		files[name] = Safetensors(part...)
		for _, t := range part {
			index[t.Name] = name
		}
	}
	files["model.safetensors.index.json"] = appendJSON(nil, map[string]any{"weight_map": index})
	return files
}

func padded(n int) string {
	digits := strconv.Itoa(n)
	return strings.Repeat("0", 5-len(digits)) + digits
}

// Write writes the base into a new temporary folder and returns its path.
func (b *BaseFolder) Write() string {
	dir := b.t.TempDir()
	files := b.weights()
	for name, data := range b.files {
		files[name] = data
	}
	for name, data := range files {
		if data == nil {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			b.t.Fatal(err)
		}
	}
	return dir
}
