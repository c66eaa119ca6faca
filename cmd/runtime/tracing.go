package main

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/go-logr/logr"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/switchyard-dev/switchyard/runtime/server"
)

const (
	serviceName = "switchyard-runtime" // unless OTEL_SERVICE_NAME or OTEL_RESOURCE_ATTRIBUTES has another
	// flushTime is how long the last spans may take on their way.
	flushTime = 5 * time.Second
)

// tracing sends spans to where OpenTelemetry's variables say; nil sends none.
type tracing struct{ provider *sdktrace.TracerProvider }

// openTracing is nil where no endpoint is configured, or the environment says that nothing is to be traced. How much is
// sampled, what a span may hold and how spans are sent is in OTEL_* variables too, which the library reads.
func openTracing(ctx context.Context, log *slog.Logger) (*tracing, error) {
	exporter := os.Getenv("OTEL_TRACES_EXPORTER")
	switch {
	case os.Getenv("OTEL_SDK_DISABLED") == "true", exporter == "none":
		return nil, nil //nolint:nilnil // as said above
	case exporter != "" && exporter != "otlp":
		return nil, fmt.Errorf("OTEL_TRACES_EXPORTER: expected otlp or none, found %q", exporter)
	case cmp.Or(os.Getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"), os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT")) == "":
		return nil, nil //nolint:nilnil // as said above
	}
	otel.SetLogger(logr.Discard()) // its lines may have what is wrong of OTEL_EXPORTER_OTLP_HEADERS, which are secret
	// What fails on the way says so once for each batch of spans.
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { log.Warn("spans cannot be sent", "error", err) }))
	client, protocol, err := otlpClient()
	if err != nil {
		return nil, err
	}
	own, err := resource.New(ctx, resource.WithTelemetrySDK(), resource.WithAttributes(
		semconv.ServiceName(serviceName), semconv.ServiceVersion(server.Version())), resource.WithFromEnv())
	if err != nil {
		return nil, fmt.Errorf("OTEL_RESOURCE_ATTRIBUTES: %w", err)
	}
	spans, err := otlptrace.New(ctx, client)
	if err != nil {
		return nil, fmt.Errorf("OpenTelemetry: %w", err)
	}
	log.Info("requests are traced", "protocol", protocol)
	return &tracing{sdktrace.NewTracerProvider(sdktrace.WithBatcher(spans), sdktrace.WithResource(own))}, nil
}

// otlpClient speaks the protocol that the environment names.
func otlpClient() (client otlptrace.Client, protocol string, err error) {
	protocol = cmp.Or(os.Getenv("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"), os.Getenv("OTEL_EXPORTER_OTLP_PROTOCOL"),
		"http/protobuf")
	switch protocol {
	case "grpc":
		return otlptracegrpc.NewClient(), protocol, nil
	case "http/protobuf":
		return otlptracehttp.NewClient(), protocol, nil
	}
	return nil, "", fmt.Errorf("OTEL_EXPORTER_OTLP_PROTOCOL: expected grpc or http/protobuf, found %q", protocol)
}

// tracer makes the server's spans; nil makes none.
func (t *tracing) tracer() trace.Tracer {
	if t == nil {
		return nil
	}
	return t.provider.Tracer("github.com/switchyard-dev/switchyard/runtime/server",
		trace.WithInstrumentationVersion(server.Version()), trace.WithSchemaURL(semconv.SchemaURL))
}

// close sends what is left, though ctx has ended, for a while.
func (t *tracing) close(ctx context.Context) error {
	if t == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushTime)
	defer cancel()
	return t.provider.Shutdown(ctx)
}
