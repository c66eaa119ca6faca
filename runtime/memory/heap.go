//go:build !linux || race

package memory

// OffHeap tells whether regions lie off Go's heap. On other systems they do not, nor under the race detector, which
// sees nothing but that.
const OffHeap = false

// mapped is Go's heap.
func mapped(size int) ([]byte, error) { return make([]byte, size), nil }

// unmap leaves memory to the garbage collector. To who still reads it, it is written: a race.
func unmap(data []byte) { clear(data) }
