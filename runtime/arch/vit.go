package arch

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"

	"github.com/switchyard-dev/switchyard/runtime/quote"
)

// ViT is the config of a Vision Transformer (transformers' ViTConfig), with its defaults.
type ViT struct {
	HiddenSize       int     `json:"hidden_size"`
	NumHiddenLayers  int     `json:"num_hidden_layers"`
	NumHeads         int     `json:"num_attention_heads"`
	IntermediateSize int     `json:"intermediate_size"`
	HiddenAct        string  `json:"hidden_act"`
	LayerNormEps     float64 `json:"layer_norm_eps"`
	ImageSize        pair    `json:"image_size"`
	PatchSize        pair    `json:"patch_size"`
	NumChannels      int     `json:"num_channels"`
	QKVBias          bool    `json:"qkv_bias"`
}

// Patches is the grid of patches of one image: rows and columns.
func (c *ViT) Patches() (rows, cols int) {
	return c.ImageSize[0] / c.PatchSize[0], c.ImageSize[1] / c.PatchSize[1]
}

// pair is a size given as one number or as [height, width].
type pair [2]int

func (p *pair) UnmarshalJSON(raw []byte) error {
	var side int
	if err := json.Unmarshal(raw, &side); err == nil {
		*p = pair{side, side}
		return nil
	}
	var both []int
	if err := json.Unmarshal(raw, &both); err != nil || len(both) != 2 {
		return errors.New("not a size") // decode says of which field, and what it takes
	}
	*p = pair{both[0], both[1]}
	return nil
}

func parseViT(raw []byte, labels int) (*Description, error) {
	c := ViT{
		HiddenSize: 768, NumHiddenLayers: 12, NumHeads: 12, IntermediateSize: 3072, HiddenAct: "gelu",
		LayerNormEps: 1e-12, ImageSize: pair{224, 224}, PatchSize: pair{16, 16}, NumChannels: 3, QKVBias: true,
	}
	if err := decode(raw, &c); err != nil {
		return nil, err
	}
	if err := c.check(); err != nil {
		return nil, err
	}
	return &Description{
		Architecture: "ViTForImageClassification",
		Config:       &c,
		Modules:      c.modules(labels),
		Head:         "classifier",
		Image:        ImageInput{c.NumChannels, c.ImageSize[0], c.ImageSize[1]},
		work:         c.work,
	}, nil
}

// activations are the values of hidden_act that runtime/kernels computes.
var activations = []string{"gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "silu"}

// check bounds every field, so that a hostile config costs nothing.
func (c *ViT) check() error {
	for _, f := range []struct {
		name       string
		value, max int
	}{
		{"hidden_size", c.HiddenSize, 1 << 14},
		{"num_hidden_layers", c.NumHiddenLayers, 256},
		{"num_attention_heads", c.NumHeads, 256},
		{"intermediate_size", c.IntermediateSize, 1 << 16},
		{"image_size", c.ImageSize[0], 1 << 12},
		{"image_size", c.ImageSize[1], 1 << 12},
		{"patch_size", c.PatchSize[0], 1 << 10},
		{"patch_size", c.PatchSize[1], 1 << 10},
		{"num_channels", c.NumChannels, 16},
	} {
		if f.value < 1 || f.value > f.max {
			return fmt.Errorf("%s: expected 1 to %d, found %d", f.name, f.max, f.value)
		}
	}
	if c.HiddenSize%c.NumHeads != 0 {
		return fmt.Errorf("hidden_size: expected a multiple of num_attention_heads = %d, found %d", c.NumHeads, c.HiddenSize)
	}
	if rows, cols := c.Patches(); rows < 1 || cols < 1 {
		return fmt.Errorf("patch_size: expected at most image_size %v, found %v", c.ImageSize, c.PatchSize)
	}
	if !(c.LayerNormEps >= 0 && c.LayerNormEps < 1) {
		return fmt.Errorf("layer_norm_eps: expected 0 to 1, found %g", c.LayerNormEps)
	}
	if !slices.Contains(activations, c.HiddenAct) {
		return fmt.Errorf("hidden_act: expected one of %s, found %s",
			strings.Join(activations, ", "), quote.Name(c.HiddenAct))
	}
	return nil
}

// modules lists ViTForImageClassification. transformers 5 renamed the modules of a layer in memory, and PEFT saves
// adapters under those names; bases on disk keep the names of transformers 4.
func (c *ViT) modules(labels int) []Module {
	hidden := c.HiddenSize
	rows, cols := c.Patches()
	ms := []Module{
		{Path: "vit.embeddings", Kind: Parameters, Params: []Param{
			{"cls_token", []int{1, 1, hidden}},
			{"position_embeddings", []int{1, rows*cols + 1, hidden}},
		}},
		{Path: "vit.embeddings.patch_embeddings.projection", Kind: Conv2d, Params: []Param{
			{"weight", []int{hidden, c.NumChannels, c.PatchSize[0], c.PatchSize[1]}},
			{"bias", []int{hidden}},
		}},
	}
	for n := range c.NumHiddenLayers {
		v4 := "vit.encoder.layer." + strconv.Itoa(n) + "."
		v5 := "vit.layers." + strconv.Itoa(n) + "."
		as := func(name string) []string { return []string{v5 + name} }
		ms = append(ms,
			layerNorm(v4+"layernorm_before", as("layernorm_before"), hidden),
			linear(v4+"attention.attention.query", as("attention.q_proj"), hidden, hidden, c.QKVBias),
			linear(v4+"attention.attention.key", as("attention.k_proj"), hidden, hidden, c.QKVBias),
			linear(v4+"attention.attention.value", as("attention.v_proj"), hidden, hidden, c.QKVBias),
			linear(v4+"attention.output.dense", as("attention.o_proj"), hidden, hidden, true),
			layerNorm(v4+"layernorm_after", as("layernorm_after"), hidden),
			linear(v4+"intermediate.dense", as("mlp.fc1"), c.IntermediateSize, hidden, true),
			linear(v4+"output.dense", as("mlp.fc2"), hidden, c.IntermediateSize, true),
		)
	}
	return append(ms,
		layerNorm("vit.layernorm", nil, hidden),
		linear("classifier", nil, labels, hidden, true),
	)
}
