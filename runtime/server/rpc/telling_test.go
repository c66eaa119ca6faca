package rpc_test

import (
	"log/slog"
	"slices"
	"testing"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/switchyard-dev/switchyard/runtime/batcher"
	"github.com/switchyard-dev/switchyard/runtime/server/rpc"
)

// A call's id and its caller's trace come by metadata; the answer has the id, and the spans are the caller's children.
func TestACallIsTraced(t *testing.T) {
	ended := tracetest.NewSpanRecorder()
	f := newServer(t, func(e batcher.Runner) batcher.Runner { return e })
	f.handler = rpc.New(rpc.Options{
		MaxMessageBytes: maxMessageBytes, Log: slog.New(slog.DiscardHandler),
		Tracer: sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(ended)).Tracer("test"),
	})
	f.handler.Open(f.server)
	f.dial(t, listen(t, f.handler))
	ctx := metadata.AppendToOutgoingContext(t.Context(), "x-request-id", "seven",
		"traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	var header metadata.MD
	if _, err := f.client.ModelInfer(ctx, raw([][]byte{png(t, 0)}), grpc.Header(&header)); err != nil {
		t.Fatal(err)
	}
	if id := header.Get("x-request-id"); !slices.Equal(id, []string{"seven"}) {
		t.Errorf("expected the answer to the request seven, found %v", id)
	}
	var names []string
	for len(names) < 5 { // the call's own span ends after its answer is sent
		names = names[:0]
		for _, span := range ended.Ended() {
			names = append(names, span.Name())
			if span.SpanContext().TraceID().String() != "0af7651916cd43dd8448eb211c80319c" {
				t.Fatalf("expected the caller's trace, found %v", span)
			}
		}
	}
	want := []string{"preprocess", "queue", "forward", "engine", "inference.GRPCInferenceService/ModelInfer"}
	if !slices.Equal(names, want) {
		t.Errorf("expected the spans %v, found %v", want, names)
	}
}
