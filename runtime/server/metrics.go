package server

import (
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
}

func newMetrics(registry prometheus.Registerer, set *adapters.Set, queue *batcher.Batcher) *metrics {
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
	}
	registry.MustRegister(m.requests, m.seconds, m.rows, &loaded{set},
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "switchyard_queue_rows", Help: "Rows waiting for the engine.",
		}, func() float64 { return float64(queue.Snapshot().Waiting.Rows) }),
	)
	return m
}

// latencyBuckets reach from a tiny model's row to a large batch's queue, in seconds.
var latencyBuckets = prometheus.ExponentialBuckets(0.0005, 2, 16)

// Observe counts and times a request. There are only so many routes: what a stranger asks is none.
func (s *Server) Observe(route string, code int, took time.Duration) {
	s.metrics.requests.WithLabelValues(route, strconv.Itoa(code)).Inc()
	s.metrics.seconds.WithLabelValues(route).Observe(took.Seconds())
}

func (m *metrics) observeRows(rows int, err error) {
	code := http.StatusOK
	if err != nil {
		code = StatusOf(err).Code
	}
	m.rows.WithLabelValues(strconv.Itoa(code)).Add(float64(rows))
}

// NewBatchObserver makes the histograms of batches; its result is a batcher's Observe.
func NewBatchObserver(registry prometheus.Registerer) func(batcher.Stats) {
	rowBuckets := prometheus.ExponentialBuckets(1, 2, 9)
	histogram := func(name, help string, buckets []float64) prometheus.Histogram {
		h := prometheus.NewHistogram(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets})
		registry.MustRegister(h)
		return h
	}
	rows := histogram("switchyard_batch_rows", "Rows of a batch.", rowBuckets)
	distinct := histogram("switchyard_batch_adapters", "Adapters of a batch, the base counted as one.", rowBuckets)
	seconds := histogram("switchyard_engine_seconds", "Time of a batch in the engine.", latencyBuckets)
	wait := histogram("switchyard_queue_seconds", "Time of a request in the queue.", latencyBuckets)
	failures := prometheus.NewCounter(prometheus.CounterOpts{
		Name: "switchyard_batch_failures_total", Help: "Batches that the engine failed.",
	})
	registry.MustRegister(failures)
	return func(s batcher.Stats) {
		rows.Observe(float64(s.Rows))
		distinct.Observe(float64(s.Adapters))
		seconds.Observe(s.Took().Seconds())
		for _, w := range s.Waits {
			wait.Observe(w.Seconds())
		}
		if s.Err != nil {
			failures.Inc()
		}
	}
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
func (l *loaded) Describe(ch chan<- *prometheus.Desc) {
	ch <- adaptersDesc
	ch <- bytesDesc
	ch <- loadedDesc
}

// Collect implements prometheus.Collector.
func (l *loaded) Collect(ch chan<- prometheus.Metric) {
	states := map[string]int{"served": 0, "loading": 0, "refused": 0}
	for _, e := range l.set.List() {
		var loading *adapters.LoadingError
		switch {
		case e.Err == nil:
			states["served"]++
		case errors.As(e.Err, &loading):
			states["loading"]++
		default:
			states["refused"]++
		}
	}
	for state, n := range states {
		ch <- prometheus.MustNewConstMetric(adaptersDesc, prometheus.GaugeValue, float64(n), state)
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
		ch <- prometheus.MustNewConstMetric(loadedDesc, prometheus.GaugeValue, float64(n), state)
	}
	ch <- prometheus.MustNewConstMetric(bytesDesc, prometheus.GaugeValue, float64(bytes))
}
