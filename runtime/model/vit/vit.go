// Package vit is the Vision Transformer for image classification: transformers' ViTForImageClassification, with the
// names its weights have on disk. (Dosovitskiy et al., "An Image is Worth 16x16 Words", arXiv:2010.11929.)
package vit

import (
	"fmt"
	"math"
	"strconv"

	"github.com/switchyard-dev/switchyard/runtime/arch"
	"github.com/switchyard-dev/switchyard/runtime/kernels"
	"github.com/switchyard-dev/switchyard/runtime/nn"
)

// Model is ViTForImageClassification.
type Model struct {
	trunk      *Trunk
	classifier *nn.Linear
}

// Trunk is ViTModel, or DeiTModel, which has a second special token.
type Trunk struct {
	config             *arch.ViT
	special            []*nn.Parameter // [1, 1, hidden] each: the class token first
	positionEmbeddings *nn.Parameter   // [1, special + patches, hidden]
	projection         *nn.Linear      // of a patch's values
	layers             []layer
	layernorm          *nn.LayerNorm
}

type layer struct {
	layernormBefore   *nn.LayerNorm
	query, key, value *nn.Linear
	attentionOutput   *nn.Linear
	layernormAfter    *nn.LayerNorm
	intermediate      *nn.Linear
	output            *nn.Linear
	act               kernels.Activation
}

// New builds the model that d describes from the weights of s.
func New(d *arch.Description, s nn.Scope) (*Model, error) {
	trunk, err := NewTrunk(d, s.Sub("vit"), "cls_token")
	if err != nil {
		return nil, err
	}
	return &Model{trunk, s.At(nn.Heads).Linear("classifier", len(d.Classes.Labels), trunk.config.HiddenSize, true)}, nil
}

// NewTrunk builds a trunk with the special tokens of these names.
func NewTrunk(d *arch.Description, s nn.Scope, special ...string) (*Trunk, error) {
	c, ok := d.Config.(*arch.ViT)
	if !ok {
		return nil, fmt.Errorf("expected a ViT's config, found %T", d.Config)
	}
	act, err := kernels.FindActivation("hidden_act", c.HiddenAct)
	if err != nil {
		return nil, err
	}
	rows, cols := c.Patches()
	hidden, inner := c.HiddenSize, c.IntermediateSize
	e := s.Sub("embeddings")
	t := &Trunk{
		config:             c,
		positionEmbeddings: e.Parameter("position_embeddings", 1, len(special)+rows*cols, hidden),
		projection: e.Sub("patch_embeddings").Patches("projection",
			hidden, c.NumChannels, c.PatchSize[0], c.PatchSize[1]),
		layernorm: s.At(nn.Heads).LayerNorm("layernorm", hidden, c.LayerNormEps, true),
	}
	for _, name := range special {
		t.special = append(t.special, e.Parameter(name, 1, 1, hidden))
	}
	for n := range c.NumHiddenLayers {
		l := s.At(1 + n).Sub("encoder").Sub("layer").Sub(strconv.Itoa(n))
		attention := l.Sub("attention").Sub("attention")
		built := layer{
			layernormBefore: l.LayerNorm("layernorm_before", hidden, c.LayerNormEps, true),
			query:           attention.Linear("query", hidden, hidden, c.QKVBias),
			key:             attention.Linear("key", hidden, hidden, c.QKVBias),
			value:           attention.Linear("value", hidden, hidden, c.QKVBias),
			attentionOutput: l.Sub("attention").Sub("output").Linear("dense", hidden, hidden, true),
			layernormAfter:  l.LayerNorm("layernorm_after", hidden, c.LayerNormEps, true),
			intermediate:    l.Sub("intermediate").Linear("dense", inner, hidden, true),
			output:          l.Sub("output").Linear("dense", hidden, inner, true),
			act:             act,
		}
		s.Beside(built.query, built.key, built.value)
		t.layers = append(t.layers, built)
	}
	return t, nil
}

// Tokens is one for each patch and the class token.
func (m *Model) Tokens(nn.Input) int { return m.trunk.Tokens() }

// Forward answers by the class token.
func (m *Model) Forward(b *nn.Batch) nn.Answers {
	x := m.trunk.Forward(b)
	answers := b.NewAnswers()
	cls := b.FirstTokens(0)
	cls.Classify(answers, m.classifier, m.trunk.Norm(b, &cls, x), false)
	return answers
}

// Tokens is one for each patch and the special tokens.
func (t *Trunk) Tokens() int {
	rows, cols := t.config.Patches()
	return len(t.special) + rows*cols
}

// Forward is the hidden state behind the last layer, x [tokens, hidden], of the special tokens, at which heads look;
// its norm is Norm's.
func (t *Trunk) Forward(b *nn.Batch) []float32 {
	x := t.embed(b)
	for i := range t.layers {
		x = b.Enter(1+i, x, t.config.HiddenSize)
		if i == len(t.layers)-1 {
			b.LookAt(func(int) int { return len(t.special) })
		}
		x = t.layers[i].forward(b, x, t.config)
	}
	return x
}

// Norm is the last norm of the selected tokens alone, [selected, hidden].
func (t *Trunk) Norm(b *nn.Batch, s *nn.Selection, x []float32) []float32 {
	selected := s.Of(x, t.config.HiddenSize)
	b.LayerNorm(s.Segments, t.layernorm, selected, selected)
	return selected
}

// embed makes each row's tokens: the special ones and the projected patches, each plus its position.
func (t *Trunk) embed(b *nn.Batch) []float32 {
	c, hidden := t.config, t.config.HiddenSize
	x := b.Hidden(hidden)
	defer b.Free(b.Mark())
	projected := b.Patches(t.projection, c.NumChannels, c.PatchSize) // [rows·patches, hidden]
	ofRow := (t.Tokens() - len(t.special)) * hidden
	for _, s := range b.Rows {
		for row := s.Start; row < s.End; row++ {
			own := x[b.Spans[row].Start*hidden : b.Spans[row].End*hidden]
			for i, token := range t.special {
				copy(own[i*hidden:], token.Of(s.Adapter))
			}
			copy(own[len(t.special)*hidden:], projected[row*ofRow:(row+1)*ofRow])
			for i, p := range t.positionEmbeddings.Of(s.Adapter) {
				own[i] += p
			}
		}
	}
	return x
}

// forward is ViTLayer: x [tokens, hidden] += attention(layernorm(x)), then x += mlp(layernorm(x)).
func (l *layer) forward(b *nn.Batch, x []float32, c *arch.ViT) []float32 {
	defer b.Free(b.Mark())
	normed := b.Floats(len(x))
	q, k, v := b.Floats(len(x)), b.Floats(len(x)), b.Floats(len(x))
	b.LayerNorm(b.Tokens, l.layernormBefore, x, normed)
	few := b.QKV(normed,
		nn.Product{Layer: l.query, Dst: q}, nn.Product{Layer: l.key, Dst: k}, nn.Product{Layer: l.value, Dst: v})
	x = few.Of(x, c.HiddenSize)
	normed = normed[:len(x)]
	dim := c.HiddenSize / c.NumHeads
	context := normed
	b.Attention(kernels.Attention{
		Q: q, K: k, V: v, Keys: few.Keys, Heads: c.NumHeads, Dim: dim, Scale: float32(1 / math.Sqrt(float64(dim))),
		Dst: context,
	})
	b.Linear(b.Tokens, context, nn.Product{Layer: l.attentionOutput, Residual: x, Dst: x})

	b.LayerNorm(b.Tokens, l.layernormAfter, x, normed)
	inner := b.Floats(b.NumTokens() * c.IntermediateSize)
	b.Linear(b.Tokens, normed, nn.Product{Layer: l.intermediate, Act: l.act, Dst: inner})
	b.Linear(b.Tokens, inner, nn.Product{Layer: l.output, Residual: x, Dst: x})
	return x
}
