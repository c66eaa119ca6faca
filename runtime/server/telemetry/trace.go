package telemetry

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/switchyard-dev/switchyard/runtime/batcher"
)

// Attributes of spans that no convention has.
const (
	requestIDKey     = attribute.Key("switchyard.request.id")
	rowsKey          = attribute.Key("switchyard.rows") // that the request asks
	batchRowsKey     = attribute.Key("switchyard.batch.rows")
	batchAdaptersKey = attribute.Key("switchyard.batch.adapters")
	batchTokensKey   = attribute.Key("switchyard.batch.tokens")
)

// header is a request's, to take the caller's trace from. Nothing is written into it.
type header func(name string) string

// Get implements propagation.TextMapCarrier.
func (h header) Get(name string) string { return h(name) }

// Set implements propagation.TextMapCarrier.
func (header) Set(string, string) {}

// Keys implements propagation.TextMapCarrier.
func (header) Keys() []string { return nil }

// beginSpan begins the request's span under its caller's, if requests are traced. What else a caller has to say, its
// baggage, is left where it is.
func (r *Request) beginSpan(ctx context.Context, from header) context.Context {
	if r.of.tracer == nil || r.route.isProbe {
		return ctx
	}
	ctx = propagation.TraceContext{}.Extract(ctx, from)
	ctx, r.span = r.of.tracer.Start(ctx, r.route.span, trace.WithSpanKind(trace.SpanKindServer),
		trace.WithTimestamp(r.began), trace.WithAttributes(r.route.asked...), trace.WithAttributes(requestIDKey.String(r.id)))
	return ctx
}

// endSpan ends it, with a child for each stage.
func (r *Request) endSpan(ctx context.Context, ended time.Time, code int) {
	if r.span == nil {
		return
	}
	defer r.span.End(trace.WithTimestamp(ended))
	if !r.span.IsRecording() {
		return // its caller's trace is not sampled
	}
	r.span.SetAttributes(r.route.outcome(code))
	if r.account.Rows > 0 {
		r.span.SetAttributes(rowsKey.Int(r.account.Rows))
	}
	if code >= http.StatusInternalServerError {
		r.span.SetStatus(codes.Error, "")
		r.span.SetAttributes(semconv.ErrorTypeKey.String(strconv.Itoa(code)))
	}
	for _, s := range r.stages(ended) {
		s.trace(ctx, r.of.tracer)
	}
}

// stage is a part of what was done for a request.
type stage struct {
	name         string
	began, ended time.Time
	run          *batcher.Run // of the engine
}

// stages are what was done for a request that has ended, one after the other.
func (r *Request) stages(ended time.Time) (stages []stage) {
	a := r.account
	if a.Decoding.IsZero() {
		return nil
	}
	if a.Queued.IsZero() {
		return []stage{{name: "preprocess", began: a.Decoding, ended: ended}}
	}
	begun := ended // in the engine
	if len(a.Runs) > 0 {
		begun = a.Runs[0].Began
	}
	stages = []stage{
		{name: "preprocess", began: a.Decoding, ended: a.Queued}, {name: "queue", began: a.Queued, ended: begun},
	}
	for i := range a.Runs {
		stages = append(stages, stage{"engine", a.Runs[i].Began, a.Runs[i].Ended, &a.Runs[i]})
	}
	return stages
}

// trace makes a span of it, and one of the forward pass within.
func (s *stage) trace(ctx context.Context, tracer trace.Tracer) {
	ctx, span := tracer.Start(ctx, s.name, trace.WithTimestamp(s.began))
	defer span.End(trace.WithTimestamp(s.ended))
	if s.run == nil {
		return
	}
	span.SetAttributes(
		batchRowsKey.Int(s.run.Rows), batchAdaptersKey.Int(s.run.Adapters), batchTokensKey.Int(s.run.Tokens))
	if s.run.ForwardEnded.IsZero() {
		return
	}
	_, forward := tracer.Start(ctx, "forward", trace.WithTimestamp(s.run.ForwardBegan))
	forward.End(trace.WithTimestamp(s.run.ForwardEnded))
}
