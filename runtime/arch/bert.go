package arch

import (
	"cmp"
	"strconv"
)

// BERT is transformers' BertConfig, with its defaults; RoBERTa's has the same fields.
type BERT struct {
	VocabSize        int     `json:"vocab_size"`
	HiddenSize       int     `json:"hidden_size"`
	NumHiddenLayers  int     `json:"num_hidden_layers"`
	NumHeads         int     `json:"num_attention_heads"`
	IntermediateSize int     `json:"intermediate_size"`
	HiddenAct        string  `json:"hidden_act"`
	MaxPositions     int     `json:"max_position_embeddings"`
	TypeVocabSize    int     `json:"type_vocab_size"`
	LayerNormEps     float64 `json:"layer_norm_eps"`
	PadTokenID       *int    `json:"pad_token_id"`

	encoder
}

func parseBERT(raw []byte, labels int) (*architecture, error) {
	const vocabulary, pad = 30522, 0 // by default
	c, err := decodeBERT(raw, vocabulary, pad)
	if err != nil {
		return nil, err
	}
	return &architecture{
		config: c,
		prefix: "bert.",
		modules: append(c.modules("bert"),
			linear("bert.pooler.dense", nil, c.HiddenSize, c.HiddenSize, true),
			linear("classifier", nil, labels, c.HiddenSize, true),
		),
		heads: []Head{
			{"BertForSequenceClassification", Sequence, []string{"bert.pooler.dense", "classifier"}, []string{"classifier"}},
			{"BertForTokenClassification", Token, []string{"classifier"}, []string{"classifier"}},
		},
		text: &TextInput{Vocabulary: c.VocabSize, Types: c.TypeVocabSize, MaxTokens: c.MaxPositions},
		work: func(rank int) work { return c.work(c.MaxPositions, rank) },
	}, nil
}

func decodeBERT(raw []byte, vocabulary, pad int) (*BERT, error) {
	c := BERT{
		VocabSize: vocabulary, HiddenSize: 768, NumHiddenLayers: 12, NumHeads: 12, IntermediateSize: 3072, HiddenAct: "gelu",
		MaxPositions: 512, TypeVocabSize: 2, LayerNormEps: 1e-12, PadTokenID: &pad,
	}
	if err := decode(raw, &c); err != nil {
		return nil, err
	}
	return &c, c.check()
}

func (c *BERT) check() error {
	if err := checkBounds(
		bound{"vocab_size", c.VocabSize, 1, maxVocab},
		bound{"hidden_size", c.HiddenSize, 1, maxHidden},
		bound{"num_hidden_layers", c.NumHiddenLayers, 1, maxLayers},
		bound{"num_attention_heads", c.NumHeads, 1, maxHeads},
		bound{"intermediate_size", c.IntermediateSize, 1, maxInner},
		bound{"max_position_embeddings", c.MaxPositions, 1, maxTokens},
		bound{"type_vocab_size", c.TypeVocabSize, 1, maxTypes},
	); err != nil {
		return err
	}
	return cmp.Or(
		checkHeads("hidden_size", c.HiddenSize, "num_attention_heads", c.NumHeads),
		checkEps("layer_norm_eps", c.LayerNormEps),
		checkActivation("hidden_act", c.HiddenAct),
		c.encoder.check(c.HiddenSize),
	)
}

func (c *BERT) work(tokens, rank int) work {
	return work{
		tokens: tokens, embed: int64(c.HiddenSize), layer: encoderWork(c.HiddenSize, c.IntermediateSize, rank),
	}
}

// modules lists BertModel without its pooler.
func (c *BERT) modules(name string) []Module {
	hidden := c.HiddenSize
	e := name + ".embeddings."
	ms := []Module{
		embedding(e+"word_embeddings", c.VocabSize, hidden),
		embedding(e+"position_embeddings", c.MaxPositions, hidden),
		embedding(e+"token_type_embeddings", c.TypeVocabSize, hidden),
		layerNorm(e+"LayerNorm", nil, hidden),
	}
	for n := range c.NumHiddenLayers {
		l := name + ".encoder.layer." + strconv.Itoa(n) + "."
		ms = append(ms,
			linear(l+"attention.self.query", nil, hidden, hidden, true),
			linear(l+"attention.self.key", nil, hidden, hidden, true),
			linear(l+"attention.self.value", nil, hidden, hidden, true),
			linear(l+"attention.output.dense", nil, hidden, hidden, true),
			layerNorm(l+"attention.output.LayerNorm", nil, hidden),
			linear(l+"intermediate.dense", nil, c.IntermediateSize, hidden, true),
			linear(l+"output.dense", nil, hidden, c.IntermediateSize, true),
			layerNorm(l+"output.LayerNorm", nil, hidden),
		)
	}
	return ms
}
