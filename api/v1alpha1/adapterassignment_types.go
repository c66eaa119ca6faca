package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// AdapterAssignment is what one pod should hold, and what it holds. It has its pod's name and is owned by it; the
// manager alone writes its spec and the pod alone its status.
//
// +genclient
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:path=adapterassignments,singular=adapterassignment,shortName=loraassign,categories=switchyard
// +kubebuilder:printcolumn:name="Pool",type=string,JSONPath=`.spec.poolName`,description="the pod's pool"
// +kubebuilder:printcolumn:name="Revision",type=integer,JSONPath=`.spec.revision`,description="revision of the spec"
// +kubebuilder:printcolumn:name="Observed",type=integer,JSONPath=`.status.observedRevision`,description="revision that the pod has taken up"
// +kubebuilder:printcolumn:name="Pending",type=string,JSONPath=`.status.pending[*].name`,description="the first adapter that is still loading"
// +kubebuilder:printcolumn:name="Failed",type=string,JSONPath=`.status.failed[*].name`,description="the first adapter that could not be loaded"
// +kubebuilder:printcolumn:name="Started",type=date,priority=1,JSONPath=`.status.startedAt`,description="when the pod's process began"
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type AdapterAssignment struct {
	metav1.TypeMeta `json:",inline"`
	// metadata is the object's; its name is its pod's.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitzero"`
	// spec is what the pod should hold.
	// +required
	Spec AdapterAssignmentSpec `json:"spec,omitzero"`
	// status is what the pod says of itself.
	// +optional
	Status AdapterAssignmentStatus `json:"status,omitzero"`
}

// AdapterAssignmentList is a list of assignments.
//
// +kubebuilder:object:root=true
type AdapterAssignmentList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitzero"`
	Items           []AdapterAssignment `json:"items"`
}

// AdapterAssignmentSpec is what a pod should hold.
type AdapterAssignmentSpec struct {
	// poolName is the pod's InferencePool.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	PoolName string `json:"poolName,omitempty"`
	// revision grows with every change of this spec; the first is 1.
	// +required
	// +kubebuilder:validation:Minimum=1
	Revision int64 `json:"revision,omitempty"`
	// adapters in the order of their names.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=2000
	Adapters []AssignedAdapter `json:"adapters,omitempty"`
}

// AssignedAdapter is one adapter that a pod should serve.
type AssignedAdapter struct {
	// name under which it is asked.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Name string `json:"name,omitempty"`
	// digest of the revision to serve.
	// +required
	// +kubebuilder:validation:MinLength=71
	// +kubebuilder:validation:MaxLength=71
	// +kubebuilder:validation:Pattern=`^sha256:[0-9a-f]{64}$`
	Digest string `json:"digest,omitempty"`
	// fallbackDigest is the former revision, served until the new one is.
	// +optional
	// +kubebuilder:validation:MinLength=71
	// +kubebuilder:validation:MaxLength=71
	// +kubebuilder:validation:Pattern=`^sha256:[0-9a-f]{64}$`
	FallbackDigest string `json:"fallbackDigest,omitempty"`
	// since is the revision of the spec from which this entry stands as it is.
	// +required
	// +kubebuilder:validation:Minimum=1
	Since int64 `json:"since,omitempty"`
}

// AdapterAssignmentStatus is what the pod says of itself. It serves an entry of the spec if observedRevision is not
// below the entry's since and the entry is neither pending nor failed.
type AdapterAssignmentStatus struct {
	// observedRevision is the last revision of the spec that the pod has taken up; without it, none.
	// +optional
	// +kubebuilder:validation:Minimum=0
	ObservedRevision int64 `json:"observedRevision,omitempty"`
	// startedAt is when the process that reports began. Reports of a process before the container's are stale.
	// +optional
	StartedAt *metav1.Time `json:"startedAt,omitempty"`
	// bootID differs for every start of the process.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	BootID string `json:"bootID,omitempty"`
	// pending are entries still loading.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=2000
	Pending []PendingAdapter `json:"pending,omitempty"`
	// failed are entries that could not be loaded.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=2000
	Failed []FailedAdapter `json:"failed,omitempty"`
}

// PendingAdapter is an entry that is still loading.
type PendingAdapter struct {
	// name of the entry.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Name string `json:"name,omitempty"`
	// digest of the entry.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	Digest string `json:"digest,omitempty"`
}

// FailedAdapter is an entry that could not be loaded.
type FailedAdapter struct {
	// name of the entry.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Name string `json:"name,omitempty"`
	// digest of the entry.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	Digest string `json:"digest,omitempty"`
	// reason in one word: InvalidAdapter, PullFailed, TrialFailed or CrashedLoading.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	Reason string `json:"reason,omitempty"`
	// message in a sentence, at most 256 bytes: two thousand of them fit an object.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	Message string `json:"message,omitempty"`
}
