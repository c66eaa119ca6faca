// Package dinov2 is DINOv2 for image classification: transformers' Dinov2ForImageClassification, with the names its
// weights have on disk. (Oquab et al., "Learning Robust Visual Features without Supervision", arXiv:2304.07193.)
package dinov2

import (
	"fmt"
	"math"
	"strconv"

	"github.com/switchyard-dev/switchyard/runtime/arch"
	"github.com/switchyard-dev/switchyard/runtime/kernels"
	"github.com/switchyard-dev/switchyard/runtime/nn"
)

// Model is Dinov2ForImageClassification.
type Model struct {
	config     *arch.DINOv2
	embeddings embeddings
	layers     []layer
	layernorm  *nn.LayerNorm
	classifier *nn.Linear
}

type embeddings struct {
	clsToken           *nn.Parameter // [1, 1, hidden]
	positionEmbeddings *nn.Parameter // [1, 1 + patches, hidden]
	projection         *nn.Linear    // of a patch's values
}

type layer struct {
	norm1             *nn.LayerNorm
	query, key, value *nn.Linear
	attentionOutput   *nn.Linear
	layerScale1       *nn.Parameter // [hidden]
	norm2             *nn.LayerNorm
	fc1, fc2          *nn.Linear // of the plain MLP
	gate, up, down    *nn.Linear // of the SwiGLU
	act               kernels.Activation
	layerScale2       *nn.Parameter // [hidden]
}

// New builds the model that d describes from the weights of s.
func New(d *arch.Description, s nn.Scope) (*Model, error) {
	c, ok := d.Config.(*arch.DINOv2)
	if !ok {
		return nil, fmt.Errorf("expected a DINOv2's config, found %T", d.Config)
	}
	act, err := kernels.FindActivation("hidden_act", c.HiddenAct)
	if err != nil {
		return nil, err
	}
	rows, cols := c.Patches()
	hidden, inner := c.HiddenSize, c.Inner()
	trunk := s.Sub("dinov2")
	e := trunk.Sub("embeddings")
	m := &Model{
		config: c,
		embeddings: embeddings{
			clsToken:           e.Parameter("cls_token", 1, 1, hidden),
			positionEmbeddings: e.Parameter("position_embeddings", 1, 1+rows*cols, hidden),
			projection: e.Sub("patch_embeddings").Patches("projection",
				hidden, c.NumChannels, c.PatchSize[0], c.PatchSize[1]),
		},
		layernorm:  trunk.At(c.NumHiddenLayers).LayerNorm("layernorm", hidden, c.LayerNormEps, true),
		classifier: s.At(nn.Heads).Linear("classifier", len(d.Classes.Labels), 2*hidden, true),
	}
	for n := range c.NumHiddenLayers {
		scope := trunk.At(1 + n).Sub("encoder").Sub("layer").Sub(strconv.Itoa(n))
		attention, mlp := scope.Sub("attention").Sub("attention"), scope.Sub("mlp")
		l := layer{
			norm1:           scope.LayerNorm("norm1", hidden, c.LayerNormEps, true),
			query:           attention.Linear("query", hidden, hidden, c.QKVBias),
			key:             attention.Linear("key", hidden, hidden, c.QKVBias),
			value:           attention.Linear("value", hidden, hidden, c.QKVBias),
			attentionOutput: scope.Sub("attention").Sub("output").Linear("dense", hidden, hidden, true),
			layerScale1:     scope.Sub("layer_scale1").Parameter("lambda1", hidden),
			norm2:           scope.LayerNorm("norm2", hidden, c.LayerNormEps, true),
			act:             act,
			layerScale2:     scope.Sub("layer_scale2").Parameter("lambda1", hidden),
		}
		s.Beside(l.query, l.key, l.value)
		if c.SwiGLU {
			l.act = kernels.SiLU
			l.gate = mlp.Linear("gate_proj", inner, hidden, true)
			l.up = mlp.Linear("up_proj", inner, hidden, true)
			s.Beside(l.gate, l.up)
			l.down = mlp.Linear("weights_out", hidden, inner, true)
		} else {
			l.fc1 = mlp.Linear("fc1", inner, hidden, true)
			l.fc2 = mlp.Linear("fc2", hidden, inner, true)
		}
		m.layers = append(m.layers, l)
	}
	return m, nil
}

// Tokens is one for each patch and the class token.
func (m *Model) Tokens(in nn.Input) int {
	rows, cols := in.Grid(m.config.PatchSize)
	return 1 + rows*cols
}

// Forward answers by the class token beside the mean of the patches.
func (m *Model) Forward(b *nn.Batch) nn.Answers {
	hidden := m.config.HiddenSize
	x := m.embed(b) // [tokens, hidden]
	for i := range m.layers {
		x = b.Enter(1+i, x, hidden)
		m.layers[i].forward(b, x, m.config)
	}
	b.LayerNorm(b.Tokens, m.layernorm, x, x)
	answers := b.NewAnswers()
	rows := b.FirstTokens(0)
	pooled := b.Floats(rows.Len() * 2 * hidden)
	rows.Rows(func(tokens, selected kernels.Span) {
		own := pooled[selected.Start*2*hidden : selected.End*2*hidden]
		copy(own, x[tokens.Start*hidden:(tokens.Start+1)*hidden])
		kernels.Mean(own[hidden:], x[(tokens.Start+1)*hidden:tokens.End*hidden])
	})
	rows.Classify(answers, m.classifier, pooled, false)
	return answers
}

// embed makes each row's tokens: the class token and the projected patches, each plus its position.
func (m *Model) embed(b *nn.Batch) []float32 {
	c, e, hidden := m.config, &m.embeddings, m.config.HiddenSize
	x := b.Hidden(hidden)
	defer b.Free(b.Mark())
	projected := b.Patches(e.projection, c.NumChannels, c.PatchSize) // [patches of all rows, hidden]
	for _, s := range b.Rows {
		positions := positions{batch: b, config: c, trained: e.positionEmbeddings.Of(s.Adapter)}
		for row := s.Start; row < s.End; row++ {
			span := b.Spans[row]
			own := x[span.Start*hidden : span.End*hidden]
			copy(own, e.clsToken.Of(s.Adapter))
			n := copy(own[hidden:], projected)
			projected = projected[n:]
			for i, p := range positions.of(b.Inputs[row]) {
				own[i] += p
			}
		}
	}
	return x
}

// forward is Dinov2Layer: x [tokens, hidden] += λ₁·attention(norm1(x)), then x += λ₂·mlp(norm2(x)).
func (l *layer) forward(b *nn.Batch, x []float32, c *arch.DINOv2) {
	defer b.Free(b.Mark())
	normed := b.Floats(len(x))
	q, k, v := b.Floats(len(x)), b.Floats(len(x)), b.Floats(len(x))
	b.LayerNorm(b.Tokens, l.norm1, x, normed)
	b.Linear(b.Tokens, normed,
		nn.Product{Layer: l.query, Dst: q}, nn.Product{Layer: l.key, Dst: k}, nn.Product{Layer: l.value, Dst: v})
	dim := c.HiddenSize / c.NumHeads
	context, out := normed, q
	b.Attention(kernels.Attention{
		Q: q, K: k, V: v, Heads: c.NumHeads, Dim: dim, Scale: float32(1 / math.Sqrt(float64(dim))), Dst: context,
	})
	b.Linear(b.Tokens, context, nn.Product{Layer: l.attentionOutput, Dst: out})
	b.AddScaled(b.Tokens, l.layerScale1, out, x)

	b.LayerNorm(b.Tokens, l.norm2, x, normed)
	width := c.Inner()
	inner := b.Floats(b.NumTokens() * width)
	if c.SwiGLU {
		both := b.Floats(b.NumTokens() * 2 * width)
		b.Linear(b.Tokens, normed,
			nn.Product{Layer: l.gate, Dst: both, Stride: 2 * width},
			nn.Product{Layer: l.up, Dst: both[width:], Stride: 2 * width})
		b.Gated(both, width, l.act, inner)
		b.Linear(b.Tokens, inner, nn.Product{Layer: l.down, Dst: out})
	} else {
		b.Linear(b.Tokens, normed, nn.Product{Layer: l.fc1, Act: l.act, Dst: inner})
		b.Linear(b.Tokens, inner, nn.Product{Layer: l.fc2, Dst: out})
	}
	b.AddScaled(b.Tokens, l.layerScale2, out, x)
}
