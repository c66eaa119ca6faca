package main

import (
	"errors"
	"log/slog"
	"math"
	"runtime/debug"
	"testing"

	"github.com/KimMachineGun/automemlimit/memlimit"

	"github.com/switchyard-dev/switchyard/runtime/memory"
)

// What weights take is not the heap's, of whoever's limit.
func TestTheHeapKeepsWithinTheLimit(t *testing.T) {
	if !memory.OffHeap {
		t.Skip("weights lie on the heap here")
	}
	const taken = 128 << 20 // off the heap
	was := debug.SetMemoryLimit(-1)
	defer debug.SetMemoryLimit(was)
	defer memory.Limit(0)
	before := memory.Held() // by other tests' bases
	var weights memory.Region
	defer weights.Free()
	memory.Make[float32](&weights, taken/4) // none of which is touched
	for name, c := range map[string]struct {
		environment string
		goHas       int64 // of the environment
		cgroup      uint64
		err         error
		want        int64 // left to the heap
	}{
		"no limit":                    {"", math.MaxInt64, 0, memlimit.ErrNoLimit, math.MaxInt64},
		"no cgroup":                   {"", math.MaxInt64, 0, errors.New("no such file"), math.MaxInt64},
		"a cgroup's":                  {"", math.MaxInt64, 10 * taken, nil, 10*taken/100*takenPercent - taken},
		"the environment's":           {"384MiB", 3 * taken, 10 * taken, nil, 2 * taken},
		"none, says the environment":  {"off", math.MaxInt64, 10 * taken, nil, math.MaxInt64},
		"a cgroup's beyond all bytes": {"", math.MaxInt64, math.MaxUint64, nil, math.MaxInt64/100*takenPercent - taken},
	} {
		t.Run(name, func(t *testing.T) {
			memory.Limit(0)
			debug.SetMemoryLimit(c.goHas)
			cgroup := func() (uint64, error) { return c.cgroup, c.err }
			total, heap := int64(0), c.want
			if c.want != math.MaxInt64 {
				total, heap = c.want+taken, c.want-before
			}
			if found := keepWithinLimit(c.environment, cgroup, slog.New(slog.DiscardHandler)); found != total {
				t.Errorf("expected a limit of %d bytes in all, 0 for none, found %d", total, found)
			}
			if found := debug.SetMemoryLimit(-1); found != heap {
				t.Errorf("expected a limit of %d bytes, found %d", heap, found)
			}
		})
	}
}
