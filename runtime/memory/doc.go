// Package memory is memory off Go's heap: anonymous mappings, which the garbage collector neither waits for nor counts,
// and which go back to the system at once. Weights lie in it, and what batches work with.
//
// Invariants: what a Region hands out is zero and nobody else's, and begins at a multiple of 64 bytes, but for what
// Go's heap gives in place of a nil Region. It may be used until the Region is freed and not after, as to touch it then
// ends the process; so nothing is freed but by who counts its users. A Region that is never freed lasts as long as the
// process. What is held is counted, and Go's own limit follows it.
package memory
