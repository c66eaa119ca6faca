package arch

import (
	"cmp"
	"fmt"
	"math"
	"strconv"
)

// DINOv2 is transformers' Dinov2Config, with its defaults.
type DINOv2 struct {
	HiddenSize      int     `json:"hidden_size"`
	NumHiddenLayers int     `json:"num_hidden_layers"`
	NumHeads        int     `json:"num_attention_heads"`
	MLPRatio        float64 `json:"mlp_ratio"`
	HiddenAct       string  `json:"hidden_act"`
	LayerNormEps    float64 `json:"layer_norm_eps"`
	QKVBias         bool    `json:"qkv_bias"`
	SwiGLU          bool    `json:"use_swiglu_ffn"`
	UseMaskToken    bool    `json:"use_mask_token"`

	patches
}

// Inner is the width of the MLP, as transformers computes it of mlp_ratio.
func (c *DINOv2) Inner() int {
	inner := int(float64(c.HiddenSize) * c.MLPRatio)
	if c.SwiGLU {
		inner = (int(float64(inner*2)/3) + 7) / 8 * 8
	}
	return inner
}

func parseDINOv2(raw []byte, labels int) (*architecture, error) {
	c := DINOv2{
		HiddenSize: 768, NumHiddenLayers: 12, NumHeads: 12, MLPRatio: 4, HiddenAct: "gelu", LayerNormEps: 1e-6,
		QKVBias: true, UseMaskToken: true,
		patches: patches{ImageSize: pair{224, 224}, PatchSize: pair{14, 14}, NumChannels: 3},
	}
	if err := decode(raw, &c); err != nil {
		return nil, err
	}
	if err := c.check(); err != nil {
		return nil, err
	}
	image := c.image()
	image.Patch = c.PatchSize
	return &architecture{
		config: &c,
		prefix: "dinov2.",
		modules: append(c.modules(),
			linear("classifier", nil, labels, 2*c.HiddenSize, true)), // of the class token and the mean of the patches
		heads: []Head{{"Dinov2ForImageClassification", Sequence, []string{"classifier"}, []string{"classifier"}}},
		image: image,
		work:  c.work,
	}, nil
}

func (c *DINOv2) check() error {
	if err := checkBounds(
		bound{"hidden_size", c.HiddenSize, 1, maxHidden},
		bound{"num_hidden_layers", c.NumHiddenLayers, 1, maxLayers},
		bound{"num_attention_heads", c.NumHeads, 1, maxHeads},
	); err != nil {
		return err
	}
	return cmp.Or(
		checkBounds(
			bound{"mlp_ratio", int(min(c.MLPRatio, maxInner)), 1, 64}, bound{"mlp_ratio", c.Inner(), 1, maxInner}),
		c.patches.check(),
		c.checkGrid(),
		checkHeads("hidden_size", c.HiddenSize, "num_attention_heads", c.NumHeads),
		checkEps("layer_norm_eps", c.LayerNormEps),
		checkActivation("hidden_act", c.HiddenAct),
	)
}

// checkGrid refuses a grid whose position embeddings transformers cannot resize: it takes them for a square.
func (c *DINOv2) checkGrid() error {
	if c.PatchSize[0] < 1 || c.PatchSize[1] < 1 {
		return nil // told already
	}
	rows, cols := c.Patches()
	side := int(math.Round(math.Sqrt(float64(rows * cols))))
	if side*side != rows*cols {
		return fmt.Errorf("image_size: expected as many patches as a square has, found %d x %d of %v in %v",
			rows, cols, c.PatchSize, c.ImageSize)
	}
	return nil
}

func (c *DINOv2) work(rank int) work {
	rows, cols := c.Patches()
	inner := c.Inner()
	if c.SwiGLU {
		inner *= 3
	}
	return c.patches.work(1+rows*cols, c.HiddenSize, encoderWork(c.HiddenSize, inner, rank))
}

// modules lists Dinov2Model. In transformers 5 attention has other names, and the SwiGLU's first Linear is two.
func (c *DINOv2) modules() []Module {
	hidden, inner := c.HiddenSize, c.Inner()
	rows, cols := c.Patches()
	embeddings := Module{Path: "dinov2.embeddings", Kind: Parameters, Params: []Param{{"cls_token", []int{1, 1, hidden}}}}
	if c.UseMaskToken { // of no use but in pre-training
		embeddings.Params = append(embeddings.Params, Param{"mask_token", []int{1, hidden}})
	}
	embeddings.Params = append(embeddings.Params, Param{"position_embeddings", []int{1, rows*cols + 1, hidden}})
	ms := []Module{embeddings, c.projection("dinov2.embeddings.patch_embeddings.projection", hidden)}
	for n := range c.NumHiddenLayers {
		l := "dinov2.encoder.layer." + strconv.Itoa(n) + "."
		as := func(name string) []string { return []string{l + name} }
		scale := func(name string) Module {
			return Module{Path: l + name, Kind: Parameters, Params: []Param{{"lambda1", []int{hidden}}}}
		}
		ms = append(ms,
			layerNorm(l+"norm1", nil, hidden),
			linear(l+"attention.attention.query", as("attention.q_proj"), hidden, hidden, c.QKVBias),
			linear(l+"attention.attention.key", as("attention.k_proj"), hidden, hidden, c.QKVBias),
			linear(l+"attention.attention.value", as("attention.v_proj"), hidden, hidden, c.QKVBias),
			linear(l+"attention.output.dense", as("attention.o_proj"), hidden, hidden, true),
			scale("layer_scale1"),
			layerNorm(l+"norm2", nil, hidden),
		)
		if c.SwiGLU {
			gate := linear(l+"mlp.gate_proj", nil, inner, hidden, true)
			up := linear(l+"mlp.up_proj", nil, inner, hidden, true)
			gate.Fused = &Fused{l + "mlp.weights_in", 0, 2 * inner}
			up.Fused = &Fused{l + "mlp.weights_in", inner, 2 * inner}
			ms = append(ms, gate, up, linear(l+"mlp.weights_out", as("mlp.down_proj"), hidden, inner, true))
		} else {
			ms = append(ms,
				linear(l+"mlp.fc1", nil, inner, hidden, true), linear(l+"mlp.fc2", nil, hidden, inner, true))
		}
		ms = append(ms, scale("layer_scale2"))
	}
	return append(ms, layerNorm("dinov2.layernorm", nil, hidden))
}
