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
	"github.com/switchyard-dev/switchyard/runtime/quote"
)

// Model is ViTForImageClassification.
type Model struct {
	config     *arch.ViT
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
	c, ok := d.Config.(*arch.ViT)
	if !ok {
		return nil, fmt.Errorf("expected a ViT's config, found %T", d.Config)
	}
	act, ok := kernels.ActivationByName(c.HiddenAct)
	if !ok {
		return nil, fmt.Errorf("hidden_act: no activation is named %s", quote.Name(c.HiddenAct))
	}
	rows, cols := c.Patches()
	hidden, inner := c.HiddenSize, c.IntermediateSize
	vit := s.Sub("vit")
	e := vit.Sub("embeddings")
	m := &Model{
		config: c,
		embeddings: embeddings{
			clsToken:           e.Parameter("cls_token", 1, 1, hidden),
			positionEmbeddings: e.Parameter("position_embeddings", 1, 1+rows*cols, hidden),
			projection: e.Sub("patch_embeddings").Patches("projection",
				hidden, c.NumChannels, c.PatchSize[0], c.PatchSize[1]),
		},
		layernorm:  vit.LayerNorm("layernorm", hidden, c.LayerNormEps),
		classifier: s.Linear("classifier", len(d.Labels), hidden, true),
	}
	for n := range c.NumHiddenLayers {
		l := vit.Sub("encoder").Sub("layer").Sub(strconv.Itoa(n))
		attention := l.Sub("attention").Sub("attention")
		m.layers = append(m.layers, layer{
			layernormBefore: l.LayerNorm("layernorm_before", hidden, c.LayerNormEps),
			query:           attention.Linear("query", hidden, hidden, c.QKVBias),
			key:             attention.Linear("key", hidden, hidden, c.QKVBias),
			value:           attention.Linear("value", hidden, hidden, c.QKVBias),
			attentionOutput: l.Sub("attention").Sub("output").Linear("dense", hidden, hidden, true),
			layernormAfter:  l.LayerNorm("layernorm_after", hidden, c.LayerNormEps),
			intermediate:    l.Sub("intermediate").Linear("dense", inner, hidden, true),
			output:          l.Sub("output").Linear("dense", hidden, inner, true),
			act:             act,
		})
	}
	return m, nil
}

// Tokens is one for each patch and the class token.
func (m *Model) Tokens(nn.Input) int {
	rows, cols := m.config.Patches()
	return 1 + rows*cols
}

// NumLabels is the number of outputs for rows of that adapter.
func (m *Model) NumLabels(a *nn.Adapter) int { return m.classifier.Out(a) }

// Forward writes the rows' logits into logits [rows, width]; a row has NumLabels of its adapter, the rest of it stays.
func (m *Model) Forward(b *nn.Batch, logits []float32, width int) {
	x := m.embed(b) // [tokens, hidden]
	for i := range m.layers {
		m.layers[i].forward(b, x, m.config)
	}
	hidden := m.config.HiddenSize
	cls := make([]float32, len(b.Spans)*hidden) // the class token of each row
	for row, span := range b.Spans {
		copy(cls[row*hidden:(row+1)*hidden], x[span.Start*hidden:])
	}
	b.LayerNorm(b.Rows, m.layernorm, cls, cls)
	b.Linear(b.Rows, cls, nn.Product{Layer: m.classifier, Dst: logits, Stride: width})
}

// embed makes each row's tokens: the class token and the projected patches, each plus its position.
func (m *Model) embed(b *nn.Batch) []float32 {
	e, hidden := &m.embeddings, m.config.HiddenSize
	patches := m.Tokens(nn.Input{}) - 1
	pixels := m.unfold(b.Inputs)                               // [rows·patches, channels·height·width]
	projected := make([]float32, len(b.Inputs)*patches*hidden) // [rows·patches, hidden]
	b.Linear(b.Each(patches), pixels, nn.Product{Layer: e.projection, Dst: projected})
	x := make([]float32, b.NumTokens()*hidden)
	for _, s := range b.Rows {
		cls, positions := e.clsToken.Of(s.Adapter), e.positionEmbeddings.Of(s.Adapter)
		for row := s.Start; row < s.End; row++ {
			own := x[b.Spans[row].Start*hidden : b.Spans[row].End*hidden]
			copy(own, cls)
			copy(own[hidden:], projected[row*patches*hidden:(row+1)*patches*hidden])
			for i, p := range positions {
				own[i] += p
			}
		}
	}
	return x
}

// unfold lays out each patch of each image as the convolution's weight lies: channel by channel, row by row.
func (m *Model) unfold(inputs []nn.Input) []float32 {
	c := m.config
	rows, cols := c.Patches()
	height, width := c.ImageSize[0], c.ImageSize[1]
	unfolded := make([]float32, 0, len(inputs)*rows*cols*c.NumChannels*c.PatchSize[0]*c.PatchSize[1])
	for _, in := range inputs {
		for row := range rows {
			for col := range cols {
				for channel := range c.NumChannels {
					for y := range c.PatchSize[0] {
						at := (channel*height+row*c.PatchSize[0]+y)*width + col*c.PatchSize[1]
						unfolded = append(unfolded, in.Pixels[at:at+c.PatchSize[1]]...)
					}
				}
			}
		}
	}
	return unfolded
}

// forward is ViTLayer: x [tokens, hidden] += attention(layernorm(x)), then x += mlp(layernorm(x)).
func (l *layer) forward(b *nn.Batch, x []float32, c *arch.ViT) {
	normed := make([]float32, len(x))
	q, k, v := make([]float32, len(x)), make([]float32, len(x)), make([]float32, len(x))
	b.LayerNorm(b.Tokens, l.layernormBefore, x, normed)
	b.Linear(b.Tokens, normed,
		nn.Product{Layer: l.query, Dst: q}, nn.Product{Layer: l.key, Dst: k}, nn.Product{Layer: l.value, Dst: v})
	dim := c.HiddenSize / c.NumHeads
	context := normed
	b.Attention(q, k, v, context, c.NumHeads, dim, float32(1/math.Sqrt(float64(dim))))
	b.Linear(b.Tokens, context, nn.Product{Layer: l.attentionOutput, Residual: x, Dst: x})

	b.LayerNorm(b.Tokens, l.layernormAfter, x, normed)
	inner := make([]float32, b.NumTokens()*c.IntermediateSize)
	b.Linear(b.Tokens, normed, nn.Product{Layer: l.intermediate, Act: l.act, Dst: inner})
	b.Linear(b.Tokens, inner, nn.Product{Layer: l.output, Residual: x, Dst: x})
}
