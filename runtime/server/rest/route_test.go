package rest

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/switchyard-dev/switchyard/runtime/adapters"
	"github.com/switchyard-dev/switchyard/runtime/arch"
	"github.com/switchyard-dev/switchyard/runtime/batcher"
	"github.com/switchyard-dev/switchyard/runtime/engine"
	"github.com/switchyard-dev/switchyard/runtime/model"
	"github.com/switchyard-dev/switchyard/runtime/preprocess"
	"github.com/switchyard-dev/switchyard/runtime/server"
	"github.com/switchyard-dev/switchyard/runtime/weights"
)

// newServer is a server over a real base, without adapters.
func newServer(t testing.TB, images *preprocess.Image) *server.Server {
	t.Helper()
	folder, err := weights.OpenFolder("../../../hack/samples/digits/base")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = folder.Close() }()
	base, err := model.Open(folder, arch.Float32)
	if err != nil {
		t.Fatal(err)
	}
	e := engine.New(base, 1)
	t.Cleanup(e.Close)
	queue := batcher.New(e, batcher.Options{})
	t.Cleanup(queue.Close)
	set := adapters.New(e)
	set.Told()
	return server.New(set, queue, images, server.Options{Name: "base", Registry: prometheus.NewRegistry()})
}

func TestAPanicIsA500AndTheServerLives(t *testing.T) {
	h := newHandler(newServer(t, nil), Options{Log: slog.New(slog.DiscardHandler)})
	handler := h.route("GET /", func(http.ResponseWriter, *http.Request) error { panic("a secret") })
	for range 2 {
		recorder := httptest.NewRecorder()
		handler.ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, "/", nil))
		if body := recorder.Body.String(); recorder.Code != 500 || body != `{"error":"internal error"}` {
			t.Errorf("expected a 500 in the protocol's shape, found %d: %s", recorder.Code, body)
		}
	}
}
