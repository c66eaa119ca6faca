// Package bert is BERT for classifying texts and tokens: transformers' BertForSequenceClassification and
// BertForTokenClassification, with the names their weights have on disk. (Devlin et al., arXiv:1810.04805.)
package bert

import (
	"fmt"
	"math"
	"strconv"

	"github.com/switchyard-dev/switchyard/runtime/arch"
	"github.com/switchyard-dev/switchyard/runtime/kernels"
	"github.com/switchyard-dev/switchyard/runtime/nn"
)

// The heads, as arch lists them.
const (
	sequence = iota
	token
)

// Model is BERT with both of its heads.
type Model struct {
	trunk      *Trunk
	pooler     *nn.Linear
	classifier *nn.Linear // of either head
}

// Trunk is BertModel without its pooler, or RobertaModel.
type Trunk struct {
	config              *arch.BERT
	wordEmbeddings      *nn.Embedding
	positionEmbeddings  *nn.Embedding
	tokenTypeEmbeddings *nn.Embedding
	layerNorm           *nn.LayerNorm
	layers              []layer
}

type layer struct {
	query, key, value *nn.Linear
	attentionOutput   *nn.Linear
	attentionNorm     *nn.LayerNorm
	intermediate      *nn.Linear
	output            *nn.Linear
	outputNorm        *nn.LayerNorm
	act               kernels.Activation
}

// New builds the model that d describes from the weights of s.
func New(d *arch.Description, s nn.Scope) (*Model, error) {
	trunk, err := NewTrunk(d, s.Sub("bert"))
	if err != nil {
		return nil, err
	}
	hidden, heads := trunk.config.HiddenSize, s.At(nn.Heads)
	return &Model{
		trunk:      trunk,
		pooler:     heads.Sub("bert").Sub("pooler").Linear("dense", hidden, hidden, true),
		classifier: heads.Linear("classifier", len(d.Classes.Labels), hidden, true),
	}, nil
}

// NewTrunk builds a trunk.
func NewTrunk(d *arch.Description, s nn.Scope) (*Trunk, error) {
	c, ok := d.Config.(*arch.BERT)
	if !ok {
		return nil, fmt.Errorf("expected a BERT's config, found %T", d.Config)
	}
	act, err := kernels.FindActivation("hidden_act", c.HiddenAct)
	if err != nil {
		return nil, err
	}
	hidden, inner := c.HiddenSize, c.IntermediateSize
	e := s.Sub("embeddings")
	t := &Trunk{
		config:              c,
		wordEmbeddings:      e.Embedding("word_embeddings", c.VocabSize, hidden),
		positionEmbeddings:  e.Embedding("position_embeddings", c.MaxPositions, hidden),
		tokenTypeEmbeddings: e.Embedding("token_type_embeddings", c.TypeVocabSize, hidden),
		layerNorm:           e.LayerNorm("LayerNorm", hidden, c.LayerNormEps, true),
	}
	for n := range c.NumHiddenLayers {
		l := s.At(1 + n).Sub("encoder").Sub("layer").Sub(strconv.Itoa(n))
		self, attention := l.Sub("attention").Sub("self"), l.Sub("attention").Sub("output")
		built := layer{
			query:           self.Linear("query", hidden, hidden, true),
			key:             self.Linear("key", hidden, hidden, true),
			value:           self.Linear("value", hidden, hidden, true),
			attentionOutput: attention.Linear("dense", hidden, hidden, true),
			attentionNorm:   attention.LayerNorm("LayerNorm", hidden, c.LayerNormEps, true),
			intermediate:    l.Sub("intermediate").Linear("dense", inner, hidden, true),
			output:          l.Sub("output").Linear("dense", hidden, inner, true),
			outputNorm:      l.Sub("output").LayerNorm("LayerNorm", hidden, c.LayerNormEps, true),
			act:             act,
		}
		s.Beside(built.query, built.key, built.value)
		t.layers = append(t.layers, built)
	}
	return t, nil
}

// Tokens is one for each id.
func (m *Model) Tokens(in nn.Input) int { return len(in.IDs) }

// Forward answers by the pooled first token, or for each token.
func (m *Model) Forward(b *nn.Batch) nn.Answers {
	x := m.trunk.Forward(b, b.Positions(0), nn.FirstOf(sequence))
	answers := b.NewAnswers()
	if cls := b.FirstTokens(sequence); !cls.Empty() {
		hidden := m.trunk.config.HiddenSize
		pooled := b.Floats(cls.Len() * hidden)
		b.Linear(cls.Segments, cls.Of(x, hidden), nn.Product{Layer: m.pooler, Act: kernels.Tanh, Dst: pooled})
		cls.Classify(answers, m.classifier, pooled, false)
	}
	if all := b.AllTokens(token); !all.Empty() {
		all.Classify(answers, m.classifier, all.Of(x, m.trunk.config.HiddenSize), true)
	}
	return answers
}

// Forward is the hidden state behind the last layer, x [tokens, hidden], of the tokens that heads look at.
func (t *Trunk) Forward(b *nn.Batch, positions []int32, looks func(head int) int) []float32 {
	ids, types := b.IDs()
	x := b.Hidden(t.config.HiddenSize)
	b.Embed(b.Tokens, t.wordEmbeddings, ids, x)
	b.AddEmbed(b.Tokens, t.tokenTypeEmbeddings, types, x)
	b.AddEmbed(b.Tokens, t.positionEmbeddings, positions, x)
	b.LayerNorm(b.Tokens, t.layerNorm, x, x)
	for i := range t.layers {
		x = b.Enter(1+i, x, t.config.HiddenSize)
		if i == len(t.layers)-1 {
			b.LookAt(looks)
		}
		x = t.layers[i].forward(b, x, t.config)
	}
	return x
}

// forward is BertLayer: x [tokens, hidden] = norm(x + attention(x)), then x = norm(x + mlp(x)).
func (l *layer) forward(b *nn.Batch, x []float32, c *arch.BERT) []float32 {
	defer b.Free(b.Mark())
	q, k, v := b.Floats(len(x)), b.Floats(len(x)), b.Floats(len(x))
	few := b.QKV(x,
		nn.Product{Layer: l.query, Dst: q}, nn.Product{Layer: l.key, Dst: k}, nn.Product{Layer: l.value, Dst: v})
	x = few.Of(x, c.HiddenSize)
	dim := c.HiddenSize / c.NumHeads
	context := b.Floats(len(x))
	b.Attention(kernels.Attention{
		Q: q, K: k, V: v, Keys: few.Keys, Heads: c.NumHeads, Dim: dim, Scale: float32(1 / math.Sqrt(float64(dim))),
		Dst: context,
	})
	b.Linear(b.Tokens, context, nn.Product{Layer: l.attentionOutput, Residual: x, Dst: x})
	b.LayerNorm(b.Tokens, l.attentionNorm, x, x)

	inner := b.Floats(b.NumTokens() * c.IntermediateSize)
	b.Linear(b.Tokens, x, nn.Product{Layer: l.intermediate, Act: l.act, Dst: inner})
	b.Linear(b.Tokens, inner, nn.Product{Layer: l.output, Residual: x, Dst: x})
	b.LayerNorm(b.Tokens, l.outputNorm, x, x)
	return x
}
