package arch

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/switchyard-dev/switchyard/runtime/quote"
)

// DeBERTa is transformers' DebertaV2Config, of DeBERTa v2 and v3, with its defaults.
type DeBERTa struct {
	VocabSize        int            `json:"vocab_size"`
	HiddenSize       int            `json:"hidden_size"`
	NumHiddenLayers  int            `json:"num_hidden_layers"`
	NumHeads         int            `json:"num_attention_heads"`
	IntermediateSize int            `json:"intermediate_size"`
	HiddenAct        string         `json:"hidden_act"`
	MaxPositions     int            `json:"max_position_embeddings"`
	TypeVocabSize    int            `json:"type_vocab_size"`
	LayerNormEps     float64        `json:"layer_norm_eps"`
	Relative         bool           `json:"relative_attention"`
	MaxRelative      int            `json:"max_relative_positions"`
	Buckets          int            `json:"position_buckets"`
	ShareAttKey      bool           `json:"share_att_key"`
	PositionBiased   bool           `json:"position_biased_input"`
	PoolerAct        string         `json:"pooler_hidden_act"`
	ConvKernelSize   int            `json:"conv_kernel_size"`
	ConvGroups       int            `json:"conv_groups"`
	ConvAct          string         `json:"conv_act"`
	RawPosAttType    jsontext.Value `json:"pos_att_type"`
	NormRelEmbedding string         `json:"norm_rel_ebd"`

	HeadSize     jsontext.Value `json:"attention_head_size"`
	PoolerHidden jsontext.Value `json:"pooler_hidden_size"`

	encoder

	// C2P and P2C are the terms of pos_att_type.
	C2P, P2C bool `json:"-"`
}

// Span is how many distances to each side the relative embeddings hold, and Distance how far the farthest is.
func (c *DeBERTa) Span() (span, distance int) {
	distance = c.MaxRelative
	if distance < 1 {
		distance = c.MaxPositions
	}
	if c.Buckets > 0 {
		return c.Buckets, distance
	}
	return distance, distance
}

// NormsRelative tells whether the relative embeddings go through a LayerNorm of their own.
func (c *DeBERTa) NormsRelative() bool {
	return slices.ContainsFunc(strings.Split(strings.ToLower(c.NormRelEmbedding), "|"), func(s string) bool {
		return strings.TrimSpace(s) == "layer_norm"
	})
}

func parseDeBERTa(raw []byte, labels int) (*architecture, error) {
	c := DeBERTa{
		VocabSize: 128100, HiddenSize: 1536, NumHiddenLayers: 24, NumHeads: 24, IntermediateSize: 6144, HiddenAct: "gelu",
		MaxPositions: 512, LayerNormEps: 1e-7, MaxRelative: -1, Buckets: -1, PositionBiased: true, PoolerAct: "gelu",
		ConvGroups: 1, ConvAct: "tanh", NormRelEmbedding: "none",
	}
	if err := decode(raw, &c); err != nil {
		return nil, err
	}
	if err := c.check(); err != nil {
		return nil, err
	}
	return &architecture{
		config: &c,
		prefix: "deberta.",
		modules: append(c.modules(),
			linear("pooler.dense", nil, c.HiddenSize, c.HiddenSize, true),
			linear("classifier", nil, labels, c.HiddenSize, true),
		),
		heads: []Head{
			{"DebertaV2ForSequenceClassification", Sequence, []string{"pooler.dense", "classifier"}, []string{"classifier"}},
			{"DebertaV2ForTokenClassification", Token, []string{"classifier"}, []string{"classifier"}},
		},
		text: &TextInput{Vocabulary: c.VocabSize, Types: c.TypeVocabSize, MaxTokens: c.MaxPositions},
		work: c.work,
	}, nil
}

// work counts the relative embeddings too: what the layers make of them is kept, and made again for each row whose
// adapter changes it.
func (c *DeBERTa) work(rank int) work {
	w := work{
		tokens: c.MaxPositions, embed: int64(c.HiddenSize), layer: encoderWork(c.HiddenSize, c.IntermediateSize, rank),
	}
	if n := c.ConvKernelSize; n > 0 { // what came into the first layer is kept, and then unfolded beside what it made
		hidden := int64(c.HiddenSize)
		w.layer = max(w.layer+hidden, int64(2+n)*hidden+int64(rank))
	}
	if !c.Relative {
		return w
	}
	span, _ := c.Span()
	embeddings := 2 * int64(span) * int64(c.HiddenSize)
	w.batch = embeddings
	w.row = 2 * embeddings // an adapter's own, and a copy while they are projected
	for _, term := range []bool{c.C2P, c.P2C} {
		if term {
			w.kept += int64(c.NumHiddenLayers) * embeddings
			w.row += embeddings
		}
	}
	return w
}

func (c *DeBERTa) check() error {
	if err := checkBounds(
		bound{"vocab_size", c.VocabSize, 1, maxVocab},
		bound{"hidden_size", c.HiddenSize, 1, maxHidden},
		bound{"num_hidden_layers", c.NumHiddenLayers, 1, maxLayers},
		bound{"num_attention_heads", c.NumHeads, 1, maxHeads},
		bound{"intermediate_size", c.IntermediateSize, 1, maxInner},
		bound{"max_position_embeddings", c.MaxPositions, 1, maxTokens},
		bound{"max_relative_positions", c.MaxRelative, -1, maxTokens},
		bound{"position_buckets", c.Buckets, -1, maxTokens},
		bound{"type_vocab_size", c.TypeVocabSize, 0, maxTypes},
		bound{"conv_kernel_size", c.ConvKernelSize, 0, 15},
	); err != nil {
		return err
	}
	if err := cmp.Or(
		checkHeads("hidden_size", c.HiddenSize, "num_attention_heads", c.NumHeads),
		checkEps("layer_norm_eps", c.LayerNormEps),
		checkActivation("hidden_act", c.HiddenAct),
		checkActivation("pooler_hidden_act", c.PoolerAct, "tanh"),
		c.encoder.check(c.HiddenSize),
		c.readPosAttType(),
	); err != nil {
		return err
	}
	for _, f := range []struct {
		name  string
		value jsontext.Value
		want  int
	}{
		{"pooler_hidden_size", c.PoolerHidden, c.HiddenSize},
		{"attention_head_size", c.HeadSize, c.HiddenSize / c.NumHeads},
	} {
		if size := strings.TrimSpace(string(f.value)); size != "" && size != "null" && size != strconv.Itoa(f.want) {
			return fmt.Errorf("%s: expected %d, found %s", f.name, f.want, quote.Text(size))
		}
	}
	if c.Buckets > 0 && c.Buckets < 4 {
		return fmt.Errorf("position_buckets: expected at least 4, found %d", c.Buckets)
	}
	if c.ConvKernelSize == 0 {
		return nil
	}
	if c.ConvKernelSize%2 == 0 {
		return fmt.Errorf("conv_kernel_size: expected an odd number, found %d", c.ConvKernelSize)
	}
	if c.ConvGroups != 1 {
		return fmt.Errorf("conv_groups: expected 1, found %d, which is not supported", c.ConvGroups)
	}
	return checkActivation("conv_act", c.ConvAct, "tanh")
}

// readPosAttType reads pos_att_type: null, a list, or one text with bars between.
func (c *DeBERTa) readPosAttType() error {
	var list []string
	var joined string
	switch {
	case isEmpty(c.RawPosAttType):
		return nil
	case json.Unmarshal(c.RawPosAttType, &joined) == nil:
		list = strings.Split(strings.ToLower(joined), "|")
	case json.Unmarshal(c.RawPosAttType, &list) != nil:
		return fmt.Errorf("pos_att_type: expected a list of c2p and p2c, found %s", quote.Text(string(c.RawPosAttType)))
	}
	for _, term := range list {
		switch strings.TrimSpace(term) {
		case "c2p":
			c.C2P = true
		case "p2c":
			c.P2C = true
		case "":
		default:
			return fmt.Errorf("pos_att_type: expected c2p and p2c, found %s, which is not supported", quote.Name(term))
		}
	}
	return nil
}

// modules lists DebertaV2Model.
func (c *DeBERTa) modules() []Module {
	const e = "deberta.embeddings."
	hidden := c.HiddenSize
	ms := []Module{embedding(e+"word_embeddings", c.VocabSize, hidden)}
	if c.PositionBiased {
		ms = append(ms, embedding(e+"position_embeddings", c.MaxPositions, hidden))
	}
	if c.TypeVocabSize > 0 {
		ms = append(ms, embedding(e+"token_type_embeddings", c.TypeVocabSize, hidden))
	}
	ms = append(ms, layerNorm(e+"LayerNorm", nil, hidden))
	if c.Relative {
		// Read as a bare tensor: transformers takes its weight by itself, so PEFT's updates of it would do nothing.
		span, _ := c.Span()
		ms = append(ms, Module{Path: "deberta.encoder.rel_embeddings", Kind: Parameters, Params: []Param{
			{"weight", []int{2 * span, hidden}},
		}})
	}
	if c.NormsRelative() {
		ms = append(ms, layerNorm("deberta.encoder.LayerNorm", nil, hidden))
	}
	if c.ConvKernelSize > 0 {
		ms = append(ms,
			Module{Path: "deberta.encoder.conv.conv", Kind: Conv1d, Params: []Param{
				{"weight", []int{hidden, hidden, c.ConvKernelSize}}, {"bias", []int{hidden}},
			}},
			layerNorm("deberta.encoder.conv.LayerNorm", nil, hidden),
		)
	}
	for n := range c.NumHiddenLayers {
		l := "deberta.encoder.layer." + strconv.Itoa(n) + "."
		ms = append(ms,
			linear(l+"attention.self.query_proj", nil, hidden, hidden, true),
			linear(l+"attention.self.key_proj", nil, hidden, hidden, true),
			linear(l+"attention.self.value_proj", nil, hidden, hidden, true),
		)
		if c.Relative && !c.ShareAttKey {
			if c.C2P {
				ms = append(ms, linear(l+"attention.self.pos_key_proj", nil, hidden, hidden, true))
			}
			if c.P2C {
				ms = append(ms, linear(l+"attention.self.pos_query_proj", nil, hidden, hidden, true))
			}
		}
		ms = append(ms,
			linear(l+"attention.output.dense", nil, hidden, hidden, true),
			layerNorm(l+"attention.output.LayerNorm", nil, hidden),
			linear(l+"intermediate.dense", nil, c.IntermediateSize, hidden, true),
			linear(l+"output.dense", nil, hidden, c.IntermediateSize, true),
			layerNorm(l+"output.LayerNorm", nil, hidden),
		)
	}
	return ms
}
