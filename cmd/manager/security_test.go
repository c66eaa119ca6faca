package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/switchyard-dev/switchyard/api/v1alpha1"
)

// warnings are what the API server says beside its answers.
type warnings struct {
	mu    sync.Mutex
	texts []string
}

// HandleWarningHeader implements rest.WarningHandler.
func (w *warnings) HandleWarningHeader(_ int, _, text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.texts = append(w.texts, text)
}

func (w *warnings) take() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	texts := w.texts
	w.texts = nil
	return texts
}

// Every pod of Switchyard's is one that restricted pod security takes without a word, writes nowhere but to its
// volumes, has no capabilities, and no service account but one of its own. The user's part of a pool's pods changes
// none of it.
func TestPodsAreRestricted(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	class := &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: s.namespace}, Value: 1}
	s.create(class)
	t.Cleanup(func() { _ = admin.Delete(s.ctx, class) }) // of a cluster that ends with the tests
	pool := s.pool("digits").Obj()
	team := &metav1.LabelSelector{MatchLabels: map[string]string{"team": "a"}}
	pool.Spec.Template = v1alpha1.PodTemplate{
		Labels: map[string]string{"team": "a"}, Annotations: map[string]string{"note": "b"},
		Resources: corev1.ResourceRequirements{
			Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1")},
			Limits:   corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("8Gi")},
		},
		NodeSelector: map[string]string{"disk": "fast"}, PriorityClassName: class.Name,
		Tolerations:      []corev1.Toleration{{Operator: corev1.TolerationOpExists}},
		ImagePullSecrets: []corev1.LocalObjectReference{{Name: "pull"}},
		Affinity: &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{
			RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{
				{TopologyKey: "kubernetes.io/hostname", LabelSelector: team},
			},
		}},
		TopologySpreadConstraints: []corev1.TopologySpreadConstraint{
			{
				MaxSkew: 1, TopologyKey: "topology.kubernetes.io/zone", WhenUnsatisfiable: corev1.ScheduleAnyway,
				LabelSelector: team,
			},
		},
	}
	s.create(pool)
	s.runPods("digits", 1) // its namespace enforces what the templates are held to below

	strict := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "strict-", Labels: map[string]string{
		"pod-security.kubernetes.io/enforce": "restricted", "pod-security.kubernetes.io/warn": "restricted",
	}}}
	s.create(strict)
	var said warnings
	config := plane.Config()
	config.WarningHandler = &said
	warned := client.NewDryRunClient(clientOf(t, config))
	try := func(template corev1.PodTemplateSpec) error {
		pod := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: strict.Name, Name: "x", Labels: template.Labels}, Spec: template.Spec,
		}
		pod.Spec.ServiceAccountName = "default" // the account is another namespace's
		return warned.Create(s.ctx, pod)
	}
	s.until("the namespace's account", func() string {
		return string(apierrors.ReasonForError(try(corev1.PodTemplateSpec{Spec: corev1.PodSpec{
			HostNetwork: true, Containers: []corev1.Container{{Name: "x", Image: "x"}},
		}})))
	}, string(metav1.StatusReasonForbidden))
	said.take()

	for _, key := range []client.ObjectKey{
		{Namespace: system, Name: "switchyard-manager"},
		{Namespace: system, Name: "switchyard-registry"},
		{Namespace: s.namespace, Name: "digits"},
	} {
		var d appsv1.Deployment
		if err := admin.Get(s.ctx, key, &d); err != nil {
			t.Fatal(err)
		}
		if err := try(d.Spec.Template); err != nil {
			t.Errorf("%s: %v", key.Name, err)
		}
		if texts := said.take(); len(texts) > 0 {
			t.Errorf("%s: found warnings %q", key.Name, texts)
		}
		confined(t, key.Name, d.Spec.Template.Spec)
		if automount := d.Spec.Template.Spec.AutomountServiceAccountToken; key.Name == "digits" &&
			(automount == nil || *automount) {
			t.Error("a pool's pods have tokens beside those that they project")
		}
	}
	// The controllers make the pods of config's Deployments in their restricted namespace.
	for _, component := range []string{"manager", "registry"} {
		s.until("pods of the "+component, func() string {
			var list corev1.PodList
			err := admin.List(s.ctx, &list, client.InNamespace(system),
				client.MatchingLabels{"app.kubernetes.io/component": component})
			return strconv.FormatBool(err == nil && len(list.Items) > 0)
		}, "true")
	}
}

// confined looks at what pod security does not.
func confined(t *testing.T, name string, spec corev1.PodSpec) {
	t.Helper()
	if account := spec.ServiceAccountName; (account == "" || account == "default") &&
		(spec.AutomountServiceAccountToken == nil || *spec.AutomountServiceAccountToken) {
		t.Errorf("%s: has the token of an account that is not its own", name)
	}
	for _, c := range slices.Concat(spec.InitContainers, spec.Containers) {
		security := c.SecurityContext
		if security == nil || security.ReadOnlyRootFilesystem == nil || !*security.ReadOnlyRootFilesystem ||
			security.Capabilities == nil || len(security.Capabilities.Add) > 0 ||
			!slices.Equal(security.Capabilities.Drop, []corev1.Capability{"ALL"}) {
			t.Errorf("%s: container %s: expected a read-only root and no capabilities, found %+v", name, c.Name, security)
		}
	}
}

// evict asks for what a drain asks for.
func (s *space) evict(pod *corev1.Pod) error {
	return admin.SubResource("eviction").Create(s.ctx, pod, &policyv1.Eviction{
		ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name},
	})
}

// A drain takes one of a pool's ready pods at a time, waits for none that is not ready, and is not held up by a pool of
// one. The pool's pods are under its NetworkPolicy.
func TestDrains(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.create(s.pool("digits").Replicas(2).Obj(), s.pool("single").Obj())
	pods := s.runPods("digits", 2)
	allowed := func(pool string) func() string {
		return func() string {
			var b policyv1.PodDisruptionBudget
			if err := admin.Get(s.ctx, client.ObjectKey{Namespace: s.namespace, Name: pool}, &b); err != nil {
				return err.Error()
			}
			return fmt.Sprintf("%d of %d", b.Status.DisruptionsAllowed, b.Status.CurrentHealthy)
		}
	}
	s.until("budget", allowed("digits"), "1 of 2")
	if err := s.evict(&pods[0]); err != nil {
		t.Fatal(err)
	}
	s.until("budget", allowed("digits"), "0 of 1")
	if err := s.evict(&pods[1]); !apierrors.IsTooManyRequests(err) {
		t.Errorf("expected the budget to hold the only ready pod, found %v", err)
	}
	var unready *corev1.Pod
	s.until("a successor", func() string {
		for _, pod := range s.pods("digits") {
			if pod.Name != pods[1].Name {
				unready = &pod
			}
		}
		return strconv.FormatBool(unready != nil)
	}, "true")
	s.runPod(unready, s.started, false)
	if err := s.evict(unready); err != nil {
		t.Errorf("a pod that serves nobody: %v", err)
	}
	s.runPods("digits", 2)
	s.until("budget", allowed("digits"), "1 of 2")
	if err := s.evict(&pods[1]); err != nil {
		t.Errorf("the other pod, once there are two again: %v", err)
	}

	single := s.runPods("single", 1)
	s.until("budget", allowed("single"), "1 of 1")
	if err := s.evict(&single[0]); err != nil {
		t.Errorf("the pod of a pool of one: %v", err)
	}

	var policies networkingv1.NetworkPolicyList
	if err := admin.List(s.ctx, &policies, client.InNamespace(s.namespace)); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, p := range policies.Items {
		names = append(names, p.Name+" selects "+p.Spec.PodSelector.MatchLabels[v1alpha1.LabelPool])
	}
	if got := strings.Join(names, ", "); got != "digits selects digits, single selects single" {
		t.Errorf("found %s", got)
	}
}
