package server

import (
	"fmt"
	"log/slog"
	"net/http"
	"path"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/semaphore"

	"github.com/switchyard-dev/switchyard/runtime/adapters"
	"github.com/switchyard-dev/switchyard/runtime/arch"
	"github.com/switchyard-dev/switchyard/runtime/batcher"
	"github.com/switchyard-dev/switchyard/runtime/engine"
	"github.com/switchyard-dev/switchyard/runtime/preprocess"
	"github.com/switchyard-dev/switchyard/runtime/preprocess/text"
	"github.com/switchyard-dev/switchyard/runtime/quote"
)

// Options are a server's settings.
type Options struct {
	Texts        *text.Tokenizer // of the base; nil where it takes no texts, or says nothing of how
	Name         string          // of the base model in requests
	MaxBodyBytes int64           // of one request's body
	RequestBytes int64           // of memory that all requests may take together, but for images that are being decoded
	MaxRows      int             // of one request
	// MaxRowsInFlight bounds the rows of all requests, from their decoding until the batcher lets go of them.
	MaxRowsInFlight int
	// Ready is nil once the server has all that it should begin with; else it says what is missing. A nil Ready asks
	// that no adapter is still loading.
	Ready    func() error
	Log      *slog.Logger
	Registry prometheus.Registerer
}

// Server answers the protocol's requests from a set of adapters. Safe for concurrent use.
type Server struct {
	options    Options
	adapters   *adapters.Set
	batcher    *batcher.Batcher
	preprocess *preprocess.Image
	base       model
	takes      *arch.Description // what the base takes
	inputs     []input
	metrics    *metrics
	memory     *semaphore.Weighted // bytes that requests take together, from the first of the body to the answer
	rowsHeld   *semaphore.Weighted // rows decoded, of which the batcher has not let go
	decoding   *semaphore.Weighted // bytes that images take while they are decoded
	leaving    atomic.Bool
	draining   atomic.Bool
}

// model is what a name in a request stands for: the base, or an adapter.
type model struct {
	name     string
	revision string
	labels   []string
	task     arch.Task       // "" for a base without a head, which answers nothing
	problem  arch.Problem    // what its outputs mean
	adapter  *engine.Adapter // nil is the base
}

// New makes a server. images may be nil, where the base says nothing of preprocessing.
func New(set *adapters.Set, queue *batcher.Batcher, images *preprocess.Image, options Options) *Server {
	description, digest := set.Base()
	if options.Ready == nil {
		options.Ready = func() error { return nothingLoading(set) }
	}
	s := &Server{
		options: options, adapters: set, batcher: queue, preprocess: images,
		base: baseModel(options.Name, digest, description), takes: description,
		metrics:  newMetrics(options.Registry, set, queue),
		memory:   semaphore.NewWeighted(options.RequestBytes),
		rowsHeld: semaphore.NewWeighted(int64(options.MaxRowsInFlight)),
		decoding: semaphore.NewWeighted(arch.DecodingBytes),
	}
	s.inputs = s.inputsFor()
	return s
}

func baseModel(name, digest string, d *arch.Description) model {
	m := model{name: name, revision: digest}
	if d.Own >= 0 {
		m.labels, m.task = d.Classes.Labels, d.Heads[d.Own].Task
		if m.problem = d.Classes.Problem; m.problem == "" || m.task == arch.Token {
			m.problem = arch.DefaultProblem(len(m.labels))
		}
	}
	return m
}

// Leave turns readiness off and nothing else: who balances over several servers learns of it only a while later.
func (s *Server) Leave() { s.leaving.Store(true) }

// Drain turns readiness off and refuses new inferences; those under way go on.
func (s *Server) Drain() { s.draining.Store(true) }

// Handler serves the protocol.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	for pattern, handle := range map[string]func(http.ResponseWriter, *http.Request) error{
		"GET /v2":                                          s.serverMetadata,
		"GET /v2/health/live":                              s.live,
		"GET /v2/health/ready":                             s.ready,
		"GET /v2/models":                                   s.listModels,
		"GET /v2/models/{model}":                           s.modelMetadata,
		"GET /v2/models/{model}/ready":                     s.modelReady,
		"GET /v2/models/{model}/versions/{version}":        s.modelMetadata,
		"GET /v2/models/{model}/versions/{version}/ready":  s.modelReady,
		"POST /v2/models/{model}/infer":                    s.infer,
		"POST /v2/models/{model}/versions/{version}/infer": s.infer,
	} {
		mux.Handle(pattern, s.route(pattern, handle))
	}
	return s.refuseInJSON(mux)
}

// route counts and times a handler, turns its error into the protocol's, and a panic into a 500.
func (s *Server) route(pattern string, handle func(http.ResponseWriter, *http.Request) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := time.Now()
		code := http.StatusOK
		defer func() {
			if v := recover(); v != nil {
				s.options.Log.Error("panic", "route", pattern, "panic", v, "stack", string(debug.Stack()))
				code = http.StatusInternalServerError
				writeError(w, statusOf(fmt.Errorf("panic: %v", v)))
			}
			s.metrics.observe(pattern, code, time.Since(began))
		}()
		if err := handle(w, r); err != nil {
			status := statusOf(err)
			if code = status.code; code == http.StatusInternalServerError {
				s.options.Log.Error("request failed", "route", pattern, "error", err)
			}
			writeError(w, status)
		}
	})
}

// refuseInJSON gives a request that no route takes its 404 or 405 in the protocol's shape.
func (s *Server) refuseInJSON(mux *http.ServeMux) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var refusal refusalWriter
		if path.Clean(r.URL.Path) != r.URL.Path {
			refusal.code = http.StatusNotFound // the mux would redirect, which no client of the protocol expects
		} else if _, pattern := mux.Handler(r); pattern != "" {
			mux.ServeHTTP(w, r)
			return
		} else {
			mux.ServeHTTP(&refusal, r)
		}
		if allow := refusal.Header().Get("Allow"); allow != "" {
			w.Header().Set("Allow", allow)
		}
		s.metrics.observe("none", refusal.code, 0)
		writeError(w, &statusError{
			code: refusal.code,
			err:  fmt.Errorf("%s %s: %s", quote.Text(r.Method), quote.Name(r.URL.Path), http.StatusText(refusal.code)),
		})
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

// lookup finds the model that a request's path names, in the version that it names.
func (s *Server) lookup(r *http.Request) (model, error) {
	name, version := r.PathValue("model"), r.PathValue("version")
	m := s.base
	if name != s.base.name {
		a, err := s.adapters.Get(name)
		if err != nil {
			return model{}, err
		}
		m = modelOf(name, a)
	}
	return m, checkVersion(m, version)
}

// checkVersion refuses any version but the one that is served; "" asks for that.
func checkVersion(m model, version string) error {
	if version != "" && version != m.revision {
		return failure(http.StatusNotFound, "model %s: version: expected %s, the one now served, found %s",
			quote.Name(m.name), m.revision, quote.Name(version))
	}
	return nil
}

func modelOf(name string, a *engine.Adapter) model {
	return model{name, a.Digest, a.Labels, a.Head.Task, a.Problem, a}
}

// held is what one request's rows hold until the batcher lets go of them, and the adapters that they ask, each resolved
// once: all its rows of a name get the same revision.
type held struct {
	set    *adapters.Set
	leases map[string]*adapters.Lease
	inputs share // bytes of the rows' inputs
	rows   share
}

func (s *Server) newHeld() *held {
	return &held{
		set: s.adapters, leases: make(map[string]*adapters.Lease),
		inputs: share{of: s.memory}, rows: share{of: s.rowsHeld},
	}
}

func (h *held) acquire(name string) (model, error) {
	lease, ok := h.leases[name]
	if !ok {
		var err error
		if lease, err = h.set.Acquire(name); err != nil {
			return model{}, err
		}
		h.leases[name] = lease
	}
	return modelOf(name, lease.Adapter()), nil
}

// release lets go of all; more than once is harmless.
func (h *held) release() {
	for _, lease := range h.leases {
		lease.Release()
	}
	h.inputs.giveBack()
	h.rows.giveBack()
}
