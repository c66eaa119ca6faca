package v1alpha1

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// InferencePool is a base model and the pods that serve it, shared by the LoRAAdapters that refer to it.
//
// +genclient
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:subresource:scale:specpath=.spec.replicas,statuspath=.status.replicas,selectorpath=.status.selector
// +kubebuilder:resource:path=inferencepools,singular=inferencepool,shortName=lorapool,categories=switchyard
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`,description="True: the base model is resolved and all wanted pods are ready"
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`,description="why it is ready, or is not"
// +kubebuilder:printcolumn:name="Pods",type=integer,JSONPath=`.status.readyReplicas`,description="ready pods"
// +kubebuilder:printcolumn:name="Desired",type=integer,JSONPath=`.spec.replicas`,description="wanted pods"
// +kubebuilder:printcolumn:name="Adapters",type=integer,JSONPath=`.status.adapters.ready`,description="adapters that are ready"
// +kubebuilder:printcolumn:name="Of",type=integer,JSONPath=`.status.adapters.desired`,description="adapters that refer to the pool"
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name="Architecture",type=string,priority=1,JSONPath=`.status.baseModel.architecture`,description="architecture of the base model"
// +kubebuilder:printcolumn:name="Endpoint",type=string,priority=1,JSONPath=`.status.endpoint.http`,description="where the pool is asked"
// +kubebuilder:printcolumn:name="Message",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Ready")].message`,description="what the reason means here"
// +kubebuilder:validation:XValidation:rule="self.metadata.name.size() <= 63 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",message="metadata.name must name a Service: at most 63 lower-case letters, digits and hyphens, beginning with a letter and not ending with a hyphen"
type InferencePool struct {
	metav1.TypeMeta `json:",inline"`
	// metadata is the object's.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitzero"`
	// spec is what the user wants.
	// +required
	Spec InferencePoolSpec `json:"spec,omitzero"`
	// status is what is so.
	// +optional
	// +default={"observedGeneration": -1}
	Status InferencePoolStatus `json:"status,omitzero"`
}

// InferencePoolList is a list of pools.
//
// +kubebuilder:object:root=true
type InferencePoolList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitzero"`
	Items           []InferencePool `json:"items"`
}

// InferencePoolSpec is what a pool should be.
type InferencePoolSpec struct {
	// baseModel is the model that all adapters of the pool share. It cannot be changed: another base is another pool.
	// +required
	BaseModel BaseModel `json:"baseModel,omitzero"`
	// replicas is the number of pods, 1 by default.
	// +optional
	// +default=1
	// +kubebuilder:validation:Minimum=0
	Replicas *int32 `json:"replicas,omitempty"`
	// dtype is how pods keep the base model's weights in memory, whatever its files have: float32, the default, or
	// bfloat16, which takes half as much and rounds them. The pods are replaced when it changes, one by one; the base
	// model's digest and its adapters stay as they are.
	// +optional
	// +default="float32"
	DType DType `json:"dtype,omitempty"`
	// adapters bounds what one pod may hold.
	// +optional
	// +default={}
	Adapters AdapterLimits `json:"adapters,omitzero"`
	// batching bounds batches and the queue before them, in each pod by itself. The pods are replaced when it changes, one
	// by one.
	// +optional
	// +default={}
	Batching Batching `json:"batching,omitzero"`
	// template is what of the pods is the user's to say.
	// +optional
	Template PodTemplate `json:"template,omitzero"`
}

// DType is how weights are kept in memory.
// +kubebuilder:validation:Enum=float32;bfloat16
type DType string

// The types.
const (
	DTypeFloat32  DType = "float32"
	DTypeBFloat16 DType = "bfloat16" // 16 bits
)

// BaseModel says where the base model comes from.
type BaseModel struct {
	// source of the model's folder, as HuggingFace's save_pretrained writes it.
	// +required
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="baseModel is immutable: make another pool"
	Source Source `json:"source,omitzero"`

	// secretRef names a Secret with credentials for the source, of type kubernetes.io/dockerconfigjson or
	// switchyard.dev/source. Only the manager reads it, and it is sent to the host that it names alone.
	// +optional
	SecretRef *SecretReference `json:"secretRef,omitempty"`
}

// AdapterLimits bounds the adapters of one pod.
type AdapterLimits struct {
	// memory that adapters may take in one pod, in bytes as a quantity, 2Gi by default. The oldest adapters win; the
	// others say Ready=False, PoolFull.
	// +optional
	// +default="2Gi"
	// +kubebuilder:validation:XValidation:rule="quantity(string(self)).isGreaterThan(quantity('0'))",message="memory must be more than 0"
	Memory *resource.Quantity `json:"memory,omitempty"`
	// maxCount of adapters in one pod, from 1 to 2000, 512 by default. The oldest adapters win; the others say
	// Ready=False, PoolFull.
	// +optional
	// +default=512
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=2000
	MaxCount *int32 `json:"maxCount,omitempty"`
	// maxRank of an adapter's updates, from 1 to 16384, 64 by default. An adapter above it says Ready=False, RankTooLarge.
	// +optional
	// +default=64
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=16384
	MaxRank *int32 `json:"maxRank,omitempty"`
}

// Batching bounds batches and the queue in estimated time rather than in rows: a row of 512 tokens takes as long as
// thirty of 16, and the runtime knows what a row costs.
// +kubebuilder:validation:XValidation:rule="!has(self.maxQueueMilliseconds) || !has(self.maxBatchMilliseconds) || self.maxQueueMilliseconds >= self.maxBatchMilliseconds",message="maxQueueMilliseconds must be at least maxBatchMilliseconds: a batch comes out of the queue"
type Batching struct {
	// maxBatchMilliseconds is the estimated time of one batch, from 1 to 5000, 100 by default; a row that takes longer is
	// a batch of its own. Larger batches answer more rows a second, and let who comes meanwhile wait for longer.
	// +optional
	// +default=100
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=5000
	MaxBatchMilliseconds *int32 `json:"maxBatchMilliseconds,omitempty"`
	// maxQueueMilliseconds is the estimated time of all that waits, from maxBatchMilliseconds to 20000, 2000 by default.
	// What does not fit is refused at once, to be tried again later. A pod that ends answers what waits in it after the
	// batch that runs, and has 30 seconds for both.
	// +optional
	// +default=2000
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=20000
	MaxQueueMilliseconds *int32 `json:"maxQueueMilliseconds,omitempty"`
	// maxDelayMilliseconds is for how long a pod that is idle waits for more rows before it begins a batch that is not
	// full, from 0 to 1000, 0 by default: it begins at once.
	// +optional
	// +default=0
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=1000
	MaxDelayMilliseconds *int32 `json:"maxDelayMilliseconds,omitempty"`
}

// PodTemplate is the part of the pods that is the user's to say. Its members mean what they mean in a pod.
type PodTemplate struct {
	// labels of the pods, beside those of the pool's own.
	// +optional
	// +kubebuilder:validation:MaxProperties=64
	// +kubebuilder:validation:XValidation:rule="self.all(key, !key.startsWith('switchyard.dev/'))",message="labels of switchyard.dev are set by the pool alone"
	Labels map[string]string `json:"labels,omitempty"`
	// annotations of the pods.
	// +optional
	// +kubebuilder:validation:MaxProperties=64
	Annotations map[string]string `json:"annotations,omitempty"`
	// resources of the runtime's container. Its cpu limit is the number of threads that compute.
	// +optional
	// +kubebuilder:validation:XValidation:rule="!has(self.claims)",message="resources.claims cannot be given: a pool's pods have no resource claims"
	Resources corev1.ResourceRequirements `json:"resources,omitzero"`
	// nodeSelector chooses nodes by their labels.
	// +optional
	// +kubebuilder:validation:MaxProperties=64
	NodeSelector map[string]string `json:"nodeSelector,omitempty"`
	// tolerations of nodes' taints.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	Tolerations []corev1.Toleration `json:"tolerations,omitempty"`
	// affinity to nodes and other pods.
	// +optional
	Affinity *corev1.Affinity `json:"affinity,omitempty"`
	// topologySpreadConstraints say how the pods spread over the cluster.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=16
	TopologySpreadConstraints []corev1.TopologySpreadConstraint `json:"topologySpreadConstraints,omitempty"`
	// priorityClassName of the pods.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	PriorityClassName string `json:"priorityClassName,omitempty"`
	// imagePullSecrets for the runtime's image.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=16
	ImagePullSecrets []corev1.LocalObjectReference `json:"imagePullSecrets,omitempty"`
}

// InferencePoolStatus is what is so of a pool.
type InferencePoolStatus struct {
	// conditions are BaseModelResolved, Available, Ready, Reconciling and Stalled.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=16
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// observedGeneration is the generation of the spec that this status speaks of; -1 before the first.
	// +optional
	// +kubebuilder:validation:Minimum=-1
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// replicas is the number of pods.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Replicas int32 `json:"replicas,omitempty"`
	// readyReplicas is the number of ready pods.
	// +optional
	// +kubebuilder:validation:Minimum=0
	ReadyReplicas int32 `json:"readyReplicas,omitempty"`
	// selector of the pods, for the scale subresource.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	Selector string `json:"selector,omitempty"`
	// baseModel that was resolved.
	// +optional
	BaseModel ResolvedBaseModel `json:"baseModel,omitzero"`
	// adapters counts the pool's adapters.
	// +optional
	Adapters AdapterCounts `json:"adapters,omitzero"`
	// endpoint is where the pool is asked.
	// +optional
	Endpoint Endpoint `json:"endpoint,omitzero"`
}

// ResolvedBaseModel is the base model's revision.
type ResolvedBaseModel struct {
	// digest of the revision's manifest, by which pods pull it.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	Digest string `json:"digest,omitempty"`
	// sourceRevision is what the source had: the manifest's digest of oci, the archive's of http.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	SourceRevision string `json:"sourceRevision,omitempty"`
	// architecture of the model, as the runtime calls it.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	Architecture string `json:"architecture,omitempty"`

	// sizeBytes is how much memory of a pod it takes, in bytes, as spec.dtype has it kept.
	// +optional
	// +kubebuilder:validation:Minimum=0
	SizeBytes int64 `json:"sizeBytes,omitempty"`
}

// AdapterCounts counts adapters.
type AdapterCounts struct {
	// desired is the number of adapters that refer to the pool.
	// +required
	// +kubebuilder:validation:Minimum=0
	Desired int32 `json:"desired"`
	// ready is the number of those that are Ready.
	// +required
	// +kubebuilder:validation:Minimum=0
	Ready int32 `json:"ready"`
	// failed is the number of those that are Stalled, or that a pod could not load.
	// +required
	// +kubebuilder:validation:Minimum=0
	Failed int32 `json:"failed"`
}

// Endpoint is the pool's addresses within the cluster.
type Endpoint struct {
	// http is the address of the Open Inference Protocol over HTTP, as http://host:port.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	HTTP string `json:"http,omitempty"`
	// grpc is the address of the Open Inference Protocol over gRPC, without TLS, as host:port.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	GRPC string `json:"grpc,omitempty"`
}
