package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/switchyard-dev/switchyard/runtime/adapters"
	"github.com/switchyard-dev/switchyard/runtime/arch"
	"github.com/switchyard-dev/switchyard/runtime/engine"
	"github.com/switchyard-dev/switchyard/runtime/model"
	"github.com/switchyard-dev/switchyard/runtime/weights"
	"github.com/switchyard-dev/switchyard/test/wrappers"
)

// The base is of MiniLM-L6's shape, with random weights.
const (
	layers     = 6
	hidden     = 384
	vocabulary = 30522
	config     = `{
		"model_type": "bert", "architectures": ["BertForSequenceClassification"], "vocab_size": 30522,
		"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536,
		"max_position_embeddings": 512
	}`
)

// world is a base and its adapters, as folders and as an engine that knows what each of them answers.
type world struct {
	base, adapters string // folders
	engine         *engine.Engine
	compiled       []*engine.Adapter
	names          []string
	inputs         []engine.Input
	expected       [][][]float32 // of each adapter and input, its logits
}

// newWorld writes a base and so many adapters with classifiers of their own into dir, and so many texts of so many
// tokens to ask about.
func newWorld(dir string, loaded, texts, tokens, workers int) (*world, error) {
	w := &world{base: filepath.Join(dir, "base"), adapters: filepath.Join(dir, "adapters")}
	err := building(filepath.Join(dir, "built"), func(b testing.TB) error {
		if err := os.Rename(wrappers.Base(b, config).Write(), w.base); err != nil {
			return err
		}
		if err := os.Mkdir(w.adapters, 0o700); err != nil {
			return err
		}
		for i := range loaded {
			name := "adapter-" + strconv.Itoa(i)
			w.names = append(w.names, name)
			if err := os.Rename(adapter(b, i).Write(), filepath.Join(w.adapters, name)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if err := w.open(workers); err != nil {
		return nil, err
	}
	rng := rand.New(rand.NewPCG(1, 1))
	for range texts {
		ids := make([]int32, tokens)
		for i := range ids {
			ids[i] = rng.Int32N(vocabulary)
		}
		w.inputs = append(w.inputs, engine.Input{IDs: ids})
	}
	return w, w.expect()
}

// adapter is number i of rank 8 on query and value, of two labels or up to nine. All weights are its own.
func adapter(b testing.TB, i int) *wrappers.AdapterFolder {
	const rank = 8
	labels := 2 + i%8
	a := wrappers.Adapter(b).Set("target_modules", []string{"query", "value"}).Set("task_type", "SEQ_CLS")
	rng := rand.New(rand.NewPCG(uint64(i), 2))
	random := func(name string, shape ...int) {
		n := 1
		for _, d := range shape {
			n *= d
		}
		values := make([]float32, n)
		for j := range values {
			values[j] = float32(rng.NormFloat64()) / 16
		}
		a.Tensor(wrappers.F32("base_model.model."+name, values, shape...))
	}
	random("classifier.weight", labels, hidden)
	random("classifier.bias", labels)
	for layer := range layers {
		for _, name := range []string{"query", "value"} {
			path := fmt.Sprintf("bert.encoder.layer.%d.attention.self.%s", layer, name)
			random(path+".lora_A.weight", rank, hidden)
			random(path+".lora_B.weight", hidden, rank)
		}
	}
	return a
}

func (w *world) open(workers int) error {
	folder, err := weights.OpenFolder(w.base)
	if err != nil {
		return err
	}
	base, err := model.Open(folder, arch.Float32)
	if err != nil {
		return err
	}
	w.engine = engine.New(base, workers)
	set := adapters.New(w.engine)
	for _, name := range w.names {
		entry := set.Load(name, func() (*weights.Folder, error) {
			return weights.OpenFolder(filepath.Join(w.adapters, name))
		})
		if entry.Err != nil {
			return entry.Err
		}
		w.compiled = append(w.compiled, entry.Adapter)
	}
	return nil
}

// expect computes what every adapter answers to every text.
func (w *world) expect() error {
	for _, a := range w.compiled {
		batch := engine.Batch{Inputs: w.inputs}
		for i := range w.inputs {
			batch.Rows = append(batch.Rows, engine.Row{Input: i, Adapter: a})
		}
		answers, err := w.engine.Run(batch)
		if err != nil {
			return err
		}
		logits := make([][]float32, len(answers))
		for i, answer := range answers {
			logits[i] = answer.Float32s()
		}
		w.expected = append(w.expected, logits)
	}
	return nil
}

// batch asks each of the rows in the engine.
func (w *world) batch(rows []row) engine.Batch {
	var batch engine.Batch
	for i, r := range rows {
		batch.Inputs = append(batch.Inputs, w.inputs[r.text])
		batch.Rows = append(batch.Rows, engine.Row{Input: i, Adapter: w.compiled[r.adapter]})
	}
	return batch
}

// row asks one adapter about one text, by their numbers.
type row struct{ adapter, text int }

// mixed are n rows, the next ones of all there are: none is asked again before all others, as what is the same in a
// batch is computed once.
func (w *world) mixed(n, from int) []row {
	rows := make([]row, n)
	for i := range rows {
		at := from*n + i
		rows[i] = row{at % len(w.compiled), (at + at/len(w.compiled)) % len(w.inputs)}
	}
	return rows
}

// builder lets what builds folders for tests build them for a program.
type builder struct {
	testing.TB
	dir string
}

// failed is what a builder says of a folder that cannot be built.
type failed struct{ error }

// building calls build with a builder whose folders are in dir.
func building(dir string, build func(testing.TB) error) (err error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	defer func() {
		if v := recover(); v != nil {
			said, ok := v.(failed)
			if !ok {
				panic(v)
			}
			err = said
		}
	}()
	return build(&builder{dir: dir})
}

func (b *builder) Helper() {}

func (b *builder) Fatal(args ...any) { panic(failed{fmt.Errorf("%s", fmt.Sprint(args...))}) }

func (b *builder) TempDir() string {
	dir, err := os.MkdirTemp(b.dir, "")
	if err != nil {
		b.Fatal(err)
	}
	return dir
}
