package engine_test

import (
	"slices"
	"sync"
	"testing"

	"github.com/switchyard-dev/switchyard/runtime/engine"
	"github.com/switchyard-dev/switchyard/test/wrappers"
)

// What DeBERTa's layers make of the base's relative embeddings is computed by the first batch and kept for all: batches
// at once, of adapters that change the projections and of such that do not, answer to the bit as each row does first.
func TestRelativePositionsAreSharedByBatches(t *testing.T) {
	const config = `{"model_type": "deberta-v2", "vocab_size": 100, "hidden_size": 16, "num_hidden_layers": 2,
		"num_attention_heads": 2, "intermediate_size": 24, "max_position_embeddings": 32, "num_labels": 4,
		"relative_attention": true, "pos_att_type": ["p2c", "c2p"], "share_att_key": true, "position_buckets": 8,
		"position_biased_input": false, "norm_rel_ebd": "layer_norm"}`
	const self, encoder = "deberta.encoder.layer.1.attention.self.", "deberta.encoder."
	folders := []string{
		wrappers.Adapter(t).Set("modules_to_save", nil).Update(self+"value_proj", 16, 16).Write(),
		wrappers.Adapter(t).Set("modules_to_save", nil).Update(self+"key_proj", 16, 16).Write(),
		wrappers.Adapter(t).Set("modules_to_save", []string{"encoder.LayerNorm"}).
			Zip(encoder+"LayerNorm.weight", 16).Zip(encoder+"LayerNorm.bias", 16).Write(),
	}
	dir := wrappers.Base(t, config).Write()
	start := func() (*engine.Engine, []engine.Row) {
		e := openBase(t, dir)
		rows := []engine.Row{{}}
		for _, folder := range folders {
			rows = append(rows, engine.Row{Adapter: compileFolder(t, e, folder)})
		}
		return e, rows
	}
	input := engine.Input{IDs: []int32{1, 50, 20, 7, 99, 3, 3, 12}}
	answer := func(e *engine.Engine, rows ...engine.Row) [][]float32 {
		answers, err := e.Run(engine.Batch{Inputs: []engine.Input{input}, Rows: rows})
		if err != nil {
			t.Error(err)
			return make([][]float32, len(rows))
		}
		logits := make([][]float32, len(rows))
		for i, a := range answers {
			logits[i] = a.Float32s()
		}
		return logits
	}
	var want [][]float32
	for i := range len(folders) + 1 {
		e, rows := start() // so that nothing is kept of another
		want = append(want, answer(e, rows[i])[0])
	}
	for i := range want {
		if i > 0 && sameBits(want[i], want[0]) {
			t.Fatalf("adapter %d: expected other logits than the base's", i)
		}
	}
	e, rows := start()
	var batches sync.WaitGroup
	for first := range 4 {
		batches.Go(func() {
			for range 8 {
				order := append(slices.Clone(rows[first:]), rows[:first]...)
				for i, got := range answer(e, order...) {
					if alone := want[(first+i)%len(rows)]; !sameBits(got, alone) {
						t.Errorf("row %d of a batch: expected %v, found %v", i, alone, got)
					}
				}
			}
		})
	}
	batches.Wait()
}
