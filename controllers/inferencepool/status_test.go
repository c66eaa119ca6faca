package inferencepool

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/switchyard-dev/switchyard/api/v1alpha1"
	"github.com/switchyard-dev/switchyard/controllers/attempt"
	"github.com/switchyard-dev/switchyard/test/wrappers"
)

var now = metav1.NewTime(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC))

// rollout is a Deployment of two wanted pods in a state. How many are ready it may be late to know.
func rollout(replicas, updated int32) *appsv1.Deployment {
	two := int32(2)
	return &appsv1.Deployment{
		Spec:   appsv1.DeploymentSpec{Replicas: &two},
		Status: appsv1.DeploymentStatus{Replicas: replicas, UpdatedReplicas: updated, ReadyReplicas: 1},
	}
}

// refusing has its ReplicaSet told that a pod more is not to be had.
func refusing(d *appsv1.Deployment) *appsv1.Deployment {
	d.Status.Conditions = []appsv1.DeploymentCondition{
		{Type: appsv1.DeploymentReplicaFailure, Status: corev1.ConditionTrue, Message: "exceeded quota"},
	}
	return d
}

func brought() *attempt.Outcome[v1alpha1.ResolvedBaseModel] {
	return &attempt.Outcome[v1alpha1.ResolvedBaseModel]{
		Result: v1alpha1.ResolvedBaseModel{Digest: "sha256:base", Architecture: "ViT"},
	}
}

func failed(reason string) *attempt.Outcome[v1alpha1.ResolvedBaseModel] {
	return &attempt.Outcome[v1alpha1.ResolvedBaseModel]{
		Err: &attempt.Failure{Reason: reason, Message: "because"}, Failures: 1,
	}
}

func TestStatus(t *testing.T) {
	stale := rollout(2, 2)
	stale.Generation = 1
	for name, c := range map[string]struct {
		scope     scope
		known     bool
		noService bool
		want      string // Ready; of the others what is True
	}{
		"not yet asked": {want: "False Resolving: Reconciling"},
		"not there":     {scope: scope{outcome: failed("SourceNotFound")}, want: "False SourceNotFound: Stalled"},
		"no model":      {scope: scope{outcome: failed("InvalidBaseModel")}, want: "False InvalidBaseModel: Stalled"},
		"no answer": {
			scope: scope{outcome: failed("SourceUnreachable")},
			want:  "False SourceUnreachable: Reconciling",
		},
		"a name is taken": {
			scope: scope{outcome: brought(), taken: "Service x"},
			want:  "False NameTaken: BaseModelResolved Stalled",
		},
		"an object is refused": {
			scope: scope{outcome: brought(), refused: "Deployment x: invalid", deployment: rollout(2, 2), readyPods: 2},
			want:  "False ObjectRefused: BaseModelResolved Available Stalled",
		},
		"pods are refused": {
			scope: scope{outcome: brought(), deployment: refusing(rollout(1, 1)), readyPods: 1},
			want:  "False ObjectRefused: BaseModelResolved Available Stalled",
		},
		"pods were refused for a while": {
			scope: scope{outcome: brought(), deployment: refusing(rollout(2, 2)), readyPods: 2},
			want:  "True Serving: BaseModelResolved Available",
		},
		"memory for nothing": {
			scope: scope{outcome: brought(), small: "too small"},
			want:  "False ResourcesTooSmall: BaseModelResolved Stalled",
		},
		"memory for too little, and pods of before": {
			scope: scope{outcome: brought(), small: "too small", deployment: rollout(2, 2), readyPods: 2},
			want:  "False ResourcesTooSmall: BaseModelResolved Available Stalled",
		},
		"no Deployment yet": {scope: scope{outcome: brought()}, want: "False RollingOut: BaseModelResolved Reconciling"},
		"no pod ready": {
			scope: scope{outcome: brought(), deployment: rollout(2, 2), readyPods: 0},
			want:  "False NoPods: BaseModelResolved Reconciling",
		},
		"one pod ready": {
			scope: scope{outcome: brought(), deployment: rollout(2, 2), readyPods: 1},
			want:  "False RollingOut: BaseModelResolved Available Reconciling",
		},
		"old pods left": {
			scope: scope{outcome: brought(), deployment: rollout(3, 2), readyPods: 3},
			want:  "False RollingOut: BaseModelResolved Available Reconciling",
		},
		"of an old template": {
			scope: scope{outcome: brought(), deployment: rollout(2, 1), readyPods: 2},
			want:  "False RollingOut: BaseModelResolved Available Reconciling",
		},
		"a status of the former spec": {
			scope: scope{outcome: brought(), deployment: stale, readyPods: 2},
			want:  "False RollingOut: BaseModelResolved Available Reconciling",
		},
		"no Service yet": {
			scope: scope{outcome: brought(), deployment: rollout(2, 2), readyPods: 2}, noService: true,
			want: "False RollingOut: BaseModelResolved Available Reconciling",
		},
		"all ready": {
			scope: scope{outcome: brought(), deployment: rollout(2, 2), readyPods: 2},
			want:  "True Serving: BaseModelResolved Available",
		},
		"known after a restart of the manager": {
			scope: scope{deployment: rollout(2, 2), readyPods: 2}, known: true,
			want: "True Serving: BaseModelResolved Available",
		},
		"the artifact registry does not answer": {
			scope: scope{outcome: failed("StoreUnavailable"), deployment: rollout(2, 2), readyPods: 2}, known: true,
			want: "True Serving: BaseModelResolved Available",
		},
		"the base is lost": {
			scope: scope{outcome: failed("SourceNotFound"), deployment: rollout(2, 2), readyPods: 2}, known: true,
			want: "True Serving: Available",
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := c.scope
			b := wrappers.Pool("demo", "digits").Replicas(2).Generation(3)
			if c.known {
				b.Base("sha256:base", "ViT")
			}
			s.pool, s.now = b.Obj(), now
			if !c.noService {
				s.service = &corev1.Service{}
			}
			status := s.status()
			ready := apimeta.FindStatusCondition(status.Conditions, v1alpha1.ConditionReady)
			var more []string
			for _, kind := range []string{"BaseModelResolved", "Available", "Reconciling", "Stalled"} {
				if apimeta.IsStatusConditionTrue(status.Conditions, kind) {
					more = append(more, kind)
				}
			}
			if got := string(ready.Status) + " " + ready.Reason + ": " + strings.Join(more, " "); got != c.want {
				t.Errorf("expected %s, found %s", c.want, got)
			}
		})
	}
}

func TestEndpointAndCounts(t *testing.T) {
	ready := wrappers.LoRAAdapter("demo", "a").Obj()
	ready.Status.Conditions = []metav1.Condition{{Type: "Ready", Status: metav1.ConditionTrue}}
	broken := wrappers.LoRAAdapter("demo", "b").Obj()
	broken.Status.Conditions = []metav1.Condition{
		{Type: "Ready", Status: metav1.ConditionFalse}, {Type: "Stalled", Status: metav1.ConditionTrue},
	}
	s := scope{
		pool: wrappers.Pool("demo", "digits").Obj(), now: now,
		service:  &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "demo", Name: "digits"}},
		adapters: []v1alpha1.LoRAAdapter{*ready, *broken, *wrappers.LoRAAdapter("demo", "c").Obj()},
	}
	status := s.status()
	if want := (v1alpha1.AdapterCounts{Desired: 3, Ready: 1, Failed: 1}); status.Adapters != want {
		t.Errorf("expected %+v, found %+v", want, status.Adapters)
	}
	want := v1alpha1.Endpoint{HTTP: "http://digits.demo.svc:8080", GRPC: "digits.demo.svc:8081"}
	if status.Endpoint != want {
		t.Errorf("expected %+v, found %+v", want, status.Endpoint)
	}
	s.service = nil
	if status := s.status(); status.Endpoint != (v1alpha1.Endpoint{}) {
		t.Errorf("without a Service: found %+v", status.Endpoint)
	}
}

// The Deployment as it goes to the API server: what the user said, what the agent needs, and nothing that pod security
// would refuse.
func TestDeployment(t *testing.T) {
	pool := wrappers.Pool("demo", "digits").UID("1").Replicas(3).Obj()
	pool.Spec.Template = v1alpha1.PodTemplate{
		Labels: map[string]string{"team": "a", v1alpha1.LabelPool: "mine"}, Annotations: map[string]string{"note": "b"},
		Resources: corev1.ResourceRequirements{
			Limits: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("2")},
		},
		NodeSelector: map[string]string{"disk": "fast"}, PriorityClassName: "high",
		Tolerations:      []corev1.Toleration{{Key: "gpu", Operator: corev1.TolerationOpExists}},
		ImagePullSecrets: []corev1.LocalObjectReference{{Name: "pull"}},
		Affinity:         &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{}},
		TopologySpreadConstraints: []corev1.TopologySpreadConstraint{
			{MaxSkew: 1, TopologyKey: "zone", WhenUnsatisfiable: corev1.DoNotSchedule},
		},
	}
	raw, err := json.Marshal(deployment(pool, "sha256:base", Runtime{Image: "runtime", Registry: "https://registry:5000"}))
	if err != nil {
		t.Fatal(err)
	}
	var d appsv1.Deployment
	if err := json.Unmarshal(raw, &d); err != nil {
		t.Fatal(err)
	}
	template, spec := d.Spec.Template, d.Spec.Template.Spec
	owner := metav1.GetControllerOf(&d)
	if owner == nil || owner.UID != "1" || *d.Spec.Replicas != 3 ||
		d.Spec.Strategy.RollingUpdate.MaxUnavailable.IntVal != 0 || d.Spec.Strategy.RollingUpdate.MaxSurge.IntVal != 1 {
		t.Errorf("found %+v", d)
	}
	if template.Labels["team"] != "a" || template.Labels[v1alpha1.LabelPool] != "digits" ||
		template.Annotations["note"] != "b" || spec.NodeSelector["disk"] != "fast" || spec.PriorityClassName != "high" ||
		len(spec.Tolerations) != 1 || len(spec.ImagePullSecrets) != 1 || spec.Affinity.PodAntiAffinity == nil ||
		len(spec.TopologySpreadConstraints) != 1 {
		t.Errorf("found %+v", template)
	}
	c := spec.Containers[0]
	for _, arg := range []string{
		"agent", "--pool=digits", "--base-digest=sha256:base", "--dtype=float32", "--pod-name=$(POD_NAME)",
		"--repository=demo/digits",
		"--registry=https://registry:5000", "--http-address=$(POD_IP):8080",
		"--registry-token-file=/var/run/secrets/switchyard/registry/token",
		"--registry-ca-file=/var/run/secrets/switchyard/registry/ca.crt",
	} {
		if !slices.Contains(c.Args, arg) {
			t.Errorf("expected %s, found %v", arg, c.Args)
		}
	}
	if c.Resources.Limits.Cpu().Value() != 2 || c.ReadinessProbe.PeriodSeconds != 1 || c.LivenessProbe == nil ||
		!*spec.SecurityContext.RunAsNonRoot || *c.SecurityContext.AllowPrivilegeEscalation ||
		!*c.SecurityContext.ReadOnlyRootFilesystem || c.SecurityContext.Capabilities.Drop[0] != "ALL" ||
		*spec.AutomountServiceAccountToken || *spec.TerminationGracePeriodSeconds != 60 ||
		spec.ServiceAccountName != "digits-runtime" || len(spec.Volumes[1].Projected.Sources) != 3 {
		t.Errorf("found %+v", spec)
	}
	registry := spec.Volumes[2].Projected.Sources
	if token := registry[0].ServiceAccountToken; token.Audience != v1alpha1.RegistryAudience || token.Path != "token" {
		t.Errorf("expected a token for the artifact registry alone, found %+v", token)
	}
	if trusted := registry[1].ConfigMap; trusted.Name != "digits-runtime" || trusted.Items[0].Path != "ca.crt" {
		t.Errorf("expected the pool's certificates, found %+v", trusted)
	}
}

// Pods keep the base model as the spec says.
func TestPodsAreToldOfTheDType(t *testing.T) {
	for dtype, want := range map[v1alpha1.DType]string{
		"": "--dtype=float32", v1alpha1.DTypeFloat32: "--dtype=float32", v1alpha1.DTypeBFloat16: "--dtype=bfloat16",
	} {
		args := container(wrappers.Pool("demo", "digits").DType(dtype).Obj(), "sha256:base", Runtime{}).Args
		if !slices.Contains(args, want) {
			t.Errorf("%q: expected %s, found %v", dtype, want, args)
		}
	}
}

// Pods bound batches and their queue as the spec says, and as the API server fills it in where the spec says nothing.
func TestPodsAreToldOfBatching(t *testing.T) {
	for name, c := range map[string]struct {
		pool *wrappers.PoolBuilder
		want []string
	}{
		"nothing": {wrappers.Pool("demo", "digits"), []string{
			"--max-batch-milliseconds=100", "--max-queue-milliseconds=2000", "--max-delay-milliseconds=0",
		}},
		"all": {wrappers.Pool("demo", "digits").Batching(7, 70, 3), []string{
			"--max-batch-milliseconds=7", "--max-queue-milliseconds=70", "--max-delay-milliseconds=3",
		}},
	} {
		args := container(c.pool.Obj(), "sha256:base", Runtime{}).Args
		if found := args[len(args)-3:]; !slices.Equal(found, c.want) {
			t.Errorf("%s: expected %v, found %v", name, c.want, found)
		}
	}
}

// A pool without a memory limit runs without GOMEMLIMIT; one with a limit leaves a tenth of it free.
func TestGoIsToldOfTheLimit(t *testing.T) {
	for limit, want := range map[string]string{"": "", "2Gi": "1932735240"} {
		pool := wrappers.Pool("demo", "digits").MemoryLimit(limit).Obj()
		found := ""
		for _, v := range container(pool, "sha256:base", Runtime{}).Env {
			if *v.Name == "GOMEMLIMIT" {
				found = *v.Value
			}
		}
		if found != want {
			t.Errorf("limit %q: expected GOMEMLIMIT %q, found %q", limit, want, found)
		}
	}
}
