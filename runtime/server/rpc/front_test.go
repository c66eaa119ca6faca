package rpc_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/switchyard-dev/switchyard/api/proto/inference"
	"github.com/switchyard-dev/switchyard/runtime/adapters"
	"github.com/switchyard-dev/switchyard/runtime/arch"
	"github.com/switchyard-dev/switchyard/runtime/batcher"
	"github.com/switchyard-dev/switchyard/runtime/engine"
	"github.com/switchyard-dev/switchyard/runtime/model"
	"github.com/switchyard-dev/switchyard/runtime/preprocess"
	"github.com/switchyard-dev/switchyard/runtime/server"
	"github.com/switchyard-dev/switchyard/runtime/server/rest"
	"github.com/switchyard-dev/switchyard/runtime/server/rpc"
	"github.com/switchyard-dev/switchyard/runtime/weights"
	"github.com/switchyard-dev/switchyard/test/wrappers"
)

const sample = "../../../hack/samples/digits"

const (
	maxMessageBytes = 1 << 20
	// requestBytes is enough for 32 messages of an eighth of that, and their rows.
	requestBytes = 32*3*maxMessageBytes/8 + 512<<10
	maxRows      = 8
)

// front is a server over the real sample, with one adapter beside it that is refused and one whose answers are not
// finite, over gRPC and over HTTP.
type front struct {
	address string
	client  inference.GRPCInferenceServiceClient
	conn    *grpc.ClientConn
	server  *server.Server
	handler *rpc.Handler
	rest    http.Handler
	set     *adapters.Set
	metrics http.Handler
}

func newFront(t testing.TB) *front {
	t.Helper()
	return newFrontOver(t, func(e batcher.Runner) batcher.Runner { return e })
}

// newFrontOver puts something before the engine.
func newFrontOver(t testing.TB, before func(batcher.Runner) batcher.Runner) *front {
	t.Helper()
	f := newServer(t, before)
	f.handler.Open(f.server)
	f.address = listen(t, f.handler)
	f.dial(t, f.address)
	return f
}

// listen serves gRPC on a free port of loopback.
func listen(t testing.TB, handler http.Handler) (address string) {
	t.Helper()
	over := &http.Server{Handler: handler}
	rpc.Configure(over)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = over.Serve(listener) }()
	t.Cleanup(func() { _ = over.Close() })
	return listener.Addr().String()
}

func (f *front) dial(t testing.TB, address string, options ...grpc.DialOption) {
	t.Helper()
	options = append(options, grpc.WithTransportCredentials(insecure.NewCredentials()))
	var err error
	if f.conn, err = grpc.NewClient("passthrough:///"+address, options...); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.conn.Close() })
	f.client = inference.NewGRPCInferenceServiceClient(f.conn)
}

// newServer is a front without a network, and not open.
func newServer(t testing.TB, before func(batcher.Runner) batcher.Runner) *front {
	t.Helper()
	base, err := model.Open(openFolder(t, filepath.Join(sample, "base")), arch.Float32)
	if err != nil {
		t.Fatal(err)
	}
	size := base.Description.Image
	images, err := preprocess.ParseImage(base.Preprocessor, preprocess.Base{
		ModelType: base.Description.ModelType,
		Channels:  size.Channels, Height: size.Height, Width: size.Width, Takes: size.Takes,
	})
	if err != nil {
		t.Fatal(err)
	}
	eng := engine.New(base, 2)
	t.Cleanup(eng.Close)
	set := adapters.New(eng)
	load(t, set)
	registry := prometheus.NewRegistry()
	queue := batcher.New(before(eng), batcher.Options{MaxBatchRows: 4, MaxBatchTokens: 1 << 10})
	t.Cleanup(queue.Close)
	s := server.New(set, queue, images, server.Options{
		Name: "digits", RequestBytes: requestBytes, MaxRows: maxRows, MaxRowsInFlight: 64, Registry: registry,
	})
	log := slog.New(slog.DiscardHandler)
	return &front{
		server: s, set: set, metrics: promhttp.HandlerFor(registry, promhttp.HandlerOpts{}),
		handler: rpc.New(rpc.Options{MaxMessageBytes: maxMessageBytes, Log: log}),
		rest:    rest.New(s, rest.Options{MaxBodyBytes: maxMessageBytes, Log: log}),
	}
}

// load loads the sample's adapters, and two that answer nothing.
func load(t testing.TB, set *adapters.Set) {
	t.Helper()
	load, err := set.FromFolder(openFolder(t, filepath.Join(sample, "adapters")), nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	load(t.Context())
	set.Load("broken", func() (*weights.Folder, error) { return weights.OpenFolder(t.TempDir()) })
	overflow := wrappers.Adapter(t).Unset("target_modules").
		Tensor(wrappers.F32("base_model.model.classifier.weight", slices.Repeat([]float32{3e38}, 2*96), 2, 96)).
		Tensor(wrappers.F32("base_model.model.classifier.bias", []float32{3e38, 3e38}, 2)).Write()
	set.Load("overflow", func() (*weights.Folder, error) { return weights.OpenFolder(overflow) })
	set.Told()
}

func openFolder(t testing.TB, path string) *weights.Folder {
	t.Helper()
	folder, err := weights.OpenFolder(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = folder.Close() })
	return folder
}

// answerOverHTTP is what REST answers to images and adapters, in binary: each output's bytes by its name.
func (f *front) answerOverHTTP(t testing.TB, images []string, names ...string) map[string][]byte {
	t.Helper()
	raw, err := json.Marshal(map[string]any{
		"parameters": map[string]bool{"binary_data_output": true},
		"inputs": []map[string]any{
			{"name": "image", "datatype": "BYTES", "shape": []int{len(images)}, "data": images},
			{"name": "adapter", "datatype": "BYTES", "shape": []int{len(names)}, "data": names},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	recorder := httptest.NewRecorder()
	f.rest.ServeHTTP(recorder, httptest.NewRequest(http.MethodPost, "/v2/models/digits/infer", bytes.NewReader(raw)))
	body := recorder.Body.Bytes()
	n, err := strconv.Atoi(recorder.Header().Get("Inference-Header-Content-Length"))
	if err != nil || recorder.Code != http.StatusOK {
		t.Fatalf("status %d: %s", recorder.Code, body)
	}
	var response struct {
		Outputs []struct {
			Name       string
			Parameters struct {
				Size int `json:"binary_data_size"`
			}
		}
	}
	if err := json.Unmarshal(body[:n], &response); err != nil {
		t.Fatal(err)
	}
	outputs := map[string][]byte{}
	rest := body[n:]
	for _, o := range response.Outputs {
		outputs[o.Name], rest = rest[:o.Parameters.Size], rest[o.Parameters.Size:]
	}
	return outputs
}

func (f *front) scrape(t testing.TB) string {
	t.Helper()
	recorder := httptest.NewRecorder()
	f.metrics.ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	text, err := io.ReadAll(recorder.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// png is a held-out image.
func png(t testing.TB, n int) []byte {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(sample, "images", fmt.Sprintf("%04d.png", n)))
	if err != nil {
		t.Fatal(err)
	}
	return raw
}
