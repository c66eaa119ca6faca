package engine_test

import (
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync/atomic"
	"testing"

	"gorgonia.org/tensor"

	"github.com/switchyard-dev/switchyard/runtime/arch"
	"github.com/switchyard-dev/switchyard/runtime/engine"
	"github.com/switchyard-dev/switchyard/runtime/model"
	"github.com/switchyard-dev/switchyard/runtime/peft"
	"github.com/switchyard-dev/switchyard/runtime/weights"
	"github.com/switchyard-dev/switchyard/test/wrappers"
)

// zeros is a base of that config whose every parameter is zero.
func zeros(t *testing.T, config string) *model.Base {
	t.Helper()
	d, err := arch.Parse([]byte(config))
	if err != nil {
		t.Fatal(err)
	}
	var all []wrappers.Tensor
	for _, m := range d.Modules {
		for _, p := range m.Params {
			n := tensor.Shape(p.Shape).TotalSize()
			all = append(all, wrappers.F32(m.Path+"."+p.Name, make([]float32, n), p.Shape...))
		}
	}
	dir := t.TempDir()
	files := map[string][]byte{"config.json": []byte(config), "model.safetensors": wrappers.Safetensors(all...)}
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	folder, err := weights.OpenFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = folder.Close() }()
	base, err := model.Open(folder)
	if err != nil {
		t.Fatal(err)
	}
	return base
}

// heapObjects are the bytes of the heap that are in use, or not collected yet.
func heapObjects() int64 {
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(sample)
	return int64(sample[0].Value.Uint64())
}

// peak is how far the heap grows over what it was while run runs. What is garbage is collected nearly at once.
func peak(run func()) int64 {
	defer debug.SetGCPercent(debug.SetGCPercent(2))
	runtime.GC()
	before := heapObjects()
	var most atomic.Int64
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			most.Store(max(most.Load(), heapObjects()))
			select {
			case <-done:
				return
			default:
				runtime.Gosched()
			}
		}
	}()
	run()
	close(done)
	<-ended
	return most.Load() - before
}

// What a pod is sized by (arch.BatchBytes) is more than what a full batch holds at once, and less than three times
// that: it leaves the garbage collector as much again.
func TestABatchTakesWhatItIsSaidToTake(t *testing.T) {
	const rank = 16
	for name, config := range map[string]string{
		"vit": `{"model_type": "vit", "hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
			"intermediate_size": 512, "image_size": 48, "patch_size": 8, "num_labels": 4}`,
		"vit of few wide tokens": `{"model_type": "vit", "hidden_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4,
			"intermediate_size": 256, "image_size": 64, "patch_size": 32, "num_labels": 4}`,
	} {
		base := zeros(t, config)
		e := engine.New(base, 2)
		image := base.Description.Image
		adapter := lowRank(t, e, rank)
		var most int64
		for range 3 { // the sampler may miss the moment
			most = max(most, peak(func() {
				var batch engine.Batch
				for i := range arch.MaxBatchRows {
					batch.Inputs = append(batch.Inputs, pixels(1, image.Channels, image.Height, image.Width))
					batch.Rows = append(batch.Rows, engine.Row{Input: i, Adapter: adapter})
				}
				run(t, e, batch)
			}))
		}
		e.Close()
		said := base.Description.BatchBytes(arch.MaxBatchRows, rank)
		t.Logf("%s: a batch of %d rows took %d bytes at once, and is said to take %d", name, arch.MaxBatchRows, most, said)
		if most > said || said > 3*most {
			t.Errorf("%s: expected %d to %d bytes, found %d", name, said/3, said, most)
		}
	}
}

// lowRank is an adapter with an update of that rank in every query, key and value.
func lowRank(t *testing.T, e *engine.Engine, rank int) *engine.Adapter {
	t.Helper()
	hidden := e.Description().Config.(*arch.ViT).HiddenSize
	a := wrappers.Adapter(t).Rank(rank).Set("modules_to_save", nil).
		Set("target_modules", []string{"query", "key", "value"})
	for _, layer := range []string{"0", "1"} {
		for _, name := range []string{"query", "key", "value"} {
			a.Update("vit.encoder.layer."+layer+".attention.attention."+name, hidden, hidden)
		}
	}
	folder, err := weights.OpenFolder(a.Write())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = folder.Close() }()
	read, err := peft.Load(folder, e.Description(), peft.Settings{})
	if err != nil {
		t.Fatal(err)
	}
	adapter, err := e.Compile(read)
	if err != nil {
		t.Fatal(err)
	}
	return adapter
}

// A base takes what its description says.
func TestABaseTakesItsParameters(t *testing.T) {
	const config = `{"model_type": "vit", "hidden_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4,
		"intermediate_size": 1024, "image_size": 32, "patch_size": 8, "num_labels": 4}`
	runtime.GC()
	before := heapObjects()
	base := zeros(t, config)
	runtime.GC()
	took, said := heapObjects()-before, base.Description.Bytes()
	t.Logf("the base took %d bytes, and is said to take %d", took, said)
	if took < said-said/20 || took > said+said/20 {
		t.Errorf("expected %d bytes within a twentieth, found %d", said, took)
	}
	runtime.KeepAlive(base)
}
