package artifact_test

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/switchyard-dev/switchyard/controllers/artifact"
	"github.com/switchyard-dev/switchyard/runtime/peft"
	"github.com/switchyard-dev/switchyard/test/wrappers"
)

// disk is a folder with a file system of its own, of so many bytes.
func disk(t *testing.T, options string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	err := unix.Mount("tmpfs", dir, "tmpfs", 0, options)
	if errors.Is(err, unix.EPERM) {
		t.Skip("a disk of some megabytes can be mounted by root alone")
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// noise is an artifact of so many bytes that are like no other's.
func noise(t *testing.T, size int) *artifact.Packed {
	t.Helper()
	return pack(t, artifact.Adapter, wrappers.Noise(t, size), peft.Settings{})
}

// A full disk refuses what has no room, and keeps and takes the rest; what was refused leaves nothing behind, so that
// it is taken when there is room again.
func TestAFullDisk(t *testing.T) {
	dir := disk(t, "size=8m")
	s := store(t, serve(t, keep(dir)), token)
	first, large, small := noise(t, 2<<20), noise(t, 10<<20), noise(t, 1<<20)
	if err := s.Push(t.Context(), repo, first); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		expectUnavailable(t, s.Push(t.Context(), repo, large), "it is not able to answer: status 500")
	}
	expectExists(t, s, repo, first.Digest, true)
	expectExists(t, s, repo, large.Digest, false)
	if err := s.Push(t.Context(), repo, small); err != nil {
		t.Errorf("what has room: %v", err)
	}
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT, "size=32m"); err != nil {
		t.Fatal(err)
	}
	if err := s.Push(t.Context(), repo, large); err != nil {
		t.Errorf("when there is room: %v", err)
	}
	for _, p := range []*artifact.Packed{first, large, small} {
		expectExists(t, s, repo, p.Digest, true)
	}
}
