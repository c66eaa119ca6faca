package arch

import (
	"cmp"
	"fmt"
	"strconv"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// DistilBERT is transformers' DistilBertConfig, with its defaults.
type DistilBERT struct {
	VocabSize    int    `json:"vocab_size"`
	Dim          int    `json:"dim"`
	NumLayers    int    `json:"n_layers"`
	NumHeads     int    `json:"n_heads"`
	HiddenDim    int    `json:"hidden_dim"`
	Activation   string `json:"activation"`
	MaxPositions int    `json:"max_position_embeddings"`

	// The names that other configs have for the first three, by which transformers takes them too.
	HiddenSize      *int `json:"hidden_size"`
	NumHiddenLayers *int `json:"num_hidden_layers"`
	AttentionHeads  *int `json:"num_attention_heads"`

	encoder
}

// distilBERTEps is in no config.
const distilBERTEps = 1e-12

// LayerNormEps is that of all norms.
func (c *DistilBERT) LayerNormEps() float64 { return distilBERTEps }

func parseDistilBERT(raw []byte, labels int) (*architecture, error) {
	c := DistilBERT{
		VocabSize: 30522, Dim: 768, NumLayers: 6, NumHeads: 12, HiddenDim: 4 * 768, Activation: "gelu", MaxPositions: 512,
	}
	if err := decode(raw, &c); err != nil {
		return nil, err
	}
	if err := c.readAliases(raw); err != nil {
		return nil, err
	}
	if err := c.check(); err != nil {
		return nil, err
	}
	head := []string{"pre_classifier", "classifier"}
	return &architecture{
		config: &c,
		prefix: "distilbert.",
		modules: append(c.modules(),
			linear("pre_classifier", nil, c.Dim, c.Dim, true),
			linear("classifier", nil, labels, c.Dim, true),
		),
		heads: []Head{
			{"DistilBertForSequenceClassification", Sequence, head, head[1:]},
			{"DistilBertForTokenClassification", Token, head[1:], head[1:]},
		},
		text: &TextInput{Vocabulary: c.VocabSize, MaxTokens: c.MaxPositions},
		work: func(rank int) work {
			return work{tokens: c.MaxPositions, embed: int64(c.Dim), layer: encoderWork(c.Dim, c.HiddenDim, rank)}
		},
	}, nil
}

// readAliases takes what other configs call dim, n_layers and n_heads. Where both are said, they have to be the same.
func (c *DistilBERT) readAliases(raw []byte) error {
	var said map[string]jsontext.Value
	if err := json.Unmarshal(raw, &said); err != nil {
		return err
	}
	for _, f := range []struct {
		name, alias string
		to, from    *int
	}{
		{"dim", "hidden_size", &c.Dim, c.HiddenSize},
		{"n_layers", "num_hidden_layers", &c.NumLayers, c.NumHiddenLayers},
		{"n_heads", "num_attention_heads", &c.NumHeads, c.AttentionHeads},
	} {
		if f.from == nil {
			continue
		}
		if _, both := said[f.name]; both && *f.to != *f.from {
			return fmt.Errorf("%s: expected %d, as %s has, found %d", f.alias, *f.to, f.name, *f.from)
		}
		*f.to = *f.from
	}
	return nil
}

func (c *DistilBERT) check() error {
	if err := checkBounds(
		bound{"vocab_size", c.VocabSize, 1, maxVocab},
		bound{"dim", c.Dim, 1, maxHidden},
		bound{"n_layers", c.NumLayers, 1, maxLayers},
		bound{"n_heads", c.NumHeads, 1, maxHeads},
		bound{"hidden_dim", c.HiddenDim, 1, maxInner},
		bound{"max_position_embeddings", c.MaxPositions, 1, maxTokens},
	); err != nil {
		return err
	}
	return cmp.Or(
		checkHeads("dim", c.Dim, "n_heads", c.NumHeads),
		checkActivation("activation", c.Activation),
		c.encoder.check(c.Dim),
	)
}

// modules lists DistilBertModel.
func (c *DistilBERT) modules() []Module {
	const e = "distilbert.embeddings."
	ms := []Module{
		embedding(e+"word_embeddings", c.VocabSize, c.Dim),
		embedding(e+"position_embeddings", c.MaxPositions, c.Dim),
		layerNorm(e+"LayerNorm", nil, c.Dim),
	}
	for n := range c.NumLayers {
		l := "distilbert.transformer.layer." + strconv.Itoa(n) + "."
		ms = append(ms,
			linear(l+"attention.q_lin", nil, c.Dim, c.Dim, true),
			linear(l+"attention.k_lin", nil, c.Dim, c.Dim, true),
			linear(l+"attention.v_lin", nil, c.Dim, c.Dim, true),
			linear(l+"attention.out_lin", nil, c.Dim, c.Dim, true),
			layerNorm(l+"sa_layer_norm", nil, c.Dim),
			linear(l+"ffn.lin1", nil, c.HiddenDim, c.Dim, true),
			linear(l+"ffn.lin2", nil, c.Dim, c.HiddenDim, true),
			layerNorm(l+"output_layer_norm", nil, c.Dim),
		)
	}
	return ms
}
