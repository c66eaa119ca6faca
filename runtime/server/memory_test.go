package server

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sync/semaphore"

	"github.com/switchyard-dev/switchyard/runtime/arch"
	"github.com/switchyard-dev/switchyard/runtime/protocol"
)

// textOf is a request's rows of a text model: ids of that shape, or texts.
func textOf(shape []int, data string) *given {
	in := &input{name: "input_ids"}
	if len(shape) == 1 {
		in.name = "text"
	}
	return &given{
		source: in, shape: shape, most: 512, times: 1,
		tensors: map[string]*protocol.Tensor{in.name: {Name: in.name, Data: protocol.JSON(data)}},
	}
}

// Rows take of the memory that all requests have; what does not fit now is refused for now, what never does for good.
func TestRowsTakeMemory(t *testing.T) {
	const all = 100_000
	sequences := []Model{{Labels: make([]string, 3)}, {Labels: make([]string, 5)}}
	ofTokens := []Model{sequences[0], {Labels: make([]string, 5), Task: arch.Token}}
	perToken, found := []output{{name: "token_logits", tokens: true}}, []output{{name: "entities", entities: true}}
	ids, twice := textOf([]int{2, 10}, ""), textOf([]int{2, 10}, "")
	twice.times = 2
	named, labelled := textOf([]int{2, 10}, ""), []Model{{Labels: []string{"even", "odd"}}, {Labels: []string{"true"}}}
	named.everyLabel = true
	for name, c := range map[string]struct {
		own, others     int64
		given           *given
		models          []Model
		chosen          []output
		inputs, answers int64
		code            int
		says            string
	}{
		"ids": {given: ids, models: sequences, inputs: 20 * tokenBytes, answers: 10 * logitBytes},
		"texts have no more tokens than their bytes": {
			given: textOf([]int{2}, `["abcd","e"]`), models: sequences,
			inputs: (12*12 + 2*8) * tokenBytes, answers: 10 * logitBytes,
		},
		"nor than the model takes": {
			given:  textOf([]int{2}, strings.Repeat("x", 500)),
			models: sequences, inputs: 1024 * tokenBytes, answers: 10 * logitBytes,
		},
		"logits of tokens are there though nobody asks for them": {
			given: ids, models: ofTokens, inputs: 20 * tokenBytes, answers: 10*logitBytes + 5*20*valueBytes,
		},
		"an answer for each token": {
			given: ids, models: ofTokens, chosen: perToken, inputs: 20 * tokenBytes,
			answers: 10*logitBytes + 5*20*valueBytes + 5*20*logitBytes,
		},
		"entities": {
			given: textOf([]int{2}, `["abcd","e"]`), models: ofTokens, chosen: found, inputs: (12*12 + 2*8) * tokenBytes,
			answers: 10*logitBytes + (5*valueBytes+wordBytes)*(12*12+2*8),
		},
		"ids that are asked twice": {
			given: twice, models: slices.Concat(ofTokens, ofTokens), inputs: 20 * tokenBytes,
			answers: 20*logitBytes + 5*40*valueBytes,
		},
		"entities of ids, which have none": {
			given: ids, models: ofTokens, chosen: found, inputs: 20 * tokenBytes, answers: 10*logitBytes + 5*20*valueBytes,
		},
		"an answer that names every label": {
			given: named, models: labelled, inputs: 20 * tokenBytes,
			answers: 4*logitBytes + 3*labelBytes + 2*int64(len("evenoddtrue")),
		},
		"no room now": {
			given: ids, models: sequences, others: all - 1000, code: http.StatusTooManyRequests,
			says: "too many requests in flight",
		},
		"no room ever": {
			given: ids, models: sequences, own: all - 1000, code: http.StatusRequestEntityTooLarge,
			says: `input "input_ids": expected rows that take at most 1000 bytes in memory, with their answers, found 2080`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := &Server{
				options: Options{RequestBytes: all}, memory: semaphore.NewWeighted(all),
				rowsHeld: semaphore.NewWeighted(int64(len(c.models))),
				takes:    &arch.Description{Text: &arch.TextInput{MaxTokens: 512}},
			}
			own, others, held := &share{of: s.memory}, &share{of: s.memory}, s.newHeld()
			if !own.take(c.own) || !others.take(c.others) {
				t.Fatal("expected room for what is held before")
			}
			err := s.takeRows(own, held, c.given, c.models, c.chosen)
			var status *Error
			switch {
			case c.code != 0:
				if !errors.As(err, &status) || status.Code != c.code || !strings.Contains(err.Error(), c.says) {
					t.Errorf("expected %d, %q, found %v", c.code, c.says, err)
				}
			case err != nil:
				t.Error(err)
			case held.rows.n != int64(len(c.models)):
				t.Errorf("expected %d rows to be held, found %d", len(c.models), held.rows.n)
			case held.inputs.n != c.inputs || own.n != c.own+c.answers:
				t.Errorf("expected %d and %d bytes to be held, found %d and %d", c.inputs, c.answers, held.inputs.n, own.n-c.own)
			}
			own.giveBack()
			others.giveBack()
			held.release()
			held.release()
			if !s.memory.TryAcquire(all) || !s.rowsHeld.TryAcquire(int64(len(c.models))) {
				t.Error("expected all to be given back")
			}
		})
	}
}
