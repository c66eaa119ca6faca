package main

import (
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/switchyard-dev/switchyard/api/v1alpha1"
	"github.com/switchyard-dev/switchyard/controllers/artifact"
	"github.com/switchyard-dev/switchyard/test/digits"
	"github.com/switchyard-dev/switchyard/test/wrappers"
)

// needed are the roots of a repository, as the registry's account reads them.
func needed(t *testing.T, of *roots, repository string) (digests map[string]bool, pool bool) {
	t.Helper()
	found, err := of.read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	digests, pool = found[repository]
	return digests, pool
}

// What somebody needs is read with the rights that the registry has: of pools, adapters, and pods whose adapters are
// gone.
func TestWhatIsNeeded(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	of, err := newRoots(as(t, registryAccount))
	if err != nil {
		t.Fatal(err)
	}
	repository := artifact.Repository(s.namespace, "digits")
	expect := func(when string, want ...string) {
		t.Helper()
		named := map[string]bool{}
		for _, digest := range want {
			named[digest] = true
		}
		s.until(when, func() string {
			found, pool := needed(t, of, repository)
			return fmt.Sprint(pool, found)
		}, fmt.Sprint(true, named))
	}
	if _, pool := needed(t, of, repository); pool {
		t.Error("expected no pool yet")
	}
	s.create(s.pool("digits").Obj(), s.lora("parity", "parity"))
	s.runPods("digits", 1)
	parity := s.untilServed("parity", 1).Status.TargetRevision.Digest
	base := s.untilPool("digits", "True Serving").Status.BaseModel.Digest
	expect("a base and an adapter", base, parity)

	// A new revision that is not served yet: the old one is the fallback.
	holes := push(t, s.namespace+"-holes", filepath.Join(digits.Adapters(sample), "holes"))
	s.set(func() { s.silent = true })
	s.change("parity", func(spec *v1alpha1.LoRAAdapterSpec) {
		spec.Source = wrappers.LoRAAdapter("", "").Source(holes).Obj().Spec.Source
	})
	next := s.targetOf("parity", parity)
	expect("a revision on its way", base, parity, next)

	// What a pod was told counts as long as it is told, whether or not the adapter is there.
	first, second := "sha256:"+strings.Repeat("1", 64), "sha256:"+strings.Repeat("2", 64)
	told := wrappers.Assignment(s.namespace, "told").Pool("digits").Revision(1).Entry("gone", first, second, 1).Obj()
	if err := holder(t, system, managerAccount, nil).Create(t.Context(), told); err != nil {
		t.Fatal(err)
	}
	expect("an adapter that is gone", base, parity, next, first, second)
	of.page = 1
	s.create(s.pool("other").Obj(), s.lora("digit", "digit"))
	digit := s.targetOf("digit")
	expect("in many pages", base, parity, next, first, second, digit)

	s.remove(s.pool("digits").Obj())
	s.until("the pool", func() string {
		_, pool := needed(t, of, repository)
		return strconv.FormatBool(pool)
	}, "false")

	nowhere := as(t, registryAccount)
	nowhere.Host = "https://127.0.0.1:1"
	if of, err = newRoots(nowhere); err != nil {
		t.Fatal(err)
	}
	if found, err := of.read(t.Context()); err == nil || found != nil {
		t.Errorf("expected an error and nothing else without an API server, found %v, %v", found, err)
	}
	of = &roots{reader: holder(t, s.namespace, "default", nil), page: page, assignments: assignmentPage}
	if found, err := of.read(t.Context()); err == nil || found != nil {
		t.Errorf("expected an error and nothing else without the rights, found %v, %v", found, err)
	}
}

// targetOf waits for an adapter's revision, other than those that it has had.
func (s *space) targetOf(name string, former ...string) (digest string) {
	s.t.Helper()
	s.until("the revision of "+name, func() string {
		if target := s.adapter(name).Status.TargetRevision; target != nil {
			digest = target.Digest
		}
		return strconv.FormatBool(digest != "" && !slices.Contains(former, digest))
	}, "true")
	return digest
}
