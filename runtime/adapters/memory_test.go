package adapters_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/switchyard-dev/switchyard/runtime/memory"
	"github.com/switchyard-dev/switchyard/runtime/peft"
	"github.com/switchyard-dev/switchyard/runtime/weights"
	"github.com/switchyard-dev/switchyard/test/wrappers"
)

// An adapter holds hardly more memory than its file, of float32 or bfloat16, and than it is said to take, where its
// ranks fill words; whatever they are, much less of bfloat16.
func TestAnAdapterTakesTheMemoryOfItsFile(t *testing.T) {
	if !memory.OffHeap {
		t.Skip("on the heap no part of a block is given back")
	}
	const width, layers, page = 256, 4, 4 << 10
	set := newSetOf(t, wrappers.Base(t, fmt.Sprintf(`{"model_type": "vit", "hidden_size": %d, "num_hidden_layers": %d,
		"num_attention_heads": 4, "intermediate_size": 512, "image_size": 32, "patch_size": 8, "num_labels": 8}`,
		width, layers)).Write())
	base, _ := set.Base()
	held := func(what, dir string, fills bool) int64 {
		file, err := os.Stat(filepath.Join(dir, "adapter_model.safetensors"))
		if err != nil {
			t.Fatal(err)
		}
		read, err := peft.Load(openFolder(t, dir), base, peft.Settings{})
		if err != nil {
			t.Fatal(err)
		}
		before := memory.Held()
		if entry := set.Load("a", func() (*weights.Folder, error) { return weights.OpenFolder(dir) }); entry.Err != nil {
			t.Fatal(entry.Err)
		}
		held := memory.Held() - before
		set.Drop("a")
		t.Logf("%s: %d bytes, %.2f of the file", what, held, float64(held)/float64(file.Size()))
		if fills && 10*held > 11*file.Size() {
			t.Errorf("%s: expected at most 1.1 of the file's %d bytes, found %d", what, file.Size(), held)
		}
		if said := read.Bytes(base); held < said || fills && held > said+said/50+page {
			t.Errorf("%s: expected hardly more than the %d bytes it is said to take, found %d", what, said, held)
		}
		return held
	}
	for _, rank := range []int{1, 2, 3, 4, 5, 7, 8, 12, 16, 64} {
		a := wrappers.Adapter(t).Rank(rank).Set("lora_alpha", 2*rank).Saved("classifier", 8, width)
		for layer := range layers {
			for _, name := range []string{"q_proj", "v_proj"} {
				a.Update(fmt.Sprintf("vit.layers.%d.attention.%s", layer, name), width, width)
			}
		}
		floats := held(fmt.Sprintf("float32, rank %d", rank), a.Write(), true)
		halves := held(fmt.Sprintf("bfloat16, rank %d", rank), a.BFloat16().Write(), rank%2 == 0)
		if 4*halves > 3*floats {
			t.Errorf("rank %d of bfloat16: expected at most 3/4 of float32's %d bytes, found %d", rank, floats, halves)
		}
	}
}
