package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// The series that are looked at.
const (
	engineSeconds = "switchyard_engine_seconds"
	queueSeconds  = "switchyard_queue_seconds"
	residentBytes = "process_resident_memory_bytes"
)

// sample is what a server's metrics say at one moment: values, and sums and counts of histograms.
type sample struct {
	values map[string]float64
	sums   map[string]float64
	counts map[string]float64
}

// scrape asks a server for its metrics.
func scrape(ctx context.Context, url string) (s *sample, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, response.Body.Close()) }()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(response.Body)
	if err != nil {
		return nil, err
	}
	s = &sample{values: map[string]float64{}, sums: map[string]float64{}, counts: map[string]float64{}}
	for name, family := range families {
		for _, m := range family.GetMetric() {
			s.values[name] = m.GetGauge().GetValue() + m.GetCounter().GetValue()
			s.sums[name] += m.GetHistogram().GetSampleSum()
			s.counts[name] += float64(m.GetHistogram().GetSampleCount())
		}
	}
	for _, name := range []string{engineSeconds, queueSeconds, residentBytes} {
		if families[name] == nil {
			return nil, fmt.Errorf("%s: expected the series %s, found none", url, name)
		}
	}
	return s, nil
}

// mean is a histogram's since an earlier sample.
func (s *sample) mean(name string, before *sample) time.Duration {
	n := s.counts[name] - before.counts[name]
	if n == 0 {
		return 0
	}
	return time.Duration((s.sums[name] - before.sums[name]) / n * float64(time.Second))
}

// watched calls during while it looks at the server's memory ten times a second, and returns the metrics before and
// after, and the most memory that was resident.
func watched(ctx context.Context, url string, during func()) (before, after *sample, most float64, err error) {
	if before, err = scrape(ctx, url); err != nil {
		return nil, nil, 0, err
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		during()
	}()
	ticks := time.NewTicker(time.Second / 10) //nolint:forbidigo // memory is looked at by the clock
	defer ticks.Stop()
	for {
		select {
		case <-ticks.C:
			s, err := scrape(ctx, url)
			if err != nil {
				return nil, nil, 0, err
			}
			most = max(most, s.values[residentBytes])
		case <-ended:
			after, err = scrape(ctx, url)
			return before, after, most, err
		}
	}
}
