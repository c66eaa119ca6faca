package modernbert

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/switchyard-dev/switchyard/runtime/arch"
)

// How fast the pairs of a head turn, at the sizes that mmBERT has, is what transformers computes
// (hack/golden/tables.py), but that a power's last bit may be another one on another CPU.
func TestFrequenciesAreThoseOfTransformers(t *testing.T) {
	const tolerance, pairs = 2e-7, 32
	raw, err := os.ReadFile(filepath.Join("testdata", "frequencies.json"))
	if err != nil {
		t.Fatal(err)
	}
	var golden map[string]struct {
		Config json.RawMessage `json:"config"`
		Kinds  map[string]struct {
			Frequencies []float32 `json:"frequencies"`
			Scale       float64   `json:"scale"`
		} `json:"kinds"`
	}
	if err := json.Unmarshal(raw, &golden); err != nil {
		t.Fatal(err)
	}
	for name, g := range golden {
		tensors, err := arch.Tensors(g.Config)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		d, err := arch.Parse(g.Config, tensors)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		c := d.Config.(*arch.ModernBERT)
		for kind, rope := range map[string]arch.RoPE{"full_attention": c.Global, "sliding_attention": c.Local} {
			want, got := g.Kinds[kind], newRotary(rope, c.HiddenSize/c.NumHeads)
			if len(want.Frequencies) != pairs || len(got.frequencies) != pairs {
				t.Fatalf("%s: %s: expected %d frequencies, found %d, and %d of transformers",
					name, kind, pairs, len(got.frequencies), len(want.Frequencies))
			}
			for i, f := range want.Frequencies {
				if off := math.Abs(float64(got.frequencies[i]/f - 1)); !(off <= tolerance) {
					t.Errorf("%s: %s: pair %d: expected %g, found %g", name, kind, i, f, got.frequencies[i])
				}
			}
			if off := math.Abs(got.scale/want.Scale - 1); !(off <= tolerance) {
				t.Errorf("%s: %s: scale: expected %g, found %g", name, kind, want.Scale, got.scale)
			}
		}
	}
}
