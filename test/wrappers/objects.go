package wrappers

import (
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/switchyard-dev/switchyard/api/v1alpha1"
)

// PoolBuilder is an InferencePool in the making.
type PoolBuilder struct{ pool *v1alpha1.InferencePool }

// Pool begins a pool.
func Pool(namespace, name string) *PoolBuilder {
	return &PoolBuilder{&v1alpha1.InferencePool{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}}
}

// Obj is the pool.
func (b *PoolBuilder) Obj() *v1alpha1.InferencePool { return b.pool }

// Source is where the base model comes from.
func (b *PoolBuilder) Source(ref string) *PoolBuilder {
	b.pool.Spec.BaseModel.Source.OCI = &v1alpha1.OCISource{Ref: ref}
	return b
}

// Archive is where the base model comes from; the sum may be "".
func (b *PoolBuilder) Archive(url, sha256 string) *PoolBuilder {
	b.pool.Spec.BaseModel.Source = v1alpha1.Source{HTTP: &v1alpha1.HTTPSource{URL: url, SHA256: sha256}}
	return b
}

// Secret with the credentials for it.
func (b *PoolBuilder) Secret(name string) *PoolBuilder {
	b.pool.Spec.BaseModel.SecretRef = &v1alpha1.SecretReference{Name: name}
	return b
}

// Replicas wanted.
func (b *PoolBuilder) Replicas(n int32) *PoolBuilder {
	b.pool.Spec.Replicas = &n
	return b
}

// Limits of one pod: a count, and memory as a quantity.
func (b *PoolBuilder) Limits(count int32, memory string) *PoolBuilder {
	quantity := resource.MustParse(memory)
	b.pool.Spec.Adapters.MaxCount, b.pool.Spec.Adapters.Memory = &count, &quantity
	return b
}

// MemoryLimit of the pods' container, as a quantity; "" is none.
func (b *PoolBuilder) MemoryLimit(memory string) *PoolBuilder {
	if memory != "" {
		b.pool.Spec.Template.Resources.Limits = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse(memory)}
	}
	return b
}

// DType that pods keep the base model as.
func (b *PoolBuilder) DType(dtype v1alpha1.DType) *PoolBuilder {
	b.pool.Spec.DType = dtype
	return b
}

// Batching bounds one batch, the queue, and for how long a batch waits for more rows, in milliseconds.
func (b *PoolBuilder) Batching(batch, queue, delay int32) *PoolBuilder {
	b.pool.Spec.Batching = v1alpha1.Batching{
		MaxBatchMilliseconds: &batch, MaxQueueMilliseconds: &queue, MaxDelayMilliseconds: &delay,
	}
	return b
}

// MaxRank of adapters.
func (b *PoolBuilder) MaxRank(rank int32) *PoolBuilder {
	b.pool.Spec.Adapters.MaxRank = &rank
	return b
}

// Generation of its spec.
func (b *PoolBuilder) Generation(g int64) *PoolBuilder {
	b.pool.Generation = g
	return b
}

// UID of the object.
func (b *PoolBuilder) UID(uid string) *PoolBuilder {
	b.pool.UID = types.UID(uid)
	return b
}

// Base that its status says was resolved.
func (b *PoolBuilder) Base(digest, architecture string) *PoolBuilder {
	b.pool.Status.BaseModel = v1alpha1.ResolvedBaseModel{Digest: digest, Architecture: architecture}
	return b
}

// LoRAAdapterBuilder is a LoRAAdapter in the making.
type LoRAAdapterBuilder struct{ adapter *v1alpha1.LoRAAdapter }

// LoRAAdapter begins an adapter.
func LoRAAdapter(namespace, name string) *LoRAAdapterBuilder {
	return &LoRAAdapterBuilder{&v1alpha1.LoRAAdapter{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}}
}

// Obj is the adapter.
func (b *LoRAAdapterBuilder) Obj() *v1alpha1.LoRAAdapter { return b.adapter }

// Pool that serves it.
func (b *LoRAAdapterBuilder) Pool(name string) *LoRAAdapterBuilder {
	b.adapter.Spec.PoolRef.Name = name
	return b
}

// Source is where it comes from.
func (b *LoRAAdapterBuilder) Source(ref string) *LoRAAdapterBuilder {
	b.adapter.Spec.Source.OCI = &v1alpha1.OCISource{Ref: ref}
	return b
}

// Archive is where it comes from; the sum may be "".
func (b *LoRAAdapterBuilder) Archive(url, sha256 string) *LoRAAdapterBuilder {
	b.adapter.Spec.Source = v1alpha1.Source{HTTP: &v1alpha1.HTTPSource{URL: url, SHA256: sha256}}
	return b
}

// Secret with the credentials for it.
func (b *LoRAAdapterBuilder) Secret(name string) *LoRAAdapterBuilder {
	b.adapter.Spec.SecretRef = &v1alpha1.SecretReference{Name: name}
	return b
}

// ProblemType is what its outputs mean.
func (b *LoRAAdapterBuilder) ProblemType(p v1alpha1.ProblemType) *LoRAAdapterBuilder {
	b.adapter.Spec.ProblemType = p
	return b
}

// Service of its own name.
func (b *LoRAAdapterBuilder) Service() *LoRAAdapterBuilder {
	b.adapter.Spec.Service = true
	return b
}

// UID of the object.
func (b *LoRAAdapterBuilder) UID(uid string) *LoRAAdapterBuilder {
	b.adapter.UID = types.UID(uid)
	return b
}

// ClassNames of its head.
func (b *LoRAAdapterBuilder) ClassNames(names ...string) *LoRAAdapterBuilder {
	b.adapter.Spec.ClassNames = names
	return b
}

// Generation of its spec.
func (b *LoRAAdapterBuilder) Generation(g int64) *LoRAAdapterBuilder {
	b.adapter.Generation = g
	return b
}

// Target revision that its status has.
func (b *LoRAAdapterBuilder) Target(r v1alpha1.Revision) *LoRAAdapterBuilder {
	b.adapter.Status.TargetRevision = &r
	return b
}

// Served revision that its status has.
func (b *LoRAAdapterBuilder) Served(digest string) *LoRAAdapterBuilder {
	b.adapter.Status.ServedRevision = digest
	return b
}

// PodBuilder is a runtime pod in the making.
type PodBuilder struct{ pod *corev1.Pod }

// Pod begins a pod of one container, neither running nor ready. Its UID is made of its name.
func Pod(namespace, name string) *PodBuilder {
	return &PodBuilder{&corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, UID: types.UID("uid-of-" + name)},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "runtime", Image: "runtime"}}},
	}}
}

// Obj is the pod.
func (b *PodBuilder) Obj() *corev1.Pod { return b.pod }

// Template names the Deployment's template that it is of.
func (b *PodBuilder) Template(hash string) *PodBuilder {
	b.pod.Labels = map[string]string{appsv1.DefaultDeploymentUniqueLabelKey: hash}
	return b
}

// Created says when it was.
func (b *PodBuilder) Created(at time.Time) *PodBuilder {
	b.pod.CreationTimestamp = metav1.NewTime(at)
	return b
}

// Bound gives it a node, on which it does not run yet.
func (b *PodBuilder) Bound() *PodBuilder {
	b.pod.Spec.NodeName = "node"
	return b
}

// Running says since when its container runs.
func (b *PodBuilder) Running(since time.Time) *PodBuilder {
	b.Bound()
	b.pod.Status.Phase = corev1.PodRunning
	b.pod.Status.ContainerStatuses = []corev1.ContainerStatus{{
		Name: "runtime", State: corev1.ContainerState{
			Running: &corev1.ContainerStateRunning{StartedAt: metav1.NewTime(since)},
		},
	}}
	return b
}

// Restarted says how often its container, which runs, was started again.
func (b *PodBuilder) Restarted(times int32) *PodBuilder {
	b.pod.Status.ContainerStatuses[0].RestartCount = times
	return b
}

// Ready makes it ready.
func (b *PodBuilder) Ready() *PodBuilder {
	b.pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	return b
}

// Terminating says since when it is on its way out.
func (b *PodBuilder) Terminating(since time.Time) *PodBuilder {
	at := metav1.NewTime(since)
	b.pod.DeletionTimestamp = &at
	return b
}

// AssignmentBuilder is an AdapterAssignment in the making.
type AssignmentBuilder struct{ assignment *v1alpha1.AdapterAssignment }

// Assignment begins an assignment without entries or a report.
func Assignment(namespace, pod string) *AssignmentBuilder {
	return &AssignmentBuilder{
		&v1alpha1.AdapterAssignment{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: pod}},
	}
}

// Obj is the assignment.
func (b *AssignmentBuilder) Obj() *v1alpha1.AdapterAssignment { return b.assignment }

// Owner is the pod it is of.
func (b *AssignmentBuilder) Owner(pod *corev1.Pod) *AssignmentBuilder {
	b.assignment.OwnerReferences = []metav1.OwnerReference{
		*metav1.NewControllerRef(pod, corev1.SchemeGroupVersion.WithKind("Pod")),
	}
	return b
}

// Pool of the pod.
func (b *AssignmentBuilder) Pool(name string) *AssignmentBuilder {
	b.assignment.Spec.PoolName = name
	return b
}

// Revision of its spec.
func (b *AssignmentBuilder) Revision(r int64) *AssignmentBuilder {
	b.assignment.Spec.Revision = r
	return b
}

// Entry adds an entry, in the order of names.
func (b *AssignmentBuilder) Entry(name, digest, fallback string, since int64) *AssignmentBuilder {
	spec := &b.assignment.Spec
	spec.Adapters = append(spec.Adapters,
		v1alpha1.AssignedAdapter{Name: name, Digest: digest, FallbackDigest: fallback, Since: since})
	slices.SortFunc(spec.Adapters, func(x, y v1alpha1.AssignedAdapter) int { return strings.Compare(x.Name, y.Name) })
	return b
}

// Started says when the process that reports began.
func (b *AssignmentBuilder) Started(at time.Time) *AssignmentBuilder {
	t := metav1.NewTime(at)
	b.assignment.Status.StartedAt, b.assignment.Status.BootID = &t, at.UTC().Format(time.RFC3339Nano)
	return b
}

// Observed is the revision that the pod has taken up.
func (b *AssignmentBuilder) Observed(revision int64) *AssignmentBuilder {
	b.assignment.Status.ObservedRevision = revision
	return b
}

// Pending adds an adapter that is loading.
func (b *AssignmentBuilder) Pending(name, digest string) *AssignmentBuilder {
	status := &b.assignment.Status
	status.Pending = append(status.Pending, v1alpha1.PendingAdapter{Name: name, Digest: digest})
	return b
}

// Failed adds an adapter that could not be loaded.
func (b *AssignmentBuilder) Failed(name, digest, reason, message string) *AssignmentBuilder {
	status := &b.assignment.Status
	status.Failed = append(status.Failed,
		v1alpha1.FailedAdapter{Name: name, Digest: digest, Reason: reason, Message: message})
	return b
}
