package server

import (
	"net/http"
	"sync/atomic"

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
	RequestBytes int64           // of memory that all requests may take together, but for images that are being decoded
	MaxRows      int             // of one request
	// MaxRowsInFlight bounds the rows of all requests, from their decoding until the batcher lets go of them.
	MaxRowsInFlight int
	// Ready is nil once the server has all that it should begin with; else it says what is missing. A nil Ready asks
	// that no adapter is still loading.
	Ready func() error
	// AdapterBytes is what adapters may take of memory; 0 where nobody has said.
	AdapterBytes int64
	Registry     prometheus.Registerer
}

// Server answers the protocol's requests from a set of adapters. Safe for concurrent use.
type Server struct {
	options    Options
	adapters   *adapters.Set
	batcher    *batcher.Batcher
	preprocess *preprocess.Image
	base       Model
	takes      *arch.Description // what the base takes
	inputs     []input
	metrics    *metrics
	memory     *semaphore.Weighted // bytes that requests take together, from the first of the body to the answer
	rowsHeld   *semaphore.Weighted // rows decoded, of which the batcher has not let go
	decoding   *semaphore.Weighted // bytes that images take while they are decoded
	leaving    atomic.Bool
	draining   atomic.Bool
}

// Model is what a name in a request stands for: the base, or an adapter.
type Model struct {
	Name     string
	Revision string
	Labels   []string
	Task     arch.Task       // "" for a base without a head, which answers nothing
	Problem  arch.Problem    // what its outputs mean
	adapter  *engine.Adapter // nil is the base
}

// OfTokens tells whether the model answers for each token of a text.
func (m *Model) OfTokens() bool { return m.Task == arch.Token }

// New makes a server. images may be nil, where the base says nothing of preprocessing.
func New(set *adapters.Set, queue *batcher.Batcher, images *preprocess.Image, options Options) *Server {
	description, digest := set.Base()
	if options.Ready == nil {
		options.Ready = func() error { return nothingLoading(set) }
	}
	s := &Server{
		options: options, adapters: set, batcher: queue, preprocess: images,
		base: baseModel(options.Name, digest, description), takes: description,
		memory:   semaphore.NewWeighted(options.RequestBytes),
		rowsHeld: semaphore.NewWeighted(int64(options.MaxRowsInFlight)),
		decoding: semaphore.NewWeighted(arch.DecodingBytes),
	}
	s.inputs = s.inputsFor()
	s.metrics = s.newMetrics()
	return s
}

func baseModel(name, digest string, d *arch.Description) Model {
	m := Model{Name: name, Revision: digest}
	if d.Own >= 0 {
		m.Labels, m.Task = d.Classes.Labels, d.Heads[d.Own].Task
		if m.Problem = d.Classes.Problem; m.Problem == "" || m.Task == arch.Token {
			m.Problem = arch.DefaultProblem(len(m.Labels))
		}
	}
	return m
}

// Leave turns readiness off and nothing else: who balances over several servers learns of it only a while later.
func (s *Server) Leave() { s.leaving.Store(true) }

// Drain turns readiness off and refuses new inferences; those under way go on.
func (s *Server) Drain() { s.draining.Store(true) }

// Base is the base model, whose name any adapter may be asked under.
func (s *Server) Base() Model { return s.base }

// Asked is the model that a request means which names one, or none, and in a header an adapter: that counts where the
// model is the pool, and its rows then are that adapter's.
func (s *Server) Asked(name, header string) string {
	if name != "" && name != s.base.Name || header == "" || header == BaseName {
		return name
	}
	return header
}

// Takes tells whether rows can be made of the input of that name.
func (s *Server) Takes(input string) bool { return s.input(input) != nil }

// MaxRows bounds the rows of a request.
func (s *Server) MaxRows() int { return s.options.MaxRows }

// Find is the model of a name, in the version that is asked; "" asks for the one that is served.
func (s *Server) Find(name, version string) (Model, error) {
	m := s.base
	if name != s.base.Name {
		a, err := s.adapters.Get(name)
		if err != nil {
			return Model{}, err
		}
		m = modelOf(name, a)
	}
	return m, checkVersion(m, version)
}

// checkVersion refuses any version but the one that is served; "" asks for that.
func checkVersion(m Model, version string) error {
	if version != "" && version != m.Revision {
		return Errorf(http.StatusNotFound, "model %s: version: expected %s, the one now served, found %s",
			quote.Name(m.Name), m.Revision, quote.Name(version))
	}
	return nil
}

func modelOf(name string, a *engine.Adapter) Model {
	return Model{name, a.Digest, a.Labels, a.Head.Task, a.Problem, a}
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

func (h *held) acquire(name string) (Model, error) {
	lease, ok := h.leases[name]
	if !ok {
		var err error
		if lease, err = h.set.Acquire(name); err != nil {
			return Model{}, err
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
