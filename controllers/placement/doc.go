// Package placement decides which pod holds which revision of which adapter, and writes it down: one AdapterAssignment
// a pod. The decision (EveryPod) is a pure function; the reconciler reads what it needs, and carries the plan out.
//
// Invariants of a plan, whatever came before it:
//   - the digest with which a pod may be answering for an adapter stays in its entry, as digest or as fallback, until
//     the pod is known to serve another, or the adapter is gone or over the pool's limits;
//   - revisions only grow, and only when an entry changes; the same input gives the same plan;
//   - an adapter that changes nothing about itself keeps its entry as it is, since included: no other makes it blink;
//   - a pod that comes while a target is on trial on another gets what that pod and the others answer with;
//   - a digest that no pod is known to have served is given to one pod alone (trial.go). It gets a second one only when
//     the first is on its way out, or has not even a node. One that was served goes to all at once.
package placement
