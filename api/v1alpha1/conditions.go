package v1alpha1

// Condition types. Reconciling and Stalled are kstatus's: the first while work is under way, the second on what only a
// change can cure; never both.
const (
	ConditionReady             = "Ready"
	ConditionAvailable         = "Available"
	ConditionReconciling       = "Reconciling"
	ConditionStalled           = "Stalled"
	ConditionArtifactResolved  = "ArtifactResolved"  // of a LoRAAdapter
	ConditionCompatible        = "Compatible"        // of a LoRAAdapter
	ConditionBaseModelResolved = "BaseModelResolved" // of an InferencePool
)

// Reasons of conditions. The list is closed: nothing else is ever written.
const (
	ReasonResolved          = "Resolved"          // ArtifactResolved, BaseModelResolved: True
	ReasonResolving         = "Resolving"         // not known yet
	ReasonSourceNotFound    = "SourceNotFound"    // the source has no such artifact
	ReasonSourceUnreachable = "SourceUnreachable" // the source does not answer: tried again
	ReasonSourceInvalid     = "SourceInvalid"     // the source's artifact is not what it should be
	ReasonSourceForbidden   = "SourceForbidden"   // the source's address is not one that the manager may ask
	ReasonUnauthorized      = "Unauthorized"      // the source wants credentials, or other ones: tried again
	ReasonSecretNotFound    = "SecretNotFound"    // there is no Secret of that name: tried again
	ReasonSecretInvalid     = "SecretInvalid"     // a Secret of another type or for another host: tried again
	ReasonStoreUnavailable  = "StoreUnavailable"  // the artifact registry does not answer: tried again
	ReasonCompatible        = "Compatible"        // Compatible: True
	ReasonInvalidAdapter    = "InvalidAdapter"    // no adapter that can be served
	ReasonIncompatible      = "Incompatible"      // an adapter for another base
	ReasonInvalidBaseModel  = "InvalidBaseModel"  // no base model that can be served
	ReasonPoolNotFound      = "PoolNotFound"      // the adapter's pool is not there
	ReasonPoolNotReady      = "PoolNotReady"      // the adapter's pool has no base model yet
	ReasonNameTaken         = "NameTaken"         // an object of a name that a pool or an adapter needs is another's
	ReasonObjectRefused     = "ObjectRefused"     // the API server refuses an object of the pool's or adapter's, or pods
	ReasonPoolFull          = "PoolFull"          // over the pool's maxCount or memory
	ReasonNoRoomForSwap     = "NoRoomForSwap"     // no room for the new revision beside the one it replaces
	ReasonResourcesTooSmall = "ResourcesTooSmall" // the pods' memory limit cannot hold all that they may have to
	ReasonRankTooLarge      = "RankTooLarge"      // over the pool's maxRank
	ReasonLoading           = "Loading"           // pods are still loading it
	ReasonServing           = "Serving"           // Ready, Available: True
	ReasonLoadFailed        = "LoadFailed"        // a pod could not load it
	ReasonNoPods            = "NoPods"            // no pod is ready
	ReasonRollingOut        = "RollingOut"        // of a pool whose pods are not all ready
	ReasonProgressing       = "Progressing"       // Reconciling: True; an adapter's Service is on its way
)

// Reasons of a pod's failed entry.
const (
	FailureInvalidAdapter = "InvalidAdapter" // refused by the runtime
	FailurePullFailed     = "PullFailed"     // not to be had from the artifact registry: tried again
	FailureTrialFailed    = "TrialFailed"    // loaded, but its answer to one row is no number
	FailureCrashedLoading = "CrashedLoading" // the process ended twice while it was being loaded
)

// RegistryAudience is the audience of the service account tokens that the artifact registry takes. A token for it is
// good for nothing else, and no other token is good for the registry.
const RegistryAudience = "registry.switchyard.dev"

// LabelPool marks the objects of a pool, with its name. Pods are found by their owner, never by labels alone.
const LabelPool = "switchyard.dev/pool"
