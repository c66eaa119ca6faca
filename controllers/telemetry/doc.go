// Package telemetry is what the manager counts and tells beside its statuses: metrics for who watches a fleet, events
// and log lines for who asks about one object.
//
// Invariants:
//   - What can be counted from the objects is counted from them when it is asked for (objects.go), so it is what they
//     say.
//   - The number of series is bounded: kinds and reasons are closed lists, and of namespaces and pools there are as
//     many as pools exist.
//   - An event is told after the status that it speaks of was written, and is logged in the same words.
package telemetry
