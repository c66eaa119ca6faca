package serve

import (
	"encoding/json"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/switchyard-dev/switchyard/test/oip"
	"github.com/switchyard-dev/switchyard/test/packages"
)

const texts = "../../hack/samples/packages"

// Over HTTP, from text to label: every held-out text of every adapter, in mixed batches of classifiers of texts and of
// tokens. Each beats the commonest answer by ten points and, but for the tasks that are hard, is right in four of five.
// What is found in texts is, to the score, what transformers' pipeline finds.
func TestHeldOutTexts(t *testing.T) {
	const margin, least, batch = 0.1, 0.8, 120
	// Tasks of ten and eleven classes, of which a synopsis often does not tell: what is in C could be in C++.
	hard := map[string]bool{"section": true, "language": true}
	questions, err := packages.Questions(texts)
	if err != nil {
		t.Fatal(err)
	}
	entities := readEntities(t)
	s := startOn(t, packages.Base(texts), packages.Adapters(texts), "packages")

	answered, right := map[string]int{}, map[string]int{}
	expected := map[string]map[string]int{} // how often, by adapter
	for part := range slices.Chunk(questions, batch) {
		var about, adapters []string
		for _, q := range part {
			about, adapters = append(about, q.Text), append(adapters, q.Adapter)
		}
		answers, err := oip.Infer(t.Context(), s.URL, "packages", oip.Request{
			Inputs: []oip.Tensor{oip.Texts(about...), oip.Adapters(adapters...)},
		})
		if err != nil {
			t.Fatal(err)
		}
		for i, q := range part {
			if expected[q.Adapter] == nil {
				expected[q.Adapter] = map[string]int{}
			}
			expected[q.Adapter][q.Expected()]++
			answered[q.Adapter]++
			if q.Answer(answers[i]) == q.Expected() {
				right[q.Adapter]++
			}
			if q.Label != "" {
				continue
			}
			want, published := entities[q.Text]
			if !published || !slices.EqualFunc(want, answers[i].Entities, alike) {
				t.Errorf("%q: expected the entities %+v, found %+v", q.Text, want, answers[i].Entities)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(answered)) {
		n := float64(answered[name])
		accuracy, commonest := float64(right[name])/n, float64(slices.Max(slices.Collect(maps.Values(expected[name]))))/n
		t.Logf("%s: %.3f of %.0f held-out texts; the commonest answer: %.3f", name, accuracy, n, commonest)
		if want := max(commonest+margin, least); !hard[name] && accuracy < want || accuracy < commonest+margin {
			t.Errorf("%s: expected at least %.3f, found %.3f", name, want, accuracy)
		}
	}
	if len(answered) != len(expectedAdapters(t)) {
		t.Errorf("expected texts for each of %v, found %v", expectedAdapters(t), answered)
	}
}

// expectedAdapters are those of the sample.
func expectedAdapters(t *testing.T) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(packages.Adapters(texts))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// readEntities is what transformers' pipeline finds in the texts of versions (hack/samples).
func readEntities(t *testing.T) map[string][]oip.Entity {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(texts, "entities.json"))
	if err != nil {
		t.Fatal(err)
	}
	var all []struct {
		Text     string       `json:"text"`
		Entities []oip.Entity `json:"entities"`
	}
	if err := json.Unmarshal(raw, &all); err != nil {
		t.Fatal(err)
	}
	found := map[string][]oip.Entity{}
	for _, a := range all {
		found[a.Text] = a.Entities
	}
	return found
}

// alike tells whether two entities are the same, their scores but for rounding.
func alike(a, b oip.Entity) bool {
	const tolerance = 1e-5
	off := math.Abs(float64(a.Score - b.Score))
	a.Score = b.Score
	return a == b && off <= tolerance
}
