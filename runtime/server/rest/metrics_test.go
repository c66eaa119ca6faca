package rest_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"gorgonia.org/tensor"

	"github.com/switchyard-dev/switchyard/runtime/batcher"
	"github.com/switchyard-dev/switchyard/runtime/engine"
	"github.com/switchyard-dev/switchyard/runtime/weights"
)

// faulty is an engine that fails when it is told to.
type faulty struct {
	batcher.Runner
	fails atomic.Bool
}

func (f *faulty) Run(batch engine.Batch) ([]*tensor.Dense, error) {
	if f.fails.Load() {
		return nil, errors.New("a fault")
	}
	return f.Runner.Run(batch)
}

// families are the series as a scraper reads them.
func (f *front) families(t *testing.T) map[string]*dto.MetricFamily {
	t.Helper()
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(f.scrape()))
	if err != nil {
		t.Fatal(err)
	}
	return families
}

// values are the series by name and labels; of a histogram, its count.
func (f *front) values(t *testing.T) map[string]float64 {
	t.Helper()
	values := make(map[string]float64)
	for name, family := range f.families(t) {
		for _, m := range family.GetMetric() {
			words := []string{name}
			for _, label := range m.GetLabel() {
				words = append(words, label.GetValue())
			}
			key := strings.Join(words, " ")
			switch {
			case m.GetHistogram() != nil:
				values[key] = float64(m.GetHistogram().GetSampleCount())
			case m.GetCounter() != nil:
				values[key] = m.GetCounter().GetValue()
			default:
				values[key] = m.GetGauge().GetValue()
			}
		}
	}
	return values
}

func expectValues(t *testing.T, found, want map[string]float64) {
	t.Helper()
	for key, value := range want {
		if got, ok := found[key]; !ok || got != value {
			t.Errorf("expected %s to be %g, found %g, %t", key, value, got, ok)
		}
	}
}

const inferRoute = "POST /v2/models/{model}/infer"

// What runs, what waits, what was refused and what has failed is counted: each once, and under its own reason.
func TestMetricsOfRealTraffic(t *testing.T) {
	var (
		broken faulty
		engine held
	)
	f := newFrontOver(t, func(e batcher.Runner) batcher.Runner {
		broken.Runner = e
		engine = held{Runner: &broken, taken: make(chan struct{}, 1), open: make(chan struct{})}
		return &engine
	})
	release := sync.OnceFunc(func() { close(engine.open) })
	defer release()
	const path = "/v2/models/digits/infer"
	f.set.Expect("late")
	var waiting sync.WaitGroup
	waiting.Go(func() { f.do(t, "POST", path, imageRequest(t, 3, "parity", "holes", "")) })
	<-engine.taken
	waiting.Go(func() { f.do(t, "POST", path, imageRequest(t, 2, "parity", "parity")) })
	for f.values(t)["switchyard_queue_rows"] != 2 {
		continue // until both wait
	}
	if code, body, _ := f.do(t, "POST", path, imageRequest(t, 1), "Switchyard-Timeout-Ms", "20"); code != 504 {
		t.Errorf("expected 504, found %d: %s", code, body)
	}
	busy := f.values(t)
	expectValues(t, busy, map[string]float64{
		"vllm:num_requests_running": 1, "vllm:num_requests_waiting": 1, "switchyard_queue_requests": 1,
		"switchyard_preparing_requests": 0, "switchyard_batch_rows": 0,
		"switchyard_adapters served": 4, "switchyard_adapters loading": 1, "switchyard_adapters refused": 1,
		"switchyard_adapter_loads_total loaded": 4, "switchyard_adapter_loads_total refused": 1,
		"switchyard_adapter_load_seconds": 4, "switchyard_adapter_unloads_total": 0, "switchyard_revisions served": 4,
		"switchyard_refusals_total deadline": 1,
		"vllm:kv_cache_usage_perc":           busy["switchyard_adapter_bytes"] / adapterBytes,
	})
	if busy["switchyard_adapter_bytes"] == 0 || busy["switchyard_queue_estimated_seconds"] < 0 {
		t.Errorf("expected adapters to take memory, found %v", busy)
	}
	release()
	waiting.Wait()
	for path, want := range map[string]int{
		path: 404, "/v2/models/late/infer": 503, "/v2/models/broken/infer": 503, "/v2/models/nobody/infer": 404,
	} {
		if code, body, _ := f.do(t, "POST", path, imageRequest(t, 1, "nobody")); code != want {
			t.Errorf("%s: expected %d, found %d: %s", path, want, code, body)
		}
	}
	broken.fails.Store(true)
	if code, body, _ := f.do(t, "POST", path, imageRequest(t, 2)); code != 500 || strings.Contains(body, "fault") {
		t.Errorf("expected 500 without its reason, found %d: %s", code, body)
	}
	f.set.Drop("holes")
	f.server.Drain()
	f.do(t, "POST", path, imageRequest(t, 1))
	f.do(t, "GET", "/v2/health/ready", "") // 503, and no refusal
	expectValues(t, f.values(t), map[string]float64{
		"switchyard_requests_total 200 " + inferRoute: 2, "switchyard_requests_total 404 " + inferRoute: 2,
		"switchyard_requests_total 500 " + inferRoute: 1, "switchyard_requests_total 503 " + inferRoute: 3,
		"switchyard_requests_total 504 " + inferRoute: 1, "switchyard_requests_total 503 GET /v2/health/ready": 1,
		"switchyard_request_seconds " + inferRoute: 9,
		"switchyard_rows_total 200":                5, "switchyard_rows_total 404": 1, "switchyard_rows_total 500": 2,
		"switchyard_rows_total 504": 1, "switchyard_refusals_total deadline": 1, "switchyard_refusals_total loading": 1,
		"switchyard_refusals_total adapter": 1, "switchyard_refusals_total draining": 1,
		"switchyard_batch_rows": 3, "switchyard_batch_adapters": 3, "switchyard_engine_seconds": 3,
		"switchyard_queue_seconds": 3, "switchyard_batch_failures_total": 1, "switchyard_queue_rows": 0,
		"switchyard_queue_requests": 0, "switchyard_queue_estimated_seconds": 0, "vllm:num_requests_running": 0,
		"vllm:num_requests_waiting": 0, "switchyard_adapter_unloads_total": 1, "switchyard_revisions served": 3,
	})
	base, _ := f.set.Base()
	if found, want := f.values(t)["switchyard_tokens_total"], 7*base.MaxTokens(); found != float64(want) {
		t.Errorf("expected the tokens of 7 images, %d, found %g", want, found)
	}
}

// A picker of the Gateway API inference extension reads one series of names, parted at commas and trimmed.
func TestThePickersOfTheInferenceExtensionAreUnderstood(t *testing.T) {
	f := newFront(t)
	load := func(name string) {
		f.set.Load(name, func() (*weights.Folder, error) { return weights.OpenFolder(sample + "/adapters/parity") })
	}
	odd := "says \"\\\" \n"
	for _, name := range []string{"a,b", " parted ", odd + "x"} {
		load(name)
	}
	f.set.Expect("late", "later")
	read := func() (running, waiting []string, most int) {
		family := f.families(t)["vllm:lora_requests_info"]
		if family.GetType() != dto.MetricType_GAUGE || len(family.GetMetric()) != 1 {
			t.Fatalf("expected one gauge, found %v", family)
		}
		metric := family.GetMetric()[0]
		if at := metric.GetGauge().GetValue(); time.Since(time.Unix(int64(at), 0)).Abs() > time.Minute {
			t.Errorf("expected a time that has just been, in seconds, found %g", at)
		}
		for _, label := range metric.GetLabel() {
			names := strings.FieldsFunc(label.GetValue(), func(r rune) bool { return r == ',' })
			for i := range names {
				names[i] = strings.TrimSpace(names[i])
			}
			switch label.GetName() {
			case "running_lora_adapters":
				running = names
			case "waiting_lora_adapters":
				waiting = names
			case "max_lora":
				var err error
				if most, err = strconv.Atoi(label.GetValue()); err != nil {
					t.Error(err)
				}
			}
		}
		return running, waiting, most
	}
	running, waiting, most := read()
	if want := []string{"digit", "holes", "overflow", "parity", odd + "x"}; !slices.Equal(running, want) {
		t.Errorf("expected %q, found %q", want, running)
	}
	if want := []string{"late", "later"}; !slices.Equal(waiting, want) || most != 9 {
		t.Errorf("expected %q waiting and 9 at most, found %q and %d", want, waiting, most)
	}
	f.set.Drop("holes")
	f.set.Refuse("late", errors.New("a reason"))
	if running, waiting, most = read(); slices.Contains(running, "holes") || len(waiting) != 1 || most != 7 {
		t.Errorf("expected the list to follow the set, found %q, %q and %d", running, waiting, most)
	}
	for i := range 600 {
		f.set.Expect(fmt.Sprintf("adapter-%03d", i))
	}
	if _, waiting, most = read(); len(waiting) != 512 || most != 607 {
		t.Errorf("expected 512 of the names and 607 at most, found %d and %d", len(waiting), most)
	}
}

// Prometheus' own conventions are kept by all series that are named here.
func TestMetricsKeepPrometheusConventions(t *testing.T) {
	f := newFront(t)
	f.do(t, "POST", "/v2/models/digits/infer", imageRequest(t, 3, "parity", "holes", ""))
	f.do(t, "POST", "/v2/models/broken/infer", imageRequest(t, 1))
	problems, err := promlint.New(strings.NewReader(f.scrape())).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if !strings.HasPrefix(p.Metric, "vllm:") {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
}

// Whatever strangers ask, there are as many series as before.
func TestStrangersAddNoSeries(t *testing.T) {
	f := newFront(t)
	ask := func(i int) {
		for _, request := range [][2]string{
			{"POST", fmt.Sprintf("/v2/models/stranger-%d/infer", i)},
			{"GET", fmt.Sprintf("/v2/models/stranger-%d", i)},
			{"GET", fmt.Sprintf("/stranger-%d", i)},
			{fmt.Sprintf("STRANGE%d", i), "/v2"},
		} {
			if code, body, _ := f.do(t, request[0], request[1], imageRequest(t, 1), "X-Request-Id", request[1]); code < 400 {
				t.Errorf("%v: expected a refusal, found %d: %s", request, code, body)
			}
		}
		f.do(t, "POST", "/v2/models/digits/infer", imageRequest(t, 1, fmt.Sprintf("stranger-%d", i)))
	}
	ask(0)
	before := f.values(t)
	for i := range 1000 {
		ask(i + 1)
	}
	after := f.values(t)
	isInfo := func(key string, _ float64) bool { return strings.HasPrefix(key, "vllm:lora_requests_info") }
	maps.DeleteFunc(before, isInfo) // its labels are of what is served
	maps.DeleteFunc(after, isInfo)
	if !slices.Equal(slices.Sorted(maps.Keys(before)), slices.Sorted(maps.Keys(after))) {
		t.Errorf("expected the series %v, found %v", before, after)
	}
	if n := after["switchyard_requests_total 405 none"] + after["switchyard_requests_total 404 none"]; n != 2002 {
		t.Errorf("expected 2002 requests that no route takes, found %g", n)
	}
}
