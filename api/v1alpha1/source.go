package v1alpha1

// Source says where a base model or an adapter comes from: exactly one of its members is set.
//
// +kubebuilder:validation:XValidation:rule="[has(self.oci), has(self.http)].exists_one(x, x)",message="exactly one source must be given: oci or http"
type Source struct {
	// oci is an artifact in an OCI registry whose layers are the folder's files.
	// +optional
	OCI *OCISource `json:"oci,omitempty"`

	// http is a .tar.gz of the folder at a URL.
	// +optional
	HTTP *HTTPSource `json:"http,omitempty"`
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

// HTTPSource is a .tar.gz of a folder at a URL.
type HTTPSource struct {
	// url of the archive. It is read when the spec changes. Its files lie at the archive's root or in one folder there.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=2048
	// +kubebuilder:validation:XValidation:rule="self.matches('^https?://[^/?#@[:space:]]+/[^#[:space:]]*$')",message="url must be https://host/path, without a user, a fragment or spaces"
	URL string `json:"url,omitempty"`

	// sha256 of the archive, as 64 hexadecimal digits in lower case. An archive that has another is refused; without it,
	// whatever the URL gives is taken.
	// +optional
	// +kubebuilder:validation:MinLength=64
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:Pattern=`^[0-9a-f]{64}$`
	SHA256 string `json:"sha256,omitempty"`
}

// SecretReference names a Secret of the same namespace with credentials for a source.
type SecretReference struct {
	// name of the Secret.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name,omitempty"`
}

// The types of Secrets that sources may refer to, besides corev1.SecretTypeDockerConfigJson (of registries, by host).
const (
	// SecretTypeSource is a Secret for one host: host (with the port, if the URL has one) and either token, sent as a
	// bearer token, or username and password. It is sent to that host alone, never across a redirect.
	SecretTypeSource = "switchyard.dev/source" //nolint:gosec // the name of a type

	SecretKeyHost     = "host"
	SecretKeyToken    = "token"
	SecretKeyUsername = "username"
	SecretKeyPassword = "password"
)
