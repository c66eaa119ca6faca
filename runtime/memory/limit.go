package memory

import (
	"runtime/debug"
	"sync"
)

// leastHeap is what Go's heap may always take. With hardly any it would be collected all the time, and a process that
// takes too much is better ended than that.
const leastHeap = 64 << 20

// process is what is held of the whole process' memory.
var process struct {
	mu    sync.Mutex
	held  int64
	total int64 // that may be taken, Go's heap included; 0 is no limit
}

// Held is how many bytes all regions hold.
func Held() int64 {
	process.mu.Lock()
	defer process.mu.Unlock()
	return process.held
}

// Limit has the process keep within so many bytes, as far as Go can see to that: its limit (GOMEMLIMIT) is what regions
// leave of them, from now on.
func Limit(total int64) {
	process.mu.Lock()
	defer process.mu.Unlock()
	process.total = total
	limitHeap()
}

// hold counts bytes that are mapped, or no more if less than 0.
func hold(bytes int64) {
	process.mu.Lock()
	defer process.mu.Unlock()
	process.held += bytes
	limitHeap()
}

// limitHeap tells Go what is left to it. The mutex is held.
func limitHeap() {
	switch {
	case process.total == 0:
	case OffHeap:
		debug.SetMemoryLimit(max(process.total-process.held, leastHeap))
	default: // what is held is the heap's
		debug.SetMemoryLimit(process.total)
	}
}
