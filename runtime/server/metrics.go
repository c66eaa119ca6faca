package server

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/switchyard-dev/switchyard/runtime/adapters"
	"github.com/switchyard-dev/switchyard/runtime/batcher"
)

// metrics counts requests. Adapters' names are no labels: their number is not bounded.
type metrics struct {
	requests *prometheus.CounterVec   // by route and code
	seconds  *prometheus.HistogramVec // by route
	rows     *prometheus.CounterVec   // by code
	refusals *prometheus.CounterVec   // by reason
}

func (s *Server) newMetrics() *metrics {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "switchyard_requests_total", Help: "Requests answered, by route and HTTP code.",
		}, []string{"route", "code"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "switchyard_request_seconds", Help: "Time from a request's header to its answer, by route.",
			Buckets: latencyBuckets,
		}, []string{"route"}),
		rows: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "switchyard_rows_total", Help: "Rows of inference requests answered, by HTTP code.",
		}, []string{"code"}),
		refusals: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "switchyard_refusals_total",
			Help: "Inference requests refused that might have been answered at another time, by reason.",
		}, []string{"reason"}),
	}
	s.options.Registry.MustRegister(m.requests, m.seconds, m.rows, m.refusals,
		&loaded{s.adapters}, &underWay{s.batcher}, &extension{s.batcher, s.adapters, s.options.AdapterBytes})
	s.adapters.Tell(loadHooks(s.options.Registry))
	return m
}

// latencyBuckets reach from a tiny model's row to a large batch's queue, in seconds.
var latencyBuckets = prometheus.ExponentialBuckets(0.0005, 2, 16)

// Observe counts and times a request. There are only so many routes: what a stranger asks is none.
func (s *Server) Observe(route string, code int, took time.Duration) {
	s.metrics.requests.WithLabelValues(route, strconv.Itoa(code)).Inc()
	s.metrics.seconds.WithLabelValues(route).Observe(took.Seconds())
}

// ObserveRefusal counts an inference request if it was refused for now. The others are counted by their codes.
func (s *Server) ObserveRefusal(err error) {
	if reason := refusalOf(err); reason != "" {
		s.metrics.refusals.WithLabelValues(reason).Inc()
	}
}

func (m *metrics) observeRows(rows int, err error) {
	code := http.StatusOK
	if err != nil {
		code = StatusOf(err).Code
	}
	m.rows.WithLabelValues(strconv.Itoa(code)).Add(float64(rows))
}

// refusalOf is the reason of a request that might have been answered at another time; "" where another would not help.
func refusalOf(err error) string {
	var (
		untold  *adapters.UntoldError
		loading *adapters.LoadingError
		refused *adapters.RefusedError
	)
	switch {
	case err == nil:
		return ""
	case errors.Is(err, batcher.ErrOverloaded):
		return "queue"
	case errors.Is(err, errTooManyRows):
		return "rows"
	case errors.Is(err, errFull):
		return "memory"
	case errors.Is(err, errDraining), errors.Is(err, batcher.ErrClosed):
		return "draining"
	case errors.As(err, &untold), errors.As(err, &loading):
		return "loading"
	case errors.As(err, &refused):
		return "adapter"
	case errors.Is(err, context.DeadlineExceeded):
		return "deadline"
	}
	return ""
}

// NewBatchObserver makes the series of batches; its result is a batcher's Observe.
func NewBatchObserver(registry prometheus.Registerer) func(batcher.Stats) {
	rowBuckets := prometheus.ExponentialBuckets(1, 2, 9)
	histogram := func(name, help string, buckets []float64) prometheus.Histogram {
		return register(registry, prometheus.NewHistogram(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}))
	}
	rows := histogram("switchyard_batch_rows", "Rows of a batch.", rowBuckets)
	distinct := histogram("switchyard_batch_adapters", "Adapters of a batch, the base counted as one.", rowBuckets)
	seconds := histogram("switchyard_engine_seconds", "Time of a batch in the engine.", latencyBuckets)
	ratio := histogram("switchyard_engine_estimate_ratio", "Time of a batch in the engine over the time estimated for it.",
		prometheus.ExponentialBuckets(0.25, 1.4142135623730951, 9)) // to 4
	wait := histogram("switchyard_queue_seconds", "Time of a request in the queue.", latencyBuckets)
	counter := func(name, help string) prometheus.Counter {
		return register(registry, prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help}))
	}
	tokens := counter("switchyard_tokens_total", "Tokens that the engine has had, those that rows of a batch share once.")
	estimated := counter("switchyard_engine_estimated_seconds_total", "Time estimated for all batches before they ran.")
	failures := counter("switchyard_batch_failures_total", "Batches that the engine failed.")
	return func(s batcher.Stats) {
		rows.Observe(float64(s.Rows))
		distinct.Observe(float64(s.Adapters))
		seconds.Observe(s.Took().Seconds())
		for _, w := range s.Waits {
			wait.Observe(w.Seconds())
		}
		tokens.Add(float64(s.Tokens))
		estimated.Add(s.Estimated.Seconds())
		switch {
		case s.Err != nil:
			failures.Inc()
		case s.Estimated > 0:
			ratio.Observe(s.Took().Seconds() / s.Estimated.Seconds())
		}
	}
}

// register registers a series and returns it.
func register[C prometheus.Collector](registry prometheus.Registerer, series C) C {
	registry.MustRegister(series)
	return series
}

// loadHooks count what is loaded and unloaded.
func loadHooks(registry prometheus.Registerer) adapters.Hooks {
	loads := register(registry, prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "switchyard_adapter_loads_total", Help: "Revisions loaded into memory, or refused as they were, by result.",
	}, []string{"result"}))
	good, bad := loads.WithLabelValues("loaded"), loads.WithLabelValues("refused")
	seconds := register(registry, prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "switchyard_adapter_load_seconds",
		Help: "Time in which a revision that is on disk was read, checked and compiled.", Buckets: latencyBuckets,
	}))
	unloads := register(registry, prometheus.NewCounter(prometheus.CounterOpts{
		Name: "switchyard_adapter_unloads_total", Help: "Revisions that were loaded and are in memory no more.",
	}))
	return adapters.Hooks{
		Opened: func(took time.Duration, err error) {
			if err != nil {
				bad.Inc()
				return
			}
			good.Inc()
			seconds.Observe(took.Seconds())
		},
		Freed: unloads.Inc,
	}
}

// underWay tells of the queue as it is when asked.
type underWay struct{ queue *batcher.Batcher }

var (
	queueRowsDesc     = prometheus.NewDesc("switchyard_queue_rows", "Rows waiting for the engine.", nil, nil)
	queueRequestsDesc = prometheus.NewDesc("switchyard_queue_requests", "Requests with rows waiting for the engine.",
		nil, nil)
	queueEstimatedDesc = prometheus.NewDesc("switchyard_queue_estimated_seconds",
		"Time that the engine will take, by estimate, over what waits for it and what is being decoded.", nil, nil)
	preparingDesc = prometheus.NewDesc("switchyard_preparing_requests",
		"Requests admitted whose rows are still being decoded and tokenized.", nil, nil)
)

// Describe implements prometheus.Collector.
func (u *underWay) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(u, ch) }

// Collect implements prometheus.Collector.
func (u *underWay) Collect(ch chan<- prometheus.Metric) {
	now := u.queue.Snapshot()
	gauge(ch, queueRowsDesc, float64(now.Waiting.Rows))
	gauge(ch, queueRequestsDesc, float64(now.Waiting.Requests))
	gauge(ch, queueEstimatedDesc, now.Reserved.Seconds())
	gauge(ch, preparingDesc, float64(now.Preparing))
}

// gauge sends a gauge as it is now.
func gauge(ch chan<- prometheus.Metric, desc *prometheus.Desc, value float64, labels ...string) {
	ch <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, labels...)
}

// loaded tells of the set of adapters as it is when asked, so it cannot drift from what is served.
type loaded struct{ set *adapters.Set }

var (
	adaptersDesc = prometheus.NewDesc("switchyard_adapters", "Adapters known, by state.", []string{"state"}, nil)
	bytesDesc    = prometheus.NewDesc("switchyard_adapter_bytes", "Memory of the revisions loaded.", nil, nil)
	loadedDesc   = prometheus.NewDesc("switchyard_revisions",
		"Revisions loaded: served, or draining, with which no name answers any more.", []string{"state"}, nil)
)

// Describe implements prometheus.Collector.
func (l *loaded) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(l, ch) }

// Collect implements prometheus.Collector.
func (l *loaded) Collect(ch chan<- prometheus.Metric) {
	states := map[string]int{"served": 0, "loading": 0, "refused": 0}
	for _, e := range l.set.List() {
		states[stateOf(e)]++
	}
	for state, n := range states {
		gauge(ch, adaptersDesc, float64(n), state)
	}
	revisions, bytes := map[string]int{"served": 0, "draining": 0}, int64(0)
	for _, r := range l.set.Loaded() {
		bytes += r.Bytes
		if r.Names > 0 {
			revisions["served"]++
		} else {
			revisions["draining"]++
		}
	}
	for state, n := range revisions {
		gauge(ch, loadedDesc, float64(n), state)
	}
	gauge(ch, bytesDesc, float64(bytes))
}

// stateOf is an adapter's state, as the series have it.
func stateOf(e adapters.Entry) string {
	var loading *adapters.LoadingError
	switch {
	case e.Err == nil:
		return "served"
	case errors.As(e.Err, &loading):
		return "loading"
	}
	return "refused"
}
