package rest

import (
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"path"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"
	"go.opentelemetry.io/otel/trace"

	"github.com/switchyard-dev/switchyard/runtime/quote"
	"github.com/switchyard-dev/switchyard/runtime/server"
	"github.com/switchyard-dev/switchyard/runtime/server/body"
	"github.com/switchyard-dev/switchyard/runtime/server/telemetry"
)

// Options are the settings of what is served over HTTP.
type Options struct {
	MaxBodyBytes int64 // of one request
	Log          *slog.Logger
	Tracer       trace.Tracer // nil: requests are not traced
}

// handler answers over HTTP from a server.
type handler struct {
	server    *server.Server
	options   Options
	telemetry *telemetry.Telemetry
	began     time.Time
}

func newHandler(s *server.Server, options Options) *handler {
	return &handler{s, options, telemetry.New(s, options.Log, options.Tracer), time.Now()}
}

// handle answers a request, or says why not.
type handle func(w http.ResponseWriter, r *http.Request) error

// New serves the protocols of a server that HTTP carries.
func New(s *server.Server, options Options) http.Handler {
	h := newHandler(s, options)
	var m muxes
	for _, r := range h.routes() {
		m.add(r, h.route(r.method+" "+r.path, r.handle))
	}
	return h.refuseInJSON(&m)
}

// route tells of a handler's requests, turns its error into the protocol's, and a panic into a 500.
func (h *handler) route(pattern string, handle handle) http.Handler {
	route := telemetry.HTTP(pattern)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, request := h.telemetry.Begin(r.Context(), route, r.Header.Get)
		w.Header().Set(telemetry.RequestID, request.ID())
		code, err := http.StatusOK, error(nil)
		defer func() {
			if v := recover(); v != nil {
				err = fmt.Errorf("panic: %v\n%s", v, debug.Stack())
				code = writeError(w, err)
			}
			request.End(ctx, code, err)
		}()
		if err = handle(w, r.WithContext(ctx)); err != nil {
			code = writeError(w, err)
		}
	})
}

// refuseInJSON gives a request that no route takes its 404 or 405 in the protocol's shape.
func (h *handler) refuseInJSON(m *muxes) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mux, seen := m.of(r)
		var refusal refusalWriter
		if path.Clean(seen.URL.Path) != seen.URL.Path {
			refusal.code = http.StatusNotFound // the mux would redirect, which no client of the protocol expects
		} else if _, pattern := mux.Handler(seen); pattern != "" {
			mux.ServeHTTP(w, seen)
			return
		} else {
			mux.ServeHTTP(&refusal, seen)
		}
		if allow := refusal.Header().Get("Allow"); allow != "" {
			w.Header().Set("Allow", allow)
		}
		ctx, request := h.telemetry.Begin(r.Context(), telemetry.Unrouted(r.Method), r.Header.Get)
		w.Header().Set(telemetry.RequestID, request.ID())
		err := server.Errorf(refusal.code, "%s %s: %s",
			quote.Text(r.Method), quote.Name(r.URL.Path), http.StatusText(refusal.code))
		request.End(ctx, writeError(w, err), err)
	})
}

// refusalWriter keeps the status and header of the mux's own refusal and drops its text.
type refusalWriter struct {
	header http.Header
	code   int
}

func (w *refusalWriter) Header() http.Header {
	if w.header == nil {
		w.header = make(http.Header)
	}
	return w.header
}
func (w *refusalWriter) WriteHeader(code int)        { w.code = code }
func (w *refusalWriter) Write(b []byte) (int, error) { return len(b), nil }

// writeError answers with an error as a client may see it, and returns its status.
func writeError(w http.ResponseWriter, err error) int {
	status := server.StatusOf(err)
	if status.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(status.RetryAfter.Seconds()))))
	}
	writeJSON(w, status.Code, struct {
		Error string `json:"error"`
	}{status.Error()})
	return status.Code
}

// writeJSON sends an answer whole, or a 500 that says so if it cannot be written down.
func writeJSON(w http.ResponseWriter, code int, answer any) {
	raw, err := json.Marshal(answer, json.Deterministic(true))
	if err != nil {
		code, raw = http.StatusInternalServerError, []byte(`{"error":"internal error: the answer is not valid JSON"}`)
	}
	writeRaw(w, code, jsonType, raw)
}

// writeRaw sends an answer.
func writeRaw(w http.ResponseWriter, code int, contentType string, raw []byte) {
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(body.WriteTime)) // as in package body
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Content-Length", strconv.Itoa(len(raw)))
	w.WriteHeader(code)
	_, _ = w.Write(raw) // an error here is the client's, gone before its answer
}
