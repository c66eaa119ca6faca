// Command contestant is Switchyard as hack/bench/peers.py runs it beside other engines: it takes a command a line, in
// JSON, from stdin, and answers each with a line.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"time"

	"gorgonia.org/tensor"

	"github.com/switchyard-dev/switchyard/runtime/adapters"
	"github.com/switchyard-dev/switchyard/runtime/arch"
	"github.com/switchyard-dev/switchyard/runtime/engine"
	"github.com/switchyard-dev/switchyard/runtime/kernels"
	"github.com/switchyard-dev/switchyard/runtime/memory"
	"github.com/switchyard-dev/switchyard/runtime/model"
	"github.com/switchyard-dev/switchyard/runtime/weights"
)

// command is one line. Of its fields those of one kind are given.
type command struct {
	Open     string   // a base's folder: with DType and Adapters' folders; its answer has Variant
	DType    string   // float32 or bfloat16
	Adapters []string // in the order of their numbers

	Inputs string // a safetensors file: pixel_values F32 [B, C, H, W], or input_ids F32 [B, S]

	Rows  [][2]int // input and adapter of each row (-1: the base); its answer has MS and Logits
	Whole bool     // without the shortcut of the last layer
}

type answer struct {
	Error   string      `json:"error,omitempty"`
	Variant string      `json:"variant,omitempty"`
	MS      float64     `json:"ms,omitempty"`
	Logits  [][]float32 `json:"logits,omitempty"`
}

type contestant struct {
	base     *model.Base
	engine   *engine.Engine
	set      *adapters.Set
	adapters []*engine.Adapter // of the set
	inputs   []engine.Input
}

func main() {
	workers := runtime.GOMAXPROCS(0)
	runtime.GOMAXPROCS(workers + 2) // as cmd/runtime does
	var c contestant
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<20)
	out := json.NewEncoder(os.Stdout)
	for lines.Scan() {
		var cmd command
		a, err := answer{}, json.Unmarshal(lines.Bytes(), &cmd)
		switch {
		case err != nil:
		case cmd.Open != "":
			a, err = c.open(cmd, workers)
		case cmd.Inputs != "":
			err = c.read(cmd.Inputs)
		default:
			a, err = c.run(cmd)
		}
		if err != nil {
			a = answer{Error: err.Error()}
		}
		if err := out.Encode(a); err != nil {
			fmt.Fprintln(os.Stderr, "contestant:", err)
			os.Exit(1)
		}
	}
}

// close gives back all that was opened: what stays would be memory that the next base is measured beside.
func (c *contestant) close() error {
	if c.engine == nil {
		return nil
	}
	for _, entry := range c.set.List() {
		c.set.Drop(entry.Name)
	}
	c.engine.Close()
	c.base.Close()
	*c = contestant{}
	if held := memory.Held(); held != 0 {
		return fmt.Errorf("expected no memory to be held by the base before, found %d bytes", held)
	}
	return nil
}

func (c *contestant) open(cmd command, workers int) (answer, error) {
	if err := c.close(); err != nil {
		return answer{}, err
	}
	folder, err := weights.OpenFolder(cmd.Open)
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = folder.Close() }()
	dtype, err := arch.ParseDType(cmd.DType)
	if err != nil {
		return answer{}, fmt.Errorf("DType: %w", err)
	}
	base, err := model.Open(folder, dtype)
	if err != nil {
		return answer{}, err
	}
	e := engine.New(base, workers)
	*c = contestant{base: base, engine: e, set: adapters.New(e)}
	var a answer
	if a.Variant, err = kernels.Variant(); err != nil {
		return answer{}, err
	}
	for _, path := range cmd.Adapters {
		entry := c.set.Load(path, func() (*weights.Folder, error) { return weights.OpenFolder(path) })
		if entry.Err != nil {
			return answer{}, entry.Err
		}
		c.adapters = append(c.adapters, entry.Adapter)
	}
	return a, nil
}

func (c *contestant) read(path string) error {
	raw, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	tensors, err := weights.Parse(raw)
	if err != nil {
		return err
	}
	name := "input_ids"
	if c.engine.Description().Image != nil {
		name = "pixel_values"
	}
	info, ok := tensors.Info(name)
	if !ok {
		return fmt.Errorf("%s: expected %s", path, name)
	}
	all, err := tensors.Float32(name, info.Shape...)
	if err != nil {
		return err
	}
	values, n := all.Data().([]float32), info.Shape[0]
	each := len(values) / n
	c.inputs = make([]engine.Input, n)
	for i := range c.inputs {
		own := values[i*each : (i+1)*each]
		if name == "pixel_values" {
			c.inputs[i].Pixels = tensor.New(tensor.WithShape(info.Shape[1:]...), tensor.WithBacking(own))
			continue
		}
		for _, v := range own {
			c.inputs[i].IDs = append(c.inputs[i].IDs, int32(v))
		}
	}
	return nil
}

func (c *contestant) run(cmd command) (answer, error) {
	batch := engine.Batch{Whole: cmd.Whole}
	numbers := make(map[int]int)
	for _, row := range cmd.Rows {
		n, known := numbers[row[0]]
		if !known {
			n = len(batch.Inputs)
			numbers[row[0]] = n
			batch.Inputs = append(batch.Inputs, c.inputs[row[0]])
		}
		r := engine.Row{Input: n}
		if row[1] >= 0 {
			r.Adapter = c.adapters[row[1]]
		}
		batch.Rows = append(batch.Rows, r)
	}
	began := time.Now()
	logits, err := c.engine.Run(batch)
	took := time.Since(began)
	if err != nil {
		return answer{}, err
	}
	a := answer{MS: float64(took) / float64(time.Millisecond)}
	for _, l := range logits {
		a.Logits = append(a.Logits, l.Float32s())
	}
	return a, nil
}
