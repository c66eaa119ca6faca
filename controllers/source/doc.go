// Package source is where the reconcilers of pools and adapters get folders from: it reads what a spec says of a
// source, and the Secret that it names, and has controllers/artifact fetch it. What goes wrong becomes the failure of
// an attempt, with a reason of the API.
//
// Invariants:
//   - A Secret is read when it is needed, from the API server, and kept no longer than that. It is never listed,
//     watched or cached.
//   - Nothing of a Secret gets into a failure.
package source
