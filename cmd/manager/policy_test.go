package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/switchyard-dev/switchyard/api/v1alpha1"
	"github.com/switchyard-dev/switchyard/controllers/endpoint"
	"github.com/switchyard-dev/switchyard/test/controlplane"
)

// clientOf speaks as a configuration says.
func clientOf(t *testing.T, config *rest.Config) client.Client {
	t.Helper()
	c, err := client.New(config, client.Options{Scheme: admin.Scheme(), Mapper: admin.RESTMapper()})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// holder speaks by a token of a service account, bound to a pod where one is given.
func holder(t *testing.T, namespace, account string, pod *corev1.Pod) client.Client {
	t.Helper()
	token, err := plane.Token(t.Context(), namespace, account, pod)
	if err != nil {
		t.Fatal(err)
	}
	return clientOf(t, plane.TokenConfig(token))
}

// impersonator is an admin who passes for another, with an admin's rights beside.
func impersonator(t *testing.T, who rest.ImpersonationConfig) client.Client {
	t.Helper()
	config := plane.Config()
	config.Impersonate = who
	config.Impersonate.Groups = append(slices.Clone(who.Groups), "system:masters")
	return clientOf(t, config)
}

// refused expects that a request is, and that the refusal says why. It is a dry run, tried until the API server, which
// learns of policies by a watch, knows them.
func refused(t *testing.T, c client.Client, try func(client.Client) error, want ...string) {
	t.Helper()
	var err error
	_ = wait.PollUntilContextTimeout(t.Context(), 10*time.Millisecond, within, true, func(context.Context) (bool, error) {
		err = try(client.NewDryRunClient(c))
		return apierrors.IsForbidden(err), nil
	})
	for _, text := range want {
		if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), text) {
			t.Errorf("expected a refusal that says %q, found %v", text, err)
		}
	}
}

func (s *space) assignment(name string) *v1alpha1.AdapterAssignment {
	s.t.Helper()
	var a v1alpha1.AdapterAssignment
	if err := admin.Get(s.ctx, client.ObjectKey{Namespace: s.namespace, Name: name}, &a); err != nil {
		s.t.Fatal(err)
	}
	return &a
}

// assigned waits until a pod has an assignment of its own.
func (s *space) assigned(pod *corev1.Pod) *v1alpha1.AdapterAssignment {
	s.t.Helper()
	var a v1alpha1.AdapterAssignment
	s.until("assignment", func() string {
		err := admin.Get(s.ctx, client.ObjectKeyFromObject(pod), &a)
		return strconv.FormatBool(err == nil && metav1.IsControlledBy(&a, pod))
	}, "true")
	return &a
}

// reporting writes a status as an agent does.
func (s *space) reporting(pod string, status v1alpha1.AdapterAssignmentStatus) func(client.Client) error {
	raw, _ := json.Marshal([]map[string]any{{"op": "add", "path": "/status", "value": status}})
	return func(c client.Client) error {
		a := &v1alpha1.AdapterAssignment{ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: pod}}
		return c.Status().Patch(s.ctx, a, client.RawPatch(types.JSONPatchType, raw))
	}
}

func status(bootID string, started time.Time, observed int64) v1alpha1.AdapterAssignmentStatus {
	at := metav1.NewTime(started.Truncate(time.Second))
	return v1alpha1.AdapterAssignmentStatus{BootID: bootID, StartedAt: &at, ObservedRevision: observed}
}

// A report is written by the pod that it is of: a token of another pod, of another pool, of a former pod, of the
// manager or of an admin is refused, and nothing is changed by it.
func TestOnlyAPodReportsOfItself(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.set(func() { s.silent = true })
	s.create(s.pool("digits").Replicas(2).Obj(), s.pool("other").Obj())
	pods, others := s.runPods("digits", 2), s.runPods("other", 1)
	own, neighbour, stranger := &pods[0], &pods[1], &others[0]
	before := s.assigned(own)
	s.assigned(neighbour)
	report := s.reporting(own.Name, status("forged", time.Now(), 1))
	expected := fmt.Sprintf(`written only by pod %q (UID %s) as system:serviceaccount:%s:digits-runtime; found `,
		own.Name, own.UID, s.namespace)
	account := "system:serviceaccount:" + s.namespace + ":digits-runtime"
	for name, c := range map[string]struct {
		client client.Client
		found  string
	}{
		"another pod of the pool": {
			holder(t, s.namespace, "digits-runtime", neighbour),
			fmt.Sprintf("%s in pod %q (UID %s)", account, neighbour.Name, neighbour.UID),
		},
		"a pod of another pool": {
			holder(t, s.namespace, "other-runtime", stranger),
			fmt.Sprintf("%s in pod %q", "system:serviceaccount:"+s.namespace+":other-runtime", stranger.Name),
		},
		"the account without a pod": {holder(t, s.namespace, "digits-runtime", nil), account + " without a pod"},
		"a former pod of the name": {
			impersonator(t, controlplane.AsPod(s.namespace, "digits-runtime", own.Name, "former")), "(UID former)",
		},
		"the pod under another account": {
			impersonator(t, controlplane.AsPod(s.namespace, "other-runtime", own.Name, own.UID)), ":other-runtime in pod",
		},
		"the account of another namespace": {
			impersonator(t, controlplane.AsPod("default", "digits-runtime", own.Name, own.UID)), ":default:digits-runtime",
		},
		"the manager": {
			impersonator(t, controlplane.AsServiceAccount(system, "switchyard-manager")), "switchyard-manager without a pod",
		},
		"an admin": {admin, "admin without a pod"},
	} {
		t.Run(name, func(t *testing.T) { refused(t, c.client, report, expected, c.found) })
	}
	// The token of a pod that is gone is nobody's.
	former := holder(t, s.namespace, "other-runtime", stranger)
	s.remove(stranger)
	s.until("a former pod's token", func() string {
		return string(apierrors.ReasonForError(s.reporting(stranger.Name, status("x", time.Now(), 1))(former)))
	}, string(metav1.StatusReasonUnauthorized))

	if diff := cmp.Diff(before, s.assignment(own.Name)); diff != "" {
		t.Errorf("refused reports changed something:\n%s", diff)
	}
	if err := report(holder(t, s.namespace, "digits-runtime", own)); err != nil {
		t.Errorf("the pod itself: %v", err)
	}
	if got := s.assignment(own.Name).Status.BootID; got != "forged" {
		t.Errorf("expected the pod's own report, found %q", got)
	}
}

// Reports go forward: what is of an earlier process, of an earlier revision or of none is refused.
func TestAReportFromThePast(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.set(func() { s.silent = true })
	s.create(s.pool("digits").Obj(), s.lora("parity", "parity"))
	pod := &s.runPods("digits", 1)[0]
	s.assigned(pod)
	s.until("a second revision", func() string { return strconv.FormatInt(s.assignment(pod.Name).Spec.Revision, 10) }, "2")
	agent := holder(t, s.namespace, "digits-runtime", pod)
	write := func(status v1alpha1.AdapterAssignmentStatus) {
		t.Helper()
		if err := s.reporting(pod.Name, status)(agent); err != nil {
			t.Errorf("%+v: %v", status, err)
		}
	}
	at := time.Now()
	write(status("a", at, 1))
	write(status("a", at, 2))
	for name, c := range map[string]struct {
		status v1alpha1.AdapterAssignmentStatus
		want   string
	}{
		"an earlier process":  {status("b", at.Add(-time.Second), 2), "a report from the past: expected one of a process"},
		"nothing":             {v1alpha1.AdapterAssignmentStatus{}, "found none"},
		"an earlier revision": {status("a", at, 1), "a report from the past: expected revision 2 or a later one"},
		"a revision to come":  {status("a", at, 3), "not written yet: expected at most 2, found 3"},
	} {
		t.Run(name, func(t *testing.T) { refused(t, agent, s.reporting(pod.Name, c.status), c.want) })
	}
	if got := s.assignment(pod.Name).Status; got.BootID != "a" || got.ObservedRevision != 2 {
		t.Errorf("refused reports changed something, found %+v", got)
	}
	write(status("b", at, 1)) // another process of the same second
	write(status("c", at.Add(time.Minute), 0))
	write(status("c", at.Add(time.Minute), 2))
	s.untilAdapter("parity", "True Serving")
}

// What a pod should hold, and whose pod it is, nobody but the manager writes. All else goes on: labels, deletion, and
// the garbage collector's work.
func TestOnlyTheManagerAssigns(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.create(s.pool("digits").Replicas(2).Obj(), s.lora("parity", "parity"))
	pods := s.runPods("digits", 2)
	s.untilServed("parity", 2)
	pod := pods[0].Name
	const want = "written only by system:serviceaccount:switchyard-system:switchyard-manager; found "
	change := func(edit func(*v1alpha1.AdapterAssignment)) func(client.Client) error {
		return func(c client.Client) error {
			a := s.assignment(pod)
			edit(a)
			return c.Update(s.ctx, a)
		}
	}
	refused(t, admin, change(func(a *v1alpha1.AdapterAssignment) { a.Spec.Adapters = nil }), want+"admin")
	refused(t, admin, change(func(a *v1alpha1.AdapterAssignment) { a.OwnerReferences = nil }), want)
	refused(t, admin, change(func(a *v1alpha1.AdapterAssignment) { a.OwnerReferences[0].UID = "another" }), want)
	refused(t, admin, func(c client.Client) error {
		a := s.assignment(pod).DeepCopy()
		a.Name, a.ResourceVersion, a.UID = "made-up", "", ""
		return c.Create(s.ctx, a)
	}, want)
	collector := controlplane.AsServiceAccount("kube-system", "generic-garbage-collector")
	refused(t, impersonator(t, collector), change(func(a *v1alpha1.AdapterAssignment) { a.Spec.Adapters = nil }), want)
	for _, c := range []client.Client{impersonator(t, collector)} {
		err := change(func(a *v1alpha1.AdapterAssignment) { a.OwnerReferences = nil })(client.NewDryRunClient(c))
		if err != nil {
			t.Errorf("the garbage collector takes owners away: %v", err)
		}
	}
	err := change(func(a *v1alpha1.AdapterAssignment) { a.Annotations = map[string]string{"note": "mine"} })(admin)
	if err != nil {
		t.Errorf("an annotation: %v", err)
	}

	// One that is deleted is written anew, and reported of anew.
	former := s.assignment(pod)
	s.remove(former)
	s.until("another assignment", func() string {
		return strconv.FormatBool(s.assigned(&pods[0]).UID != former.UID)
	}, "true")
	s.untilServed("parity", 2)
	// The collector of this control plane takes an owner away, and dependents with their owner.
	if err := admin.Delete(s.ctx, &pods[0], client.PropagationPolicy(metav1.DeletePropagationOrphan)); err != nil {
		t.Fatal(err)
	}
	s.until("an orphan", func() string { return strconv.Itoa(len(s.assignment(pod).OwnerReferences)) }, "0")
	s.remove(s.assignment(pod))
	s.remove(&pods[1])
	s.until("collected", func() string { return s.entries(pods[1].Name, nil) }, "none")
}

// A base model's digest is stored once.
func TestABaseDigestStays(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.create(s.pool("digits").Obj())
	s.untilPool("digits", "False NoPods")
	pool := s.untilPool("digits", "False NoPods")
	patch := func(name, base string) func(client.Client) error {
		return func(c client.Client) error {
			p := &v1alpha1.InferencePool{ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: name}}
			return c.Status().Patch(s.ctx, p,
				client.RawPatch(types.MergePatchType, []byte(`{"status":{"baseModel":`+base+`}}`)))
		}
	}
	digest := pool.Status.BaseModel.Digest
	manager := holder(t, system, "switchyard-manager", nil)
	for _, c := range []client.Client{admin, manager} {
		want := "once stored, stays: expected " + digest + ", found "
		refused(t, c, patch("digits", `{"digest":"sha256:another"}`), want+"sha256:another")
		refused(t, c, patch("digits", `{"digest":null}`), want+"none")
		refused(t, c, patch("digits", `null`), want+"none")
		if err := patch("digits", `{"architecture":"x"}`)(client.NewDryRunClient(c)); err != nil {
			t.Errorf("what else is known of the base: %v", err)
		}
	}
	s.create(s.pool("nowhere").Source(ref("nowhere")).Obj())
	s.untilPool("nowhere", "False SourceNotFound")
	if err := patch("nowhere", `{"digest":"sha256:first"}`)(client.NewDryRunClient(manager)); err != nil {
		t.Errorf("the first digest: %v", err)
	}
}

// The manager, whose rights are everywhere, writes the objects of pools and no others.
func TestTheManagerKeepsToPools(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.create(s.pool("digits").Obj(), s.pool("other").Obj())
	s.untilPool("digits", "False NoPods")
	s.untilPool("other", "False NoPods")
	manager := holder(t, system, "switchyard-manager", nil)
	var live appsv1.Deployment
	if err := admin.Get(s.ctx, client.ObjectKey{Namespace: s.namespace, Name: "digits"}, &live); err != nil {
		t.Fatal(err)
	}
	strange := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: "strange"},
		Spec:       corev1.ServiceSpec{Selector: endpoint.Selector("digits"), Ports: []corev1.ServicePort{{Port: 1}}},
	}
	s.create(strange)

	// second is a reference to another pool, which is not the controller.
	second := func(first metav1.OwnerReference) metav1.OwnerReference {
		first.Name, first.UID, first.Controller = "other", "uid-of-other", nil
		return first
	}
	const owned = "the manager writes only objects that an InferencePool owns"
	for name, c := range map[string]struct {
		edit func(*appsv1.Deployment)
		want string
	}{
		// Two policies have something against it, and either may be first to say so.
		"no owner":      {func(d *appsv1.Deployment) { d.OwnerReferences = nil }, "Policy 'switchyard-manager-"},
		"another owner": {func(d *appsv1.Deployment) { d.OwnerReferences[0].Kind = "Other" }, owned},
		"another account": {
			func(d *appsv1.Deployment) { d.Spec.Template.Spec.ServiceAccountName = "other-runtime" }, "run as the account",
		},
		"the account of a second owner": {
			func(d *appsv1.Deployment) {
				d.OwnerReferences = append(d.OwnerReferences, second(d.OwnerReferences[0]))
				d.Spec.Template.Spec.ServiceAccountName = "other-runtime"
			}, "run as the account",
		},
		"the host's network": {
			func(d *appsv1.Deployment) { d.Spec.Template.Spec.HostNetwork = true }, "nothing of their host",
		},
		"capabilities": {
			func(d *appsv1.Deployment) {
				d.Spec.Template.Spec.Containers[0].SecurityContext.Capabilities.Add = []corev1.Capability{"SYS_ADMIN"}
			}, "no capabilities",
		},
		"the first of two containers": {
			func(d *appsv1.Deployment) {
				d.Spec.Template.Spec.InitContainers = []corev1.Container{{Name: "first", Image: "x"}}
			}, "no capabilities",
		},
		"the host's files": {
			func(d *appsv1.Deployment) {
				d.Spec.Template.Spec.Volumes[0].VolumeSource = corev1.VolumeSource{
					HostPath: &corev1.HostPathVolumeSource{Path: "/"},
				}
			}, "no folder of their host",
		},
		"a Secret as a file": {
			func(d *appsv1.Deployment) {
				d.Spec.Template.Spec.Volumes[0].VolumeSource = corev1.VolumeSource{
					Secret: &corev1.SecretVolumeSource{SecretName: "x"},
				}
			}, "see no Secret",
		},
		"a Secret among others": {
			func(d *appsv1.Deployment) {
				p := d.Spec.Template.Spec.Volumes[1].Projected
				p.Sources = append(p.Sources, corev1.VolumeProjection{Secret: &corev1.SecretProjection{
					LocalObjectReference: corev1.LocalObjectReference{Name: "x"},
				}})
			}, "see no Secret",
		},
		"a Secret as a variable": {
			func(d *appsv1.Deployment) {
				c := &d.Spec.Template.Spec.Containers[0]
				c.Env = append(c.Env, corev1.EnvVar{Name: "X", ValueFrom: &corev1.EnvVarSource{
					SecretKeyRef: &corev1.SecretKeySelector{Key: "x", LocalObjectReference: corev1.LocalObjectReference{Name: "x"}},
				}})
			}, "see no Secret",
		},
	} {
		t.Run(name, func(t *testing.T) {
			refused(t, manager, func(dry client.Client) error {
				d := &appsv1.Deployment{
					ObjectMeta: metav1.ObjectMeta{
						Namespace: s.namespace, Name: "more", OwnerReferences: slices.Clone(live.OwnerReferences),
					},
					Spec: *live.Spec.DeepCopy(),
				}
				c.edit(d)
				return dry.Create(s.ctx, d)
			}, c.want)
		})
	}
	// Claiming what is another's is no way around it.
	claim, _ := json.Marshal(map[string]any{"metadata": map[string]any{"ownerReferences": live.OwnerReferences}})
	refused(t, manager, func(c client.Client) error {
		return c.Patch(s.ctx, strange.DeepCopy(), client.RawPatch(types.MergePatchType, claim))
	}, owned)

	owners := live.OwnerReferences
	secret := func(name string, kind corev1.SecretType) func(client.Client) error {
		return func(c client.Client) error {
			return c.Create(s.ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{
				Namespace: system, Name: name,
				Annotations: map[string]string{corev1.ServiceAccountNameKey: registryAccount},
			}, Type: kind, Data: map[string][]byte{corev1.TLSCertKey: nil, corev1.TLSPrivateKeyKey: nil}})
		}
	}
	const keeps = "the manager writes one Secret"
	refused(t, manager, secret("token", corev1.SecretTypeServiceAccountToken), keeps)
	refused(t, manager, secret("another", corev1.SecretTypeTLS), keeps)
	refused(t, manager, secret(certificatesSecret, corev1.SecretTypeServiceAccountToken), keeps)
	err := secret(certificatesSecret, corev1.SecretTypeTLS)(client.NewDryRunClient(manager))
	if !apierrors.IsAlreadyExists(err) {
		t.Errorf("the Secret with the certificate: expected it there already, found %v", err)
	}

	bind := func(role string, subject rbacv1.Subject) func(client.Client) error {
		return func(c client.Client) error {
			return c.Create(s.ctx, &rbacv1.RoleBinding{
				ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: "more", OwnerReferences: slices.Clone(owners)},
				RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
				Subjects:   []rbacv1.Subject{subject},
			})
		}
	}
	own := rbacv1.Subject{Kind: "ServiceAccount", Namespace: s.namespace, Name: "digits-runtime"}
	const binds = "the manager binds only the role switchyard-runtime"
	refused(t, manager, bind("switchyard-manager", own), binds)
	refused(t, manager, bind("cluster-admin", own), "attempting to grant RBAC permissions not currently held")
	refused(t, manager, bind("switchyard-runtime", rbacv1.Subject{
		Kind: "ServiceAccount", Namespace: "default", Name: "digits-runtime",
	}), binds)
	refused(t, manager, bind("switchyard-runtime", rbacv1.Subject{
		Kind: "ServiceAccount", Namespace: s.namespace, Name: "default",
	}), binds)
	refused(t, manager, bind("switchyard-runtime", rbacv1.Subject{
		Kind: "Group", APIGroup: rbacv1.GroupName, Name: "system:authenticated",
	}), binds)
	if err := bind("switchyard-runtime", own)(client.NewDryRunClient(manager)); err != nil {
		t.Errorf("the role of a pool's pods: %v", err)
	}
	owners = append(slices.Clone(owners), second(owners[0]))
	refused(t, manager, bind("switchyard-runtime", rbacv1.Subject{
		Kind: "ServiceAccount", Namespace: s.namespace, Name: "other-runtime",
	}), binds)
}

// The policies are bound, refuse where they cannot decide, and the API server finds no fault with their expressions.
func TestPoliciesAreWhole(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	var bindings admissionv1.ValidatingAdmissionPolicyBindingList
	if err := admin.List(t.Context(), &bindings); err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, b := range bindings.Items {
		if slices.Equal(b.Spec.ValidationActions, []admissionv1.ValidationAction{admissionv1.Deny, admissionv1.Audit}) &&
			b.Spec.MatchResources == nil {
			names[b.Spec.PolicyName] = true
		}
	}
	for _, name := range []string{
		"switchyard-assignment-status", "switchyard-assignment-spec", "switchyard-base-digest",
		"switchyard-manager-objects", "switchyard-manager-pods", "switchyard-manager-bindings",
		"switchyard-manager-secrets", "switchyard-manager-services", "switchyard-manager-deletions",
	} {
		var p admissionv1.ValidatingAdmissionPolicy
		s.until(name, func() string {
			if err := admin.Get(t.Context(), client.ObjectKey{Name: name}, &p); err != nil {
				return err.Error()
			}
			return strconv.FormatBool(p.Status.ObservedGeneration == p.Generation && p.Status.TypeChecking != nil)
		}, "true")
		if !names[name] || *p.Spec.FailurePolicy != admissionv1.Fail || len(p.Status.TypeChecking.ExpressionWarnings) != 0 {
			t.Errorf("%s: bound %v, %s, %+v", name, names[name], *p.Spec.FailurePolicy, p.Status.TypeChecking)
		}
		delete(names, name)
	}
	if len(names) != 0 {
		t.Errorf("policies without a test: %v", names)
	}
}
