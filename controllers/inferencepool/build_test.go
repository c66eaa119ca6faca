package inferencepool

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/switchyard-dev/switchyard/api/v1alpha1"
	"github.com/switchyard-dev/switchyard/test/wrappers"
)

// built is an apply configuration as the object it makes.
func built[T any](t *testing.T, wanted runtime.ApplyConfiguration) *T {
	t.Helper()
	raw, err := json.Marshal(wanted)
	if err != nil {
		t.Fatal(err)
	}
	o := new(T)
	if err := json.Unmarshal(raw, o); err != nil {
		t.Fatal(err)
	}
	return o
}

// way is a rule of a NetworkPolicy in a line: "TCP:53 UDP:53 to anywhere".
func way(ports []networkingv1.NetworkPolicyPort, peers []networkingv1.NetworkPolicyPeer) string {
	var words []string
	for _, p := range ports {
		words = append(words, string(*p.Protocol)+":"+p.Port.String())
	}
	where := " anywhere"
	for _, p := range peers {
		where = " namespace " + p.NamespaceSelector.MatchLabels["kubernetes.io/metadata.name"] +
			" component " + p.PodSelector.MatchLabels["app.kubernetes.io/component"]
	}
	return strings.Join(words, " ") + where
}

// A pool's pods are reached at their three ports, and reach names, the API server and the artifact registry.
func TestNetworkPolicy(t *testing.T) {
	pool := wrappers.Pool("demo", "digits").UID("1").Obj()
	for _, c := range []struct{ registry, namespace, want string }{
		{"http://registry.system.svc:5000", "system", "TCP:5000 namespace system component registry"},
		{"https://registry.system.svc:5001", "system", "TCP:5001 namespace system component registry"},
		{"https://registry.example", "", "TCP:443 anywhere"},
		{"http://registry.example", "", "TCP:80 anywhere"},
	} {
		r := Runtime{Registry: c.registry, RegistryNamespace: c.namespace}
		spec := built[networkingv1.NetworkPolicy](t, networkPolicy(pool, r)).Spec
		if len(spec.Ingress) != 1 || len(spec.Egress) != 3 || len(spec.PolicyTypes) != 2 ||
			spec.PodSelector.MatchLabels["switchyard.dev/pool"] != "digits" {
			t.Fatalf("found %+v", spec)
		}
		got := []string{way(spec.Ingress[0].Ports, spec.Ingress[0].From)}
		for _, e := range spec.Egress {
			got = append(got, way(e.Ports, e.To))
		}
		want := "TCP:8080 TCP:8081 TCP:9090 anywhere, UDP:53 TCP:53 anywhere, TCP:443 TCP:6443 anywhere, " + c.want
		if found := strings.Join(got, ", "); found != want {
			t.Errorf("expected %s, found %s", want, found)
		}
	}
}

// The pool's Service has all ports of its pods, and so has their container; the probes ask over HTTP alone.
func TestPorts(t *testing.T) {
	pool := wrappers.Pool("demo", "digits").UID("1").Obj()
	made := built[corev1.Service](t, service(pool))
	if !metav1.IsControlledBy(made, pool) || made.Name != "digits" || made.Labels[v1alpha1.LabelPool] != "digits" {
		t.Errorf("found %+v", made.ObjectMeta)
	}
	want := "http 8080, grpc 8081, metrics 9090"
	var ports []string
	for _, p := range made.Spec.Ports {
		ports = append(ports, p.Name+" "+p.TargetPort.String())
	}
	if found := strings.Join(ports, ", "); found != want {
		t.Errorf("of the Service: expected %s, found %s", want, found)
	}
	c := built[appsv1.Deployment](t, deployment(pool, "sha256:base", Runtime{})).Spec.Template.Spec.Containers[0]
	ports = nil
	for _, p := range c.Ports {
		number := strconv.Itoa(int(p.ContainerPort))
		ports = append(ports, p.Name+" "+number)
		if flag := "--" + p.Name + "-address=$(POD_IP):" + number; !slices.Contains(c.Args, flag) {
			t.Errorf("expected %s, found %v", flag, c.Args)
		}
	}
	if found := strings.Join(ports, ", "); found != want {
		t.Errorf("of the container: expected %s, found %s", want, found)
	}
	for _, probe := range []*corev1.Probe{c.StartupProbe, c.ReadinessProbe, c.LivenessProbe} {
		if probe.HTTPGet == nil || probe.HTTPGet.Port.IntVal != 8080 {
			t.Errorf("expected a probe over HTTP, found %+v", probe)
		}
	}
}

// One pod at a time, ready ones only; and the agents' account has the role of all agents, in its namespace.
func TestBudgetAndBinding(t *testing.T) {
	pool := wrappers.Pool("demo", "digits").UID("1").Obj()
	budget := built[policyv1.PodDisruptionBudget](t, disruptionBudget(pool))
	if budget.Spec.MaxUnavailable.IntVal != 1 || budget.Spec.MinAvailable != nil ||
		*budget.Spec.UnhealthyPodEvictionPolicy != policyv1.AlwaysAllow ||
		budget.Spec.Selector.MatchLabels["switchyard.dev/pool"] != "digits" {
		t.Errorf("found %+v", budget.Spec)
	}
	binding := built[rbacv1.RoleBinding](t, roleBinding(pool, Runtime{ClusterRole: "runtime"}))
	if binding.RoleRef != (rbacv1.RoleRef{APIGroup: "rbac.authorization.k8s.io", Kind: "ClusterRole", Name: "runtime"}) ||
		len(binding.Subjects) != 1 ||
		binding.Subjects[0] != (rbacv1.Subject{Kind: "ServiceAccount", Namespace: "demo", Name: "digits-runtime"}) {
		t.Errorf("found %+v", binding)
	}
}
