package server

import (
	"errors"
	"net/http"

	"golang.org/x/sync/semaphore"

	"github.com/switchyard-dev/switchyard/runtime/arch"
	"github.com/switchyard-dev/switchyard/runtime/protocol"
	"github.com/switchyard-dev/switchyard/runtime/quote"
)

// What things take in memory, in bytes.
const (
	// bodyCopies is what a byte of a body takes at most: a buffer that doubles as it grows has up to two, and half as many
	// before; then it goes, and the tensors' data and the strings made of it have one each.
	bodyCopies = 3
	// tokenBytes is a token of a text: id, type, offsets and what the row is made of, in lists that double.
	tokenBytes = 64
	// wordBytes is a token of a text in which entities are found: up to one of them, in JSON within JSON.
	wordBytes = 300
	// valueBytes is a pixel of one channel, or a logit.
	valueBytes = 4
	// logitBytes is a logit of an answer: as a probability too, and both as text, in a buffer that doubles.
	logitBytes = 80
	// labelBytes is a label that is named in a row's answer, beside its name twice: in JSON, in a buffer that doubles.
	labelBytes = 64
)

// errFull says that what requests hold of the memory that they have is all there is.
var errFull = errors.New("too many requests in flight: they hold all the memory there is for them")

// errTooManyRows says that there are as many rows as may be decoded or wait.
var errTooManyRows = errors.New("too many rows in flight")

// share is what one request holds of what all have together.
type share struct {
	of *semaphore.Weighted
	n  int64
}

// take takes so much more, or tells that there is no room now.
func (s *share) take(n int64) bool {
	if !s.of.TryAcquire(n) {
		return false
	}
	s.n += n
	return true
}

// keep gives back what is more than n.
func (s *share) keep(n int64) {
	if s.n > n {
		s.of.Release(s.n - n)
		s.n = n
	}
}

func (s *share) giveBack() { s.keep(0) }

// takeRows takes the memory of the rows and their answers beside the body, and room for the rows themselves. What could
// never be had is refused for good.
func (s *Server) takeRows(own *share, held *held, g *given, models []Model, chosen []output) error {
	inputs, answers := s.inputBytes(g), answerBytes(g, models, chosen)
	if most := s.options.RequestBytes - own.n; inputs+answers > most {
		return Errorf(http.StatusRequestEntityTooLarge,
			"input %s: expected rows that take at most %d bytes in memory, with their answers, found %d: ask for fewer rows",
			quote.Name(g.source.name), most, inputs+answers)
	}
	if !held.inputs.take(inputs) || !own.take(answers) {
		return TryLater(http.StatusTooManyRequests, errFull)
	}
	if !held.rows.take(int64(len(models))) {
		return TryLater(http.StatusTooManyRequests, errTooManyRows)
	}
	return nil
}

// inputBytes is what the rows' inputs take, decoded.
func (s *Server) inputBytes(g *given) int64 {
	switch {
	case s.takes.Text != nil:
		return tokenBytes * g.tokensInAll()
	case len(g.shape) > 1: // pixel_values
		return valueBytes * int64(protocol.Elements(g.shape))
	}
	return valueBytes * int64(g.shape[0]*s.preprocess.Values())
}

// answerBytes is what the rows' answers take, from their logits to their text.
func answerBytes(g *given, models []Model, chosen []output) int64 {
	rows, tokens := int64(len(models)), g.tokensInAll()*int64(g.times)
	labels, ofTokens := int64(0), false
	for _, m := range models {
		labels = max(labels, int64(len(m.Labels)))
		ofTokens = ofTokens || m.Task == arch.Token
	}
	total := logitBytes * labels * rows // each as wide as the widest
	if g.everyLabel {
		total += namesBytes(models)
	}
	if !ofTokens {
		return total
	}
	total += valueBytes * labels * tokens
	for _, o := range chosen {
		switch {
		case o.tokens: // each row as long as the longest
			total += logitBytes * labels * rows * min(tokens, int64(g.tokens()))
		case o.entities && g.isText():
			total += wordBytes * tokens
		}
	}
	return total
}

// namesBytes is what answers take that name all labels of each row.
func namesBytes(models []Model) (total int64) {
	for _, m := range models {
		for _, label := range m.Labels {
			total += labelBytes + 2*int64(len(label))
		}
	}
	return total
}

// isText tells whether the rows are texts, in which alone entities are found; of pairs of them there are none.
func (g *given) isText() bool { return g.source.name == "text" }

// tokensInAll is how many tokens all rows have at most.
func (g *given) tokensInAll() int64 {
	const (
		expansion = 12 // a normalizer makes of some three bytes eighteen characters
		special   = 8  // tokens of no text
	)
	rows := int64(g.shape[0])
	most := rows * int64(g.tokens())
	if len(g.shape) > 1 {
		return most
	}
	return min(most, expansion*int64(g.textSize())+special*rows)
}

// textSize is how many bytes the texts have together, at most.
func (g *given) textSize() int {
	size := g.tensors[g.source.name].Data.Size()
	for _, name := range g.source.beside {
		if beside := g.tensors[name]; beside != nil {
			size += beside.Data.Size()
		}
	}
	return size
}
