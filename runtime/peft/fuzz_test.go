package peft_test

import (
	"math"
	"reflect"
	"testing"

	"github.com/switchyard-dev/switchyard/runtime/peft"
)

// Whatever a config says, it is refused with a short error or gives an adapter that fits the base.
func FuzzConfig(f *testing.F) {
	base, model := tinyViT(f), headed(f).Model()
	f.Add(headed(f).Config())
	f.Fuzz(func(t *testing.T, config []byte) {
		a, err := peft.Parse(config, model, nil, base)
		if err != nil {
			// Errors of encoding/json repeat a character, all others what is cut to 200 bytes, quoted at most fourfold.
			if a != nil || len(err.Error()) > 2000 {
				t.Fatalf("expected no adapter and a short error, found %v and %d bytes", a, len(err.Error()))
			}
			return
		}
		if len(a.Updates) != 1 || len(a.Saved) != 1 || len(a.Labels) != 5 || a.MaxRank != 4 {
			t.Fatalf("expected all that the model file holds, found %+v", a)
		}
		if s := float64(a.Updates[0].Scale); math.IsNaN(s) || math.IsInf(s, 0) {
			t.Fatalf("expected a finite scale, found %g", s)
		}
		again, err := peft.Parse(config, model, nil, base)
		if err != nil || !reflect.DeepEqual(a.Updates[0].Scale, again.Updates[0].Scale) || a.Digest != again.Digest {
			t.Fatalf("expected the same again, found %+v, %v", again, err)
		}
	})
}

// Whatever a weights file holds, what is accepted fits the base.
func FuzzModel(f *testing.F) {
	base, config := tinyViT(f), headed(f).Set("modules_to_save", []string{"classifier", "embeddings", "layernorm"}).
		Set("rank_pattern", raw(`{"layers.1.*": 2}`)).Config()
	plain := headed(f).Config()
	f.Add(headed(f).Model())
	f.Add(bare(f).Saved("classifier", 2, 8).Rank(2).Update("vit.layers.1.mlp.fc1", 16, 8).Model())
	f.Add(bare(f).Update(query4, 8, 8).Model())
	f.Fuzz(func(t *testing.T, model []byte) {
		for _, config := range [][]byte{config, plain} {
			a, err := peft.Parse(config, model, nil, base)
			if err != nil {
				continue
			}
			if a.Bytes > int64(len(model)) {
				t.Fatalf("expected at most the file's %d bytes, found %d", len(model), a.Bytes)
			}
			for _, u := range a.Updates {
				m, ok := base.Lookup(u.Module)
				if !ok || m.Path != u.Module || u.B.Shape()[0] != m.Params[0].Shape[0] ||
					u.A.Shape()[1] != m.Params[0].Shape[1] || u.A.Shape()[0] != u.B.Shape()[1] {
					t.Fatalf("update of %s: %v, %v", u.Module, u.A.Shape(), u.B.Shape())
				}
			}
			for _, s := range a.Saved {
				m, ok := base.Lookup(s.Module)
				if !ok || m.Path != s.Module || len(s.Params) != len(m.Params) {
					t.Fatalf("saved %s: %v", s.Module, s.Params)
				}
			}
		}
	})
}
