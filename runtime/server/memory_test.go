package server

import (
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
	"golang.org/x/sync/semaphore"

	"github.com/switchyard-dev/switchyard/runtime/arch"
)

// textOf is a request's rows of a text model: ids of that shape, or texts.
func textOf(shape []int, data string) *given {
	in := &input{name: "input_ids"}
	if len(shape) == 1 {
		in.name = "text"
	}
	return &given{
		source: in, shape: shape, most: 512, times: 1,
		tensors: map[string]*inputTensor{in.name: {Name: in.name, Data: jsontext.Value(data)}},
	}
}

// Rows take of the memory that all requests have; what does not fit now is refused for now, what never does for good.
func TestRowsTakeMemory(t *testing.T) {
	const all = 100_000
	sequences := []model{{labels: make([]string, 3)}, {labels: make([]string, 5)}}
	ofTokens := []model{sequences[0], {labels: make([]string, 5), task: arch.Token}}
	perToken, found := []output{{name: "token_logits", tokens: true}}, []output{{name: "entities", entities: true}}
	ids, twice := textOf([]int{2, 10}, ""), textOf([]int{2, 10}, "")
	twice.times = 2
	for name, c := range map[string]struct {
		own, others     int64
		given           *given
		models          []model
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
				options: Options{RequestBytes: all}, memory: semaphore.NewWeighted(all), rowsHeld: semaphore.NewWeighted(1),
				takes: &arch.Description{Text: &arch.TextInput{MaxTokens: 512}},
			}
			own, others, held := &share{of: s.memory}, &share{of: s.memory}, s.newHeld()
			if !own.take(c.own) || !others.take(c.others) {
				t.Fatal("expected room for what is held before")
			}
			err := s.takeRows(own, held, c.given, c.models, c.chosen)
			var status *statusError
			switch {
			case c.code != 0:
				if !errors.As(err, &status) || status.code != c.code || !strings.Contains(err.Error(), c.says) {
					t.Errorf("expected %d, %q, found %v", c.code, c.says, err)
				}
			case err != nil:
				t.Error(err)
			case held.inputs.n != c.inputs || own.n != c.own+c.answers:
				t.Errorf("expected %d and %d bytes to be held, found %d and %d", c.inputs, c.answers, held.inputs.n, own.n-c.own)
			}
			own.giveBack()
			others.giveBack()
			held.release()
			held.release()
			if !s.memory.TryAcquire(all) {
				t.Error("expected all to be given back")
			}
		})
	}
}

// A shape is a stranger's word: it cannot stand for more than the data beside it.
func TestShapesBeyondTheirData(t *testing.T) {
	for _, c := range []struct {
		shape []int
		data  string
		ok    bool
	}{
		{[]int{2, 2}, "[1,2,3,4]", true},
		{[]int{2, 2}, "[[1,2],[3,4]]", true},
		{[]int{2}, `["",""]`, true},
		{[]int{2, 3}, "[1,2,3,4]", false},
		{[]int{1, 3, math.MaxInt32, math.MaxInt32}, "[1]", false},
		{[]int{16, 3, 1 << 30, 1 << 30}, "[]", false}, // whose product is 0 in 64 bits
	} {
		err := textOf(c.shape, c.data).plausible()
		if (err == nil) != c.ok || err != nil && !strings.Contains(err.Error(), "data: expected ") {
			t.Errorf("%v of %s: expected it to be taken: %t, found %v", c.shape, c.data, c.ok, err)
		}
	}
}

// Objects of very many members are refused before they are read: text is none.
func TestObjectsOfManyMembers(t *testing.T) {
	var names strings.Builder
	for i := range 5000 {
		fmt.Fprintf(&names, `"a%d":0,`, i)
	}
	for _, data := range []string{"[{" + names.String() + `"b":1}]`, `[{"` + `\\":0,` + names.String() + `"b":1}]`} {
		_, err := decodeRequest([]byte(`{"inputs":[{"name":"text","shape":[1],"datatype":"BYTES","data":` + data + `}]}`))
		if err == nil || !strings.Contains(err.Error(), "thousands of them") {
			t.Errorf("expected it to be refused, found %v", err)
		}
	}
	text := strings.Repeat(`a: \"b\": `, 5000) + `\\`
	_, err := decodeRequest([]byte(
		`{"inputs":[{"name":"text","shape":[1],"datatype":"BYTES","data":["` + text + `"]}]}`))
	if err != nil {
		t.Errorf("a text: %v", err)
	}
	for _, unfinished := range []string{`"`, `"\"`, `{"a`, `:"`} {
		if tooManyMembers([]byte(unfinished)) {
			t.Errorf("%s: expected few members", unfinished)
		}
	}
}
