package registry

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// Why a blob was removed: the label of switchyard_registry_removed_blobs_total. The list is closed.
const (
	causeGarbage = "garbage"
	causeDamage  = "damage"
)

// measures are the registry's metrics of what it removes.
type measures struct {
	blobs, bytes                    *prometheus.CounterVec
	collected, scrubbed, unreadable prometheus.Gauge
}

func newMeasures(registerer prometheus.Registerer) (*measures, error) {
	counter := func(name, help string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{"cause"})
	}
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	}
	m := &measures{
		blobs: counter("switchyard_registry_removed_blobs_total", "Blobs that the artifact registry removed, by the cause."),
		bytes: counter("switchyard_registry_removed_bytes_total", "Bytes that the artifact registry removed, by the cause."),
		collected: gauge("switchyard_registry_last_collection_timestamp_seconds",
			"When the garbage collection last came to its end."),
		scrubbed: gauge("switchyard_registry_last_scrub_timestamp_seconds",
			"When all blobs had last been read and compared with their digests."),
		unreadable: gauge("switchyard_registry_unreadable_blobs", "Blobs that the last scrub could not read."),
	}
	for _, cause := range []string{causeGarbage, causeDamage} {
		m.blobs.WithLabelValues(cause) // 0 is an answer too
		m.bytes.WithLabelValues(cause)
	}
	if registerer == nil {
		return m, nil
	}
	return m, errors.Join(registerer.Register(m.blobs), registerer.Register(m.bytes),
		registerer.Register(m.collected), registerer.Register(m.scrubbed), registerer.Register(m.unreadable))
}

// count counts one blob that was removed.
func (m *measures) count(cause string, bytes int64) {
	m.blobs.WithLabelValues(cause).Inc()
	m.bytes.WithLabelValues(cause).Add(float64(bytes))
}
