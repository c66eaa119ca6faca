package arch

import (
	"cmp"
	"errors"
	"fmt"
	"strconv"

	"github.com/switchyard-dev/switchyard/runtime/quote"
)

// ModernBERT is transformers' ModernBertConfig, with its defaults; mmBERT's too.
type ModernBERT struct {
	VocabSize            int     `json:"vocab_size"`
	HiddenSize           int     `json:"hidden_size"`
	NumHiddenLayers      int     `json:"num_hidden_layers"`
	NumHeads             int     `json:"num_attention_heads"`
	IntermediateSize     int     `json:"intermediate_size"`
	HiddenAct            string  `json:"hidden_activation"`
	MaxPositions         int     `json:"max_position_embeddings"`
	NormEps              float64 `json:"norm_eps"`
	NormBias             bool    `json:"norm_bias"`
	AttentionBias        bool    `json:"attention_bias"`
	MLPBias              bool    `json:"mlp_bias"`
	LocalAttention       int     `json:"local_attention"`
	SlidingWindow        *int    `json:"sliding_window"` // half of it; transformers 5 alone reads it
	ClassifierPooling    string  `json:"classifier_pooling"`
	ClassifierBias       bool    `json:"classifier_bias"`
	ClassifierActivation string  `json:"classifier_activation"`

	LayerTypes      []string `json:"layer_types"`
	GlobalEvery     int      `json:"global_attn_every_n_layers"` // what transformers 4 writes in place of layer_types
	GlobalRopeTheta *float64 `json:"global_rope_theta"`
	LocalRopeTheta  *float64 `json:"local_rope_theta"`
	RopeScaling     *rope    `json:"rope_scaling"`
	RopeParameters  *struct {
		Full    *rope `json:"full_attention"`
		Sliding *rope `json:"sliding_attention"`
	} `json:"rope_parameters"` // what transformers 5 writes in place of the three before

	// Global and Local are the rotary embeddings of layers that attend to all tokens, and to those near.
	Global RoPE `json:"-"`
	Local  RoPE `json:"-"`
}

// RoPE is a rotary embedding of heads of some size: transformers' rope_parameters.
type RoPE struct {
	Theta float64
	YaRN  *YaRN // or nil
}

// YaRN stretches a rotary embedding to more tokens than it was trained for (Peng et al., arXiv:2309.00071).
type YaRN struct {
	Factor             float64
	AttentionFactor    *float64
	MScale             float64 // 0: not given
	MScaleAllDim       float64
	BetaFast, BetaSlow float64
	OriginalTokens     int
}

// rope is a rotary embedding as a config writes it.
type rope struct {
	RopeType        *string  `json:"rope_type"`
	Type            *string  `json:"type"`
	Theta           *float64 `json:"rope_theta"`
	Factor          *float64 `json:"factor"`
	AttentionFactor *float64 `json:"attention_factor"`
	MScale          *float64 `json:"mscale"`
	MScaleAllDim    *float64 `json:"mscale_all_dim"`
	BetaFast        *float64 `json:"beta_fast"`
	BetaSlow        *float64 `json:"beta_slow"`
	Original        *int     `json:"original_max_position_embeddings"`
	Partial         *float64 `json:"partial_rotary_factor"`
	Truncate        *bool    `json:"truncate"`
}

// IsGlobal tells whether a layer attends to all tokens.
func (c *ModernBERT) IsGlobal(layer int) bool { return c.LayerTypes[layer] == "full_attention" }

// Window is how far away a token may be that another attends to, in the other layers.
func (c *ModernBERT) Window() int { return c.LocalAttention / 2 }

func parseModernBERT(raw []byte, labels int) (*architecture, error) {
	global, local := 160_000.0, 10_000.0
	c := ModernBERT{
		VocabSize: 50368, HiddenSize: 768, NumHiddenLayers: 22, NumHeads: 12, IntermediateSize: 1152, HiddenAct: "gelu",
		MaxPositions: 8192, NormEps: 1e-5, LocalAttention: 128, ClassifierPooling: "cls", ClassifierActivation: "gelu",
		GlobalEvery: 3, GlobalRopeTheta: &global, LocalRopeTheta: &local,
	}
	if err := decode(raw, &c); err != nil {
		return nil, err
	}
	if err := c.check(); err != nil {
		return nil, err
	}
	head := []string{"head.dense", "head.norm", "classifier"}
	return &architecture{
		config: &c,
		prefix: "model.",
		modules: append(c.modules(),
			linear("head.dense", nil, c.HiddenSize, c.HiddenSize, c.ClassifierBias),
			c.norm("head.norm"),
			linear("classifier", nil, labels, c.HiddenSize, true),
		),
		heads: []Head{
			{"ModernBertForSequenceClassification", Sequence, head, head[2:]},
			{"ModernBertForTokenClassification", Token, head, head[2:]},
		},
		text: &TextInput{Vocabulary: c.VocabSize, MaxTokens: c.MaxPositions},
		work: func(rank int) work {
			return work{
				tokens: c.MaxPositions, embed: int64(c.HiddenSize),
				layer: encoderWork(c.HiddenSize, 3*c.IntermediateSize, rank),
				batch: 2 * int64(c.MaxPositions) * int64(c.HiddenSize/c.NumHeads), // the angles of both kinds of layers
			}
		},
	}, nil
}

func (c *ModernBERT) check() error {
	if err := checkBounds(
		bound{"vocab_size", c.VocabSize, 1, maxVocab},
		bound{"hidden_size", c.HiddenSize, 1, maxHidden},
		bound{"num_hidden_layers", c.NumHiddenLayers, 1, maxLayers},
		bound{"num_attention_heads", c.NumHeads, 1, maxHeads},
		bound{"intermediate_size", c.IntermediateSize, 1, maxInner},
		bound{"max_position_embeddings", c.MaxPositions, 1, maxTokens},
		bound{"local_attention", c.LocalAttention, 2, 2 * maxTokens},
		bound{"global_attn_every_n_layers", c.GlobalEvery, 1, maxLayers},
	); err != nil {
		return err
	}
	return cmp.Or(
		checkHeads("hidden_size", c.HiddenSize, "num_attention_heads", c.NumHeads),
		c.checkHeadSize(),
		checkEps("norm_eps", c.NormEps),
		checkActivation("hidden_activation", c.HiddenAct),
		checkActivation("classifier_activation", c.ClassifierActivation),
		c.checkPooling(),
		c.checkWindow(),
		c.readLayerTypes(),
		c.readRoPE(),
	)
}

// checkHeadSize wants heads that rotary embeddings turn by halves.
func (c *ModernBERT) checkHeadSize() error {
	if size := c.HiddenSize / c.NumHeads; size%2 != 0 {
		return fmt.Errorf("hidden_size: expected heads of an even size, found %d", size)
	}
	return nil
}

func (c *ModernBERT) checkPooling() error {
	if c.ClassifierPooling != "cls" && c.ClassifierPooling != "mean" {
		return fmt.Errorf("classifier_pooling: expected cls or mean, found %s", quote.Name(c.ClassifierPooling))
	}
	return nil
}

// checkWindow refuses a sliding_window by which one generation of transformers would go and the other not.
func (c *ModernBERT) checkWindow() error {
	if w := c.SlidingWindow; w != nil && 2**w != c.LocalAttention {
		return fmt.Errorf("sliding_window: expected half of local_attention = %d, found %d: transformers 5 takes twice that "+
			"for local_attention, transformers 4 ignores it: say local_attention alone", c.LocalAttention, *w)
	}
	return nil
}

func (c *ModernBERT) readLayerTypes() error {
	if c.LayerTypes == nil {
		for n := range c.NumHiddenLayers {
			kind := "full_attention"
			if n%c.GlobalEvery != 0 {
				kind = "sliding_attention"
			}
			c.LayerTypes = append(c.LayerTypes, kind)
		}
	}
	if len(c.LayerTypes) != c.NumHiddenLayers {
		return fmt.Errorf("layer_types: expected num_hidden_layers = %d, found %d", c.NumHiddenLayers, len(c.LayerTypes))
	}
	for _, kind := range c.LayerTypes {
		if kind != "full_attention" && kind != "sliding_attention" {
			return fmt.Errorf("layer_types: expected full_attention or sliding_attention, found %s", quote.Name(kind))
		}
	}
	return nil
}

// readRoPE reads the rotary embeddings: rope_parameters by kind of layer, else the fields of transformers 4.
func (c *ModernBERT) readRoPE() (err error) {
	var full, sliding *rope
	if c.RopeParameters != nil {
		full, sliding = c.RopeParameters.Full, c.RopeParameters.Sliding
	}
	if c.RopeScaling != nil && c.RopeParameters != nil {
		return errors.New("rope_scaling: expected none beside rope_parameters, found both")
	}
	if c.RopeScaling != nil {
		full, sliding = c.RopeScaling, c.RopeScaling
	}
	if c.LocalRopeTheta == nil { // null: transformers 4 takes the other
		c.LocalRopeTheta = c.GlobalRopeTheta
	}
	if c.Global, err = c.rope("full_attention", full, c.GlobalRopeTheta); err != nil {
		return err
	}
	c.Local, err = c.rope("sliding_attention", sliding, c.LocalRopeTheta)
	return err
}

// rope is the rotary embedding of layers of that kind, with that base where r does not say one.
func (c *ModernBERT) rope(kind string, r *rope, theta *float64) (RoPE, error) {
	if r == nil {
		r = &rope{}
	}
	if r.Theta != nil {
		theta = r.Theta
	}
	name := "default"
	switch {
	case r.RopeType != nil:
		name = *r.RopeType
	case r.Type != nil:
		name = *r.Type
	}
	wrong := func(field string, expected string, found any) (RoPE, error) {
		return RoPE{}, fmt.Errorf("rope_parameters: %s: %s: expected %s, found %v", kind, field, expected, found)
	}
	switch {
	case theta == nil:
		return wrong("rope_theta", "a number", "null")
	case !(*theta > 1 && *theta < 1e12):
		return wrong("rope_theta", "more than 1", *theta)
	case r.Partial != nil && *r.Partial != 1:
		return wrong("partial_rotary_factor", "1", *r.Partial)
	case name == "default":
		return RoPE{Theta: *theta}, nil
	case name != "yarn":
		return wrong("rope_type", "default or yarn", quote.Name(name))
	}
	y, err := c.yarn(r)
	if err != nil {
		return RoPE{}, fmt.Errorf("rope_parameters: %s: %w", kind, err)
	}
	return RoPE{*theta, y}, nil
}

func (c *ModernBERT) yarn(r *rope) (*YaRN, error) {
	wrong := func(field string, expected string, found any) (*YaRN, error) {
		return nil, fmt.Errorf("%s: expected %s, found %v", field, expected, found)
	}
	if r.Truncate != nil && !*r.Truncate {
		return wrong("truncate", "true", false)
	}
	y := &YaRN{BetaFast: 32, BetaSlow: 1, OriginalTokens: c.MaxPositions, AttentionFactor: r.AttentionFactor}
	if r.Original != nil {
		y.OriginalTokens = *r.Original
	}
	if y.OriginalTokens < 1 || y.OriginalTokens > maxTokens {
		return wrong("original_max_position_embeddings", fmt.Sprintf("1 to %d", maxTokens), y.OriginalTokens)
	}
	if y.Factor = float64(c.MaxPositions) / float64(y.OriginalTokens); r.Factor != nil {
		y.Factor = *r.Factor
	}
	for _, f := range []struct {
		name     string
		from, to *float64
	}{
		{"mscale", r.MScale, &y.MScale},
		{"mscale_all_dim", r.MScaleAllDim, &y.MScaleAllDim},
		{"beta_fast", r.BetaFast, &y.BetaFast},
		{"beta_slow", r.BetaSlow, &y.BetaSlow},
	} {
		if f.from != nil && *f.from < 0 {
			return wrong(f.name, "positive", *f.from)
		}
		if f.from != nil && *f.from != 0 { // 0 is as good as none
			*f.to = *f.from
		}
	}
	if !(y.Factor >= 1 && y.Factor < 1e6) {
		return wrong("factor", "at least 1", y.Factor)
	}
	if y.AttentionFactor != nil && !(*y.AttentionFactor > 0 && *y.AttentionFactor < 1e6) {
		return wrong("attention_factor", "positive", *y.AttentionFactor)
	}
	return y, nil
}

// norm is a LayerNorm, with or without a bias.
func (c *ModernBERT) norm(path string) Module {
	m := layerNorm(path, nil, c.HiddenSize)
	if !c.NormBias {
		m.Params = m.Params[:1]
	}
	return m
}

// modules lists ModernBertModel. The first layer has no norm before its attention: the embeddings' is enough.
func (c *ModernBERT) modules() []Module {
	hidden, inner := c.HiddenSize, c.IntermediateSize
	ms := []Module{
		embedding("model.embeddings.tok_embeddings", c.VocabSize, hidden),
		c.norm("model.embeddings.norm"),
	}
	for n := range c.NumHiddenLayers {
		l := "model.layers." + strconv.Itoa(n) + "."
		if n > 0 {
			ms = append(ms, c.norm(l+"attn_norm"))
		}
		ms = append(ms,
			linear(l+"attn.Wqkv", nil, 3*hidden, hidden, c.AttentionBias),
			linear(l+"attn.Wo", nil, hidden, hidden, c.AttentionBias),
			c.norm(l+"mlp_norm"),
			linear(l+"mlp.Wi", nil, 2*inner, hidden, c.MLPBias),
			linear(l+"mlp.Wo", nil, hidden, inner, c.MLPBias),
		)
	}
	return append(ms, c.norm("model.final_norm"))
}
