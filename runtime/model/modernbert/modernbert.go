// Package modernbert is ModernBERT, and mmBERT, for classifying texts and tokens: transformers'
// ModernBertForSequenceClassification and ModernBertForTokenClassification, with the names their weights have on disk.
// (Warner et al., "Smarter, Better, Faster, Longer", arXiv:2412.13663.)
package modernbert

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

// Model is ModernBERT with both of its heads.
type Model struct {
	config        *arch.ModernBERT
	tokEmbeddings *nn.Embedding
	norm          *nn.LayerNorm // of the embeddings
	layers        []layer
	finalNorm     *nn.LayerNorm
	global, local rotary
	head          head
	classifier    *nn.Linear // of either head
}

type layer struct {
	attnNorm *nn.LayerNorm // nil in the first layer
	wqkv     *nn.Linear
	wo       *nn.Linear
	mlpNorm  *nn.LayerNorm
	wi       *nn.Linear // the input and its gate side by side
	mlpWo    *nn.Linear
	act      kernels.Activation
	rotary   *rotary
	window   int // 0: all tokens
}

// head is ModernBertPredictionHead.
type head struct {
	dense *nn.Linear
	act   kernels.Activation
	norm  *nn.LayerNorm
}

// New builds the model that d describes from the weights of s.
func New(d *arch.Description, s nn.Scope) (*Model, error) {
	c, ok := d.Config.(*arch.ModernBERT)
	if !ok {
		return nil, fmt.Errorf("expected a ModernBERT's config, found %T", d.Config)
	}
	act, err := kernels.FindActivation("hidden_activation", c.HiddenAct)
	if err != nil {
		return nil, err
	}
	headAct, err := kernels.FindActivation("classifier_activation", c.ClassifierActivation)
	if err != nil {
		return nil, err
	}
	hidden, inner, dim := c.HiddenSize, c.IntermediateSize, c.HiddenSize/c.NumHeads
	norm := func(s nn.Scope, name string) *nn.LayerNorm { return s.LayerNorm(name, hidden, c.NormEps, c.NormBias) }
	trunk, heads := s.Sub("model"), s.At(nn.Heads)
	e := trunk.Sub("embeddings")
	m := &Model{
		config:        c,
		tokEmbeddings: e.Embedding("tok_embeddings", c.VocabSize, hidden),
		norm:          norm(e, "norm"),
		finalNorm:     norm(trunk.At(c.NumHiddenLayers), "final_norm"),
		global:        newRotary(c.Global, dim),
		local:         newRotary(c.Local, dim),
		head: head{
			dense: heads.Sub("head").Linear("dense", hidden, hidden, c.ClassifierBias),
			act:   headAct,
			norm:  norm(heads.Sub("head"), "norm"),
		},
		classifier: heads.Linear("classifier", len(d.Classes.Labels), hidden, true),
	}
	for n := range c.NumHiddenLayers {
		l := trunk.At(1 + n).Sub("layers").Sub(strconv.Itoa(n))
		built := layer{
			wqkv:    l.Sub("attn").Linear("Wqkv", 3*hidden, hidden, c.AttentionBias),
			wo:      l.Sub("attn").Linear("Wo", hidden, hidden, c.AttentionBias),
			mlpNorm: norm(l, "mlp_norm"),
			wi:      l.Sub("mlp").Linear("Wi", 2*inner, hidden, c.MLPBias),
			mlpWo:   l.Sub("mlp").Linear("Wo", hidden, inner, c.MLPBias),
			act:     act,
			rotary:  &m.local,
			window:  c.Window(),
		}
		if n > 0 {
			built.attnNorm = norm(l, "attn_norm")
		}
		if c.IsGlobal(n) {
			built.rotary, built.window = &m.global, 0
		}
		m.layers = append(m.layers, built)
	}
	return m, nil
}

// Tokens is one for each id.
func (m *Model) Tokens(in nn.Input) int { return len(in.IDs) }

// Forward answers by the first token, or the mean of all, or for each token.
func (m *Model) Forward(b *nn.Batch) nn.Answers {
	c, hidden := m.config, m.config.HiddenSize
	ids, _ := b.IDs()
	x := b.Hidden(hidden) // [tokens, hidden]
	b.Embed(b.Tokens, m.tokEmbeddings, ids, x)
	b.LayerNorm(b.Tokens, m.norm, x, x)
	angles := map[*rotary]angles{}
	for _, r := range []*rotary{&m.global, &m.local} {
		angles[r] = r.angles(b)
	}
	for i := range m.layers {
		l := &m.layers[i]
		x = b.Enter(1+i, x, hidden)
		if i == len(m.layers)-1 && c.ClassifierPooling != "mean" {
			b.LookAt(nn.FirstOf(sequence))
		}
		x = l.forward(b, x, angles[l.rotary], c)
	}
	b.LayerNorm(b.Tokens, m.finalNorm, x, x)

	answers := b.NewAnswers()
	if first := b.FirstTokens(sequence); !first.Empty() {
		pooled := first.Of(x, hidden)
		if c.ClassifierPooling == "mean" {
			first.Rows(func(tokens, selected kernels.Span) {
				kernels.Mean(pooled[selected.Start*hidden:selected.End*hidden], x[tokens.Start*hidden:tokens.End*hidden])
			})
		}
		first.Classify(answers, m.classifier, m.head.forward(b, &first, pooled), false)
	}
	if all := b.AllTokens(token); !all.Empty() {
		all.Classify(answers, m.classifier, m.head.forward(b, &all, all.Of(x, hidden)), true)
	}
	return answers
}

// forward is ModernBertPredictionHead of the selected tokens, x [selected, hidden].
func (h *head) forward(b *nn.Batch, s *nn.Selection, x []float32) []float32 {
	y := b.Floats(len(x))
	b.Linear(s.Segments, x, nn.Product{Layer: h.dense, Act: h.act, Dst: y})
	b.LayerNorm(s.Segments, h.norm, y, y)
	return y
}

// forward is ModernBertEncoderLayer: x [tokens, hidden] += attention(norm(x)), then x += mlp(norm(x)).
func (l *layer) forward(b *nn.Batch, x []float32, a angles, c *arch.ModernBERT) []float32 {
	defer b.Free(b.Mark())
	hidden, dim := c.HiddenSize, c.HiddenSize/c.NumHeads
	normed := b.Floats(len(x))
	copy(normed, x)
	if l.attnNorm != nil {
		b.LayerNorm(b.Tokens, l.attnNorm, x, normed)
	}
	qkv := b.Floats(3 * len(x)) // [tokens, 3, heads, dim]
	b.Linear(b.Tokens, normed, nn.Product{Layer: l.wqkv, Dst: qkv})
	q, k, v := qkv, qkv[hidden:], qkv[2*hidden:]
	b.Rotary(kernels.Rotary{X: q, Stride: 3 * hidden, Heads: c.NumHeads, Dim: dim, Cos: a.cos, Sin: a.sin})
	b.Rotary(kernels.Rotary{X: k, Stride: 3 * hidden, Heads: c.NumHeads, Dim: dim, Cos: a.cos, Sin: a.sin})
	few := b.Narrow()
	q, x = few.Copy(b, q, 3*hidden), few.Of(x, hidden)
	context := normed[:len(x)]
	b.Attention(kernels.Attention{
		Q: q, K: k, V: v, Keys: few.Keys, Stride: 3 * hidden, Heads: c.NumHeads, Dim: dim,
		Scale:  float32(1 / math.Sqrt(float64(dim))),
		Window: l.window, Dst: context,
	})
	b.Linear(b.Tokens, context, nn.Product{Layer: l.wo, Residual: x, Dst: x})

	normed = normed[:len(x)]
	b.LayerNorm(b.Tokens, l.mlpNorm, x, normed)
	both := b.Floats(b.NumTokens() * 2 * c.IntermediateSize)
	b.Linear(b.Tokens, normed, nn.Product{Layer: l.wi, Dst: both})
	inner := b.Floats(b.NumTokens() * c.IntermediateSize)
	b.Gated(both, c.IntermediateSize, l.act, inner)
	b.Linear(b.Tokens, inner, nn.Product{Layer: l.mlpWo, Residual: x, Dst: x})
	return x
}
