package telemetry_test

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/baggage"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/switchyard-dev/switchyard/runtime/adapters"
	"github.com/switchyard-dev/switchyard/runtime/arch"
	"github.com/switchyard-dev/switchyard/runtime/batcher"
	"github.com/switchyard-dev/switchyard/runtime/engine"
	"github.com/switchyard-dev/switchyard/runtime/model"
	"github.com/switchyard-dev/switchyard/runtime/server"
	"github.com/switchyard-dev/switchyard/runtime/server/telemetry"
	"github.com/switchyard-dev/switchyard/runtime/weights"
)

// newServer is a server over a real base, and its series.
func newServer(t testing.TB) (*server.Server, *prometheus.Registry) {
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
	registry := prometheus.NewRegistry()
	return server.New(adapters.New(e), queue, nil, server.Options{Name: "base", Registry: registry}), registry
}

// A call over gRPC is told of by gRPC's conventions: its method, its status, and its metadata's trace alone.
func TestACallOverGRPC(t *testing.T) {
	s, registry := newServer(t)
	var log bytes.Buffer
	ended := tracetest.NewSpanRecorder()
	tracer := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(ended)).Tracer("test")
	telling := telemetry.New(s, slog.New(slog.NewJSONHandler(&log, nil)), tracer)
	const method = "inference.GRPCInferenceService/ModelInfer"
	route := telemetry.GRPC("grpc ModelInfer", "/"+method, true, func(code int) string {
		return map[int]string{http.StatusGatewayTimeout: "DEADLINE_EXCEEDED"}[code]
	})
	metadata := map[string]string{
		"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "baggage": "secret=1",
		"x-request-id": "seven",
	}
	ctx, call := telling.Begin(t.Context(), route, func(name string) string { return metadata[strings.ToLower(name)] })
	if call.ID() != "seven" || baggage.FromContext(ctx).Len() > 0 {
		t.Errorf("expected the call seven without baggage, found %s and %v", call.ID(), baggage.FromContext(ctx))
	}
	call.End(ctx, http.StatusGatewayTimeout, context.DeadlineExceeded)

	spans := ended.Ended()
	if len(spans) != 1 {
		t.Fatalf("expected one span, found %d", len(spans))
	}
	span := spans[0]
	if span.Name() != method || span.Parent().SpanID().String() != "b7ad6b7169203331" || !span.Parent().IsRemote() ||
		span.Status().Code != codes.Error || span.Status().Description != "" {
		t.Errorf("expected a failed span of %s under the caller's, found %v", method, span)
	}
	attributes := attribute.NewSet(span.Attributes()...)
	want := attribute.NewSet(
		attribute.String("rpc.system.name", "grpc"), attribute.String("rpc.method", method),
		attribute.String("rpc.response.status_code", "DEADLINE_EXCEEDED"), attribute.String("error.type", "504"),
		attribute.String("switchyard.request.id", "seven"))
	if !attributes.Equals(&want) {
		t.Errorf("expected the attributes %v, found %v", want.ToSlice(), attributes.ToSlice())
	}
	var line map[string]any
	if err := json.Unmarshal(log.Bytes(), &line); err != nil {
		t.Fatalf("expected one line, found %s", log.String())
	}
	if line["trace_id"] != "0af7651916cd43dd8448eb211c80319c" || line["span_id"] != span.SpanContext().SpanID().String() ||
		line["request_id"] != "seven" || line["route"] != "grpc ModelInfer" || line["level"] != "WARN" {
		t.Errorf("expected the call's line, found %v", line)
	}
	const series = `
		# HELP switchyard_refusals_total Inference requests refused that might have been answered at another time, by reason.
		# TYPE switchyard_refusals_total counter
		switchyard_refusals_total{reason="deadline"} 1
		# HELP switchyard_requests_total Requests answered, by route and HTTP code.
		# TYPE switchyard_requests_total counter
		switchyard_requests_total{code="504",route="grpc ModelInfer"} 1
	`
	if err := testutil.GatherAndCompare(registry, strings.NewReader(series),
		"switchyard_refusals_total", "switchyard_requests_total"); err != nil {
		t.Error(err)
	}
}

// What it takes to tell of a request that is answered, with traces and without.
func BenchmarkRequest(b *testing.B) {
	s, _ := newServer(b)
	route := telemetry.HTTP("POST /v2/models/{model}/infer")
	for name, tracer := range map[string]trace.Tracer{
		"untraced": nil, "traced": sdktrace.NewTracerProvider().Tracer("test"),
	} {
		b.Run(name, func(b *testing.B) {
			telling := telemetry.New(s, slog.New(slog.DiscardHandler), tracer)
			b.ReportAllocs()
			for b.Loop() {
				ctx, request := telling.Begin(b.Context(), route, http.Header{}.Get)
				request.End(ctx, http.StatusOK, nil)
			}
		})
	}
}
