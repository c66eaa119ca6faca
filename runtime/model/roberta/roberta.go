// Package roberta is RoBERTa, and XLM-RoBERTa, for classifying texts and tokens: transformers'
// RobertaForSequenceClassification and RobertaForTokenClassification. The trunk is BERT's, but that positions are
// counted from behind the padding token's id. (Liu et al., arXiv:1907.11692.)
package roberta

import (
	"github.com/switchyard-dev/switchyard/runtime/arch"
	"github.com/switchyard-dev/switchyard/runtime/kernels"
	"github.com/switchyard-dev/switchyard/runtime/model/bert"
	"github.com/switchyard-dev/switchyard/runtime/nn"
)

// The heads, as arch lists them.
const (
	sequence = iota
	token
)

// Model is RoBERTa with both of its heads.
type Model struct {
	config         *arch.BERT
	trunk          *bert.Trunk
	dense, outProj *nn.Linear // of the sequence's head
	classifier     *nn.Linear // of the tokens' head
}

// New builds the model that d describes from the weights of s.
func New(d *arch.Description, s nn.Scope) (*Model, error) {
	trunk, err := bert.NewTrunk(d, s.Sub("roberta"))
	if err != nil {
		return nil, err
	}
	c, labels := d.Config.(*arch.BERT), len(d.Classes.Labels)
	heads := s.At(nn.Heads)
	head := heads.Sub("classifier")
	return &Model{
		config:     c,
		trunk:      trunk,
		dense:      head.Linear("dense", c.HiddenSize, c.HiddenSize, true),
		outProj:    head.Linear("out_proj", labels, c.HiddenSize, true),
		classifier: heads.Linear("classifier", labels, c.HiddenSize, true),
	}, nil
}

// Tokens is one for each id.
func (m *Model) Tokens(in nn.Input) int { return len(in.IDs) }

// Forward answers by the first token, or for each token.
func (m *Model) Forward(b *nn.Batch) nn.Answers {
	x := m.trunk.Forward(b, m.positions(b), nn.FirstOf(sequence))
	answers := b.NewAnswers()
	if first := b.FirstTokens(sequence); !first.Empty() {
		hidden := m.config.HiddenSize
		dense := b.Floats(first.Len() * hidden)
		b.Linear(first.Segments, first.Of(x, hidden), nn.Product{Layer: m.dense, Act: kernels.Tanh, Dst: dense})
		first.Classify(answers, m.outProj, dense, false)
	}
	if all := b.AllTokens(token); !all.Empty() {
		all.Classify(answers, m.classifier, all.Of(x, m.config.HiddenSize), true)
	}
	return answers
}

// positions count the tokens of each row that are no padding, from behind the padding token's id; padding has that id
// for its position.
func (m *Model) positions(b *nn.Batch) []int32 {
	pad := int32(*m.config.PadTokenID) //nolint:gosec // arch bounds it
	positions := make([]int32, 0, b.NumTokens())
	for _, in := range b.Inputs {
		next := pad + 1
		for _, id := range in.IDs {
			if id == pad {
				positions = append(positions, pad)
				continue
			}
			positions = append(positions, next)
			next++
		}
	}
	return positions
}
