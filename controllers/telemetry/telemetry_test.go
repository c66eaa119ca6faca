package telemetry_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/switchyard-dev/switchyard/api/v1alpha1"
	"github.com/switchyard-dev/switchyard/controllers/attempt"
	"github.com/switchyard-dev/switchyard/controllers/telemetry"
	"github.com/switchyard-dev/switchyard/test/wrappers"
)

func TestWhatIsCounted(t *testing.T) {
	registry := prometheus.NewPedanticRegistry()
	m, err := telemetry.NewMetrics(registry)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := telemetry.NewMetrics(registry); err == nil {
		t.Error("expected that the same metrics cannot be registered twice")
	}
	ctx, stop := context.WithCancel(t.Context())
	m.Stored(ctx, telemetry.Adapter, "sha256:a", 100)
	m.Stored(ctx, telemetry.Adapter, "sha256:b", 50)
	m.Ended(ctx, telemetry.Adapter, nil)
	m.Ended(ctx, telemetry.Adapter, &attempt.Failure{Reason: v1alpha1.ReasonSourceNotFound})
	m.Ended(ctx, telemetry.Adapter, &attempt.Failure{Reason: v1alpha1.ReasonSourceNotFound})
	m.Ended(ctx, telemetry.Base, &attempt.Failure{Reason: "made up by a stranger"})
	m.Ended(ctx, telemetry.Base, errors.New("a disk"))
	m.Ready(150 * time.Millisecond)
	stop()
	m.Ended(ctx, telemetry.Base, &attempt.Failure{Reason: v1alpha1.ReasonSourceNotFound}) // given up
	want := `
# HELP switchyard_artifact_bytes_total Bytes of the files of those artifacts.
# TYPE switchyard_artifact_bytes_total counter
switchyard_artifact_bytes_total{kind="adapter"} 150
switchyard_artifact_bytes_total{kind="base"} 0
# HELP switchyard_artifacts_stored_total Artifacts that were fetched, checked and pushed to the artifact registry.
# TYPE switchyard_artifacts_stored_total counter
switchyard_artifacts_stored_total{kind="adapter"} 2
switchyard_artifacts_stored_total{kind="base"} 0
# HELP switchyard_refusals_total Attempts to bring an artifact that failed, by reason. Each try counts.
# TYPE switchyard_refusals_total counter
switchyard_refusals_total{kind="adapter",reason="SourceNotFound"} 2
switchyard_refusals_total{kind="base",reason="other"} 2
`
	if err := testutil.GatherAndCompare(registry, strings.NewReader(want), "switchyard_artifact_bytes_total",
		"switchyard_artifacts_stored_total", "switchyard_refusals_total"); err != nil {
		t.Error(err)
	}
	if n, err := testutil.GatherAndCount(registry, "switchyard_adapter_ready_seconds"); err != nil || n != 1 {
		t.Errorf("expected a histogram, found %d, %v", n, err)
	}
}

// lists is a cache of these objects.
type lists struct {
	client.Reader

	pools    []v1alpha1.InferencePool
	adapters []v1alpha1.LoRAAdapter
	err      error
}

func (l *lists) List(_ context.Context, list client.ObjectList, _ ...client.ListOption) error {
	switch list := list.(type) {
	case *v1alpha1.InferencePoolList:
		list.Items = l.pools
	case *v1alpha1.LoRAAdapterList:
		list.Items = l.adapters
	}
	return l.err
}

func ready(status metav1.ConditionStatus, reason string, generation int64) []metav1.Condition {
	var list []metav1.Condition
	apimeta.SetStatusCondition(&list, metav1.Condition{
		Type: v1alpha1.ConditionReady, Status: status, Reason: reason, ObservedGeneration: generation,
	})
	return list
}

// Objects are counted as they are when they are asked for, and a name that is no pool's makes no series.
func TestObjectsAreCountedAsTheyAre(t *testing.T) {
	adapter := func(name, pool string, conditions []metav1.Condition) v1alpha1.LoRAAdapter {
		a := wrappers.LoRAAdapter("demo", name).Pool(pool).Generation(2).Obj()
		a.Status.Conditions = conditions
		return *a
	}
	stalled := ready(metav1.ConditionFalse, v1alpha1.ReasonSourceNotFound, 2)
	apimeta.SetStatusCondition(&stalled, metav1.Condition{Type: v1alpha1.ConditionStalled, Status: metav1.ConditionTrue})
	pool := wrappers.Pool("demo", "digits").Generation(1).Obj()
	pool.Status.Conditions = ready(metav1.ConditionTrue, v1alpha1.ReasonServing, 1)
	l := &lists{
		pools: []v1alpha1.InferencePool{*pool, *wrappers.Pool("demo", "new").Generation(1).Obj()},
		adapters: []v1alpha1.LoRAAdapter{
			adapter("a", "digits", ready(metav1.ConditionTrue, v1alpha1.ReasonServing, 2)),
			adapter("b", "digits", ready(metav1.ConditionTrue, v1alpha1.ReasonServing, 1)), // of a former spec
			adapter("c", "digits", stalled),
			adapter("d", "digits", ready(metav1.ConditionFalse, v1alpha1.ReasonLoadFailed, 2)),
			adapter("e", "nowhere", nil), adapter("f", "nowhere-either", nil),
		},
	}
	load := func() (running, waiting int) { return 2, 5 }
	objects := telemetry.NewObjects(l, map[telemetry.Kind]telemetry.Load{telemetry.Adapter: load})
	want := `
# HELP switchyard_adapters LoRAAdapters by what they say of themselves. Those of a pool that does not exist have none.
# TYPE switchyard_adapters gauge
switchyard_adapters{namespace="",pool="",state="failed"} 0
switchyard_adapters{namespace="",pool="",state="pending"} 2
switchyard_adapters{namespace="",pool="",state="ready"} 0
switchyard_adapters{namespace="demo",pool="digits",state="failed"} 2
switchyard_adapters{namespace="demo",pool="digits",state="pending"} 1
switchyard_adapters{namespace="demo",pool="digits",state="ready"} 1
switchyard_adapters{namespace="demo",pool="new",state="failed"} 0
switchyard_adapters{namespace="demo",pool="new",state="pending"} 0
switchyard_adapters{namespace="demo",pool="new",state="ready"} 0
# HELP switchyard_attempts Attempts to bring artifacts that run now, or wait until they may.
# TYPE switchyard_attempts gauge
switchyard_attempts{kind="adapter",state="running"} 2
switchyard_attempts{kind="adapter",state="waiting"} 5
# HELP switchyard_pools InferencePools by what they say of themselves.
# TYPE switchyard_pools gauge
switchyard_pools{state="failed"} 0
switchyard_pools{state="pending"} 1
switchyard_pools{state="ready"} 1
`
	if err := testutil.CollectAndCompare(objects, strings.NewReader(want)); err != nil {
		t.Error(err)
	}
	l.err = errors.New("not filled yet")
	if n := testutil.CollectAndCount(objects, "switchyard_adapters"); n != 0 {
		t.Errorf("expected nothing of a cache that is not filled, found %d", n)
	}
}

func TestStopwatch(t *testing.T) {
	key := types.NamespacedName{Namespace: "demo", Name: "parity"}
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	s := telemetry.NewStopwatch()
	end := func(generation int64, at time.Duration) time.Duration {
		took, ok := s.End(key, generation, start.Add(at))
		if !ok {
			return -1
		}
		return took
	}
	if got := end(1, 0); got != -1 {
		t.Errorf("what was not begun is not timed, found %v", got)
	}
	s.Begin(key, 1, start)
	s.Begin(key, 1, start.Add(time.Second)) // a second look
	s.Begin(key, 2, start.Add(2*time.Second))
	if got := end(1, 3*time.Second); got != -1 {
		t.Errorf("a generation that was replaced is not timed, found %v", got)
	}
	if got := end(2, 3*time.Second); got != time.Second {
		t.Errorf("expected 1s, found %v", got)
	}
	if got := end(2, 4*time.Second); got != -1 {
		t.Errorf("a generation is timed once, found %v", got)
	}
	s.Begin(key, 3, start)
	s.Forget(key)
	if got := end(3, time.Second); got != -1 {
		t.Errorf("what is gone is not timed, found %v", got)
	}
}

// recorder keeps what it is told.
type recorder struct {
	events.EventRecorder

	told []string
}

func (r *recorder) Eventf(_, _ runtime.Object, kind, reason, action, note string, args ...any) {
	for _, a := range args {
		note = strings.Replace(note, "%s", a.(string), 1)
	}
	r.told = append(r.told, kind+" "+reason+" "+action+" "+note)
}

func TestTell(t *testing.T) {
	var r recorder
	long := strings.Repeat("é", 1024)
	telemetry.Tell(t.Context(), &r, &corev1.Pod{}, []telemetry.Event{
		{Reason: v1alpha1.ReasonServing, Message: "100% of it"},
		{Warning: true, Reason: v1alpha1.ReasonLoadFailed, Message: long},
	})
	if len(r.told) != 2 || r.told[0] != "Normal Serving Serve 100% of it" ||
		!strings.HasPrefix(r.told[1], "Warning LoadFailed Load é") || len(r.told[1]) > 1024+len("Warning LoadFailed Load ") {
		t.Errorf("found %q", r.told)
	}
}
