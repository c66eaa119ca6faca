package deberta

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/switchyard-dev/switchyard/runtime/arch"
)

// The rows of the relative embeddings, at the size that DeBERTa v3 has, are those that transformers takes for each of
// the 1,023 distances in a text of 512 tokens (hack/golden/tables.py).
func TestBucketsAreThoseOfTransformers(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join("testdata", "buckets.json"))
	if err != nil {
		t.Fatal(err)
	}
	var golden struct {
		Buckets     int   `json:"position_buckets"`
		MaxRelative int   `json:"max_relative_positions"`
		Rows        []int `json:"rows"`
	}
	if err := json.Unmarshal(raw, &golden); err != nil {
		t.Fatal(err)
	}
	most := golden.MaxRelative - 1
	if golden.Buckets != 256 || golden.MaxRelative != 512 || len(golden.Rows) != 2*most+1 {
		t.Fatalf("expected 1,023 rows of 256 buckets for 512 tokens, found %d of %d for %d",
			len(golden.Rows), golden.Buckets, golden.MaxRelative)
	}
	c := &arch.DeBERTa{Buckets: golden.Buckets, MaxRelative: golden.MaxRelative, MaxPositions: 512}
	for i, row := range bucketsOf(c, most) {
		if row != golden.Rows[i] {
			t.Errorf("distance %d: expected the row %d, found %d", i-most, golden.Rows[i], row)
		}
	}
	// v3 itself says -1, which stands for its longest text; and a shorter text has the middle of the same.
	c.MaxRelative = -1
	const shorter = 300
	if got := bucketsOf(c, shorter); !slices.Equal(got, golden.Rows[most-shorter:most+shorter+1]) {
		t.Errorf("a text of %d tokens: expected the middle of all rows, found %v", shorter+1, got)
	}
}
