//go:build !race

package memory

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// OffHeap tells whether regions lie off Go's heap.
const OffHeap = true

// hugeFrom is the size of a block from which on huge pages are advised: below it one that is half full is a loss.
const hugeFrom = 4 << 20

// mapped is a new mapping.
func mapped(size int) ([]byte, error) {
	first, err := unix.MmapPtr(-1, 0, nil, uintptr(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return nil, err
	}
	data := unsafe.Slice((*byte)(first), size) //nolint:gosec // as many as were mapped
	if size >= hugeFrom {
		_ = unix.Madvise(data, unix.MADV_HUGEPAGE) // a kernel without them does without
	}
	return data, nil
}

// unmap gives whole pages of a mapping back.
func unmap(data []byte) {
	if err := unix.MunmapPtr(unsafe.Pointer(&data[0]), uintptr(len(data))); err != nil { //nolint:gosec // mapped's
		panic(err) // of an address that is none of ours
	}
}
