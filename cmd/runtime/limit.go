package main

import (
	"errors"
	"log/slog"
	"math"
	"runtime/debug"

	"github.com/KimMachineGun/automemlimit/memlimit"

	"github.com/switchyard-dev/switchyard/runtime/memory"
)

// takenPercent of the cgroup's memory limit is what weights and Go's heap may take together. The rest is for what
// nobody counts: page tables, the kernel's own, files that are mapped.
const takenPercent = 90

// keepWithinLimit has the process keep within what it may take, by GOMEMLIMIT if the environment has it, else by its
// cgroup: Go's heap has what the memory off it leaves. A cgroup that cannot be read is one without a limit. It returns
// the limit in bytes; 0 is none.
func keepWithinLimit(environment string, cgroup memlimit.Provider, log *slog.Logger) int64 {
	limit := debug.SetMemoryLimit(-1) // as Go has read it of the environment
	if environment == "" {
		found, err := cgroup()
		switch {
		case err == nil:
			limit = int64(min(found, math.MaxInt64) / 100 * takenPercent)
		case !errors.Is(err, memlimit.ErrNoLimit):
			log.Info("no memory limit is known", "reason", err)
		}
	}
	if limit == math.MaxInt64 {
		return 0
	}
	memory.Limit(limit)
	log.Info("memory limit", "bytes", limit)
	return limit
}
