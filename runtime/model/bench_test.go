package model_test

import (
	"testing"

	"github.com/switchyard-dev/switchyard/runtime/arch"
	"github.com/switchyard-dev/switchyard/runtime/model"
	"github.com/switchyard-dev/switchyard/runtime/weights"
	"github.com/switchyard-dev/switchyard/test/wrappers"
)

// A base of real size is read, named and packed.
func BenchmarkOpen(b *testing.B) {
	for _, c := range []struct{ name, config string }{
		{"ViT-S", `{"model_type": "vit", "hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6,
			"intermediate_size": 1536, "image_size": 224, "patch_size": 16, "num_labels": 1000}`},
		{"BERT-base", `{"model_type": "bert"}`},
	} {
		b.Run(c.name, func(b *testing.B) {
			folder, err := weights.OpenFolder(wrappers.Base(b, c.config).Write())
			if err != nil {
				b.Fatal(err)
			}
			defer func() { _ = folder.Close() }()
			b.ReportAllocs()
			for b.Loop() {
				base, err := model.Open(folder, arch.Float32)
				if err != nil {
					b.Fatal(err)
				}
				b.SetBytes(base.Description.Bytes(arch.Float32))
				base.Close()
			}
		})
	}
}
