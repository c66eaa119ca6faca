package main

import (
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/switchyard-dev/switchyard/api/v1alpha1"
	"github.com/switchyard-dev/switchyard/test/wrappers"
)

// The life of an adapter, from nothing over new revisions, good and bad, to nothing.
func TestTheLifeOfAnAdapter(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.create(s.lora("parity", "parity"))
	s.untilAdapter("parity", "False PoolNotFound")
	s.create(s.pool("digits").Replicas(2).Obj())
	s.untilAdapter("parity", "False NoPods")
	pods := s.runPods("digits", 2)
	first := s.untilServed("parity", 2)
	if got := says(first.Generation, first.Status.Conditions, "ArtifactResolved", "Compatible", "Available", "Reconciling",
		"Stalled"); got != "ArtifactResolved=True Resolved, Compatible=True Compatible, Available=True Serving, "+
		"Reconciling=–, Stalled=–" {
		t.Error(got)
	}
	target := first.Status.TargetRevision
	if target.NumLabels != 2 || target.Rank != 4 || target.SizeBytes == 0 || target.SourceRevision == "" ||
		first.Status.ServedRevision != target.Digest {
		t.Errorf("found %+v, %+v", first.Status, target)
	}
	pool := s.untilPool("digits", "True Serving")
	if pool.Status.ReadyReplicas != 2 || pool.Status.BaseModel.Architecture != "ViTForImageClassification" ||
		pool.Status.BaseModel.SizeBytes == 0 ||
		pool.Status.Endpoint.HTTP != "http://digits."+s.namespace+".svc:8080" || pool.Status.Selector == "" {
		t.Errorf("found %+v", pool.Status)
	}

	// Another of the same files is the same revision; both are served.
	s.create(s.lora("twin", "parity"))
	if twin := s.untilAdapter("twin", "True Serving"); twin.Status.TargetRevision.Digest != target.Digest {
		t.Errorf("expected %s, found %s", target.Digest, twin.Status.TargetRevision.Digest)
	}
	s.remove(s.adapter("twin"))

	// A new revision is loaded beside the old one, which answers until then.
	names := map[string]string{target.Digest: "A"}
	s.until("without its twin", func() string { return s.entries(pods[0].Name, names) }, "parity=A")
	holes := wrappers.LoRAAdapter(s.namespace, "other").Pool("digits").Source(ref("holes")).Obj()
	s.create(holes)
	second := s.untilAdapter("other", "True Serving").Status.TargetRevision.Digest
	s.remove(holes)
	names[second] = "B"
	s.set(func() { s.pending[second] = true })
	s.change("parity", func(spec *v1alpha1.LoRAAdapterSpec) { spec.Source.OCI.Ref = ref("holes") })
	loading := s.untilAdapter("parity", "False Loading")
	if loading.Status.ServedRevision != target.Digest ||
		!apimeta.IsStatusConditionTrue(loading.Status.Conditions, v1alpha1.ConditionAvailable) ||
		!apimeta.IsStatusConditionTrue(loading.Status.Conditions, v1alpha1.ConditionReconciling) {
		t.Errorf("while it loads the old one answers, found %+v", loading.Status)
	}
	s.until("swap in one pod", func() string { // either may be the older
		both := []string{s.entries(pods[0].Name, names), s.entries(pods[1].Name, names)}
		slices.Sort(both)
		return strings.Join(both, ", ")
	}, "parity=A, parity=B<A")
	s.set(func() { clear(s.pending) })
	if done := s.untilAdapter("parity", "True Serving"); done.Status.ServedRevision != second {
		t.Errorf("expected %s, found %s", second, done.Status.ServedRevision)
	}
	s.until("no fallback", func() string { return s.entries(pods[0].Name, names) }, "parity=B")

	// A bad one leaves it as it is, and says so.
	s.change("parity", func(spec *v1alpha1.LoRAAdapterSpec) { spec.Source.OCI.Ref = ref("nothing") })
	bad := s.untilAdapter("parity", "False SourceNotFound")
	ready := apimeta.FindStatusCondition(bad.Status.Conditions, v1alpha1.ConditionReady)
	if bad.Status.ServedRevision != second || bad.Status.TargetRevision.Digest != second ||
		!apimeta.IsStatusConditionTrue(bad.Status.Conditions, v1alpha1.ConditionAvailable) ||
		!apimeta.IsStatusConditionTrue(bad.Status.Conditions, v1alpha1.ConditionStalled) ||
		!strings.HasSuffix(ready.Message, "pods go on serving "+second) {
		t.Errorf("found %+v", bad.Status)
	}
	if got := s.entries(pods[0].Name, names); got != "parity=B" {
		t.Errorf("found %s", got)
	}
	s.change("parity", func(spec *v1alpha1.LoRAAdapterSpec) { spec.Source.OCI.Ref = ref("parity") })
	s.untilAdapter("parity", "True Serving")
	s.until("events", func() string { return s.events("parity") }, "PoolNotFound Resolved Serving SourceNotFound")

	s.remove(s.adapter("parity"))
	s.until("gone", func() string { return s.entries(pods[0].Name, names) }, "")
}

// What a pod reported before its container restarted is worth nothing, nor is what a pod that is gone reported.
func TestPodsThatRestartAndGo(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.create(s.pool("digits").Replicas(2).Obj(), s.lora("parity", "parity"))
	pods := s.runPods("digits", 2)
	s.untilServed("parity", 2)

	s.set(func() { s.silent = true })
	s.runPod(&pods[0], s.started.Add(10*time.Second), true)
	a := s.untilAdapter("parity", "False Loading")
	if a.Status.Pods != (v1alpha1.PodCounts{Desired: 2, Ready: 1}) {
		t.Errorf("found %+v", a.Status.Pods)
	}
	s.set(func() { s.silent, s.started = false, s.started.Add(10*time.Second) })
	s.untilServed("parity", 2)

	s.runPod(&pods[0], s.started, false)
	s.untilServed("parity", 1)
	s.remove(&pods[1])
	s.untilAdapter("parity", "False NoPods")
	s.runPods("digits", 2)
	s.untilServed("parity", 2)

	digest := a.Status.TargetRevision.Digest
	s.set(func() { s.failing[digest] = v1alpha1.FailureTrialFailed })
	a = s.untilAdapter("parity", "False LoadFailed")
	s.until("failures", func() string { return podFailures(s.adapter("parity")) },
		strings.Repeat(" "+v1alpha1.FailureTrialFailed, 2))
	if apimeta.IsStatusConditionTrue(a.Status.Conditions, v1alpha1.ConditionStalled) {
		t.Error("a pod's failure is no fault of the spec")
	}
}

func podFailures(a *v1alpha1.LoRAAdapter) string {
	var reasons strings.Builder
	for _, f := range a.Status.Failures {
		reasons.WriteString(" " + f.Reason)
	}
	return reasons.String()
}

// What is wrong with a source is said with a closed reason and where, and hurts nobody else.
func TestBadAdapters(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.create(s.pool("digits").MaxRank(16).Obj(), s.lora("good", "parity"))
	s.runPods("digits", 1)
	const path = "vit.layers.0.attention.q_proj"
	const key = "base_model.model." + path + ".lora_"
	nan := slices.Repeat([]float32{0}, 8*96)
	nan[100] = float32(math.NaN())
	plain := func() *wrappers.AdapterFolder { return wrappers.Adapter(t).Unset("modules_to_save") }
	for name, c := range map[string]struct {
		folder               *wrappers.AdapterFolder
		ref, reason, message string
		stalled              bool
	}{
		"nowhere":     {ref: ref("nowhere"), reason: "SourceNotFound", message: "not found", stalled: true},
		"unreachable": {ref: "127.0.0.1:1/x:v1", reason: "SourceUnreachable", message: "connection refused"},
		"a-base":      {ref: ref("base"), reason: "SourceInvalid", message: "adapter_config.json", stalled: true},
		"nan": {
			folder: plain().Tensor(wrappers.F32(key+"A.weight", nan, 8, 96)).
				Tensor(wrappers.F32(key+"B.weight", make([]float32, 96*8), 96, 8)),
			reason: "InvalidAdapter", message: "expected finite values, found NaN at element 100", stalled: true,
		},
		"no-classifier": {
			folder: wrappers.Adapter(t).Update(path, 96, 96), reason: "InvalidAdapter", message: "classifier", stalled: true,
		},
		"other-base": {
			folder: plain().Update(path, 768, 768), reason: "Incompatible", message: "shape", stalled: true,
		},
		"rank": {
			folder: plain().Rank(32).Update(path, 96, 96), reason: "RankTooLarge",
			message: "rank: expected at most 16 (the pool's spec.adapters.maxRank), found 32", stalled: true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			if c.folder != nil {
				c.ref = push(t, "bad-"+name, c.folder.Write())
			}
			s.create(wrappers.LoRAAdapter(s.namespace, name).Pool("digits").Source(c.ref).Obj())
			a := s.untilAdapter(name, "False "+c.reason)
			ready := apimeta.FindStatusCondition(a.Status.Conditions, v1alpha1.ConditionReady)
			stalled := apimeta.IsStatusConditionTrue(a.Status.Conditions, v1alpha1.ConditionStalled)
			if !strings.Contains(ready.Message, c.message) || stalled != c.stalled {
				t.Errorf("expected stalled %v and %q, found %v and %q", c.stalled, c.message, stalled, ready.Message)
			}
			s.until("event", func() string { return s.events(name) }, c.reason)
		})
	}
	s.untilAdapter("good", "True Serving")
	s.until("counts", func() string {
		n := s.untilPool("digits", "True Serving").Status.Adapters
		return strings.Trim(strings.Repeat("d", int(n.Desired))+strings.Repeat("r", int(n.Ready))+
			strings.Repeat("f", int(n.Failed)), " ")
	}, "dddddddd"+"r"+"ffffff")

	// The cure of a spec is taken up at once.
	s.change("nowhere", func(spec *v1alpha1.LoRAAdapterSpec) { spec.Source.OCI.Ref = ref("digit") })
	s.untilAdapter("nowhere", "True Serving")
	s.change("nowhere", func(spec *v1alpha1.LoRAAdapterSpec) { spec.ClassNames = []string{"one", "two"} })
	s.untilAdapter("nowhere", "False InvalidAdapter")
}

func TestAFullPool(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.create(s.pool("digits").Limits(2, "1Gi").Obj())
	s.runPods("digits", 1)
	s.create(s.lora("a", "parity"), s.lora("b", "holes"))
	s.untilAdapter("a", "True Serving")
	s.untilAdapter("b", "True Serving")
	s.create(s.lora("c", "digit"))
	full := s.untilAdapter("c", "False PoolFull")
	if !strings.Contains(apimeta.FindStatusCondition(full.Status.Conditions, "Ready").Message, "at most 2") {
		t.Errorf("found %+v", full.Status)
	}
	s.remove(s.adapter("a"))
	s.untilAdapter("c", "True Serving")
}

// A pool that is deleted takes its objects with it; the adapters stay, say what they miss, and go on once it is back.
func TestAPoolIsDeletedAndComesBack(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	pool := s.pool("digits").Obj()
	s.create(s.lora("parity", "parity"), pool)
	s.runPods("digits", 1)
	s.untilAdapter("parity", "True Serving")
	s.remove(pool)
	a := s.untilAdapter("parity", "False PoolNotFound")
	if a.Status.ServedRevision != "" || apimeta.IsStatusConditionTrue(a.Status.Conditions, v1alpha1.ConditionAvailable) {
		t.Errorf("found %+v", a.Status)
	}
	s.until("pods", func() string {
		var sets appsv1.ReplicaSetList
		if err := admin.List(s.ctx, &sets, client.InNamespace(s.namespace)); err != nil {
			t.Fatal(err)
		}
		if len(s.pods("digits")) == 0 && len(sets.Items) == 0 {
			return "gone"
		}
		return "there"
	}, "gone")
	s.create(s.pool("digits").Obj())
	s.untilAdapter("parity", "False NoPods")
	s.runPods("digits", 1)
	s.untilAdapter("parity", "True Serving")
}

// Each object is the pool's, restricted, and follows its spec; what is not the pool's own is left alone.
func TestAPoolsObjects(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	key := client.ObjectKey{Namespace: s.namespace, Name: "digits"}
	strange := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name},
		Spec:       corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 1}}},
	}
	pool := s.pool("digits").Obj()
	pool.Spec.Template.Labels = map[string]string{"team": "a"}
	pool.Spec.Template.NodeSelector = map[string]string{"disk": "fast"}
	pool.Spec.Template.Tolerations = []corev1.Toleration{{Key: "gpu", Operator: corev1.TolerationOpExists}}
	s.create(strange, pool)
	s.untilPool("digits", "False NameTaken")
	s.remove(strange)
	s.untilPool("digits", "False NoPods")

	var d appsv1.Deployment
	get := func() *appsv1.Deployment {
		d = appsv1.Deployment{}
		if err := admin.Get(s.ctx, key, &d); err != nil {
			t.Fatal(err)
		}
		return &d
	}
	template := get().Spec.Template
	if template.Labels["team"] != "a" || template.Labels[v1alpha1.LabelPool] != "digits" ||
		template.Spec.NodeSelector["disk"] != "fast" || len(template.Spec.Tolerations) != 1 {
		t.Errorf("found %+v", template)
	}
	// The user's changes are carried out, once; anybody else's are undone.
	generation := d.Generation
	three := int32(3)
	err := retry.RetryOnConflict(retry.DefaultRetry, func() error {
		scaled := s.untilPool("digits", "False NoPods")
		scaled.Spec.Replicas = &three
		return admin.Update(s.ctx, scaled)
	})
	if err != nil {
		t.Fatal(err)
	}
	s.until("replicas", func() string { return strings.Repeat("p", int(*get().Spec.Replicas)) }, "ppp")
	if d.Generation > generation+1 {
		t.Errorf("expected one change of the Deployment, found generation %d become %d", generation, d.Generation)
	}
	s.runPods("digits", 3)
	s.untilPool("digits", "True Serving")
	err = retry.RetryOnConflict(retry.DefaultRetry, func() error {
		get().Spec.Template.Spec.Containers[0].Image = "mine"
		return admin.Update(s.ctx, &d)
	})
	if err != nil {
		t.Fatal(err)
	}
	s.until("image", func() string { return get().Spec.Template.Spec.Containers[0].Image }, "runtime")
}

// A base that is to be kept as another type is the same artifact, and takes as much memory as is said; its pods are
// replaced.
func TestTheBaseAsAnotherType(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.create(s.pool("digits").Obj())
	s.runPods("digits", 1)
	before := s.untilPool("digits", "True Serving").Status.BaseModel
	var d appsv1.Deployment
	dtype := func() string {
		if err := admin.Get(s.ctx, client.ObjectKey{Namespace: s.namespace, Name: "digits"}, &d); err != nil {
			t.Fatal(err)
		}
		args := d.Spec.Template.Spec.Containers[0].Args
		i := slices.IndexFunc(args, func(arg string) bool { return strings.HasPrefix(arg, "--dtype=") })
		return args[max(i, 0)]
	}
	if got := dtype(); got != "--dtype=float32" {
		t.Errorf("expected float32 where the spec says nothing, found %s", got)
	}
	err := retry.RetryOnConflict(retry.DefaultRetry, func() error {
		pool := s.untilPool("digits", "True Serving")
		pool.Spec.DType = v1alpha1.DTypeBFloat16
		return admin.Update(s.ctx, pool)
	})
	if err != nil {
		t.Fatal(err)
	}
	s.until("the type", dtype, "--dtype=bfloat16")
	var after v1alpha1.ResolvedBaseModel
	s.until("half the memory", func() string {
		var pool v1alpha1.InferencePool
		if err := admin.Get(s.ctx, client.ObjectKey{Namespace: s.namespace, Name: "digits"}, &pool); err != nil {
			t.Fatal(err)
		}
		after = pool.Status.BaseModel
		return strconv.FormatBool(after.SizeBytes < before.SizeBytes*6/10 && after.SizeBytes > before.SizeBytes/2)
	}, "true")
	if after.Digest != before.Digest || after.SourceRevision != before.SourceRevision {
		t.Errorf("expected the same artifact, %+v, found %+v", before, after)
	}
}

// What the API server refuses, of the pool's objects or its pods, is in the pool's status, and passes with its cause.
func TestAnObjectThatIsRefused(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	refused := func(says string) {
		t.Helper()
		pool := s.untilPool("digits", "False ObjectRefused")
		ready := apimeta.FindStatusCondition(pool.Status.Conditions, v1alpha1.ConditionReady)
		if !strings.Contains(ready.Message, says) ||
			!apimeta.IsStatusConditionTrue(pool.Status.Conditions, v1alpha1.ConditionStalled) {
			t.Errorf("expected it Stalled with %q, found %+v", says, pool.Status.Conditions)
		}
	}
	most := &corev1.LimitRange{
		ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: "small"},
		Spec: corev1.LimitRangeSpec{Limits: []corev1.LimitRangeItem{{
			Type: corev1.LimitTypeContainer,
			Max:  corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("10m")},
		}}},
	}
	pool := s.pool("digits").Obj()
	pool.Spec.Template.Labels = map[string]string{"team": "has a space"}
	pool.Spec.Template.Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1")}
	s.create(most, pool)
	refused(`Deployment digits: Deployment.apps "digits" is invalid: spec.template.labels`)
	s.until("event", func() string { // beside the budget's, which has the pool's name
		return strconv.FormatBool(strings.Contains(s.events("digits"), "ObjectRefused Resolved"))
	}, "true")

	s.until("the log", func() string {
		return strconv.FormatBool(strings.Contains(managerLog.String(), "namespace="+s.namespace+" name=digits"))
	}, "true")

	err := retry.RetryOnConflict(retry.DefaultRetry, func() error {
		if err := admin.Get(s.ctx, client.ObjectKeyFromObject(pool), pool); err != nil {
			return err
		}
		pool.Spec.Template.Labels = nil
		return admin.Update(s.ctx, pool)
	})
	if err != nil {
		t.Fatal(err)
	}
	refused("must be less than or equal to cpu limit of 10m")
	s.remove(most)
	s.runPods("digits", 1)
	s.untilPool("digits", "True Serving")
}

func TestABadBase(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.create(wrappers.Pool(s.namespace, "nowhere").Source(ref("nowhere")).Obj(),
		wrappers.Pool(s.namespace, "adapter").Source(ref("parity")).Obj())
	s.untilPool("nowhere", "False SourceNotFound")
	bad := s.untilPool("adapter", "False SourceInvalid")
	if !apimeta.IsStatusConditionTrue(bad.Status.Conditions, v1alpha1.ConditionStalled) {
		t.Errorf("found %+v", bad.Status)
	}
	s.create(wrappers.LoRAAdapter(s.namespace, "parity").Pool("adapter").Source(ref("parity")).Obj())
	s.untilAdapter("parity", "False PoolNotReady")
}

// What the artifact registry has lost is pushed again as soon as a pod misses it.
func TestALostArtifactIsPushedAgain(t *testing.T) {
	s := newSpace(t)
	s.create(s.pool("digits").Obj(), s.lora("parity", "parity"))
	s.runPods("digits", 1)
	digest := s.untilAdapter("parity", "True Serving").Status.TargetRevision.Digest
	_, hex, _ := strings.Cut(digest, ":")
	blob := filepath.Join(registryDir, "docker", "registry", "v2", "blobs", "sha256", hex[:2], hex, "data")
	if err := os.Remove(blob); err != nil {
		t.Fatal(err)
	}
	s.set(func() { s.failing[digest] = v1alpha1.FailurePullFailed })
	s.untilAdapter("parity", "False LoadFailed")
	s.until("blob", func() string {
		if _, err := os.Stat(blob); err != nil {
			return "lost"
		}
		return "there"
	}, "there")
	s.set(func() { clear(s.failing) })
	s.untilAdapter("parity", "True Serving")
}
