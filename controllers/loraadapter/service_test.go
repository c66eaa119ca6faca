package loraadapter

import (
	"encoding/json"
	"maps"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/switchyard-dev/switchyard/test/wrappers"
)

// An adapter's Service has its name, is its own, and leads to its pool's pods, but not to their metrics.
func TestService(t *testing.T) {
	adapter := wrappers.LoRAAdapter("demo", "parity").UID("1").Pool("digits").Obj()
	raw, err := json.Marshal(service(adapter))
	if err != nil {
		t.Fatal(err)
	}
	var s corev1.Service
	if err := json.Unmarshal(raw, &s); err != nil {
		t.Fatal(err)
	}
	if s.Namespace != "demo" || s.Name != "parity" || !metav1.IsControlledBy(&s, adapter) ||
		!maps.Equal(s.Spec.Selector, map[string]string{"switchyard.dev/pool": "digits"}) {
		t.Errorf("found %+v", s)
	}
	if len(s.Spec.Ports) != 2 || s.Spec.Ports[0].Port != 8080 || s.Spec.Ports[1].Port != 8081 {
		t.Errorf("expected the ports http and grpc, found %+v", s.Spec.Ports)
	}
	want := map[string]string{
		"switchyard.dev/pool": "digits", "app.kubernetes.io/name": "switchyard", "app.kubernetes.io/component": "adapter",
		"app.kubernetes.io/instance": "parity", "app.kubernetes.io/managed-by": "switchyard",
	}
	if !maps.Equal(s.Labels, want) {
		t.Errorf("expected %v, found %v", want, s.Labels)
	}
}
