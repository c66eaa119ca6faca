package artifacts_test

import (
	"errors"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/switchyard-dev/switchyard/runtime/agent/artifacts"
	"github.com/switchyard-dev/switchyard/runtime/agent/artifacts/registrytest"
	"github.com/switchyard-dev/switchyard/runtime/peft"
	"github.com/switchyard-dev/switchyard/test/disk"
	"github.com/switchyard-dev/switchyard/test/wrappers"
)

// On a disk that is full what is there stays and is served, and what has no room leaves nothing behind: it comes once
// there is some. It is not the registry that is away.
func TestAFullDisk(t *testing.T) {
	r, dir := registrytest.New(t), disk.Small(t, "4m")
	small := r.Adapter(sample+"adapters/parity", peft.Settings{})
	large := r.Adapter(wrappers.Noise(t, 8<<20), peft.Settings{})
	s := newStore(t, dir, r)
	fetch(t, s, small)
	for range 3 {
		_, err := s.Fetch(t.Context(), large, limit)
		var away *artifacts.UnreachableError
		if !errors.Is(err, syscall.ENOSPC) || errors.As(err, &away) {
			t.Fatalf("expected no space left, found %v", err)
		}
		if left, _ := filepath.Glob(filepath.Join(dir, "incoming/*")); len(left) > 0 {
			t.Errorf("expected nothing left, found %v", left)
		}
	}
	sameFiles(t, fetch(t, s, small), sample+"adapters/parity")
	sameFiles(t, fetch(t, newStore(t, dir, r), small), sample+"adapters/parity") // of another process
	disk.Resize(t, dir, "32m")
	fetch(t, s, large)
}
