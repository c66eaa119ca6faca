package telemetry

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/switchyard-dev/switchyard/api/v1alpha1"
)

// State is what an object says of itself, in a word.
type State string

// The states. Pending is also what says nothing of its present spec yet.
const (
	Ready   State = "ready"
	Failed  State = "failed"
	Pending State = "pending"
)

var states = []State{Ready, Failed, Pending}

// StateOf is that of an object of a generation with these conditions.
func StateOf(generation int64, conditions []metav1.Condition) State {
	ready := apimeta.FindStatusCondition(conditions, v1alpha1.ConditionReady)
	switch {
	case ready == nil || ready.ObservedGeneration != generation:
	case ready.Status == metav1.ConditionTrue:
		return Ready
	case ready.Reason == v1alpha1.ReasonLoadFailed,
		apimeta.IsStatusConditionTrue(conditions, v1alpha1.ConditionStalled):
		return Failed
	}
	return Pending
}

// Load is how many attempts run, and how many wait until they may.
type Load func() (running, waiting int)

// Objects counts objects when it is asked, from a cache. Every manager does, whether or not it leads.
type Objects struct {
	reader   client.Reader
	attempts map[Kind]Load
}

// NewObjects is a collector of what the reader has.
func NewObjects(reader client.Reader, attempts map[Kind]Load) *Objects {
	return &Objects{reader, attempts}
}

// scrapeTimeout bounds a count while the cache is not filled yet.
const scrapeTimeout = 2 * time.Second

var (
	adaptersDesc = prometheus.NewDesc("switchyard_adapters",
		"LoRAAdapters by what they say of themselves. Those of a pool that does not exist have none.",
		[]string{"namespace", "pool", "state"}, nil)
	poolsDesc = prometheus.NewDesc("switchyard_pools",
		"InferencePools by what they say of themselves.", []string{"state"}, nil)
	attemptsDesc = prometheus.NewDesc("switchyard_attempts",
		"Attempts to bring artifacts that run now, or wait until they may.", []string{"kind", "state"}, nil)
)

// Describe sends the descriptions.
func (o *Objects) Describe(to chan<- *prometheus.Desc) {
	to <- adaptersDesc
	to <- poolsDesc
	to <- attemptsDesc
}

// Collect counts. What cannot be counted yet, as the cache is not filled, is left out.
func (o *Objects) Collect(to chan<- prometheus.Metric) {
	gauge := func(desc *prometheus.Desc, n int, labels ...string) {
		to <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, float64(n), labels...)
	}
	for kind, load := range o.attempts {
		running, waiting := load()
		gauge(attemptsDesc, running, string(kind), "running")
		gauge(attemptsDesc, waiting, string(kind), "waiting")
	}
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTimeout)
	defer cancel()
	var pools v1alpha1.InferencePoolList
	var adapters v1alpha1.LoRAAdapterList
	if o.reader.List(ctx, &pools, client.UnsafeDisableDeepCopy) != nil ||
		o.reader.List(ctx, &adapters, client.UnsafeDisableDeepCopy) != nil {
		return
	}
	byPool, byState := count(pools.Items, adapters.Items)
	for _, state := range states {
		gauge(poolsDesc, byState[state], string(state))
	}
	for pool, n := range byPool {
		for _, state := range states {
			gauge(adaptersDesc, n[state], pool.Namespace, pool.Name, string(state))
		}
	}
}

// count counts adapters by their pools, those of no pool under none, and pools by their states. An adapter names any
// pool it likes: only those that exist have a series.
func count(pools []v1alpha1.InferencePool, adapters []v1alpha1.LoRAAdapter) (
	byPool map[types.NamespacedName]map[State]int, byState map[State]int,
) {
	byPool, byState = map[types.NamespacedName]map[State]int{}, map[State]int{}
	for i := range pools {
		p := &pools[i]
		byPool[client.ObjectKeyFromObject(p)] = map[State]int{}
		byState[StateOf(p.Generation, p.Status.Conditions)]++
	}
	for i := range adapters {
		a := &adapters[i]
		pool := types.NamespacedName{Namespace: a.Namespace, Name: a.Spec.PoolRef.Name}
		if byPool[pool] == nil {
			pool = types.NamespacedName{}
			if byPool[pool] == nil {
				byPool[pool] = map[State]int{}
			}
		}
		byPool[pool][StateOf(a.Generation, a.Status.Conditions)]++
	}
	return byPool, byState
}
