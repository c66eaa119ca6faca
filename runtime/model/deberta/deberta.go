// Package deberta is DeBERTa v2 and v3 for classifying texts and tokens: transformers'
// DebertaV2ForSequenceClassification and DebertaV2ForTokenClassification, with the names their weights have on disk.
// (He et al., "DeBERTa: Decoding-enhanced BERT with Disentangled Attention", arXiv:2006.03654, and arXiv:2111.09543.)
package deberta

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

// Model is DeBERTa with both of its heads.
type Model struct {
	config     *arch.DeBERTa
	embeddings embeddings
	relative   *nn.Parameter // [2·span, hidden], or nil
	norm       *nn.LayerNorm // of the relative embeddings, or nil
	conv       *conv         // or nil
	layers     []layer
	pooler     *nn.Linear
	poolerAct  kernels.Activation
	classifier *nn.Linear // of either head
}

type embeddings struct {
	word      *nn.Embedding
	position  *nn.Embedding // or nil
	tokenType *nn.Embedding // or nil
	layerNorm *nn.LayerNorm
}

// conv is ConvLayer, which mixes neighbouring tokens behind the first layer.
type conv struct {
	conv      *nn.Linear // of conv_kernel_size tokens
	layerNorm *nn.LayerNorm
	act       kernels.Activation
}

type layer struct {
	query, key, value *nn.Linear
	posKey, posQuery  *projection // of the relative embeddings; nil where there is no such term
	attentionOutput   *nn.Linear
	attentionNorm     *nn.LayerNorm
	intermediate      *nn.Linear
	output            *nn.Linear
	outputNorm        *nn.LayerNorm
	act               kernels.Activation
}

// New builds the model that d describes from the weights of s.
func New(d *arch.Description, s nn.Scope) (*Model, error) {
	c, ok := d.Config.(*arch.DeBERTa)
	if !ok {
		return nil, fmt.Errorf("expected a DeBERTa's config, found %T", d.Config)
	}
	act, err := kernels.FindActivation("hidden_act", c.HiddenAct)
	if err != nil {
		return nil, err
	}
	poolerAct, err := kernels.FindActivation("pooler_hidden_act", c.PoolerAct)
	if err != nil {
		return nil, err
	}
	hidden, inner := c.HiddenSize, c.IntermediateSize
	trunk, heads := s.Sub("deberta"), s.At(nn.Heads)
	e, encoder := trunk.Sub("embeddings"), trunk.Sub("encoder")
	m := &Model{
		config: c,
		embeddings: embeddings{
			word:      e.Embedding("word_embeddings", c.VocabSize, hidden),
			layerNorm: e.LayerNorm("LayerNorm", hidden, c.LayerNormEps, true),
		},
		pooler:     heads.Sub("pooler").Linear("dense", hidden, hidden, true),
		poolerAct:  poolerAct,
		classifier: heads.Linear("classifier", len(d.Classes.Labels), hidden, true),
	}
	if c.PositionBiased {
		m.embeddings.position = e.Embedding("position_embeddings", c.MaxPositions, hidden)
	}
	if c.TypeVocabSize > 0 {
		m.embeddings.tokenType = e.Embedding("token_type_embeddings", c.TypeVocabSize, hidden)
	}
	if c.Relative {
		span, _ := c.Span()
		m.relative = encoder.Sub("rel_embeddings").Parameter("weight", 2*span, hidden)
	}
	if c.NormsRelative() {
		m.norm = encoder.LayerNorm("LayerNorm", hidden, c.LayerNormEps, true)
	}
	if c.ConvKernelSize > 0 {
		convAct, err := kernels.FindActivation("conv_act", c.ConvAct)
		if err != nil {
			return nil, err
		}
		scope := encoder.At(1).Sub("conv")
		m.conv = &conv{
			conv:      scope.Conv1d("conv", hidden, hidden, c.ConvKernelSize),
			layerNorm: scope.LayerNorm("LayerNorm", hidden, c.LayerNormEps, true),
			act:       convAct,
		}
	}
	for n := range c.NumHiddenLayers {
		l := encoder.At(1 + n).Sub("layer").Sub(strconv.Itoa(n))
		self, attention := l.Sub("attention").Sub("self"), l.Sub("attention").Sub("output")
		built := layer{
			query:           self.Linear("query_proj", hidden, hidden, true),
			key:             self.Linear("key_proj", hidden, hidden, true),
			value:           self.Linear("value_proj", hidden, hidden, true),
			attentionOutput: attention.Linear("dense", hidden, hidden, true),
			attentionNorm:   attention.LayerNorm("LayerNorm", hidden, c.LayerNormEps, true),
			intermediate:    l.Sub("intermediate").Linear("dense", inner, hidden, true),
			output:          l.Sub("output").Linear("dense", hidden, inner, true),
			outputNorm:      l.Sub("output").LayerNorm("LayerNorm", hidden, c.LayerNormEps, true),
			act:             act,
		}
		s.Beside(built.query, built.key, built.value)
		switch {
		case c.Relative && c.ShareAttKey:
			if c.C2P {
				built.posKey = &projection{linear: built.key}
			}
			if c.P2C {
				built.posQuery = &projection{linear: built.query}
			}
		case c.Relative:
			if c.C2P {
				built.posKey = &projection{linear: self.Linear("pos_key_proj", hidden, hidden, true)}
			}
			if c.P2C {
				built.posQuery = &projection{linear: self.Linear("pos_query_proj", hidden, hidden, true)}
			}
		}
		m.layers = append(m.layers, built)
	}
	return m, nil
}

// Tokens is one for each id.
func (m *Model) Tokens(in nn.Input) int { return len(in.IDs) }

// Forward answers by the pooled first token, or for each token.
func (m *Model) Forward(b *nn.Batch) nn.Answers {
	c, hidden := m.config, m.config.HiddenSize
	x := m.embed(b) // [tokens, hidden]
	r := m.positions(b)
	for i := range m.layers {
		x = b.Enter(1+i, x, hidden)
		mark := b.Mark()
		var before []float32
		if i == 0 && m.conv != nil {
			before = b.Floats(len(x))
			copy(before, x)
		} else if i == len(m.layers)-1 {
			b.LookAt(nn.FirstOf(sequence))
		}
		x = m.layers[i].forward(b, x, r, c)
		if before != nil {
			m.conv.forward(b, before, x, c)
		}
		b.Free(mark)
	}
	answers := b.NewAnswers()
	if first := b.FirstTokens(sequence); !first.Empty() {
		pooled := b.Floats(first.Len() * hidden)
		b.Linear(first.Segments, first.Of(x, hidden), nn.Product{Layer: m.pooler, Act: m.poolerAct, Dst: pooled})
		first.Classify(answers, m.classifier, pooled, false)
	}
	if all := b.AllTokens(token); !all.Empty() {
		all.Classify(answers, m.classifier, all.Of(x, hidden), true)
	}
	return answers
}

func (m *Model) embed(b *nn.Batch) []float32 {
	ids, types := b.IDs()
	x := b.Hidden(m.config.HiddenSize)
	b.Embed(b.Tokens, m.embeddings.word, ids, x)
	if m.embeddings.position != nil {
		b.AddEmbed(b.Tokens, m.embeddings.position, b.Positions(0), x)
	}
	if m.embeddings.tokenType != nil {
		b.AddEmbed(b.Tokens, m.embeddings.tokenType, types, x)
	}
	b.LayerNorm(b.Tokens, m.embeddings.layerNorm, x, x)
	return x
}

// positions are the relative embeddings, the base's and those of adapters that have their own, and the buckets of all
// distances in the batch. It is nil where the model has none.
func (m *Model) positions(b *nn.Batch) *positions {
	if m.relative == nil {
		return nil
	}
	of := func(a *nn.Adapter) []float32 {
		relative := m.relative.Of(a)
		values := b.Floats(len(relative)) // [2·span, hidden]
		copy(values, relative)
		if m.norm != nil {
			span, _ := m.config.Span()
			b.LayerNorm([]nn.Segment{{End: 2 * span, Adapter: a}}, m.norm, values, values)
		}
		return values
	}
	r := &positions{base: of(nil), own: map[*nn.Adapter][]float32{}, buckets: bucketsOf(m.config, b.Longest()-1)}
	for _, s := range b.Tokens {
		if m.relative.ChangedBy(s.Adapter) || m.norm != nil && m.norm.ChangedBy(s.Adapter) {
			r.own[s.Adapter] = of(s.Adapter)
		}
	}
	return r
}

// forward is ConvLayer: x [tokens, hidden] = norm(x + act(conv(before))), before [tokens, hidden].
func (l *conv) forward(b *nn.Batch, before, x []float32, c *arch.DeBERTa) {
	defer b.Free(b.Mark())
	hidden, width := c.HiddenSize, c.ConvKernelSize
	unfolded := b.Floats(b.NumTokens() * hidden * width) // of each token, channel by channel, its neighbours
	for _, span := range b.Spans {
		for token := span.Start; token < span.End; token++ {
			own := unfolded[token*hidden*width : (token+1)*hidden*width]
			for i := range width {
				from := token + i - width/2
				if from < span.Start || from >= span.End {
					for channel := range hidden {
						own[channel*width+i] = 0 // beyond the text
					}
					continue
				}
				for channel, v := range before[from*hidden : (from+1)*hidden] {
					own[channel*width+i] = v
				}
			}
		}
	}
	b.Linear(b.Tokens, unfolded, nn.Product{Layer: l.conv, Act: l.act, Residual: x, Dst: x})
	b.LayerNorm(b.Tokens, l.layerNorm, x, x)
}

// forward is DebertaV2Layer: x [tokens, hidden] = norm(x + attention(x)), then x = norm(x + mlp(x)).
func (l *layer) forward(b *nn.Batch, x []float32, r *positions, c *arch.DeBERTa) []float32 {
	defer b.Free(b.Mark())
	q, k, v := b.Floats(len(x)), b.Floats(len(x)), b.Floats(len(x))
	few := b.QKV(x,
		nn.Product{Layer: l.query, Dst: q}, nn.Product{Layer: l.key, Dst: k}, nn.Product{Layer: l.value, Dst: v})
	x = few.Of(x, c.HiddenSize)
	dim := c.HiddenSize / c.NumHeads
	terms := 1
	for _, term := range []bool{c.C2P, c.P2C} {
		if term {
			terms++
		}
	}
	context := b.Floats(len(x))
	attention := kernels.Attention{
		Q: q, K: k, V: v, Keys: few.Keys, Heads: c.NumHeads, Dim: dim,
		Scale: float32(1 / math.Sqrt(float64(dim*terms))), Dst: context,
	}
	if r == nil {
		b.Attention(attention)
	} else {
		b.AttentionRelative(attention, r.of(b, l))
	}
	b.Linear(b.Tokens, context, nn.Product{Layer: l.attentionOutput, Residual: x, Dst: x})
	b.LayerNorm(b.Tokens, l.attentionNorm, x, x)

	inner := b.Floats(b.NumTokens() * c.IntermediateSize)
	b.Linear(b.Tokens, x, nn.Product{Layer: l.intermediate, Act: l.act, Dst: inner})
	b.Linear(b.Tokens, inner, nn.Product{Layer: l.output, Residual: x, Dst: x})
	b.LayerNorm(b.Tokens, l.outputNorm, x, x)
	return x
}
