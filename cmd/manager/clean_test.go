package main

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// What a process that was killed had unpacked goes, and nothing else that is there.
func TestTheWorkFolderIsCleaned(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "work")
	for _, name := range []string{"adapter-1/model", "base-22/model", "mine/model", "adapters/model"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := clean(dir); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var left []string
	for _, e := range entries {
		left = append(left, e.Name())
	}
	if want := []string{"adapters", "mine"}; !slices.Equal(left, want) {
		t.Errorf("expected %v left, found %v", want, left)
	}
	if err := clean(filepath.Join(dir, "new")); err != nil {
		t.Errorf("one that is not there yet: %v", err)
	}
}
