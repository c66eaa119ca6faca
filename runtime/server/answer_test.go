package server

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/switchyard-dev/switchyard/runtime/adapters"
	"github.com/switchyard-dev/switchyard/runtime/arch"
	"github.com/switchyard-dev/switchyard/runtime/batcher"
	"github.com/switchyard-dev/switchyard/runtime/engine"
	basemodel "github.com/switchyard-dev/switchyard/runtime/model"
	"github.com/switchyard-dev/switchyard/runtime/protocol"
	"github.com/switchyard-dev/switchyard/runtime/weights"
	"github.com/switchyard-dev/switchyard/test/wrappers"
)

// Each kind of error has its status, wherever in the chain it stands; what is our fault keeps its text to itself.
func TestEveryErrorHasItsStatus(t *testing.T) {
	for _, c := range []struct {
		err   error
		code  int
		after time.Duration
	}{
		{badRequest("bad"), http.StatusBadRequest, 0},
		{TryLater(http.StatusTooManyRequests, errors.New("full")), http.StatusTooManyRequests, soon},
		{&adapters.UnknownError{Name: "x"}, http.StatusNotFound, 0},
		{&adapters.UntoldError{Name: "x"}, http.StatusServiceUnavailable, soon},
		{&adapters.LoadingError{Name: "x"}, http.StatusServiceUnavailable, soon},
		{&adapters.RefusedError{Name: "x", Reason: errors.New("bad")}, http.StatusServiceUnavailable, 0},
		{&batcher.OverloadedError{RetryAfter: 7 * time.Second}, http.StatusTooManyRequests, 7 * time.Second},
		{batcher.ErrClosed, http.StatusServiceUnavailable, soon},
		{context.DeadlineExceeded, http.StatusGatewayTimeout, 0},
		{context.Canceled, StatusClientGone, 0},
		{errors.New("a secret"), http.StatusInternalServerError, 0},
	} {
		got := StatusOf(fmt.Errorf("row 7: %w", c.err))
		if got.Code != c.code || got.RetryAfter != c.after {
			t.Errorf("%v: expected %d, retry after %s, found %d, %s", c.err, c.code, c.after, got.Code, got.RetryAfter)
		}
		if strings.Contains(got.Error(), "secret") {
			t.Errorf("%v: its text leaks: %s", c.err, got.Error())
		}
	}
}

func TestTheAnswerToARow(t *testing.T) {
	abcd := Model{Labels: []string{"a", "b", "c", "d"}, Problem: arch.SingleLabel}
	sum := math.Exp(-2) + 1 + 1 + math.Exp(-1)
	for _, c := range []struct {
		name          string
		answer        Answer
		probabilities []float64
		label         string
		score         float64
	}{
		{
			"one class of several, the first of the likeliest",
			Answer{Model: abcd, Logits: []float32{1, 3, 3, 2}},
			[]float64{math.Exp(-2) / sum, 1 / sum, 1 / sum, math.Exp(-1) / sum},
			"b", 1 / sum,
		},
		{
			"logits beyond what exp can take",
			Answer{Model: Model{Labels: []string{"a", "b"}, Problem: arch.SingleLabel}, Logits: []float32{1000, 999}},
			[]float64{1 / (1 + math.Exp(-1)), 1 / (1 + math.E)},
			"a", 1 / (1 + math.Exp(-1)),
		},
		{
			"each class or not",
			Answer{Model: Model{Labels: []string{"a", "b", "c"}, Problem: arch.MultiLabel}, Logits: []float32{-1000, 0, 2}},
			[]float64{0, 0.5, 1 / (1 + math.Exp(-2))},
			"c", 1 / (1 + math.Exp(-2)),
		},
		{
			"numbers",
			Answer{Model: Model{Labels: []string{"a", "b"}, Problem: arch.Regression}, Logits: []float32{-3, -7}},
			[]float64{-3, -7},
			"a", -3,
		},
		{"an answer for each token", Answer{Model: abcd, Tokens: []float32{1, 3, 3, 2}}, nil, "", 0},
	} {
		found := c.answer.Probabilities()
		if len(found) != len(c.probabilities) {
			t.Errorf("%s: expected %d probabilities, found %v", c.name, len(c.probabilities), found)
			continue
		}
		for i, want := range c.probabilities {
			if diff := math.Abs(float64(found[i]) - want); diff > 1e-7 || math.IsNaN(diff) {
				t.Errorf("%s: probability %d: expected %g, found %g", c.name, i, want, found[i])
			}
		}
		label, score := c.answer.Best()
		if label != c.label || math.Abs(float64(score)-c.score) > 1e-7 {
			t.Errorf("%s: expected %q with the score %g, found %q with %g", c.name, c.label, c.score, label, score)
		}
	}
}

// Rows of several widths, tasks and lengths are filled up to one size, each output by its own.
func TestTheOutputsOfRows(t *testing.T) {
	two := Model{Revision: "two", Labels: []string{"a", "b"}, Problem: arch.SingleLabel}
	three := Model{Revision: "three", Labels: []string{"x", "y", "z"}, Problem: arch.SingleLabel, Task: arch.Token}
	rows := []Answer{
		{Model: two, Logits: []float32{0, 0}},
		{Model: three, Tokens: []float32{1, 2, 3, 4, 5, 6}},
		{Model: two, Tokens: []float32{7, 8}},
	}
	p := float32(padding)
	chosen, err := chooseOutputs([]string{
		"token_logits",
		"logits",
		"num_labels",
		"probabilities",
		"label",
		"score",
		"revision",
	})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []protocol.Output{
		{
			Name: "token_logits", Datatype: "FP32", Shape: []int{3, 2, 3},
			Data: []float32{p, p, p, p, p, p, 1, 2, 3, 4, 5, 6, 7, 8, p, p, p, p},
		},
		{Name: "logits", Datatype: "FP32", Shape: []int{3, 3}, Data: []float32{0, 0, p, p, p, p, p, p, p}},
		{Name: "num_labels", Datatype: "INT32", Shape: []int{3}, Data: []int32{2, 0, 0}},
		{Name: "probabilities", Datatype: "FP32", Shape: []int{3, 3}, Data: []float32{0.5, 0.5, 0, 0, 0, 0, 0, 0, 0}},
		{Name: "label", Datatype: "BYTES", Shape: []int{3}, Data: []string{"a", "", ""}},
		{Name: "score", Datatype: "FP32", Shape: []int{3}, Data: []float32{0.5, 0, 0}},
		{Name: "revision", Datatype: "BYTES", Shape: []int{3}, Data: []string{"two", "three", "two"}},
	} {
		if got := tensors(chosen, rows)[i]; !reflect.DeepEqual(got, want) {
			t.Errorf("%s: expected %v, found %v", want.Name, want, got)
		}
	}
}

// What is sent for each token is sent only if it is asked for.
func TestOutputsOfTokensAreAskedFor(t *testing.T) {
	all, err := chooseOutputs(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range all {
		if o.tokens {
			t.Errorf("expected no output of tokens without asking, found %s", o.name)
		}
	}
}

func TestTheSizeOfAnAnswerIsBounded(t *testing.T) {
	wide, narrow := Model{Labels: make([]string, 1<<16)}, Model{Labels: make([]string, 2)}
	plain, err := chooseOutputs(nil)
	if err != nil {
		t.Fatal(err)
	}
	each, err := chooseOutputs([]string{"label", "token_logits"})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name    string
		rows    []Model
		tokens  int
		outputs []output
		want    string
	}{
		{"as many as may be", append(make([]Model, 15), wide), 512, plain, ""},
		{
			"a row more", append(make([]Model, 16), wide), 1, plain,
			"expected an answer of at most 1048576 logits, found 17 rows of 65536: ask for fewer rows",
		},
		{"as many as may be, for each token", []Model{narrow, wide}, 8, each, ""},
		{
			"a token more",
			[]Model{narrow, wide},
			9, each,
			"expected an answer of at most 1048576 logits, found 2 rows of 589824: ask for fewer rows",
		},
	} {
		err := checkSize(c.rows, c.tokens, c.outputs)
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", c.name, err)
		case c.want != "" && (err == nil || err.Error() != c.want || StatusOf(err).Code != http.StatusBadRequest):
			t.Errorf("%s: expected 400 with %q, found %v", c.name, c.want, err)
		}
	}
}

// The size is looked at before a row is decoded or queued: this server could do neither.
func TestAnAnswerTooLargeIsRefusedFirst(t *testing.T) {
	e := openText(t)
	s := &Server{
		options:  Options{MaxRows: 2},
		adapters: adapters.New(e),
		takes:    e.Description(),
		metrics:  &metrics{rows: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "r"}, []string{"code"})},
		inputs:   []input{{name: "input_ids", datatype: "INT64", shape: []int{protocol.AnySize, protocol.AnySize}}},
	}
	request := &Request{Inputs: []protocol.Tensor{{Name: "input_ids", Datatype: "INT64", Shape: []int64{2, 3}}}}
	m := &Model{Labels: make([]string, maxLogits/2+1), Task: arch.Sequence}
	_, err := s.answer(t.Context(), m, request, nil, nil)
	if err == nil || err.Error() !=
		"expected an answer of at most 1048576 logits, found 2 rows of 524289: ask for fewer rows" {
		t.Errorf("expected the answer to be too large, found %v", err)
	}
}

// openText is an engine of a small base of texts.
func openText(t *testing.T) *engine.Engine {
	t.Helper()
	folder, err := weights.OpenFolder(wrappers.Base(t, `{
		"model_type": "bert", "architectures": ["BertForSequenceClassification"], "vocab_size": 30, "hidden_size": 8,
		"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8, "max_position_embeddings": 16
	}`).Write())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = folder.Close() }()
	base, err := basemodel.Open(folder, arch.Float32)
	if err != nil {
		t.Fatal(err)
	}
	e := engine.New(base, 1)
	t.Cleanup(e.Close)
	return e
}

func TestHowLongAMaskIs(t *testing.T) {
	for _, c := range []struct {
		mask []int32
		want int
		err  string
	}{
		{[]int32{1}, 1, ""},
		{[]int32{1, 1, 1}, 3, ""},
		{[]int32{1, 1, 0, 0}, 2, ""},
		{[]int32{0, 0}, 0, "expected at least one token, found none"},
		{
			[]int32{1, 0, 1},
			0,
			"expected ones, then zeros, found a 1 at 2 behind a 0 at 1: padding on the left, or in the midst, is not supported",
		},
		{[]int32{0, 1, 1}, 0, "found a 1 at 1 behind a 0 at 0: padding on the left"},
		{[]int32{1, 2, 1}, 0, "expected 0 or 1, found 2 at 1"},
		{[]int32{1, 0, -1}, 0, "expected 0 or 1, found -1 at 2"},
	} {
		n, err := maskedLength(c.mask)
		if n != c.want || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%v: expected %d, error %q, found %d, %v", c.mask, c.want, c.err, n, err)
		}
	}
}

func TestTheLabelsOfEntities(t *testing.T) {
	for _, c := range []struct {
		label  string
		begins bool
		class  string
		group  string
	}{
		{"B-PER", true, "PER", "PER"},
		{"I-PER", false, "PER", "PER"},
		{"PER", false, "PER", "PER"},
		{"E-PER", false, "E-PER", "PER"},
		{"B-work-of-art", true, "work-of-art", "work-of-art"},
		{"O", false, "O", "O"},
		{"", false, "", ""},
	} {
		begins, class := tag(c.label)
		if group := groupOf(c.label); begins != c.begins || class != c.class || group != c.group {
			t.Errorf("%q: expected %v, %q in the group %q, found %v, %q, %q",
				c.label, c.begins, c.class, c.group, begins, class, group)
		}
	}
}
