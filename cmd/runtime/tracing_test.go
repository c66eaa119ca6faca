package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	traces "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/switchyard-dev/switchyard/runtime/arch"
	"github.com/switchyard-dev/switchyard/runtime/batcher"
	"github.com/switchyard-dev/switchyard/runtime/weights"
)

const digits = "../../hack/samples/digits"

// receiver takes spans as OTLP has them, over HTTP or gRPC.
type receiver struct {
	collector.UnimplementedTraceServiceServer
	mu       sync.Mutex
	received []*traces.ResourceSpans
	headers  []string // of what came over HTTP
}

// Export implements OTLP's service.
func (r *receiver) Export(
	_ context.Context, request *collector.ExportTraceServiceRequest,
) (*collector.ExportTraceServiceResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.received = append(r.received, request.GetResourceSpans()...)
	return &collector.ExportTraceServiceResponse{}, nil
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	var message collector.ExportTraceServiceRequest
	raw, err := io.ReadAll(request.Body)
	if err == nil {
		err = proto.Unmarshal(raw, &message)
	}
	if err != nil || request.Method != http.MethodPost || request.URL.Path != "/v1/traces" {
		http.Error(w, "no spans", http.StatusBadRequest)
		return
	}
	_, _ = r.Export(request.Context(), &message)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.headers = append(r.headers, request.Header.Get("X-Token"))
}

// overGRPC listens for spans and returns where.
func (r *receiver) overGRPC(t *testing.T) string {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	collector.RegisterTraceServiceServer(s, r)
	go func() { _ = s.Serve(listener) }()
	t.Cleanup(s.Stop)
	return "http://" + listener.Addr().String()
}

func (r *receiver) overHTTP(t *testing.T) string {
	t.Helper()
	s := httptest.NewServer(r)
	t.Cleanup(s.Close)
	return s.URL
}

// spans are all that came, and what is said of where they come from.
func (r *receiver) spans() (spans []*traces.Span, resource map[string]string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, received := range r.received {
		resource = attributes(received.GetResource().GetAttributes())
		for _, scope := range received.GetScopeSpans() {
			spans = append(spans, scope.GetSpans()...)
		}
	}
	slices.SortFunc(spans, func(a, b *traces.Span) int {
		return int(int64(a.GetStartTimeUnixNano()) - int64(b.GetStartTimeUnixNano()))
	})
	return spans, resource
}

func attributes(of []*common.KeyValue) map[string]string {
	found := make(map[string]string)
	for _, a := range of {
		found[a.GetKey()] = a.GetValue().GetStringValue()
		if found[a.GetKey()] == "" {
			found[a.GetKey()] = strconv.FormatInt(a.GetValue().GetIntValue(), 10)
		}
	}
	return found
}

// serveDigits serves the sample, traced. What it is asked has ended when it is closed.
func serveDigits(t *testing.T, tracing *tracing) *httptest.Server {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	processors := runtime.GOMAXPROCS(0)
	t.Cleanup(func() { runtime.GOMAXPROCS(processors) })
	base, name, err := openBase(digits+"/base", arch.Float32, log)
	if err != nil {
		t.Fatal(err)
	}
	registry := newRegistry()
	process := &process{log: log, tracer: tracing.tracer(), tracing: tracing}
	times := queueFlags{maxBatch: batcher.DefaultMaxBatch, maxQueue: batcher.DefaultMaxQueue}
	plane, err := newDataPlane(t.Context(), base, times, "", registry, process)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		plane.close(context.WithoutCancel(t.Context()))
		for _, e := range plane.set.List() {
			plane.set.Drop(e.Name)
		}
	})
	front := plane.front(name, nil, registry)
	dir, err := weights.OpenFolder(digits + "/adapters")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = dir.Close() }()
	load, err := plane.set.FromFolder(dir, nil, log)
	if err != nil {
		t.Fatal(err)
	}
	load(t.Context())
	served := httptest.NewServer(overHTTP(front, process))
	t.Cleanup(served.Close)
	return served
}

// A caller's trace, and what else it sends that nobody should find in a span.
var callersHeader = map[string]string{
	"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "tracestate": "other=1",
	"Baggage": "secret=baggage", "Authorization": "Bearer secret", "X-Request-Id": "seven",
}

// askDigits asks so many rows, of several adapters in turn.
func askDigits(t *testing.T, url string, rows int, header map[string]string, names ...string) (code int) {
	t.Helper()
	raw, err := os.ReadFile(digits + "/images/0000.png")
	if err != nil {
		t.Fatal(err)
	}
	asked := slices.Repeat(names, rows/len(names)+1)[:rows]
	images := slices.Repeat([]string{base64.StdEncoding.EncodeToString(raw)}, rows)
	tensor := func(name string, data []string) map[string]any {
		return map[string]any{"name": name, "datatype": "BYTES", "shape": []int{rows}, "data": data}
	}
	body, err := json.Marshal(map[string]any{"inputs": []any{tensor("image", images), tensor("adapter", asked)}})
	if err != nil {
		t.Fatal(err)
	}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+"/v2/models/base/infer",
		bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range header {
		request.Header.Set(name, value)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		t.Fatal(err)
	}
	return response.StatusCode
}

// openTraces opens tracing as the environment has it, which must be on.
func openTraces(t *testing.T) *tracing {
	t.Helper()
	tracing, err := openTracing(t.Context(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if tracing == nil {
		t.Fatal("expected requests to be traced")
	}
	return tracing
}

// The spans of a mixed request whose rows are in two batches, as a collector receives them.
func TestTheSpansOfARequest(t *testing.T) {
	for protocol, c := range map[string]struct {
		listen  func(*receiver, *testing.T) string
		given   string // OTEL_SERVICE_NAME
		service string
	}{
		"http/protobuf": {(*receiver).overHTTP, "", "switchyard-runtime"},
		"grpc":          {(*receiver).overGRPC, "another", "another"},
	} {
		t.Run(protocol, func(t *testing.T) {
			var r receiver
			t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", c.listen(&r, t))
			t.Setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
			t.Setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-token=secret")
			t.Setenv("OTEL_SERVICE_NAME", c.given)
			t.Setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
			tracing := openTraces(t)
			served := serveDigits(t, tracing)
			const rows = 40
			if code := askDigits(t, served.URL, rows, callersHeader, "parity", "holes", ""); code != http.StatusOK {
				t.Fatalf("expected 200, found %d", code)
			}
			served.Close()
			if err := tracing.close(t.Context()); err != nil {
				t.Fatal(err)
			}
			spans, resource := r.spans()
			if resource["service.name"] != c.service || resource["service.version"] == "" ||
				resource["deployment.environment.name"] != "test" {
				t.Errorf("expected the service %s and its version, found %v", c.service, resource)
			}
			expectTree(t, spans, rows)
			for _, span := range spans {
				if text := span.String(); strings.Contains(text, "secret") || strings.Contains(text, "parity") {
					t.Errorf("expected neither secrets nor adapters, found %s", text)
				}
			}
			if protocol != "grpc" && !slices.Equal(r.headers, []string{"secret"}) {
				t.Errorf("expected the collector's token on the way, found %v", r.headers)
			}
		})
	}
}

// expectTree expects request → preprocess, queue, engine → forward, each within its parent.
func expectTree(t *testing.T, spans []*traces.Span, rows int) {
	t.Helper()
	byID := make(map[string]*traces.Span)
	names := make(map[string]int)
	for _, s := range spans {
		byID[string(s.GetSpanId())] = s
		names[s.GetName()]++
		if id := hex.EncodeToString(s.GetTraceId()); id != "0af7651916cd43dd8448eb211c80319c" {
			t.Errorf("%s: expected the caller's trace, found %s", s.GetName(), id)
		}
	}
	const request = "POST /v2/models/{model}/infer"
	want := map[string]int{request: 1, "preprocess": 1, "queue": 1, "engine": 2, "forward": 2}
	if fmt.Sprint(names) != fmt.Sprint(want) {
		t.Fatalf("expected the spans %v, found %v", want, names)
	}
	parents := map[string]string{"preprocess": request, "queue": request, "engine": request, "forward": "engine"}
	computed := 0
	for _, s := range spans {
		found := attributes(s.GetAttributes())
		if s.GetName() == request {
			if hex.EncodeToString(s.GetParentSpanId()) != "b7ad6b7169203331" || s.GetTraceState() != "other=1" ||
				s.GetKind() != traces.Span_SPAN_KIND_SERVER || s.GetStatus().GetCode() != traces.Status_STATUS_CODE_UNSET {
				t.Errorf("expected a server's span under the caller's, found %v", s)
			}
			expected := map[string]string{
				"http.request.method": "POST", "http.route": "/v2/models/{model}/infer", "http.response.status_code": "200",
				"switchyard.rows": strconv.Itoa(rows), "switchyard.request.id": "seven",
			}
			if fmt.Sprint(found) != fmt.Sprint(expected) {
				t.Errorf("expected the attributes %v, found %v", expected, found)
			}
			continue
		}
		parent := byID[string(s.GetParentSpanId())]
		if parent.GetName() != parents[s.GetName()] || s.GetStartTimeUnixNano() < parent.GetStartTimeUnixNano() ||
			s.GetEndTimeUnixNano() > parent.GetEndTimeUnixNano() || s.GetEndTimeUnixNano() < s.GetStartTimeUnixNano() {
			t.Errorf("expected %v within %s, found %v", s, parents[s.GetName()], parent)
		}
		if s.GetName() == "engine" {
			var of, adapters, tokens int
			_, err := fmt.Sscan(found["switchyard.batch.rows"]+" "+found["switchyard.batch.adapters"]+" "+
				found["switchyard.batch.tokens"], &of, &adapters, &tokens)
			if computed += of; err != nil || adapters < 1 || adapters > 3 || tokens < of {
				t.Errorf("expected rows, adapters and tokens of a batch, found %v", found)
			}
		}
	}
	if computed != rows {
		t.Errorf("expected %d rows in both batches, found %d", rows, computed)
	}
}

// A failure is the server's or the client's, as its span says; who is not to be traced by its caller is not, nor is a
// probe.
func TestTheSpansOfFailures(t *testing.T) {
	var r receiver
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", r.overHTTP(t))
	tracing := openTraces(t)
	served := serveDigits(t, tracing)
	askDigits(t, served.URL, 1, nil, "nobody")
	askDigits(t, served.URL, 1, map[string]string{"Switchyard-Timeout-Ms": "none"}, "parity")
	unsampled := strings.TrimSuffix(callersHeader["traceparent"], "1") + "0"
	askDigits(t, served.URL, 1, map[string]string{"traceparent": unsampled}, "")
	for _, path := range []string{"/nowhere/secret", "/v2/health/ready"} {
		response, err := http.Get(served.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
	}
	served.Close()
	if err := tracing.close(t.Context()); err != nil {
		t.Fatal(err)
	}
	spans, _ := r.spans()
	var found []string
	for _, s := range spans {
		found = append(found, fmt.Sprint(s.GetName(), " ", attributes(s.GetAttributes())["http.response.status_code"], " ",
			s.GetStatus().GetCode(), " ", len(s.GetParentSpanId())))
		if strings.Contains(s.String(), "secret") {
			t.Errorf("expected no path of a stranger's, found %v", s)
		}
	}
	const request = "POST /v2/models/{model}/infer"
	want := []string{
		request + " 404 STATUS_CODE_UNSET 0", request + " 400 STATUS_CODE_UNSET 0", "GET 404 STATUS_CODE_UNSET 0",
	}
	if !slices.Equal(found, want) {
		t.Errorf("expected %v, found %v", want, found)
	}
}

func TestTracingIsOffUnlessItIsConfigured(t *testing.T) {
	const endpoint = "OTEL_EXPORTER_OTLP_ENDPOINT"
	for name, c := range map[string]struct {
		environment map[string]string
		on          bool
		err         string
	}{
		"nothing":       {},
		"no exporter":   {map[string]string{endpoint: "http://localhost", "OTEL_TRACES_EXPORTER": "none"}, false, ""},
		"disabled":      {map[string]string{endpoint: "http://localhost", "OTEL_SDK_DISABLED": "true"}, false, ""},
		"an endpoint":   {map[string]string{endpoint: "http://localhost"}, true, ""},
		"one of traces": {map[string]string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://localhost"}, true, ""},
		"another exporter": {
			map[string]string{"OTEL_TRACES_EXPORTER": "console"}, false, `expected otlp or none, found "console"`,
		},
		"another protocol": {
			map[string]string{endpoint: "x", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"}, false, `found "http/json"`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			for key, value := range c.environment {
				t.Setenv(key, value)
			}
			tracing, err := openTracing(t.Context(), slog.New(slog.DiscardHandler))
			if (err != nil) != (c.err != "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Fatalf("expected the error %q, found %v", c.err, err)
			}
			if (tracing != nil) != c.on || (tracing.tracer() != nil) != c.on {
				t.Errorf("expected tracing to be on: %t, found %v", c.on, tracing)
			}
			if err := tracing.close(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

// A collector that does not answer does not keep the process.
func TestACollectorThatHangsIsNotWaitedFor(t *testing.T) {
	hanging := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-hanging }))
	defer s.Close()
	defer close(hanging)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", s.URL)
	t.Setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "60000")
	tracing := openTraces(t)
	_, span := tracing.tracer().Start(t.Context(), "x")
	span.End()
	began := time.Now()
	if err := tracing.close(t.Context()); err == nil {
		t.Error("expected to be told that spans are lost")
	}
	if took := time.Since(began); took > 2*flushTime {
		t.Errorf("expected to wait for %s, found %s", flushTime, took)
	}
}
