// Package endpoint knows at which ports the pods of a pool are asked, and what a Service before them looks like: the
// pool's own, and those of adapters. It asks nobody for anything.
package endpoint

import (
	"fmt"
	"net"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	coreac "k8s.io/client-go/applyconfigurations/core/v1"

	"github.com/switchyard-dev/switchyard/api/v1alpha1"
)

// A Port of a pool's pods, which has the same number in a Service.
type Port struct {
	Name        string
	Number      int32
	AppProtocol string // as a Service tells proxies of it
}

// The ports of a pod.
var (
	HTTP    = Port{"http", 8080, "http"}
	GRPC    = Port{"grpc", 8081, "kubernetes.io/h2c"} // HTTP/2 without TLS
	Metrics = Port{"metrics", 9090, "http"}
)

// AnnotationLocalAddress is where a Service is reached outside of a cluster, a host without a port: what stands in for
// kube-proxy writes it.
const AnnotationLocalAddress = "switchyard.dev/local-address"

// Selector tells a pool's pods from all others.
func Selector(pool string) map[string]string { return map[string]string{v1alpha1.LabelPool: pool} }

// Service has these ports of a pool's ready pods. Whose it is, and its labels, are the caller's to say.
func Service(namespace, name, pool string, ports ...Port) *coreac.ServiceApplyConfiguration {
	spec := coreac.ServiceSpec().WithSelector(Selector(pool))
	for _, p := range ports {
		spec.WithPorts(coreac.ServicePort().WithName(p.Name).WithProtocol(corev1.ProtocolTCP).
			WithPort(p.Number).WithTargetPort(intstr.FromInt32(p.Number)).WithAppProtocol(p.AppProtocol))
	}
	return coreac.Service(name, namespace).WithSpec(spec)
}

// Of is where a Service is asked.
func Of(service *corev1.Service) v1alpha1.Endpoint {
	host := fmt.Sprintf("%s.%s.svc", service.Name, service.Namespace)
	if local := service.Annotations[AnnotationLocalAddress]; local != "" {
		host = local
	}
	at := func(p Port) string { return net.JoinHostPort(host, strconv.Itoa(int(p.Number))) }
	return v1alpha1.Endpoint{HTTP: "http://" + at(HTTP), GRPC: at(GRPC)}
}
