package adapters_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/switchyard-dev/switchyard/runtime/memory"
	"github.com/switchyard-dev/switchyard/runtime/weights"
	"github.com/switchyard-dev/switchyard/test/wrappers"
)

// An adapter holds hardly more memory than its file, of float32 or bfloat16, whose ranks fill panels of packed weights;
// whatever its ranks, much less of bfloat16.
func TestAnAdapterTakesTheMemoryOfItsFile(t *testing.T) {
	if !memory.OffHeap {
		t.Skip("on the heap no part of a block is given back")
	}
	const width, layers = 256, 4
	set := newSetOf(t, wrappers.Base(t, fmt.Sprintf(`{"model_type": "vit", "hidden_size": %d, "num_hidden_layers": %d,
		"num_attention_heads": 4, "intermediate_size": 512, "image_size": 32, "patch_size": 8, "num_labels": 8}`,
		width, layers)).Write())
	held := func(what, dir string) (held, file int64) {
		info, err := os.Stat(filepath.Join(dir, "adapter_model.safetensors"))
		if err != nil {
			t.Fatal(err)
		}
		before := memory.Held()
		if entry := set.Load("a", func() (*weights.Folder, error) { return weights.OpenFolder(dir) }); entry.Err != nil {
			t.Fatal(entry.Err)
		}
		held, file = memory.Held()-before, info.Size()
		set.Drop("a")
		t.Logf("%s: %d bytes of memory, %d of the file, %.2f", what, held, file, float64(held)/float64(file))
		return held, file
	}
	for _, c := range []struct {
		rank  int
		fills bool
	}{
		{1, false}, {2, false}, {3, false}, {4, true}, {5, false}, {7, false}, {8, true}, {12, true}, {16, true}, {64, true},
	} {
		a := wrappers.Adapter(t).Rank(c.rank).Set("lora_alpha", 2*c.rank).Saved("classifier", 8, width)
		for layer := range layers {
			for _, name := range []string{"q_proj", "v_proj"} {
				a.Update(fmt.Sprintf("vit.layers.%d.attention.%s", layer, name), width, width)
			}
		}
		floats, file := held(fmt.Sprintf("float32, rank %d", c.rank), a.Write())
		halves, half := held(fmt.Sprintf("bfloat16, rank %d", c.rank), a.BFloat16().Write())
		if c.fills && (10*floats > 11*file || 10*halves > 11*half) {
			t.Errorf("rank %d: expected at most 1.1 of the files' %d and %d bytes, found %d and %d",
				c.rank, file, half, floats, halves)
		}
		if 3*halves > 2*floats {
			t.Errorf("rank %d: expected at most two thirds of float32's %d bytes of bfloat16, found %d", c.rank, floats, halves)
		}
	}
}
