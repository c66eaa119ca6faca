// Package peft reads a PEFT adapter from disk and checks it against its base: what comes out is low-rank updates and
// saved modules, named by the base's canonical paths, that fit the base exactly. It does no arithmetic on weights.
//
// Invariants:
//   - What is not understood is refused, never ignored: each field, key, shape and value either is known to mean what
//     is done with it, or refuses the adapter with its name, what was expected and what was found. A wrong number
//     that nobody sees is worse than an adapter that does not load.
//   - The keys of the weights file are the truth of which modules carry an update; the config gives each its scaling.
//     target_modules and its kin say only how the file came about.
//   - Files are hostile. Names, types and shapes are checked before a tensor is copied, so that time and memory follow
//     the size of the files, and bad bytes are an error, never a panic.
//   - Each file is read once: what is checked, what is copied and what the digest names are the same bytes.
package peft
