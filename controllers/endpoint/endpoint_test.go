package endpoint

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/switchyard-dev/switchyard/api/v1alpha1"
)

// A Service leads to the pods of its pool, whatever its own name is, by the ports that it is to have.
func TestService(t *testing.T) {
	raw, err := json.Marshal(Service("demo", "parity", "digits", HTTP, GRPC))
	if err != nil {
		t.Fatal(err)
	}
	var s corev1.Service
	if err := json.Unmarshal(raw, &s); err != nil {
		t.Fatal(err)
	}
	if s.Namespace != "demo" || s.Name != "parity" || len(s.Spec.Selector) != 1 ||
		s.Spec.Selector[v1alpha1.LabelPool] != "digits" {
		t.Errorf("found %+v", s)
	}
	var ports []string
	for _, p := range s.Spec.Ports {
		ports = append(ports,
			fmt.Sprintf("%s %s %d to %s as %s", p.Name, p.Protocol, p.Port, p.TargetPort.String(), *p.AppProtocol))
	}
	want := "http TCP 8080 to 8080 as http, grpc TCP 8081 to 8081 as kubernetes.io/h2c"
	if found := strings.Join(ports, ", "); found != want {
		t.Errorf("expected %s, found %s", want, found)
	}
}

func TestOf(t *testing.T) {
	for local, want := range map[string]v1alpha1.Endpoint{
		"":          {HTTP: "http://parity.demo.svc:8080", GRPC: "parity.demo.svc:8081"},
		"127.0.2.1": {HTTP: "http://127.0.2.1:8080", GRPC: "127.0.2.1:8081"},
	} {
		s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{
			Namespace: "demo", Name: "parity", Annotations: map[string]string{AnnotationLocalAddress: local},
		}}
		if found := Of(s); found != want {
			t.Errorf("%q: expected %+v, found %+v", local, want, found)
		}
	}
}
