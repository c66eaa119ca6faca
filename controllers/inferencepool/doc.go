// Package inferencepool reconciles InferencePools: it brings the base model from its source into the artifact registry,
// makes the workload of the pods that serve it, and tells in the status what has become of both.
//
// Invariants:
//   - The objects are pure functions of the pool (build.go), the status one of a scope (status.go).
//   - A base is resolved once, since its source cannot be changed; only where the artifact registry has lost it is the
//     source asked again.
//   - Nothing that is not the pool's own is ever written over: the pool says NameTaken instead.
package inferencepool
