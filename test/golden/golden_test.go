package golden

import (
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"

	"github.com/switchyard-dev/switchyard/runtime/arch"
)

// tolerance is relative to the largest logit of the row; unsure has the exceptions.
const tolerance = 1e-5

func TestEachAdapterAloneAgreesWithPEFT(t *testing.T) {
	for _, path := range suites(t) {
		name := filepath.Base(path)
		s := openSuite(t, path, 2)
		for _, adapter := range s.names {
			t.Run(name+"/"+adapter, func(t *testing.T) {
				var rows []row
				for i := range s.inputs {
					rows = append(rows, row{i, adapter})
				}
				s.compare(t, rows, s.run(t, rows))
			})
		}
	}
}

// Each row of the batch is, to the bit, what it is alone.
func TestOneMixedBatchOfAllAgreesWithPEFT(t *testing.T) {
	for _, path := range suites(t) {
		name := filepath.Base(path)
		t.Run(name, func(t *testing.T) {
			s := openSuite(t, path, 2)
			rows := s.all()
			got := s.run(t, rows)
			s.compare(t, rows, got)
			if testing.Short() {
				return
			}
			for i, r := range rows {
				if alone := s.run(t, []row{r})[0]; !slices.EqualFunc(got[i], alone, sameBits) {
					t.Errorf("input %d, adapter %s: alone %v, in the batch of all %v", r.input, r.adapter, alone, got[i])
				}
			}
		})
	}
}

// Other activations, sizes, channels and biases, each on a bare base.
func TestBasesOfOtherConfigsAgreeWithTransformers(t *testing.T) {
	for _, path := range folders(t, variants) {
		t.Run(filepath.Base(path), func(t *testing.T) {
			s := open(t, path, path, 2, arch.Float32)
			rows := s.all()
			s.compare(t, rows, s.run(t, rows))
		})
	}
}

// compare holds answers to PEFT's and reports how near the worst of them was.
func (s *suite) compare(t *testing.T, rows []row, got [][]float32) {
	t.Helper()
	worst := 0.0
	for i, r := range rows {
		want := s.logits[r.adapter][r.input]
		if len(got[i]) != len(want) {
			t.Fatalf("input %d, adapter %s: expected %d logits, found %d", r.input, r.adapter, len(want), len(got[i]))
		}
		largest := 0.0
		for _, v := range want {
			largest = max(largest, math.Abs(float64(v)))
		}
		bound := s.tolerance * largest
		if floor, ok := s.unsure[r]; ok {
			if largest > smallest {
				t.Errorf("input %d, adapter %s: logits up to %g need no bound of their own", r.input, r.adapter, largest)
			}
			bound = max(bound, floor)
		}
		for j := range want {
			off := math.Abs(float64(got[i][j] - want[j]))
			if !(off <= bound) {
				t.Fatalf("input %d, adapter %s, logit %d: expected %g, found %g", r.input, r.adapter, j, want[j], got[i][j])
			}
			worst = max(worst, off/largest)
		}
	}
	t.Logf("%d rows, worst difference %.1e of the row's largest logit", len(rows), worst)
}

// An adapter that changed nothing would agree with the base: the golden files would not notice a forgotten update.
func TestEveryAdapterChangesItsAnswers(t *testing.T) {
	for _, path := range suites(t) {
		name := filepath.Base(path)
		s := openSuite(t, path, 2)
		base := s.logits[baseCase]
		for _, adapter := range s.names {
			if adapter == baseCase || base == nil || len(s.logits[adapter][0]) != len(base[0]) {
				continue
			}
			if slices.EqualFunc(s.logits[adapter], base, slices.Equal) {
				t.Errorf("%s/%s: the golden logits are those of the base", name, adapter)
			}
		}
	}
}

// Rows are drawn at random into batches of random sizes and orders, on different numbers of workers; each answer must
// be, to the bit, what the row gets alone.
func TestARowsAnswerDoesNotDependOnItsNeighbours(t *testing.T) {
	rounds := 12
	if testing.Short() {
		rounds = 3
	}
	for _, path := range suites(t) {
		name := filepath.Base(path)
		t.Run(name, func(t *testing.T) {
			alone := make(map[row][]float32)
			single := openSuite(t, path, 1)
			rng := rand.New(rand.NewPCG(20, 26))
			for _, workers := range []int{1, 2, 3} {
				s := openSuite(t, path, workers)
				for range rounds {
					rows := s.all()
					rng.Shuffle(len(rows), func(i, j int) { rows[i], rows[j] = rows[j], rows[i] })
					rows = rows[:1+rng.IntN(min(len(rows), 48))]
					got := s.run(t, rows)
					for i, r := range rows {
						if alone[r] == nil {
							alone[r] = single.run(t, []row{r})[0]
						}
						if !slices.EqualFunc(got[i], alone[r], sameBits) {
							t.Fatalf("%d workers, row %d of %d (input %d, adapter %s): alone %v, in the batch %v",
								workers, i, len(rows), r.input, r.adapter, alone[r], got[i])
						}
					}
				}
			}
		})
	}
}

// A neighbour that is all NaN poisons its own answer only.
func TestAPoisonedNeighbourHurtsNobody(t *testing.T) {
	for _, path := range suites(t) {
		name := filepath.Base(path)
		t.Run(name, func(t *testing.T) {
			s := openSuite(t, path, 2)
			if s.inputs[1].Pixels == nil {
				t.Skip("a text has no NaN to give")
			}
			a, b := s.names[0], s.names[len(s.names)-1]
			want := s.run(t, []row{{0, a}, {0, b}})
			poison := s.inputs[1].Pixels.Float32s()
			for i := range poison {
				poison[i] = float32(math.NaN())
			}
			got := s.run(t, []row{{1, a}, {0, a}, {1, b}, {0, b}, {1, a}})
			if !slices.EqualFunc(got[1], want[0], sameBits) || !slices.EqualFunc(got[3], want[1], sameBits) {
				t.Errorf("expected %v and %v, found %v and %v", want[0], want[1], got[1], got[3])
			}
			if !math.IsNaN(float64(got[0][0])) {
				t.Error("the poison did not show in its own row")
			}
		})
	}
}

func sameBits(a, b float32) bool { return math.Float32bits(a) == math.Float32bits(b) }
