package memory_test

import (
	"runtime/debug"
	"slices"
	"sync"
	"testing"
	"unsafe"

	"github.com/switchyard-dev/switchyard/runtime/memory"
)

// What is handed out is zero, lies at the start of a line of the cache, and is nobody else's, whoever asks at once.
func TestARegionHandsOutMemory(t *testing.T) {
	var r memory.Region
	defer r.Free()
	sizes := []int{1, 15, 16, 17, 1000, 20_000, 3, 2_000_000, 1}
	var all [][]float32
	var mu sync.Mutex
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for _, n := range sizes {
				x := memory.Make[float32](&r, n)
				if len(x) != n || cap(x) != n {
					t.Errorf("expected %d values, found %d of %d", n, len(x), cap(x))
				}
				if at := uintptr(unsafe.Pointer(&x[0])); at%64 != 0 {
					t.Errorf("%d values begin at %#x", n, at)
				}
				mu.Lock()
				all = append(all, x)
				mu.Unlock()
			}
		})
	}
	group.Wait()
	for i, x := range all {
		if slices.ContainsFunc(x, func(v float32) bool { return v != 0 }) {
			t.Fatalf("slice %d of %d: expected zeros", i, len(x))
		}
		for j := range x {
			x[j] = float32(i + 1)
		}
	}
	for i, x := range all {
		if slices.ContainsFunc(x, func(v float32) bool { return v != float32(i+1) }) {
			t.Fatalf("slice %d of %d: another wrote to it", i, len(x))
		}
	}
}

func TestNothingOfARegion(t *testing.T) {
	var r memory.Region
	if x := memory.Make[uint16](&r, 0); x == nil || len(x) != 0 || r.Bytes() != 0 {
		t.Errorf("expected an empty slice of no memory, found %v of %d bytes", x, r.Bytes())
	}
	if x := memory.Copy(nil, []uint16{1, 2}); !slices.Equal(x, []uint16{1, 2}) {
		t.Errorf("no region: expected a copy on the heap, found %v", x)
	}
	r.Seal()
	r.Free()
}

// What a region holds is counted by the page: what is left of a block is given back when there is another, and at the
// end.
func TestWhatIsHeldIsCounted(t *testing.T) {
	const page = 4 << 10
	before := memory.Held()
	var r memory.Region
	total := int64(0)
	for _, n := range []int{10, 100_000, 7, 3_000_000, 50_000, 50_000, 50_000} {
		memory.Make[float32](&r, n)
		total += int64(4 * n)
	}
	if held := memory.Held() - before; held != r.Bytes() || held < total {
		t.Errorf("expected at least %d bytes, as the region says, found %d and %d", total, held, r.Bytes())
	}
	r.Seal()
	if r.Bytes() < total || r.Bytes() > total+7*page {
		t.Errorf("sealed: expected hardly more than %d bytes, found %d", total, r.Bytes())
	}
	values := memory.Make[float32](&r, 1) // takes more, or of the last page
	values[0] = 1
	for range 2 {
		r.Free()
		if held := memory.Held() - before; held != 0 || r.Bytes() != 0 {
			t.Errorf("freed: expected nothing, found %d and %d", held, r.Bytes())
		}
	}
}

// Go's own limit is what is left of the whole, and never so little that the heap is collected all the time.
func TestTheHeapsLimitFollows(t *testing.T) {
	if !memory.OffHeap {
		t.Skip("regions lie on the heap here")
	}
	const mebibyte = 1 << 20
	limit := func() int64 { return debug.SetMemoryLimit(-1) }
	defer debug.SetMemoryLimit(limit())
	defer memory.Limit(0)
	memory.Limit(memory.Held() + 200*mebibyte)
	var r memory.Region
	for _, c := range []struct{ take, left int64 }{{0, 200}, {50, 150}, {100, 64}, {100, 64}} {
		memory.Make[float32](&r, int(c.take*mebibyte/4))
		if limit() != c.left*mebibyte {
			t.Errorf("%d MiB taken: expected a limit of %d MiB, found %d bytes", c.take, c.left, limit())
		}
	}
	if r.Free(); limit() != 200*mebibyte {
		t.Errorf("freed: expected a limit of 200 MiB, found %d bytes", limit())
	}
	memory.Limit(0)
	if memory.Make[float32](&r, 1); limit() != 200*mebibyte {
		t.Errorf("without a limit: expected Go's left alone, found %d bytes", limit())
	}
	r.Free()
}
