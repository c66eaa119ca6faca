package telemetry

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/switchyard-dev/switchyard/api/v1alpha1"
	"github.com/switchyard-dev/switchyard/controllers/attempt"
)

// Kind is what an artifact is of.
type Kind string

// The kinds.
const (
	Adapter Kind = "adapter"
	Base    Kind = "base"
)

// reasons for which something is refused. What is none of them is counted as other.
var reasons = []string{
	v1alpha1.ReasonSourceNotFound, v1alpha1.ReasonSourceUnreachable, v1alpha1.ReasonSourceInvalid,
	v1alpha1.ReasonSourceForbidden, v1alpha1.ReasonUnauthorized, v1alpha1.ReasonSecretNotFound,
	v1alpha1.ReasonSecretInvalid, v1alpha1.ReasonStoreUnavailable, v1alpha1.ReasonInvalidAdapter,
	v1alpha1.ReasonIncompatible, v1alpha1.ReasonRankTooLarge, v1alpha1.ReasonInvalidBaseModel,
}

const otherReason = "other"

// Metrics are counted as things happen. Those that can be read off the objects are a Collector's.
type Metrics struct {
	ready    prometheus.Histogram
	stored   *prometheus.CounterVec
	bytes    *prometheus.CounterVec
	refusals *prometheus.CounterVec
}

// NewMetrics registers the metrics.
func NewMetrics(r prometheus.Registerer) (*Metrics, error) {
	m := &Metrics{
		ready: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "switchyard_adapter_ready_seconds",
			Help: "Time from when a generation of a LoRAAdapter was applied until it was Ready.",
			Buckets: []float64{
				.05, .1, .2, .3, .5, .75, 1, 2, 3, 5, 10, 20, 30, 60, 120, 300,
			},
		}),
		stored: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "switchyard_artifacts_stored_total",
			Help: "Artifacts that were fetched, checked and pushed to the artifact registry.",
		}, []string{"kind"}),
		bytes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "switchyard_artifact_bytes_total",
			Help: "Bytes of the files of those artifacts.",
		}, []string{"kind"}),
		refusals: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "switchyard_refusals_total",
			Help: "Attempts to bring an artifact that failed, by reason. Each try counts.",
		}, []string{"kind", "reason"}),
	}
	for _, kind := range []Kind{Adapter, Base} { // from the first scrape on, so that rates are right
		m.stored.WithLabelValues(string(kind))
		m.bytes.WithLabelValues(string(kind))
	}
	for _, c := range []prometheus.Collector{m.ready, m.stored, m.bytes, m.refusals} {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// Ready counts how long a generation took until it was Ready.
func (m *Metrics) Ready(took time.Duration) { m.ready.Observe(took.Seconds()) }

// Stored counts and logs an artifact whose files have so many bytes.
func (m *Metrics) Stored(ctx context.Context, kind Kind, digest string, bytes int64) {
	m.stored.WithLabelValues(string(kind)).Inc()
	m.bytes.WithLabelValues(string(kind)).Add(float64(bytes))
	ctrllog.FromContext(ctx).Info("artifact stored", "kind", kind, "digest", digest, "bytes", bytes)
}

// Ended counts how an attempt ended, if that was a failure. One that was given up is none.
func (m *Metrics) Ended(ctx context.Context, kind Kind, err error) {
	if err == nil || errors.Is(ctx.Err(), context.Canceled) {
		return
	}
	reason := otherReason
	var failure *attempt.Failure
	if errors.As(err, &failure) && slices.Contains(reasons, failure.Reason) {
		reason = failure.Reason
	}
	m.refusals.WithLabelValues(string(kind), reason).Inc()
}
