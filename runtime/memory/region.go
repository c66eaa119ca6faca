package memory

import (
	"fmt"
	"os"
	"sync"
	"unsafe"
)

const (
	// alignment of what is handed out, in bytes: a line of the cache.
	alignment = 64
	// A region's first block, and its largest unless more is asked for at once; each is twice the one before.
	firstBlock   = 64 << 10
	largestBlock = 64 << 20
)

// Value is what memory may hold: nothing that points to Go's heap, which the garbage collector could not see.
type Value interface{ ~float32 | ~uint16 | ~uint32 }

// Region is memory that is freed together. It is safe for concurrent use, but for Free. A nil Region is Go's heap.
type Region struct {
	mu     sync.Mutex
	blocks []block
	next   int   // bytes of the next block
	bytes  int64 // of all blocks
}

// block is one mapping, of which the first used bytes are handed out.
type block struct {
	data []byte
	used int
}

// Make is n zero values. It panics where the system has no memory left.
func Make[T Value](r *Region, n int) []T {
	if r == nil || n == 0 {
		return make([]T, n)
	}
	var value T
	first := r.take(n * int(unsafe.Sizeof(value)))
	return unsafe.Slice((*T)(first), n) //nolint:gosec // as many as were taken
}

// Copy is a copy of values.
func Copy[T Value](r *Region, values []T) []T {
	copied := Make[T](r, len(values))
	copy(copied, values)
	return copied
}

// take is the first of so many bytes.
func (r *Region) take(bytes int) unsafe.Pointer {
	r.mu.Lock()
	defer r.mu.Unlock()
	last := len(r.blocks) - 1
	if last < 0 || len(r.blocks[last].data)-r.blocks[last].used < bytes {
		if last >= 0 {
			r.trim(last)
		}
		r.next = min(max(2*r.next, firstBlock), largestBlock)
		r.add(pages(max(r.next, bytes)))
		last++
	}
	b := &r.blocks[last]
	first := unsafe.Pointer(&b.data[b.used]) //nolint:gosec // as many bytes follow
	b.used = min(roundUp(b.used+bytes, alignment), len(b.data))
	return first
}

// add maps another block. The mutex is held.
func (r *Region) add(size int) {
	data, err := mapped(size)
	if err != nil {
		panic(fmt.Errorf("memory: mapping %d bytes: %w", size, err))
	}
	r.blocks = append(r.blocks, block{data: data})
	r.bytes += int64(size)
	hold(int64(size))
}

// trim gives back the pages of a block that nothing was taken of. The mutex is held.
func (r *Region) trim(i int) {
	b := &r.blocks[i]
	kept := pages(b.used)
	if rest := b.data[kept:]; len(rest) > 0 {
		unmap(rest)
		b.data = b.data[:kept]
		r.bytes -= int64(len(rest))
		hold(-int64(len(rest)))
	}
}

// Seal gives back the room that is left. What is made afterwards takes more.
func (r *Region) Seal() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if last := len(r.blocks) - 1; last >= 0 {
		r.trim(last)
	}
}

// Bytes is the memory that the region holds.
func (r *Region) Bytes() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.bytes
}

// Free gives all of it back: nothing that was handed out may be used any more. Twice is harmless.
func (r *Region) Free() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, b := range r.blocks {
		unmap(b.data)
	}
	hold(-r.bytes)
	r.blocks, r.bytes = nil, 0
}

// pages is so many bytes in whole pages.
func pages(bytes int) int { return roundUp(bytes, os.Getpagesize()) }

// roundUp is the next multiple of a power of two.
func roundUp(n, to int) int { return (n + to - 1) &^ (to - 1) }
