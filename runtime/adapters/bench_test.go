package adapters_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/switchyard-dev/switchyard/runtime/memory"
	"github.com/switchyard-dev/switchyard/runtime/weights"
	"github.com/switchyard-dev/switchyard/test/wrappers"
)

// vitS is the shape of a ViT-S/16.
const vitS = `{"model_type": "vit", "hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6,
	"intermediate_size": 1536, "image_size": 224, "patch_size": 16, "num_labels": 1000}`

// One more adapter of a ViT-S, r=8 on query and value and a classifier of its own, beside none and beside a thousand:
// how long it takes from disk until it is served, and how much memory beside the size of its file.
func BenchmarkOneMoreAdapter(b *testing.B) {
	for name, as := range map[string]func(*wrappers.AdapterFolder) *wrappers.AdapterFolder{
		"float32":  func(a *wrappers.AdapterFolder) *wrappers.AdapterFolder { return a },
		"bfloat16": (*wrappers.AdapterFolder).BFloat16,
	} {
		b.Run(name, func(b *testing.B) { benchmarkOneMoreAdapter(b, as) })
	}
}

func benchmarkOneMoreAdapter(b *testing.B, as func(*wrappers.AdapterFolder) *wrappers.AdapterFolder) {
	set := newSetOf(b, wrappers.Base(b, vitS).Write())
	fileBytes := int64(0)
	folders := make([]string, 1000)
	for i := range folders {
		folders[i] = as(small(b, i)).Write()
		info, err := os.Stat(filepath.Join(folders[i], "adapter_model.safetensors"))
		if err != nil {
			b.Fatal(err)
		}
		fileBytes += info.Size()
	}
	load := func(i int) time.Duration {
		began := time.Now()
		entry := set.Load(strconv.Itoa(i), func() (*weights.Folder, error) { return weights.OpenFolder(folders[i]) })
		if entry.Err != nil {
			b.Fatal(entry.Err)
		}
		return time.Since(began)
	}
	load(0) // whatever is read but once
	held, resident := memory.Held(), residentBytes(b)
	var took []time.Duration
	for i := range folders[1:] {
		took = append(took, load(i+1))
	}
	fileBytes = fileBytes * int64(len(took)) / int64(len(folders))
	b.ReportMetric(milliseconds(took[:10]), "ms/first")
	b.ReportMetric(milliseconds(took[len(took)-10:]), "ms/last")
	b.ReportMetric(milliseconds(took), "ms/median")
	b.ReportMetric(float64(memory.Held()-held)/float64(fileBytes), "held/file")
	b.ReportMetric(float64(residentBytes(b)-resident)/float64(fileBytes), "resident/file")
	for i := range folders {
		set.Drop(strconv.Itoa(i))
	}
	b.ReportMetric(0, "ns/op")
}

// small is an adapter that is like no other.
func small(b *testing.B, i int) *wrappers.AdapterFolder {
	b.Helper()
	const width = 384
	a := wrappers.Adapter(b).Saved("classifier", 10, width)
	for layer := range 12 {
		for _, name := range []string{"query", "value"} {
			a.Update(fmt.Sprintf("vit.encoder.layer.%d.attention.attention.%s", layer, name), width, width)
		}
	}
	return a.Set("base_model_name_or_path", strconv.Itoa(i)).Set("target_modules", []string{"query", "value"})
}

func milliseconds(took []time.Duration) float64 {
	sorted := slices.Sorted(slices.Values(took))
	return float64(sorted[len(sorted)/2]) / float64(time.Millisecond)
}

// residentBytes is how much memory the process has, files that are mapped not counted.
func residentBytes(b *testing.B) int64 {
	b.Helper()
	raw, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		b.Fatal(err)
	}
	var size, resident, shared int64
	if _, err := fmt.Sscan(string(raw), &size, &resident, &shared); err != nil {
		b.Fatal(err)
	}
	return (resident - shared) * int64(os.Getpagesize())
}
