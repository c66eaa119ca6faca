package agent_test

import (
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/switchyard-dev/switchyard/api/v1alpha1"
	"github.com/switchyard-dev/switchyard/runtime/agent/artifacts"
	"github.com/switchyard-dev/switchyard/runtime/agent/artifacts/registrytest"
)

// crash leaves in a pod's cache what a process leaves that is killed while it loads a revision.
func crash(t *testing.T, r *registrytest.Registry, dir, digest string) {
	t.Helper()
	registry, err := artifacts.NewRegistry(r.Options())
	if err != nil {
		t.Fatal(err)
	}
	store, err := artifacts.NewStore(dir, registry)
	if err != nil {
		t.Fatal(err)
	}
	crashes, err := store.Crashes()
	if err != nil {
		t.Fatal(err)
	}
	if err := store.MarkLoading(digest, crashes[digest]); err != nil {
		t.Fatal(err)
	}
}

func marked(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(dir, "marks"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// A revision that was being loaded when a process ended is loaded after all others, and is innocent if that goes well.
func TestASuspectIsLoadedLast(t *testing.T) {
	r, base, digest := shelf(t)
	d, dir := newDesk(), t.TempDir()
	p := start(t, d, r, dir, base)
	revision := d.assign([3]string{"a", digest["parity"]}, [3]string{"b", digest["holes"]},
		[3]string{"c", digest["digit"]}, [3]string{"d", digest["invalid"]}, [3]string{"e", digest["named"], digest["parity"]})
	d.await(t, "all but the invalid one", func(s v1alpha1.AdapterAssignmentStatus) bool {
		return s.ObservedRevision == revision && len(s.Pending) == 0 && len(s.Failed) == 1
	})
	if left := marked(t, dir); len(left) > 0 {
		t.Errorf("expected no marks of what was loaded or refused, found %v", left)
	}
	p.stop()
	crash(t, r, dir, digest["parity"])
	crash(t, r, dir, digest["invalid"])

	p = start(t, d, r, dir, base)
	p.ready(t)
	for name, revision := range map[string]string{"a": "parity", "b": "holes", "c": "digit", "e": "named"} {
		p.answers(t, name, digest[revision])
	}
	log := p.log.String()
	var innocent, suspects []int
	for _, line := range []string{
		"adapter=b revision=" + digest["holes"], "adapter=c revision=" + digest["digit"],
		"adapter=e revision=" + digest["named"],
	} {
		innocent = append(innocent, strings.Index(log, line))
	}
	for _, line := range []string{
		"adapter=a revision=" + digest["parity"], `adapter failed" revision=` + digest["invalid"],
	} {
		suspects = append(suspects, strings.Index(log, line))
	}
	if slices.Min(innocent) < 0 || slices.Max(innocent) > suspects[0] || suspects[0] > suspects[1] {
		t.Errorf("expected the innocent first, then the suspects one by one, found %v, %v in\n%s", innocent, suspects, log)
	}
	if left := marked(t, dir); len(left) > 0 {
		t.Errorf("expected both to be innocent, found %v", left)
	}
}

// What ended two processes is not loaded again as long as it is assigned, by no process of the pod, and holds up
// nobody.
func TestWhatEndsProcessesIsGivenUp(t *testing.T) {
	r, base, digest := shelf(t)
	d, dir := newDesk(), t.TempDir()
	p := start(t, d, r, dir, base)
	d.served(t, d.assign([3]string{"x", digest["parity"]}, [3]string{"y", digest["holes"]}))
	p.stop()
	revision := d.assign([3]string{"x", digest["digit"], digest["parity"]}, [3]string{"y", digest["holes"]},
		[3]string{"new", digest["digit"]})
	crash(t, r, dir, digest["digit"])
	crash(t, r, dir, digest["digit"])
	for range 3 {
		p = start(t, d, r, dir, base)
		p.ready(t)
		status := d.await(t, "CrashedLoading", func(s v1alpha1.AdapterAssignmentStatus) bool {
			return s.ObservedRevision == revision && len(s.Pending) == 0 && len(s.Failed) == 2
		})
		for _, f := range status.Failed {
			if f.Digest != digest["digit"] || f.Reason != v1alpha1.FailureCrashedLoading ||
				!strings.Contains(f.Message, "the process ended 2 times while it was being loaded") {
				t.Errorf("expected that it ended two processes, found %+v", f)
			}
		}
		p.answers(t, "x", digest["parity"])
		p.answers(t, "y", digest["holes"])
		p.refuses(t, "new", http.StatusServiceUnavailable)
		p.stop()
	}
	p = start(t, d, r, dir, base)
	d.served(t, d.assign([3]string{"x", digest["parity"]}, [3]string{"y", digest["holes"]}))
	if left := marked(t, dir); len(left) > 0 {
		t.Errorf("expected that it is forgotten, found %v", left)
	}
	d.served(t, d.assign([3]string{"x", digest["digit"], digest["parity"]}))
	p.answers(t, "x", digest["digit"])
}

// A suspect is no reason to wait for a registry that is away, nor is an innocent that cannot be pulled one for a
// suspect.
func TestASuspectWaitsForNoRegistry(t *testing.T) {
	r, base, digest := shelf(t)
	d, dir := newDesk(), t.TempDir()
	p := start(t, d, r, dir, base)
	d.served(t, d.assign([3]string{"x", digest["parity"]}))
	p.stop()
	crash(t, r, dir, digest["parity"])
	crash(t, r, dir, digest["digit"]) // which has not been pulled, and never will be
	d.assign([3]string{"w", digest["holes"]}, [3]string{"x", digest["parity"]}, [3]string{"y", digest["digit"]})
	r.Away(true)
	p = start(t, d, r, dir, base)
	d.await(t, "all that can be had", func(s v1alpha1.AdapterAssignmentStatus) bool {
		return s.ObservedRevision == 2 && len(s.Pending) == 2
	})
	p.answers(t, "x", digest["parity"])
	r.Away(false)
	d.served(t, 2)
}
