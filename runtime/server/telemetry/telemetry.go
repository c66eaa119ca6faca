package telemetry

import (
	"context"
	"crypto/rand"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/trace"
	"golang.org/x/time/rate"

	"github.com/switchyard-dev/switchyard/runtime/server"
)

// RequestID is the header, or gRPC's metadata, that names a request: a client's own name is taken over, and told back.
const RequestID = "X-Request-Id"

// longestID that is taken over.
const longestID = 128

// Of failures so many lines are written at once, and then so many a second: what a client can bring about, it can bring
// about at any rate.
const (
	linesAtOnce = 100
	linesPerSec = 10
)

// Telemetry tells of a server's requests.
type Telemetry struct {
	server    *server.Server
	log       *slog.Logger
	tracer    trace.Tracer // nil: requests are not traced
	lines     *rate.Limiter
	unwritten atomic.Int64 // lines of failures since the last that was written
}

// New tells of a server's requests; a nil tracer traces none.
func New(s *server.Server, log *slog.Logger, tracer trace.Tracer) *Telemetry {
	return &Telemetry{server: s, log: log, tracer: tracer, lines: rate.NewLimiter(linesPerSec, linesAtOnce)}
}

// Request is one request, from its header to its answer.
type Request struct {
	of      *Telemetry
	route   Route
	id      string
	began   time.Time
	account *server.Account
	span    trace.Span // nil: it is not traced
}

// Begin begins to tell of a request. header gives the request's headers, or gRPC's metadata, by name; "" is none. The
// context is for all that is done for the request.
func (t *Telemetry) Begin(
	ctx context.Context, route Route, header func(name string) string,
) (context.Context, *Request) {
	r := &Request{of: t, route: route, id: idOf(header(RequestID)), began: time.Now()}
	ctx, r.account = server.WithAccount(ctx)
	return r.beginSpan(ctx, header), r
}

// ID is the request's name, which its answer should have.
func (r *Request) ID() string { return r.id }

// End tells of the request: the HTTP code of its answer, or that which gRPC's stands for, and the error behind it, if
// there is one. ctx is what Begin returned.
func (r *Request) End(ctx context.Context, code int, err error) {
	ended := time.Now()
	r.of.server.Observe(r.route.name, code, ended.Sub(r.began))
	if r.route.infers {
		r.of.server.ObserveRefusal(err)
	}
	r.endSpan(ctx, ended, code)
	r.write(ctx, ended, code, err)
}

// idOf is a client's own name for a request if that can stand in a header and a log as it is, or else a new one.
func idOf(given string) string {
	isOdd := func(r rune) bool { return r <= ' ' || r > '~' }
	if given == "" || len(given) > longestID || strings.ContainsFunc(given, isOdd) {
		return rand.Text()
	}
	return given
}

// level is that of the request's line: a fault of the server's is an error, another failure a warning. That the server
// is not ready is no failure of who asks whether it is.
func (r *Request) level(code int) slog.Level {
	switch {
	case code == http.StatusInternalServerError:
		return slog.LevelError
	case !r.route.isProbe && (code == http.StatusServiceUnavailable || code == http.StatusGatewayTimeout):
		return slog.LevelWarn
	}
	return slog.LevelDebug
}

// write writes the request's line.
func (r *Request) write(ctx context.Context, ended time.Time, code int, err error) {
	t, level := r.of, r.level(code)
	if !t.log.Enabled(ctx, level) {
		return
	}
	what := "request"
	attributes := r.attributes(ended, code)
	if level > slog.LevelDebug {
		if !t.lines.Allow() {
			t.unwritten.Add(1)
			return
		}
		what = "request failed"
		attributes = append(attributes, slog.Any("error", err))
		if n := t.unwritten.Swap(0); n > 0 {
			attributes = append(attributes, slog.Int64("unwritten", n))
		}
	}
	t.log.LogAttrs(ctx, level, what, attributes...)
}

// attributes are what the request's line says.
func (r *Request) attributes(ended time.Time, code int) []slog.Attr {
	attributes := []slog.Attr{
		slog.String("request_id", r.id), slog.String("route", r.route.name), slog.Int("code", code),
		slog.Float64("seconds", ended.Sub(r.began).Seconds()),
	}
	if r.span != nil {
		at := r.span.SpanContext()
		attributes = append(attributes,
			slog.String("trace_id", at.TraceID().String()), slog.String("span_id", at.SpanID().String()))
	}
	if a := r.account; a.Rows > 0 {
		attributes = append(attributes, slog.Int("rows", a.Rows), slog.Int("batches", len(a.Runs)))
	}
	took := make(map[string]time.Duration)
	for _, s := range r.stages(ended) {
		took[s.name] += s.ended.Sub(s.began)
	}
	for _, name := range slices.Sorted(maps.Keys(took)) {
		attributes = append(attributes, slog.Float64(name+"_seconds", took[name].Seconds()))
	}
	return attributes
}
