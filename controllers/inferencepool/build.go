package inferencepool

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	appsac "k8s.io/client-go/applyconfigurations/apps/v1"
	coreac "k8s.io/client-go/applyconfigurations/core/v1"
	metaac "k8s.io/client-go/applyconfigurations/meta/v1"
	networkingac "k8s.io/client-go/applyconfigurations/networking/v1"
	policyac "k8s.io/client-go/applyconfigurations/policy/v1"
	rbacac "k8s.io/client-go/applyconfigurations/rbac/v1"

	"github.com/switchyard-dev/switchyard/api/v1alpha1"
	"github.com/switchyard-dev/switchyard/controllers/artifact"
	"github.com/switchyard-dev/switchyard/controllers/endpoint"
	"github.com/switchyard-dev/switchyard/controllers/placement"
	"github.com/switchyard-dev/switchyard/runtime/arch"
)

// Runtime is what of the pods is the same for all pools.
type Runtime struct {
	Image    string
	Registry string // URL from which pods pull
	// RegistryNamespace is where the artifact registry's pods are; empty where it is none of the cluster's.
	RegistryNamespace string
	// ClusterRole is what the pods may do in their namespace.
	ClusterRole string
}

const (
	cachePath          = "/var/cache/switchyard"
	serviceAccountPath = "/var/run/secrets/kubernetes.io/serviceaccount"
	registryPath       = "/var/run/secrets/switchyard/registry"
	// tokenSeconds is kubelet's own; it renews the token when four fifths have passed.
	tokenSeconds = 3607
	// graceSeconds is more than the runtime takes to answer what it has admitted.
	graceSeconds = 60
	// drainDelay is how long a pod goes on answering after SIGTERM: endpoints are known to be gone only a while later, and
	// connections that are kept are told to end with an answer.
	drainDelay = "3s"
	// flagDType says how the pods keep the base model's weights.
	flagDType = "--dtype="
	// keyCA is the key, and the file's name, of certificates to trust.
	keyCA = "ca.crt"
	// nonRoot is the user and group of images that have none of their own.
	nonRoot = 65532
)

// registryLabels tell the artifact registry's pods from others of their namespace.
var registryLabels = map[string]string{
	"app.kubernetes.io/name": "switchyard", "app.kubernetes.io/component": "registry",
}

// agentName names what the pods' agents act as and know: the service account and its binding, and the ConfigMap. The
// artifact registry knows the pods of <namespace>/<pool> by it.
func agentName(pool *v1alpha1.InferencePool) string { return pool.Name + "-runtime" }

// selector tells the pool's pods from all others.
func selector(pool *v1alpha1.InferencePool) map[string]string { return endpoint.Selector(pool.Name) }

func owner(pool *v1alpha1.InferencePool) *metaac.OwnerReferenceApplyConfiguration {
	return metaac.OwnerReference().
		WithAPIVersion(v1alpha1.GroupVersion.String()).WithKind("InferencePool").
		WithName(pool.Name).WithUID(pool.UID).WithController(true)
}

// service has the pool's name and answers for all of its ready pods.
func service(pool *v1alpha1.InferencePool) *coreac.ServiceApplyConfiguration {
	return endpoint.Service(pool.Namespace, pool.Name, pool.Name, endpoint.HTTP, endpoint.GRPC, endpoint.Metrics).
		WithLabels(selector(pool)).WithOwnerReferences(owner(pool))
}

func serviceAccount(pool *v1alpha1.InferencePool) *coreac.ServiceAccountApplyConfiguration {
	return coreac.ServiceAccount(agentName(pool), pool.Namespace).
		WithLabels(selector(pool)).WithOwnerReferences(owner(pool)).
		WithAutomountServiceAccountToken(false)
}

// roleBinding lets the agents do what the role of all pools' agents says, in their namespace.
func roleBinding(pool *v1alpha1.InferencePool, r Runtime) *rbacac.RoleBindingApplyConfiguration {
	return rbacac.RoleBinding(agentName(pool), pool.Namespace).
		WithLabels(selector(pool)).WithOwnerReferences(owner(pool)).
		WithRoleRef(rbacac.RoleRef().
			WithAPIGroup("rbac.authorization.k8s.io").WithKind("ClusterRole").WithName(r.ClusterRole)).
		WithSubjects(rbacac.Subject().WithKind("ServiceAccount").
			WithNamespace(pool.Namespace).WithName(agentName(pool)))
}

// configMap is what the pods know: by which certificates to trust the artifact registry.
func configMap(pool *v1alpha1.InferencePool, ca []byte) *coreac.ConfigMapApplyConfiguration {
	return coreac.ConfigMap(agentName(pool), pool.Namespace).
		WithLabels(selector(pool)).WithOwnerReferences(owner(pool)).
		WithData(map[string]string{keyCA: string(ca)})
}

// networkPolicy lets anybody ask the pods, who themselves may ask for names, the API server and the artifact registry.
// No selector can name the API server: its ports are open to everywhere, as are those of DNS.
func networkPolicy(pool *v1alpha1.InferencePool, r Runtime) *networkingac.NetworkPolicyApplyConfiguration {
	port := func(protocol corev1.Protocol, number int32) *networkingac.NetworkPolicyPortApplyConfiguration {
		return networkingac.NetworkPolicyPort().WithProtocol(protocol).WithPort(intstr.FromInt32(number))
	}
	egress := networkingac.NetworkPolicyEgressRule
	registry := egress().WithPorts(port(corev1.ProtocolTCP, registryPort(r.Registry)))
	if r.RegistryNamespace != "" {
		registry.WithTo(networkingac.NetworkPolicyPeer().
			WithNamespaceSelector(metaac.LabelSelector().
				WithMatchLabels(map[string]string{corev1.LabelMetadataName: r.RegistryNamespace})).
			WithPodSelector(metaac.LabelSelector().WithMatchLabels(registryLabels)))
	}
	return networkingac.NetworkPolicy(pool.Name, pool.Namespace).
		WithLabels(selector(pool)).WithOwnerReferences(owner(pool)).
		WithSpec(networkingac.NetworkPolicySpec().
			WithPodSelector(metaac.LabelSelector().WithMatchLabels(selector(pool))).
			WithPolicyTypes(networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress).
			WithIngress(networkingac.NetworkPolicyIngressRule().WithPorts(
				port(corev1.ProtocolTCP, endpoint.HTTP.Number), port(corev1.ProtocolTCP, endpoint.GRPC.Number),
				port(corev1.ProtocolTCP, endpoint.Metrics.Number))).
			WithEgress(
				egress().WithPorts(port(corev1.ProtocolUDP, 53), port(corev1.ProtocolTCP, 53)),
				egress().WithPorts(port(corev1.ProtocolTCP, 443), port(corev1.ProtocolTCP, 6443)),
				registry,
			))
}

// registryPort is the port of the artifact registry's URL; its Service has its pods' own.
func registryPort(registry string) int32 {
	u, err := url.Parse(registry)
	if err != nil {
		return 0 // unreachable: the flag was looked at
	}
	if n, err := strconv.ParseInt(u.Port(), 10, 32); err == nil {
		return int32(n)
	}
	if u.Scheme == "http" {
		return 80
	}
	return 443
}

// disruptionBudget has pods drained one at a time: of several one serves on, and one alone, which no budget could keep
// without keeping its node too, goes. Pods that are not ready serve nobody and hold nobody up.
func disruptionBudget(pool *v1alpha1.InferencePool) *policyac.PodDisruptionBudgetApplyConfiguration {
	return policyac.PodDisruptionBudget(pool.Name, pool.Namespace).
		WithLabels(selector(pool)).WithOwnerReferences(owner(pool)).
		WithSpec(policyac.PodDisruptionBudgetSpec().
			WithSelector(metaac.LabelSelector().WithMatchLabels(selector(pool))).
			WithMaxUnavailable(intstr.FromInt32(1)).
			WithUnhealthyPodEvictionPolicy(policyv1.AlwaysAllow))
}

// deployment is the pods: surging, since a pod that serves is never taken before its successor is ready.
func deployment(pool *v1alpha1.InferencePool, base string, r Runtime) *appsac.DeploymentApplyConfiguration {
	user := pool.Spec.Template
	labels := map[string]string{}
	maps.Copy(labels, user.Labels)
	maps.Copy(labels, selector(pool))
	return appsac.Deployment(pool.Name, pool.Namespace).
		WithLabels(selector(pool)).WithOwnerReferences(owner(pool)).
		WithSpec(appsac.DeploymentSpec().
			WithReplicas(replicas(pool)).
			WithSelector(metaac.LabelSelector().WithMatchLabels(selector(pool))).
			WithStrategy(appsac.DeploymentStrategy().WithType("RollingUpdate").
				WithRollingUpdate(appsac.RollingUpdateDeployment().
					WithMaxUnavailable(intstr.FromInt32(0)).WithMaxSurge(intstr.FromInt32(1)))).
			WithTemplate(coreac.PodTemplateSpec().
				WithLabels(labels).WithAnnotations(user.Annotations).
				WithSpec(podSpec(pool, base, r))))
}

func podSpec(pool *v1alpha1.InferencePool, base string, r Runtime) *coreac.PodSpecApplyConfiguration {
	user := pool.Spec.Template
	spec := coreac.PodSpec().
		WithServiceAccountName(agentName(pool)).
		WithAutomountServiceAccountToken(false).
		WithEnableServiceLinks(false).
		WithTerminationGracePeriodSeconds(graceSeconds).
		WithSecurityContext(coreac.PodSecurityContext().
			WithRunAsNonRoot(true).WithRunAsUser(nonRoot).WithRunAsGroup(nonRoot).WithFSGroup(nonRoot).
			WithSeccompProfile(coreac.SeccompProfile().WithType(corev1.SeccompProfileTypeRuntimeDefault))).
		WithContainers(container(pool, base, r)).
		WithVolumes(
			coreac.Volume().WithName("cache").WithEmptyDir(coreac.EmptyDirVolumeSource()),
			coreac.Volume().WithName("service-account").WithProjected(credentials()),
			coreac.Volume().WithName("registry").WithProjected(registryCredentials(pool)),
		).
		WithNodeSelector(user.NodeSelector)
	if user.PriorityClassName != "" {
		spec.WithPriorityClassName(user.PriorityClassName)
	}
	for _, t := range user.Tolerations {
		spec.WithTolerations(converted[coreac.TolerationApplyConfiguration](t))
	}
	if user.Affinity != nil {
		spec.WithAffinity(converted[coreac.AffinityApplyConfiguration](user.Affinity))
	}
	for _, c := range user.TopologySpreadConstraints {
		spec.WithTopologySpreadConstraints(converted[coreac.TopologySpreadConstraintApplyConfiguration](c))
	}
	for _, s := range user.ImagePullSecrets {
		spec.WithImagePullSecrets(coreac.LocalObjectReference().WithName(s.Name))
	}
	return spec
}

// container is the pod's only one: the runtime, fed by its agent.
func container(pool *v1alpha1.InferencePool, base string, r Runtime) *coreac.ContainerApplyConfiguration {
	field := func(name, path string) *coreac.EnvVarApplyConfiguration {
		return coreac.EnvVar().WithName(name).WithValueFrom(coreac.EnvVarSource().
			WithFieldRef(coreac.ObjectFieldSelector().WithAPIVersion("v1").WithFieldPath(path)))
	}
	port := func(p endpoint.Port) *coreac.ContainerPortApplyConfiguration {
		return coreac.ContainerPort().WithName(p.Name).WithContainerPort(p.Number).WithProtocol(corev1.ProtocolTCP)
	}
	address := func(p endpoint.Port) string { return "$(POD_IP):" + strconv.Itoa(int(p.Number)) }
	probe := func(path string) *coreac.ProbeApplyConfiguration {
		return coreac.Probe().WithHTTPGet(coreac.HTTPGetAction().
			WithPath(path).WithPort(intstr.FromInt32(endpoint.HTTP.Number)))
	}
	args := []string{
		"agent",
		"--pool=" + pool.Name,
		"--pod-name=$(POD_NAME)",
		"--pod-namespace=$(POD_NAMESPACE)",
		"--base-digest=" + base,
		flagDType + string(dtype(pool)),
		"--registry=" + r.Registry,
		"--repository=" + artifact.Repository(pool.Namespace, pool.Name),
		"--registry-token-file=" + registryPath + "/token",
		"--registry-ca-file=" + registryPath + "/" + keyCA,
		"--cache-dir=" + cachePath,
		"--service-account-dir=" + serviceAccountPath,
		"--http-address=" + address(endpoint.HTTP),
		"--grpc-address=" + address(endpoint.GRPC),
		"--metrics-address=" + address(endpoint.Metrics),
		"--drain-delay=" + drainDelay,
	}
	args = append(args, batching(pool)...)
	env := []*coreac.EnvVarApplyConfiguration{
		field("POD_NAME", "metadata.name"),
		field("POD_NAMESPACE", "metadata.namespace"),
		field("POD_IP", "status.podIP"),
	}
	if limit := memoryLimit(pool); limit > 0 { // else the heap may grow to twice what it holds before it is collected
		env = append(env, coreac.EnvVar().WithName("GOMEMLIMIT").WithValue(strconv.FormatInt(goMemoryLimit(limit), 10)))
	}
	return coreac.Container().WithName(placement.RuntimeContainer).WithImage(r.Image).WithArgs(args...).
		WithEnv(env...).
		WithPorts(port(endpoint.HTTP), port(endpoint.GRPC), port(endpoint.Metrics)).
		WithReadinessProbe(probe("/v2/health/ready").WithPeriodSeconds(1).WithFailureThreshold(3)).
		// A base of some gigabytes is pulled before it listens: ten minutes.
		WithStartupProbe(probe("/v2/health/live").WithPeriodSeconds(1).WithFailureThreshold(600)).
		WithLivenessProbe(probe("/v2/health/live").WithPeriodSeconds(10).WithTimeoutSeconds(5).WithFailureThreshold(6)).
		WithResources(converted[coreac.ResourceRequirementsApplyConfiguration](pool.Spec.Template.Resources)).
		WithSecurityContext(coreac.SecurityContext().
			WithAllowPrivilegeEscalation(false).WithReadOnlyRootFilesystem(true).WithRunAsNonRoot(true).
			WithCapabilities(coreac.Capabilities().WithDrop("ALL"))).
		WithVolumeMounts(
			coreac.VolumeMount().WithName("cache").WithMountPath(cachePath),
			coreac.VolumeMount().WithName("service-account").WithMountPath(serviceAccountPath).WithReadOnly(true),
			coreac.VolumeMount().WithName("registry").WithMountPath(registryPath).WithReadOnly(true),
		)
}

// credentials are what automounting would give, said out loud: the pod's own token, the cluster's certificates, and the
// namespace.
func credentials() *coreac.ProjectedVolumeSourceApplyConfiguration {
	return coreac.ProjectedVolumeSource().WithSources(
		coreac.VolumeProjection().WithServiceAccountToken(coreac.ServiceAccountTokenProjection().
			WithPath("token").WithExpirationSeconds(tokenSeconds)),
		coreac.VolumeProjection().WithConfigMap(coreac.ConfigMapProjection().WithName("kube-root-ca.crt").
			WithItems(coreac.KeyToPath().WithKey(keyCA).WithPath(keyCA))),
		coreac.VolumeProjection().WithDownwardAPI(coreac.DownwardAPIProjection().
			WithItems(coreac.DownwardAPIVolumeFile().WithPath("namespace").
				WithFieldRef(coreac.ObjectFieldSelector().WithAPIVersion("v1").WithFieldPath("metadata.namespace")))),
	)
}

// registryCredentials are by what the pod and the artifact registry know each other: a token that is good for nothing
// else, and the certificates to trust.
func registryCredentials(pool *v1alpha1.InferencePool) *coreac.ProjectedVolumeSourceApplyConfiguration {
	return coreac.ProjectedVolumeSource().WithSources(
		coreac.VolumeProjection().WithServiceAccountToken(coreac.ServiceAccountTokenProjection().
			WithAudience(v1alpha1.RegistryAudience).WithPath("token").WithExpirationSeconds(tokenSeconds)),
		coreac.VolumeProjection().WithConfigMap(coreac.ConfigMapProjection().WithName(agentName(pool)).
			WithItems(coreac.KeyToPath().WithKey(keyCA).WithPath(keyCA))),
	)
}

// converted is an object of the API as its apply configuration: the two have the same JSON.
func converted[T any](from any) *T {
	raw, err := json.Marshal(from)
	if err != nil {
		panic(err) // unreachable: it came out of JSON
	}
	to := new(T)
	if err := json.Unmarshal(raw, to); err != nil {
		panic(err) // unreachable: the types are generated from one another
	}
	return to
}

func dtype(pool *v1alpha1.InferencePool) arch.DType {
	return arch.DType(cmp.Or(pool.Spec.DType, v1alpha1.DTypeFloat32)) // as the API server fills it in
}

// batching is what the pods are told of batches and the queue.
func batching(pool *v1alpha1.InferencePool) []string {
	b := pool.Spec.Batching
	flag := func(name string, value *int32, absent int32) string {
		if value == nil {
			value = &absent // as the API server fills it in
		}
		return fmt.Sprintf("--%s-milliseconds=%d", name, *value)
	}
	return []string{
		flag("max-batch", b.MaxBatchMilliseconds, 100), flag("max-queue", b.MaxQueueMilliseconds, 2000),
		flag("max-delay", b.MaxDelayMilliseconds, 0),
	}
}

func replicas(pool *v1alpha1.InferencePool) int32 {
	if n := pool.Spec.Replicas; n != nil {
		return *n
	}
	return 1
}
