// Package distilbert is DistilBERT for classifying texts and tokens: transformers'
// DistilBertForSequenceClassification and DistilBertForTokenClassification. (Sanh et al., arXiv:1910.01108.)
package distilbert

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

// Model is DistilBERT with both of its heads.
type Model struct {
	config             *arch.DistilBERT
	wordEmbeddings     *nn.Embedding
	positionEmbeddings *nn.Embedding
	layerNorm          *nn.LayerNorm
	layers             []layer
	preClassifier      *nn.Linear // of the sequence's head
	classifier         *nn.Linear // of either head
}

type layer struct {
	qLin, kLin, vLin, outLin *nn.Linear
	saLayerNorm              *nn.LayerNorm
	lin1, lin2               *nn.Linear
	outputLayerNorm          *nn.LayerNorm
	act                      kernels.Activation
}

// New builds the model that d describes from the weights of s.
func New(d *arch.Description, s nn.Scope) (*Model, error) {
	c, ok := d.Config.(*arch.DistilBERT)
	if !ok {
		return nil, fmt.Errorf("expected a DistilBERT's config, found %T", d.Config)
	}
	act, err := kernels.FindActivation("activation", c.Activation)
	if err != nil {
		return nil, err
	}
	trunk, heads := s.Sub("distilbert"), s.At(nn.Heads)
	e := trunk.Sub("embeddings")
	m := &Model{
		config:             c,
		wordEmbeddings:     e.Embedding("word_embeddings", c.VocabSize, c.Dim),
		positionEmbeddings: e.Embedding("position_embeddings", c.MaxPositions, c.Dim),
		layerNorm:          e.LayerNorm("LayerNorm", c.Dim, c.LayerNormEps(), true),
		preClassifier:      heads.Linear("pre_classifier", c.Dim, c.Dim, true),
		classifier:         heads.Linear("classifier", len(d.Classes.Labels), c.Dim, true),
	}
	for n := range c.NumLayers {
		l := trunk.At(1 + n).Sub("transformer").Sub("layer").Sub(strconv.Itoa(n))
		attention, ffn := l.Sub("attention"), l.Sub("ffn")
		built := layer{
			qLin:            attention.Linear("q_lin", c.Dim, c.Dim, true),
			kLin:            attention.Linear("k_lin", c.Dim, c.Dim, true),
			vLin:            attention.Linear("v_lin", c.Dim, c.Dim, true),
			outLin:          attention.Linear("out_lin", c.Dim, c.Dim, true),
			saLayerNorm:     l.LayerNorm("sa_layer_norm", c.Dim, c.LayerNormEps(), true),
			lin1:            ffn.Linear("lin1", c.HiddenDim, c.Dim, true),
			lin2:            ffn.Linear("lin2", c.Dim, c.HiddenDim, true),
			outputLayerNorm: l.LayerNorm("output_layer_norm", c.Dim, c.LayerNormEps(), true),
			act:             act,
		}
		s.Beside(built.qLin, built.kLin, built.vLin)
		m.layers = append(m.layers, built)
	}
	return m, nil
}

// Tokens is one for each id.
func (m *Model) Tokens(in nn.Input) int { return len(in.IDs) }

// Forward answers by the first token, or for each token.
func (m *Model) Forward(b *nn.Batch) nn.Answers {
	ids, _ := b.IDs()
	x := b.Hidden(m.config.Dim) // [tokens, dim]
	b.Embed(b.Tokens, m.wordEmbeddings, ids, x)
	b.AddEmbed(b.Tokens, m.positionEmbeddings, b.Positions(0), x)
	b.LayerNorm(b.Tokens, m.layerNorm, x, x)
	for i := range m.layers {
		x = b.Enter(1+i, x, m.config.Dim)
		if i == len(m.layers)-1 {
			b.LookAt(nn.FirstOf(sequence))
		}
		x = m.layers[i].forward(b, x, m.config)
	}
	answers := b.NewAnswers()
	if first := b.FirstTokens(sequence); !first.Empty() {
		pooled := b.Floats(first.Len() * m.config.Dim)
		b.Linear(first.Segments, first.Of(x, m.config.Dim),
			nn.Product{Layer: m.preClassifier, Act: kernels.ReLU, Dst: pooled})
		first.Classify(answers, m.classifier, pooled, false)
	}
	if all := b.AllTokens(token); !all.Empty() {
		all.Classify(answers, m.classifier, all.Of(x, m.config.Dim), true)
	}
	return answers
}

// forward is TransformerBlock: x [tokens, dim] = norm(x + attention(x)), then x = norm(x + ffn(x)).
func (l *layer) forward(b *nn.Batch, x []float32, c *arch.DistilBERT) []float32 {
	defer b.Free(b.Mark())
	q, k, v := b.Floats(len(x)), b.Floats(len(x)), b.Floats(len(x))
	few := b.QKV(x,
		nn.Product{Layer: l.qLin, Dst: q}, nn.Product{Layer: l.kLin, Dst: k}, nn.Product{Layer: l.vLin, Dst: v})
	x = few.Of(x, c.Dim)
	dim := c.Dim / c.NumHeads
	context := b.Floats(len(x))
	b.Attention(kernels.Attention{
		Q: q, K: k, V: v, Keys: few.Keys, Heads: c.NumHeads, Dim: dim, Scale: float32(1 / math.Sqrt(float64(dim))),
		Dst: context,
	})
	b.Linear(b.Tokens, context, nn.Product{Layer: l.outLin, Residual: x, Dst: x})
	b.LayerNorm(b.Tokens, l.saLayerNorm, x, x)

	inner := b.Floats(b.NumTokens() * c.HiddenDim)
	b.Linear(b.Tokens, x, nn.Product{Layer: l.lin1, Act: l.act, Dst: inner})
	b.Linear(b.Tokens, inner, nn.Product{Layer: l.lin2, Residual: x, Dst: x})
	b.LayerNorm(b.Tokens, l.outputLayerNorm, x, x)
	return x
}
