package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/switchyard-dev/switchyard/api/v1alpha1"
	"github.com/switchyard-dev/switchyard/controllers/endpoint"
	"github.com/switchyard-dev/switchyard/test/wrappers"
)

// service is the Service of a name, or nil.
func (s *space) service(name string) *corev1.Service {
	s.t.Helper()
	var found corev1.Service
	if err := admin.Get(s.ctx, client.ObjectKey{Namespace: s.namespace, Name: name}, &found); err != nil {
		if !apierrors.IsNotFound(err) {
			s.t.Fatal(err)
		}
		return nil
	}
	return &found
}

// leads is what the Service of an adapter or a pool is, in a line: whose, to which pods, and by which ports.
func (s *space) leads(owner client.Object) string {
	found := s.service(owner.GetName())
	switch {
	case found == nil:
		return "none"
	case !metav1.IsControlledBy(found, owner):
		return "another's"
	}
	var ports []string
	for _, p := range found.Spec.Ports {
		ports = append(ports, fmt.Sprintf("%s:%d:%s", p.Name, p.Port, p.TargetPort.String()))
	}
	return fmt.Sprintf("labelled %s, to %v by %v", found.Labels[v1alpha1.LabelPool], found.Spec.Selector, ports)
}

// hold keeps a Service from being gone when it is deleted, or lets it go.
func (s *space) hold(name string, held bool) {
	s.t.Helper()
	finalizers := "[]"
	if held {
		finalizers = `["example.com/held"]`
	}
	patch := client.RawPatch(types.MergePatchType, fmt.Appendf(nil, `{"metadata":{"finalizers":%s}}`, finalizers))
	if err := admin.Patch(s.ctx, s.service(name), patch); err != nil {
		s.t.Fatal(err)
	}
}

const leadsToDigits = "labelled digits, to map[switchyard.dev/pool:digits] by [http:8080:8080 grpc:8081:8081]"

// An adapter's Service waits for its name to be free, is mended, goes with the wish for it, and goes with the adapter.
func TestTheLifeOfAnAdaptersService(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	strange := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: "parity"},
		Spec:       corev1.ServiceSpec{Selector: map[string]string{"app": "mine"}, Ports: []corev1.ServicePort{{Port: 1}}},
	}
	adapter := func() *v1alpha1.LoRAAdapter {
		return wrappers.LoRAAdapter(s.namespace, "parity").Pool("digits").Source(ref("parity")).Service().Obj()
	}
	s.create(strange, s.pool("digits").Obj())
	s.untilPool("digits", "False NoPods") // or the adapter might be told of first, and a missing pool be an event
	s.create(adapter())
	s.runPods("digits", 1)
	var taken *v1alpha1.LoRAAdapter
	s.until("a name that is another's", func() string {
		taken = s.untilAdapter("parity", "False NameTaken")
		return says(taken.Generation, taken.Status.Conditions, "Available", "Stalled", "Reconciling") +
			fmt.Sprintf(", %+v", taken.Status.Pods)
	}, "Available=True Serving, Stalled=True NameTaken, Reconciling=–, {Desired:1 Ready:1 Failed:0}")
	ready := apimeta.FindStatusCondition(taken.Status.Conditions, v1alpha1.ConditionReady)
	if want := `Service "parity" exists and is not the adapter's: it is left as it is`; ready.Message != want {
		t.Errorf("expected %q, found %q", want, ready.Message)
	}
	if found := s.service("parity"); found.UID != strange.UID || found.ResourceVersion != strange.ResourceVersion {
		t.Errorf("another's Service was changed: %+v", found)
	}

	s.remove(strange)
	live := s.untilAdapter("parity", "True Serving")
	if found := s.leads(live); found != leadsToDigits {
		t.Errorf("expected %s, found %s", leadsToDigits, found)
	}
	s.until("events", func() string { return s.events("parity") }, "NameTaken Resolved Serving")

	for name, damage := range map[string]string{
		"number":   `{"spec":{"ports":[{"name":"http","port":80,"targetPort":8080},{"name":"grpc","port":8081}]}}`,
		"selector": `{"spec":{"selector":{"switchyard.dev/pool":"other"}}}`,
		"ports":    `{"spec":{"ports":[{"name":"http","port":8080,"targetPort":9090}]}}`,
		"label":    `{"metadata":{"labels":{"switchyard.dev/pool":null}}}`,
	} {
		patch := client.RawPatch(types.MergePatchType, []byte(damage))
		if err := admin.Patch(s.ctx, s.service("parity"), patch); err != nil {
			t.Fatal(err)
		}
		s.until("mended "+name, func() string { return s.leads(live) }, leadsToDigits)
		s.untilAdapter("parity", "True Serving")
	}
	// Somebody else's to say is how else it is reached.
	reached := client.RawPatch(types.MergePatchType, []byte(
		`{"spec":{"type":"NodePort","externalIPs":["192.0.2.1"],"ports":[{"name":"http","port":80}]}}`))
	if err := admin.Patch(s.ctx, s.service("parity"), reached); err != nil {
		t.Fatal(err)
	}
	s.until("mended, as it is reached", func() string {
		found := s.service("parity").Spec
		return fmt.Sprintf("%s at %s %s", found.Type, found.ExternalIPs, s.leads(live))
	}, "NodePort at [192.0.2.1] "+leadsToDigits)
	s.remove(s.service("parity"))
	s.until("made again", func() string { return s.leads(live) }, leadsToDigits)

	s.change("parity", func(spec *v1alpha1.LoRAAdapterSpec) { spec.Service = false })
	s.until("not asked for", func() string { return s.leads(live) }, "none")
	s.untilAdapter("parity", "True Serving")
	s.change("parity", func(spec *v1alpha1.LoRAAdapterSpec) { spec.Service = true })
	s.until("asked for again", func() string { return s.leads(live) }, leadsToDigits)

	// Its successor of the same name has one of its own, once the garbage collector has taken the former's.
	s.hold("parity", true)
	s.remove(live)
	s.create(adapter())
	next := s.untilAdapter("parity", "False Progressing")
	if found := s.leads(live); found != leadsToDigits {
		t.Errorf("expected the former's as it was, found %s", found)
	}
	s.hold("parity", false)
	s.untilAdapter("parity", "True Serving")
	s.until("the successor's", func() string { return s.leads(next) }, leadsToDigits)
	s.remove(next)
	s.until("gone with it", func() string { return s.leads(next) }, "none")
}

// What somebody put into a pool's objects stays, unless the pool's own cannot be had beside it: a port of another
// number with the name of one of the pool's, or another way to ask whether a pod is ready.
func TestWhatCannotStandBesideAPoolsOwnGoes(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.create(s.pool("digits").Obj())
	pool := s.untilPool("digits", "False NoPods")
	const own = "labelled digits, to map[switchyard.dev/pool:digits] by [http:8080:8080 grpc:8081:8081 metrics:9090:9090"
	change := func(o client.Object, kind types.PatchType, patch string) {
		t.Helper()
		if err := admin.Patch(s.ctx, o, client.RawPatch(kind, []byte(patch))); err != nil {
			t.Fatal(err)
		}
	}
	service := s.service("digits")
	change(service, types.JSONPatchType, `[{"op":"add","path":"/spec/ports/-","value":{"name":"more","port":7}},
		{"op":"replace","path":"/spec/ports/1/appProtocol","value":"mine"}]`)
	protocol := func() string { return *s.service("digits").Spec.Ports[1].AppProtocol }
	s.until("mended", protocol, "kubernetes.io/h2c")
	if found := s.leads(pool); found != own+" more:7:7]" {
		t.Errorf("expected %s and one more, found %s", own, found)
	}
	change(service, types.MergePatchType, `{"spec":{"ports":[{"name":"http","port":80},{"name":"metrics","port":8080}]}}`)
	s.until("replaced", func() string { return s.leads(pool) }, own+"]")

	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: "digits"}}
	change(d, types.JSONPatchType, `[{"op":"replace","path":"/spec/template/spec/containers/0/readinessProbe",
		"value":{"exec":{"command":["true"]}}}]`)
	s.until("the probe", func() string {
		if err := admin.Get(s.ctx, client.ObjectKeyFromObject(d), d); err != nil {
			t.Fatal(err)
		}
		probe := d.Spec.Template.Spec.Containers[0].ReadinessProbe
		return fmt.Sprintf("exec %v, http %v", probe.Exec != nil, probe.HTTPGet != nil)
	}, "exec false, http true")

	// A later version takes away what it does not want any more of what was applied, and of nothing else.
	for _, o := range []client.Object{service, d} {
		s.until("applied", func() string {
			if err := admin.Get(s.ctx, client.ObjectKeyFromObject(o), o); err != nil {
				t.Fatal(err)
			}
			var by []string
			for _, f := range o.GetManagedFields() {
				if f.Manager == "switchyard-inferencepool" {
					by = append(by, string(f.Operation))
				}
			}
			return strings.Join(by, " ")
		}, "Apply")
	}
}

// A pool is not Ready by what is left of a former one of its name.
func TestTheServiceOfAFormerPool(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	former := s.pool("digits").Obj()
	s.create(former)
	s.runPods("digits", 1)
	s.untilPool("digits", "True Serving")
	s.hold("digits", true)
	s.remove(former)
	s.until("the former's pods", func() string { return strconv.Itoa(len(s.pods("digits"))) }, "0")
	pool := s.pool("digits").Obj()
	s.create(pool)
	s.runPods("digits", 1)
	ready := func() string {
		now := s.untilPool("digits", "False RollingOut")
		return apimeta.FindStatusCondition(now.Status.Conditions, v1alpha1.ConditionReady).Message
	}
	s.until("the Service", ready, "the Service is on its way")
	s.hold("digits", false)
	s.untilPool("digits", "True Serving")
	if !metav1.IsControlledBy(s.service("digits"), pool) {
		t.Errorf("found %+v", s.service("digits"))
	}
}

// The Service of an adapter that does not ask for one any more is left to whom it was given.
func TestAServiceThatWasGivenAway(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.create(s.pool("digits").Obj(),
		wrappers.LoRAAdapter(s.namespace, "parity").Pool("digits").Source(ref("parity")).Service().Obj())
	s.runPods("digits", 1)
	live := s.untilAdapter("parity", "True Serving")
	patch := client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"ownerReferences":null}}`))
	if err := admin.Patch(s.ctx, s.service("parity"), patch); err != nil {
		t.Fatal(err)
	}
	s.untilAdapter("parity", "False NameTaken")
	s.change("parity", func(spec *v1alpha1.LoRAAdapterSpec) { spec.Service = false })
	s.untilAdapter("parity", "True Serving")
	if found := s.leads(live); found != "another's" {
		t.Errorf("expected it left alone, found %s", found)
	}
}

// A Service that the API server does not take is told of, and made once it does.
func TestAServiceThatIsRefused(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	one := corev1.ResourceList{corev1.ResourceServices: resource.MustParse("1")}
	quota := &corev1.ResourceQuota{
		ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: "one"}, Spec: corev1.ResourceQuotaSpec{Hard: one},
	}
	s.create(s.pool("digits").Obj(), quota)
	s.runPods("digits", 1)
	quota.Status = corev1.ResourceQuotaStatus{Hard: one, Used: one} // the pool's own; nobody counts here
	if err := admin.Status().Update(s.ctx, quota); err != nil {
		t.Fatal(err)
	}
	s.until("the quota", func() string {
		return string(apierrors.ReasonForError(client.NewDryRunClient(admin).Create(s.ctx, &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: "second"},
			Spec:       corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 1}}},
		})))
	}, string(metav1.StatusReasonForbidden))
	s.create(wrappers.LoRAAdapter(s.namespace, "parity").Pool("digits").Source(ref("parity")).Service().Obj())
	refused := s.untilAdapter("parity", "False ObjectRefused")
	ready := apimeta.FindStatusCondition(refused.Status.Conditions, v1alpha1.ConditionReady)
	if want := "the API server refuses it: service parity: "; !strings.HasPrefix(ready.Message, want) ||
		!strings.Contains(ready.Message, "exceeded quota") ||
		!apimeta.IsStatusConditionTrue(refused.Status.Conditions, v1alpha1.ConditionStalled) {
		t.Errorf("expected it Stalled with %q and the quota, found %+v", want, refused.Status.Conditions)
	}
	s.remove(quota)
	live := s.untilAdapter("parity", "True Serving")
	if found := s.leads(live); found != leadsToDigits {
		t.Errorf("expected %s, found %s", leadsToDigits, found)
	}
}

// The manager, whose rights are everywhere, makes and deletes Services of adapters under their names, and no others.
func TestTheManagerKeepsToServicesOfAdapters(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	strange := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: "strange"},
		Spec:       corev1.ServiceSpec{Selector: endpoint.Selector("digits"), Ports: []corev1.ServicePort{{Port: 1}}},
	}
	s.create(s.pool("digits").Obj(), strange,
		wrappers.LoRAAdapter(s.namespace, "parity").Pool("digits").Source(ref("parity")).Service().Obj())
	s.runPods("digits", 1)
	adapter := s.untilAdapter("parity", "True Serving")
	manager := holder(t, system, managerAccount, nil)

	owner := func(name string) metav1.OwnerReference {
		return metav1.OwnerReference{
			APIVersion: v1alpha1.GroupVersion.String(), Kind: "LoRAAdapter", Name: name, UID: adapter.UID, Controller: new(true),
		}
	}
	create := func(o client.Object) func(client.Client) error {
		return func(c client.Client) error { return c.Create(s.ctx, o.DeepCopyObject().(client.Object)) }
	}
	made := func(name, of string) *corev1.Service {
		return &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: s.namespace, Name: name, OwnerReferences: []metav1.OwnerReference{owner(of)},
			},
			Spec: corev1.ServiceSpec{Selector: endpoint.Selector("digits"), Ports: []corev1.ServicePort{{Port: 1}}},
		}
	}
	const writes = "the manager writes only objects that an InferencePool owns, or Services that the LoRAAdapter of"
	refused(t, manager, create(made("other", "parity")), writes)
	refused(t, manager, create(&corev1.ServiceAccount{ObjectMeta: made("parity", "parity").ObjectMeta}), writes)
	foreign := made("parity-2", "parity-2")
	foreign.OwnerReferences[0].APIVersion = "example.com/v1"
	refused(t, manager, create(foreign), writes)
	if err := create(made("parity-2", "parity-2"))(client.NewDryRunClient(manager)); err != nil {
		t.Errorf("a Service of an adapter's: %v", err)
	}
	for says, change := range map[string]func(*corev1.ServiceSpec){
		"lead to pods of pools": func(spec *corev1.ServiceSpec) { spec.Selector = map[string]string{"app": "mine"} },
		"have the addresses that the cluster gives them, or somebody": func(spec *corev1.ServiceSpec) {
			spec.ExternalIPs = []string{"192.0.2.1"}
		},
		"have the addresses that the cluster gives": func(spec *corev1.ServiceSpec) {
			spec.Type = corev1.ServiceTypeNodePort
		},
	} {
		other := made("parity-2", "parity-2")
		change(&other.Spec)
		refused(t, manager, create(other), "the manager's Services "+says)
		refused(t, manager, func(c client.Client) error {
			own := s.service("parity")
			changed := own.DeepCopy()
			change(&changed.Spec)
			return c.Patch(s.ctx, changed, client.MergeFrom(own))
		}, "the manager's Services "+says)
	}
	claim := made("strange", "strange").OwnerReferences
	refused(t, manager, func(c client.Client) error {
		after := strange.DeepCopy()
		after.OwnerReferences = claim
		return c.Patch(s.ctx, after, client.MergeFrom(strange))
	}, writes)

	remove := func(name string) func(client.Client) error {
		return func(c client.Client) error { return c.Delete(s.ctx, s.service(name)) }
	}
	const deletes = "the manager deletes only Services that the LoRAAdapter of their name owns"
	refused(t, manager, remove("strange"), deletes)
	refused(t, manager, remove("digits"), deletes) // the pool's
	if err := remove("parity")(client.NewDryRunClient(manager)); err != nil {
		t.Errorf("the Service of an adapter: %v", err)
	}
}

// Other times of batches are another template, whose pods take the former ones' place.
func TestOtherTimesOfBatchesReplaceThePods(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.create(s.pool("digits").Obj())
	former := s.runPods("digits", 1)[0]
	pool := s.untilPool("digits", "True Serving")
	if want := (v1alpha1.Endpoint{
		HTTP: "http://digits." + s.namespace + ".svc:8080", GRPC: "digits." + s.namespace + ".svc:8081",
	}); pool.Status.Endpoint != want {
		t.Errorf("expected %+v, found %+v", want, pool.Status.Endpoint)
	}
	err := retry.RetryOnConflict(retry.DefaultRetry, func() error {
		changed := s.untilPool("digits", "True Serving")
		changed.Spec.Batching = wrappers.Pool("", "").Batching(50, 500, 1).Obj().Spec.Batching
		return admin.Update(s.ctx, changed)
	})
	if err != nil {
		t.Fatal(err)
	}
	times := func(spec corev1.PodSpec) string {
		args := slices.DeleteFunc(slices.Clone(spec.Containers[0].Args), func(arg string) bool {
			return !strings.Contains(arg, "-milliseconds=")
		})
		return strings.Join(args, " ")
	}
	if found := times(former.Spec); found !=
		"--max-batch-milliseconds=100 --max-queue-milliseconds=2000 --max-delay-milliseconds=0" {
		t.Errorf("expected the API server's defaults, found %s", found)
	}
	const want = "--max-batch-milliseconds=50 --max-queue-milliseconds=500 --max-delay-milliseconds=1"
	s.until("the template", func() string {
		var d appsv1.Deployment
		if err := admin.Get(s.ctx, client.ObjectKey{Namespace: s.namespace, Name: "digits"}, &d); err != nil {
			t.Fatal(err)
		}
		return times(d.Spec.Template.Spec)
	}, want)
	s.runPods("digits", 2) // one more than wanted, until it is ready
	s.until("the successor alone", func() string {
		var found []string
		for _, pod := range s.pods("digits") {
			found = append(found, times(pod.Spec))
		}
		return strings.Join(found, ", ")
	}, want)
}

// Of Services the cache has those of pools and adapters whole, and of all others whose they are.
func TestOthersServicesAreNames(t *testing.T) {
	for owner, whole := range map[string]bool{
		"switchyard.dev/v1alpha1": true, "switchyard.dev/v2": true,
		"switchyard.developers/v1": false, "apps/v1": false, "": false,
	} {
		s := &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: "demo", Name: "parity", UID: "1", ResourceVersion: "2", Annotations: map[string]string{"a": "b"},
			},
			Spec: corev1.ServiceSpec{ClusterIP: "10.0.0.1"},
		}
		if owner != "" {
			s.OwnerReferences = []metav1.OwnerReference{{APIVersion: owner, UID: "3", Controller: new(true)}}
		}
		kept, err := leanService(s)
		if err != nil {
			t.Fatal(err)
		}
		lean := kept.(*corev1.Service)
		if lean.Namespace != "demo" || lean.Name != "parity" || lean.UID != "1" || lean.ResourceVersion != "2" ||
			len(lean.OwnerReferences) != len(s.OwnerReferences) {
			t.Errorf("of %q: found %+v", owner, lean)
		}
		if found := lean.Spec.ClusterIP != "" && lean.Annotations != nil; found != whole {
			t.Errorf("of %q: expected whole %v, found %+v", owner, whole, lean)
		}
	}
}
