package arch

import (
	"cmp"
	"fmt"
	"strconv"
)

// ViT is the config of a Vision Transformer (transformers' ViTConfig), with its defaults; DeiT's has the same fields.
type ViT struct {
	HiddenSize       int     `json:"hidden_size"`
	NumHiddenLayers  int     `json:"num_hidden_layers"`
	NumHeads         int     `json:"num_attention_heads"`
	IntermediateSize int     `json:"intermediate_size"`
	HiddenAct        string  `json:"hidden_act"`
	LayerNormEps     float64 `json:"layer_norm_eps"`
	QKVBias          bool    `json:"qkv_bias"`

	patches
}

// patches are the fields that say how an image is cut.
type patches struct {
	ImageSize   pair `json:"image_size"`
	PatchSize   pair `json:"patch_size"`
	NumChannels int  `json:"num_channels"`
}

// Patches is the grid of patches of one image: rows and columns.
func (c *patches) Patches() (rows, cols int) {
	return c.ImageSize[0] / c.PatchSize[0], c.ImageSize[1] / c.PatchSize[1]
}

func (c *patches) check() error {
	err := checkBounds(
		bound{"image_size", c.ImageSize[0], 1, maxImage}, bound{"image_size", c.ImageSize[1], 1, maxImage},
		bound{"patch_size", c.PatchSize[0], 1, maxPatch}, bound{"patch_size", c.PatchSize[1], 1, maxPatch},
		bound{"num_channels", c.NumChannels, 1, maxChannels},
	)
	if err != nil {
		return err
	}
	if rows, cols := c.Patches(); rows < 1 || cols < 1 {
		return fmt.Errorf("patch_size: expected at most image_size %v, found %v", c.ImageSize, c.PatchSize)
	}
	return nil
}

func (c *patches) image() *ImageInput {
	return &ImageInput{Channels: c.NumChannels, Height: c.ImageSize[0], Width: c.ImageSize[1]}
}

// projection is the Conv2d that makes a token of a patch.
func (c *patches) projection(path string, hidden int) Module {
	return Module{Path: path, Kind: Conv2d, Params: []Param{
		{"weight", []int{hidden, c.NumChannels, c.PatchSize[0], c.PatchSize[1]}},
		{"bias", []int{hidden}},
	}}
}

// work of a row of so many tokens: the image is unfolded into patches before they are projected.
func (c *patches) work(tokens, hidden int, layer int64) work {
	patch := int64(c.NumChannels * c.PatchSize[0] * c.PatchSize[1])
	return work{
		tokens: tokens, input: int64(c.NumChannels * c.ImageSize[0] * c.ImageSize[1]),
		embed: patch + int64(hidden), layer: layer,
	}
}

func parseViT(raw []byte, labels int) (*architecture, error) {
	c, err := decodeViT(raw)
	if err != nil {
		return nil, err
	}
	return &architecture{
		config:  c,
		prefix:  "vit.",
		modules: append(c.modules("vit", "cls_token"), linear("classifier", nil, labels, c.HiddenSize, true)),
		heads:   []Head{{"ViTForImageClassification", Sequence, []string{"classifier"}, []string{"classifier"}}},
		image:   c.image(),
		work:    c.work(1),
	}, nil
}

func decodeViT(raw []byte) (*ViT, error) {
	c := ViT{
		HiddenSize: 768, NumHiddenLayers: 12, NumHeads: 12, IntermediateSize: 3072, HiddenAct: "gelu",
		LayerNormEps: 1e-12, QKVBias: true,
		patches: patches{ImageSize: pair{224, 224}, PatchSize: pair{16, 16}, NumChannels: 3},
	}
	if err := decode(raw, &c); err != nil {
		return nil, err
	}
	return &c, c.check()
}

func (c *ViT) check() error {
	if err := checkBounds(
		bound{"hidden_size", c.HiddenSize, 1, maxHidden},
		bound{"num_hidden_layers", c.NumHiddenLayers, 1, maxLayers},
		bound{"num_attention_heads", c.NumHeads, 1, maxHeads},
		bound{"intermediate_size", c.IntermediateSize, 1, maxInner},
	); err != nil {
		return err
	}
	return cmp.Or(
		c.patches.check(),
		checkHeads("hidden_size", c.HiddenSize, "num_attention_heads", c.NumHeads),
		checkEps("layer_norm_eps", c.LayerNormEps),
		checkActivation("hidden_act", c.HiddenAct),
	)
}

// work is that of rows with so many special tokens before the patches.
func (c *ViT) work(special int) func(rank int) work {
	rows, cols := c.Patches()
	return func(rank int) work {
		return c.patches.work(special+rows*cols, c.HiddenSize, encoderWork(c.HiddenSize, c.IntermediateSize, rank))
	}
}

// modules lists the trunk, ViTModel or DeiTModel, with the special tokens of that name. transformers 5 renamed the
// modules of a layer in memory, and PEFT saves adapters under those names; bases on disk keep the names of
// transformers 4.
func (c *ViT) modules(name string, special ...string) []Module {
	hidden := c.HiddenSize
	rows, cols := c.Patches()
	embeddings := Module{Path: name + ".embeddings", Kind: Parameters}
	for _, token := range special {
		embeddings.Params = append(embeddings.Params, Param{token, []int{1, 1, hidden}})
	}
	embeddings.Params = append(embeddings.Params,
		Param{"position_embeddings", []int{1, rows*cols + len(special), hidden}})
	ms := []Module{embeddings, c.projection(name+".embeddings.patch_embeddings.projection", hidden)}
	for n := range c.NumHiddenLayers {
		v4 := name + ".encoder.layer." + strconv.Itoa(n) + "."
		v5 := name + ".layers." + strconv.Itoa(n) + "."
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
	return append(ms, layerNorm(name+".layernorm", nil, hidden))
}
