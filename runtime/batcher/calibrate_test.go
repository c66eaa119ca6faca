package batcher_test

import (
	"testing"

	"github.com/switchyard-dev/switchyard/runtime/arch"
	"github.com/switchyard-dev/switchyard/runtime/batcher"
	"github.com/switchyard-dev/switchyard/runtime/engine"
	"github.com/switchyard-dev/switchyard/runtime/model"
	"github.com/switchyard-dev/switchyard/runtime/weights"
	"github.com/switchyard-dev/switchyard/test/wrappers"
)

// Any base is measured: of images, of texts, and of one that has no head to answer with. What it is measured with is
// freed.
func TestEveryBaseIsCalibrated(t *testing.T) {
	const bert = `{"model_type": "bert", "architectures": ["BertForSequenceClassification"], "vocab_size": 3,
		"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
		"max_position_embeddings": 64, "id2label": {"0": "a", "1": "b"}}`
	for name, dir := range map[string]string{
		"images":  "../../hack/samples/digits/base",
		"texts":   wrappers.Base(t, bert).Write(),
		"no head": wrappers.Base(t, bert).Without("classifier").Write(),
	} {
		t.Run(name, func(t *testing.T) {
			folder, err := weights.OpenFolder(dir)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = folder.Close() }()
			base, err := model.Open(folder, arch.Float32)
			if err != nil {
				t.Fatal(err)
			}
			defer base.Close()
			if hasHead := base.Description.Own >= 0; hasHead != (name != "no head") {
				t.Fatalf("has a head of its own: %v", hasHead)
			}
			e := engine.New(base, 2)
			defer e.Close()
			cost, err := batcher.Calibrate(e)
			if err != nil {
				t.Fatal(err)
			}
			ofBase := cost.Token / float64(e.Work())
			if cost.Batch <= 0 || cost.Token <= 0 || cost.Pair <= 0 || cost.Update < ofBase || cost.Update > 8*ofBase {
				t.Errorf("expected prices above 0, of an update's multiply-add 1 to 8 times the base's %g, found %+v", ofBase, cost)
			}
		})
	}
}
