// Package deit is DeiT for image classification: transformers' DeiTForImageClassification, which asks the class token,
// and DeiTForImageClassificationWithTeacher, which asks the distillation token too. The trunk is ViT's with that token
// behind the class token. (Touvron et al., "Training data-efficient image transformers", arXiv:2012.12877.)
package deit

import (
	"slices"

	"github.com/switchyard-dev/switchyard/runtime/arch"
	"github.com/switchyard-dev/switchyard/runtime/model/vit"
	"github.com/switchyard-dev/switchyard/runtime/nn"
)

// The heads, as arch lists them.
const (
	plain       = iota
	withTeacher // the mean of two classifiers
)

// The places of the special tokens in a row.
const (
	clsToken = iota
	distillationToken
)

// Model is DeiT with both of its heads.
type Model struct {
	trunk                                             *vit.Trunk
	classifier, clsClassifier, distillationClassifier *nn.Linear
}

// New builds the model that d describes from the weights of s.
func New(d *arch.Description, s nn.Scope) (*Model, error) {
	trunk, err := vit.NewTrunk(d, s.Sub("deit"), "cls_token", "distillation_token")
	if err != nil {
		return nil, err
	}
	hidden, labels, heads := d.Config.(*arch.ViT).HiddenSize, len(d.Classes.Labels), s.At(nn.Heads)
	return &Model{
		trunk:                  trunk,
		classifier:             heads.Linear("classifier", labels, hidden, true),
		clsClassifier:          heads.Linear("cls_classifier", labels, hidden, true),
		distillationClassifier: heads.Linear("distillation_classifier", labels, hidden, true),
	}, nil
}

// Tokens is one for each patch and the two special ones.
func (m *Model) Tokens(nn.Input) int { return m.trunk.Tokens() }

// Forward answers by the class token, or by the mean of what both special tokens say.
func (m *Model) Forward(b *nn.Batch) nn.Answers {
	x := m.trunk.Forward(b)
	answers := b.NewAnswers()
	if cls := b.FirstTokens(plain); !cls.Empty() {
		cls.Classify(answers, m.classifier, m.trunk.Norm(b, &cls, x), false)
	}
	if cls := b.TokensAt(withTeacher, clsToken); !cls.Empty() {
		distillation := b.TokensAt(withTeacher, distillationToken)
		cls.Classify(answers, m.clsClassifier, m.trunk.Norm(b, &cls, x), false)
		taught := b.NewAnswers()
		distillation.Classify(taught, m.distillationClassifier, m.trunk.Norm(b, &distillation, x), false)
		for row, answer := range taught {
			if answer == nil {
				continue
			}
			logits := answers[row].Data().([]float32)
			for i, v := range slices.All(answer.Data().([]float32)) {
				logits[i] = (logits[i] + v) / 2
			}
		}
	}
	return answers
}
