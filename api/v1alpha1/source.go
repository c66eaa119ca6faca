package v1alpha1

// Source says where a base model or an adapter comes from: exactly one of its members is set.
//
// +kubebuilder:validation:XValidation:rule="[has(self.oci)].exists_one(x, x)",message="exactly one source must be given: oci"
type Source struct {
	// oci is an artifact in an OCI registry whose layers are the folder's files.
	// +optional
	OCI *OCISource `json:"oci,omitempty"`
}

// OCISource is an artifact in an OCI registry.
type OCISource struct {
	// ref names the artifact: host/repository:tag or host/repository@sha256:digest. A tag is resolved when the spec
	// changes.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	// +kubebuilder:validation:XValidation:rule="self.matches('^([A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?|[[][0-9A-Fa-f:.]+[]])(:[0-9]{1,5})?(/[a-z0-9]+(([.]|_|__|-+)[a-z0-9]+)*)+(:[A-Za-z0-9_][-A-Za-z0-9_.]{0,127}|@sha256:[0-9a-f]{64})$')",message="ref must be host/repository:tag or host/repository@sha256:digest"
	Ref string `json:"ref,omitempty"`
}
