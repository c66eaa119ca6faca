package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// LoRAAdapter is a LoRA-tuned classifier: applied, every pod of its pool serves it under its name.
//
// +genclient
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:path=loraadapters,singular=loraadapter,shortName=lora,categories=switchyard
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`,description="True: every ready pod of the pool serves the revision that the spec asks for"
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`,description="why it is ready, or is not"
// +kubebuilder:printcolumn:name="Pool",type=string,JSONPath=`.spec.poolRef.name`,description="the pool that serves it"
// +kubebuilder:printcolumn:name="Pods",type=integer,JSONPath=`.status.pods.ready`,description="pods that serve it"
// +kubebuilder:printcolumn:name="Desired",type=integer,JSONPath=`.status.pods.desired`,description="pods that should serve it"
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name="Classes",type=integer,priority=1,JSONPath=`.status.targetRevision.numLabels`,description="outputs of its head"
// +kubebuilder:printcolumn:name="Rank",type=integer,priority=1,JSONPath=`.status.targetRevision.rank`,description="highest rank of its updates"
// +kubebuilder:printcolumn:name="Served",type=string,priority=1,JSONPath=`.status.servedRevision`,description="the revision that every ready pod serves"
// +kubebuilder:printcolumn:name="Message",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Ready")].message`,description="what the reason means here"
// +kubebuilder:validation:XValidation:rule="self.metadata.name.size() <= 63 && self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",message="metadata.name must be a DNS label: at most 63 lower-case letters, digits and hyphens, with a letter or digit at either end"
// +kubebuilder:validation:XValidation:rule="self.metadata.name != self.spec.poolRef.name",message="metadata.name must not be the pool's name (spec.poolRef.name)"
// +kubebuilder:validation:XValidation:rule="!has(self.spec.service) || !self.spec.service || self.metadata.name.matches('^[a-z]')",message="metadata.name must begin with a letter where spec.service is true: a Service of that name is made"
type LoRAAdapter struct {
	metav1.TypeMeta `json:",inline"`
	// metadata is the object's; its name is the one under which requests ask for the adapter.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitzero"`
	// spec is what the user wants.
	// +required
	Spec LoRAAdapterSpec `json:"spec,omitzero"`
	// status is what is so.
	// +optional
	// +default={"observedGeneration": -1}
	Status LoRAAdapterStatus `json:"status,omitzero"`
}

// LoRAAdapterList is a list of adapters.
//
// +kubebuilder:object:root=true
type LoRAAdapterList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitzero"`
	Items           []LoRAAdapter `json:"items"`
}

// LoRAAdapterSpec is what an adapter should be.
type LoRAAdapterSpec struct {
	// poolRef names the InferencePool of the same namespace that serves it. It cannot be changed.
	// +required
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="poolRef is immutable: make another adapter"
	PoolRef PoolReference `json:"poolRef,omitzero"`
	// source of the PEFT folder.
	// +required
	Source Source `json:"source,omitzero"`

	// secretRef names a Secret with credentials for the source, of type kubernetes.io/dockerconfigjson or
	// switchyard.dev/source. Only the manager reads it, and it is sent to the host that it names alone.
	// +optional
	SecretRef *SecretReference `json:"secretRef,omitempty"`
	// classNames of its head, in the order of its outputs, as many as it has. Without them, those of config.json beside
	// the adapter; without that, LABEL_0, LABEL_1 and so on. They are part of the revision.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=65536
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=256
	ClassNames []string `json:"classNames,omitempty"`
	// problemType is what the outputs of its head mean: one class of several (softmax), each class or not (sigmoid), or
	// numbers. Without it, what config.json beside the adapter says, else the base's; without that, SingleLabel, or
	// Regression of a single output. It is part of the revision.
	// +optional
	ProblemType ProblemType `json:"problemType,omitempty"`
	// service makes a Service of the adapter's name, beside the pool's, at which clients that know of one model alone ask
	// this adapter: http://name.namespace.svc:8080/classify. One of that name that is there already is left as it is, and
	// the adapter says Ready=False, NameTaken.
	// +optional
	Service bool `json:"service,omitempty"`
}

// ProblemType is what the outputs of a head mean.
// +kubebuilder:validation:Enum=SingleLabel;MultiLabel;Regression
type ProblemType string

// The problem types.
const (
	ProblemSingleLabel ProblemType = "SingleLabel" // one class of several
	ProblemMultiLabel  ProblemType = "MultiLabel"  // each class or not
	ProblemRegression  ProblemType = "Regression"  // numbers
)

// PoolReference names an InferencePool of the same namespace.
type PoolReference struct {
	// name of the pool.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Name string `json:"name,omitempty"`
}

// LoRAAdapterStatus is what is so of an adapter.
type LoRAAdapterStatus struct {
	// conditions are ArtifactResolved, Compatible, Available, Ready, Reconciling and Stalled.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=16
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// observedGeneration is the generation of the spec that this status speaks of; -1 before the first.
	// +optional
	// +kubebuilder:validation:Minimum=-1
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// targetRevision is the revision that the spec asks for.
	// +optional
	TargetRevision *Revision `json:"targetRevision,omitempty"`
	// servedRevision is the digest that every ready pod serves; the former one while a swap is under way.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	ServedRevision string `json:"servedRevision,omitempty"`
	// pods that should hold it, do, or failed to.
	// +optional
	Pods PodCounts `json:"pods,omitzero"`
	// failures names the first five pods that failed, and why.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=5
	Failures []PodFailure `json:"failures,omitempty"`
}

// Revision is one state of an adapter's files and settings.
type Revision struct {
	// digest of the revision's manifest, by which pods pull it.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	Digest string `json:"digest,omitempty"`
	// sourceRevision is what the source calls it: of an OCI source, the digest of its manifest; of an HTTP source, the
	// digest of its archive.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	SourceRevision string `json:"sourceRevision,omitempty"`
	// sizeBytes is how much memory of a pod it takes, in bytes.
	// +optional
	// +kubebuilder:validation:Minimum=0
	SizeBytes int64 `json:"sizeBytes,omitempty"`
	// rank is the highest of its updates; 0 without any.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Rank int32 `json:"rank,omitempty"`
	// numLabels is the number of outputs of its head.
	// +optional
	// +kubebuilder:validation:Minimum=0
	NumLabels int32 `json:"numLabels,omitempty"`

	// proven tells that some pod has served it. Before that it is given to one pod alone: one that cannot be loaded
	// costs that pod, not the pool.
	// +optional
	Proven bool `json:"proven,omitempty"`
}

// PodCounts counts pods.
type PodCounts struct {
	// desired is the number of ready pods that should serve it.
	// +required
	// +kubebuilder:validation:Minimum=0
	Desired int32 `json:"desired"`
	// ready is the number of those that serve the target revision.
	// +required
	// +kubebuilder:validation:Minimum=0
	Ready int32 `json:"ready"`
	// failed is the number of those that could not load it.
	// +required
	// +kubebuilder:validation:Minimum=0
	Failed int32 `json:"failed"`
}

// PodFailure is why a pod does not serve an adapter.
type PodFailure struct {
	// pod is its name.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Pod string `json:"pod,omitempty"`
	// reason in one word.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	Reason string `json:"reason,omitempty"`
	// message in a sentence.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	Message string `json:"message,omitempty"`
}
