package artifact_test

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/switchyard-dev/switchyard/controllers/artifact"
	"github.com/switchyard-dev/switchyard/runtime/arch"
	"github.com/switchyard-dev/switchyard/runtime/model"
	"github.com/switchyard-dev/switchyard/runtime/peft"
	"github.com/switchyard-dev/switchyard/test/digits"
	"github.com/switchyard-dev/switchyard/test/wrappers"
)

// What is accepted here is what a runtime opens.
func TestInspectBase(t *testing.T) {
	base, size, err := artifact.InspectBase(openFolder(t, digitsBase()))
	if err != nil {
		t.Fatal(err)
	}
	opened, err := model.Open(openFolder(t, digitsBase()))
	if err != nil {
		t.Fatal(err)
	}
	if base.Architecture != opened.Description.Architecture || !slices.Equal(base.Labels, opened.Description.Labels) {
		t.Errorf("expected %+v, found %+v", opened.Description, base)
	}
	if want := parameterBytes(base); size != want {
		t.Errorf("size: expected %d, found %d", want, size)
	}
}

func parameterBytes(base *arch.Description) (size int64) {
	for _, m := range base.Modules {
		for _, p := range m.Params {
			n := int64(4)
			for _, dim := range p.Shape {
				n *= int64(dim)
			}
			size += n
		}
	}
	return size
}

func TestInspectAdapter(t *testing.T) {
	folder := openFolder(t, parity())
	info, err := artifact.InspectAdapter(folder, description(t), peft.Settings{ClassNames: []string{"gerade", "ungerade"}})
	if err != nil {
		t.Fatal(err)
	}
	p := pack(t, artifact.Adapter, parity(), peft.Settings{ClassNames: []string{"gerade", "ungerade"}})
	if info.Digest != p.Digest || info.NumLabels != 2 || info.Rank < 1 || info.Bytes < 1 {
		t.Errorf("expected %s with 2 labels, found %+v", p.Digest, info)
	}
	_, err = artifact.InspectAdapter(folder, description(t), peft.Settings{ClassNames: []string{"one"}})
	if err == nil || !strings.Contains(err.Error(), "classNames: expected 2, ") {
		t.Errorf("expected the wrong number of class names refused, found %v", err)
	}
	other := wrappers.Adapter(t).Update("vit.layers.0.attention.q_proj", 7, 7).Saved("classifier", 2, 7).Write()
	var misfit *peft.MisfitError
	if _, err := artifact.InspectAdapter(openFolder(t, other), description(t), peft.Settings{}); !errors.As(err, &misfit) {
		t.Errorf("expected a MisfitError, found %v", err)
	}
}

const tinyConfig = `{
	"model_type": "vit", "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16,
	"image_size": 4, "patch_size": 2
}`

// tinyBase writes a base, whose tensors a test may change.
func tinyBase(t *testing.T, change func(tensors []wrappers.Tensor) []wrappers.Tensor) (dir string) {
	t.Helper()
	d, err := arch.Parse([]byte(tinyConfig))
	if err != nil {
		t.Fatal(err)
	}
	var tensors []wrappers.Tensor
	for _, m := range d.Modules {
		for _, p := range m.Params {
			n := 1
			for _, dim := range p.Shape {
				n *= dim
			}
			tensors = append(tensors, wrappers.F32(m.Path+"."+p.Name, make([]float32, n), p.Shape...))
		}
	}
	dir = t.TempDir()
	for name, data := range map[string][]byte{
		"config.json": []byte(tinyConfig), "model.safetensors": wrappers.Safetensors(change(tensors)...),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestBasesRefused(t *testing.T) {
	const name = "classifier.bias"
	replace := func(with ...wrappers.Tensor) func(tensors []wrappers.Tensor) []wrappers.Tensor {
		return func(tensors []wrappers.Tensor) []wrappers.Tensor {
			tensors = slices.DeleteFunc(tensors, func(t wrappers.Tensor) bool { return t.Name == name })
			return append(tensors, with...)
		}
	}
	for _, c := range []struct {
		name   string
		change func(tensors []wrappers.Tensor) []wrappers.Tensor
		text   string
	}{
		{
			"a missing tensor", replace(),
			`model.safetensors: tensor "classifier.bias": expected F32 [2], found no such tensor`,
		},
		{
			"another shape", replace(wrappers.F32(name, make([]float32, 3), 3)),
			`tensor "classifier.bias": shape: expected [2], found [3]`,
		},
		{
			"another dtype", replace(wrappers.Tensor{Name: name, DType: "F16", Shape: []int{2}, Data: make([]byte, 4)}),
			`tensor "classifier.bias": dtype: expected F32, found F16`,
		},
		{
			"a NaN", replace(wrappers.F32(name, []float32{0, float32(math.NaN())}, 2)),
			`tensor "classifier.bias": expected finite values, found NaN`,
		},
		{
			"nothing of it", func([]wrappers.Tensor) []wrappers.Tensor { return nil },
			`found no such tensor; tensor `,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, _, err := artifact.InspectBase(openFolder(t, tinyBase(t, c.change)))
			if err == nil || !strings.Contains(err.Error(), c.text) || len(err.Error()) > 1000 {
				t.Errorf("expected %q within, found %v", c.text, err)
			}
		})
	}
	if _, _, err := artifact.InspectBase(openFolder(t, digits.Adapters(sample)+"/parity")); err == nil {
		t.Error("expected an adapter refused as a base")
	}
}
