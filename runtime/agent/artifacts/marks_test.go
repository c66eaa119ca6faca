package artifacts_test

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/switchyard-dev/switchyard/runtime/agent/artifacts"
	"github.com/switchyard-dev/switchyard/runtime/agent/artifacts/registrytest"
)

func crashes(t *testing.T, s *artifacts.Store) map[string]int {
	t.Helper()
	found, err := s.Crashes()
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// A process that ends while it loads is counted by its successors, once each, whatever else they do.
func TestCrashesAreCounted(t *testing.T) {
	r, dir := registrytest.New(t), t.TempDir()
	a, b := "sha256:"+strings.Repeat("a", 64), "sha256:"+strings.Repeat("b", 64)
	s := newStore(t, dir, r)
	do := func(err error) {
		t.Helper()
		if err != nil {
			t.Error(err)
		}
	}
	expect := func(what string, want map[string]int) {
		t.Helper()
		s = newStore(t, dir, r) // the next process
		do(s.Keep(map[string]bool{}))
		if found := crashes(t, s); !maps.Equal(found, want) {
			t.Errorf("%s: expected %v, found %v", what, want, found)
		}
	}
	expect("at first", map[string]int{})
	do(s.MarkLoading(a, 0))
	do(s.MarkLoading(b, 0))
	do(s.MarkLoaded(b, 0))
	expect("a process that ended over a", map[string]int{a: 1})
	expect("one that ended before it loaded anything", map[string]int{a: 1})
	do(s.MarkLoading(b, 0))
	do(s.MarkLoaded(b, 0))
	do(s.MarkLoading(a, 1))
	do(s.MarkLoaded(a, 1))
	expect("one that was told to end", map[string]int{a: 1})
	do(s.MarkLoading(a, 1))
	do(s.MarkLoading(b, 0))
	expect("one that ended over both", map[string]int{a: 2, b: 1})
	do(s.MarkLoaded(b, 0))
	do(s.MarkLoaded(b, 0))
	do(s.MarkLoading(a, 2))
	expect("once more", map[string]int{a: 3})
	for range 20 {
		do(s.MarkLoading(a, crashes(t, s)[a]))
	}
	expect("many times", map[string]int{a: 9})
	do(s.MarkLoaded(a, 0))
	expect("at last", map[string]int{})
}

// What else lies among the marks does no harm, and is gone.
func TestWhatIsNoMark(t *testing.T) {
	r, dir := registrytest.New(t), t.TempDir()
	newStore(t, dir, r)
	hex := strings.Repeat("c", 64)
	marks := filepath.Join(dir, "marks")
	for _, name := range []string{
		"x", hex, hex + "-", hex + "-12", hex + "--1", hex + "-1-loadin", hex[1:] + "-1", "../" + "marks/" + hex + "-a", "-1",
	} {
		if err := os.WriteFile(filepath.Join(marks, name), []byte("\x00{"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(marks, "folder", "in", "folder"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{hex + "-1", hex + "-0-loading", hex + "-2"} { // three for one
		if err := os.WriteFile(filepath.Join(marks, name), []byte("corrupt"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if found := crashes(t, newStore(t, dir, r)); !maps.Equal(found, map[string]int{"sha256:" + hex: 2}) {
		t.Errorf("expected the highest count of one digest, found %v", found)
	}
	entries, err := os.ReadDir(marks)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if !slices.Equal(names, []string{hex + "-2"}) {
		t.Errorf("expected one mark, found %v", names)
	}
}
