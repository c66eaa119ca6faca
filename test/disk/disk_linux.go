package disk

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

// Small is an empty folder with a file system of its own, of a size as tmpfs takes it (8m), until the test ends. The
// test is skipped where it may not mount one.
func Small(t testing.TB, size string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size)
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

// Resize gives such a folder another size.
func Resize(t testing.TB, dir, size string) {
	t.Helper()
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT, "size="+size); err != nil {
		t.Fatal(err)
	}
}
