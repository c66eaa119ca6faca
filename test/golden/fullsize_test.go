package golden

import (
	"encoding/json"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/switchyard-dev/switchyard/runtime/preprocess/text"
	"github.com/switchyard-dev/switchyard/runtime/preprocess/tokenfiles"
)

const (
	// fullSizeDir names the folder that hack/fullsize fills, in the environment.
	fullSizeDir = "FULLSIZE_DIR"
	// fullSizeTolerance is for sums that are ten times as long.
	fullSizeTolerance = 1e-4
)

// fullSize is the folder with a base of real size; without it tests are skipped.
func fullSize(t *testing.T) string {
	t.Helper()
	dir := os.Getenv(fullSizeDir)
	if dir == "" {
		t.Skip(fullSizeDir + " is not set: make test-fullsize makes a base of real size")
	}
	return dir
}

// The ids of real descriptions, and of random Unicode, are those of Python's tokenizers.
func TestFullSizeTokens(t *testing.T) {
	const descriptions, random, shown = 10_000, 1_000, 10
	dir := fullSize(t)
	type encoded struct {
		Text string  `json:"text"`
		IDs  []int32 `json:"ids"`
	}
	var golden struct {
		MaxTokens    int       `json:"max_tokens"`
		Descriptions []encoded `json:"descriptions"`
		Random       []encoded `json:"random"`
	}
	if err := json.Unmarshal(readFile(t, dir, "tokens.json"), &golden); err != nil {
		t.Fatal(err)
	}
	if len(golden.Descriptions) < descriptions || len(golden.Random) < random {
		t.Fatalf("expected at least %d descriptions and %d random texts, found %d and %d",
			descriptions, random, len(golden.Descriptions), len(golden.Random))
	}
	files := tokenfiles.Files{
		Tokenizer: readFile(t, dir, "base", "tokenizer.json"), Config: readFile(t, dir, "base", "tokenizer_config.json"),
	}
	resolved, err := files.Resolve("bert", golden.MaxTokens)
	if err != nil {
		t.Fatal(err)
	}
	tokenizer, err := text.Open(t.Context(), resolved, text.Options{Instances: 1, Memory: 512 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tokenizer.Close(t.Context()) })
	for name, all := range map[string][]encoded{"descriptions": golden.Descriptions, "random texts": golden.Random} {
		began, tokens, wrong := time.Now(), 0, 0
		for _, c := range all {
			e, err := tokenizer.Encode(t.Context(), c.Text, nil, false)
			if err != nil {
				t.Fatalf("%q: %v", c.Text, err)
			}
			tokens += len(e.IDs)
			if slices.Equal(e.IDs, c.IDs) {
				continue
			}
			if wrong++; wrong <= shown {
				t.Errorf("%q: expected %v, found %v", c.Text, c.IDs, e.IDs)
			}
		}
		t.Logf("%d of %d %s have the ids of Python's tokenizers; %d tokens in %.1f s",
			len(all)-wrong, len(all), name, tokens, time.Since(began).Seconds())
	}
}

// Each text asked of each adapter by itself is answered as by PEFT, and in one batch of all to the bit as by itself.
func TestFullSizeLogits(t *testing.T) {
	s := openSuite(t, fullSize(t), 2)
	s.tolerance = fullSizeTolerance
	rows := s.all()
	alone := make(map[row][]float32, len(rows))
	for _, name := range s.names {
		var own []row
		var got [][]float32
		for i := range s.inputs {
			r := row{i, name}
			alone[r] = s.run(t, []row{r})[0]
			own, got = append(own, r), append(got, alone[r])
		}
		t.Run(name, func(t *testing.T) { s.compare(t, own, got) })
	}
	rng := rand.New(rand.NewPCG(20, 26))
	rng.Shuffle(len(rows), func(i, j int) { rows[i], rows[j] = rows[j], rows[i] })
	for i, logits := range s.run(t, rows) {
		if !slices.EqualFunc(logits, alone[rows[i]], sameBits) {
			t.Errorf("row %d (input %d, adapter %s): alone %v, in the batch %v",
				i, rows[i].input, rows[i].adapter, alone[rows[i]], logits)
		}
	}
	t.Logf("one batch of %d rows of %d adapters: each to the bit as alone", len(rows), len(s.names))
}

func readFile(t *testing.T, path ...string) []byte {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(path...))
	if err != nil {
		t.Fatal(err)
	}
	return raw
}
