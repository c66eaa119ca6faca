// Package loraadapter reconciles LoRAAdapters: it brings an adapter's artifact from its source into the artifact
// registry, checked against the pool's base, makes its Service where it is to have one, and tells in the status what
// has become of it in every pod.
//
// Invariants:
//   - The status is a pure function of a scope (status.go); it is written at most once a reconcile, not at all if
//     nothing changed, and events come after the write.
//   - Reconcile waits for nothing: what asks a registry runs as an attempt beside it (bring.go).
//   - status.targetRevision is the last revision that could be resolved, checked and stored. A spec that leads to none
//     leaves it, and so what pods serve, as it was.
package loraadapter
