package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/switchyard-dev/switchyard/runtime/adapters"
	"github.com/switchyard-dev/switchyard/runtime/batcher"
)

// Each kind of error has its status, wherever in the chain it stands; what is our fault keeps its text to itself.
func TestEveryErrorHasItsStatus(t *testing.T) {
	for _, c := range []struct {
		err   error
		code  int
		retry bool
	}{
		{badRequest("bad"), http.StatusBadRequest, false},
		{tryLater(http.StatusTooManyRequests, errors.New("full")), http.StatusTooManyRequests, true},
		{&adapters.UnknownError{Name: "x"}, http.StatusNotFound, false},
		{&adapters.LoadingError{Name: "x"}, http.StatusServiceUnavailable, true},
		{&adapters.RefusedError{Name: "x", Reason: errors.New("bad")}, http.StatusServiceUnavailable, false},
		{batcher.ErrOverloaded, http.StatusTooManyRequests, true},
		{batcher.ErrClosed, http.StatusServiceUnavailable, true},
		{context.DeadlineExceeded, http.StatusGatewayTimeout, false},
		{context.Canceled, statusClientGone, false},
		{errors.New("a secret"), http.StatusInternalServerError, false},
	} {
		got := statusOf(fmt.Errorf("row 7: %w", c.err))
		if got.code != c.code || got.retry != c.retry {
			t.Errorf("%v: expected %d, retry %v, found %d, retry %v", c.err, c.code, c.retry, got.code, got.retry)
		}
		if strings.Contains(got.Error(), "secret") {
			t.Errorf("%v: its text leaks: %s", c.err, got.Error())
		}
	}
}

func TestTheAnswerToARow(t *testing.T) {
	a := &answer{logits: []float32{1, 3, 3, 2}, labels: []string{"a", "b", "c", "d"}}
	if a.best() != 1 {
		t.Errorf("expected the first of the largest, found %d", a.best())
	}
	sum := math.Exp(-2) + 1 + 1 + math.Exp(-1)
	for i, want := range []float64{math.Exp(-2) / sum, 1 / sum, 1 / sum, math.Exp(-1) / sum} {
		if got := a.probabilities()[i]; math.Abs(float64(got)-want) > 1e-7 {
			t.Errorf("probability %d: expected %g, found %g", i, want, got)
		}
	}
	large := &answer{logits: []float32{1000, 999}} // beyond what exp can take
	if p := large.probabilities(); math.IsNaN(float64(p[0])) || math.Abs(float64(p[0])-1/(1+math.Exp(-1))) > 1e-7 {
		t.Errorf("large logits: found %v", p)
	}
	for _, o := range outputs {
		switch o.name {
		case "label":
			if got := fmt.Sprint(o.data([]answer{*a}, 4)); got != "[b]" {
				t.Errorf("label: expected [b], found %s", got)
			}
		case "score":
			if got := o.data([]answer{*a}, 4).([]float32); math.Abs(float64(got[0])-1/sum) > 1e-7 {
				t.Errorf("score: expected %g, found %v", 1/sum, got)
			}
		}
	}
}

func TestTheWidthOfAnAnswerIsBounded(t *testing.T) {
	wide := model{labels: make([]string, 1<<16)}
	narrow := model{labels: make([]string, 2)}
	if err := checkWidth([]model{wide, narrow}); err != nil {
		t.Error(err)
	}
	rows := make([]model, 17)
	rows[16] = wide
	if err := checkWidth(rows); err == nil || statusOf(err).code != http.StatusBadRequest {
		t.Errorf("expected 17 rows of 65536 to be refused, found %v", err)
	}
}

// The width is looked at before a row is decoded or queued: this server could do neither.
func TestAnAnswerTooWideIsRefusedFirst(t *testing.T) {
	s := &Server{
		options: Options{MaxRows: 2},
		metrics: &metrics{rows: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "r"}, []string{"code"})},
		inputs:  []input{{name: "pixel_values", datatype: "FP32", shape: []int{anyRows}}},
	}
	request := &inferRequest{Inputs: []inputTensor{{Name: "pixel_values", Datatype: "FP32", Shape: []int64{2}}}}
	_, err := s.answer(t.Context(), &model{labels: make([]string, maxLogits/2+1)}, "", request)
	if err == nil || err.Error() !=
		"expected an answer of at most 1048576 logits, found 2 rows of 524289: ask for fewer rows" {
		t.Errorf("expected the answer to be too wide, found %v", err)
	}
}

func TestAPanicIsA500AndTheServerLives(t *testing.T) {
	s := &Server{
		options: Options{Log: slog.New(slog.DiscardHandler)},
		metrics: &metrics{
			requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "r"}, []string{"route", "code"}),
			seconds:  prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "s"}, []string{"route"}),
		},
	}
	handler := s.route("GET /", func(http.ResponseWriter, *http.Request) error { panic("a secret") })
	for range 2 {
		recorder := httptest.NewRecorder()
		handler.ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, "/", nil))
		if body := recorder.Body.String(); recorder.Code != 500 || body != `{"error":"internal error"}` {
			t.Errorf("expected a 500 in the protocol's shape, found %d: %s", recorder.Code, body)
		}
	}
}
