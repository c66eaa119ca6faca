package placement_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/switchyard-dev/switchyard/api/v1alpha1"
	"github.com/switchyard-dev/switchyard/controllers/placement"
	"github.com/switchyard-dev/switchyard/test/wrappers"
)

// machine is a pod as the agent makes it: it takes up assignments late, loads one thing at a time, sometimes fails,
// crashes, and reports late. A poisonous digest ends its process twice, and is then refused.
type machine struct {
	pod     placement.Pod
	taken   v1alpha1.AdapterAssignmentSpec // what the process has read
	answers map[string]string              // digest in use by name
	failed  map[string]string              // why digests fail, whatever process tries them
	crashes map[string]int                 // by digest
	gone    map[string]bool                // names that its assignment had not for a while since it was last read
	started time.Time
}

func poisonous(digest string) bool { return strings.HasSuffix(digest, "3") }

// take makes the process read its assignment. It drops what it is told to drop, and nothing else.
func (m *machine) take(t *testing.T) {
	m.taken = *m.pod.Assignment.Spec.DeepCopy()
	for name, digest := range m.answers {
		e, ok := placement.Entry(m.pod.Assignment, name)
		if !ok || m.gone[name] {
			delete(m.answers, name)
			continue
		}
		if digest != e.Digest && digest != e.FallbackDigest {
			t.Fatalf("%s: the pod answers with %s, and its entry is %+v", name, digest, e)
		}
	}
	m.gone = map[string]bool{}
}

// load loads some of what is missing; all of it if r is nil.
func (m *machine) load(r *rand.Rand) {
	for _, e := range m.taken.Adapters {
		switch {
		case r != nil && m.failed[e.Digest] == v1alpha1.FailurePullFailed && r.IntN(3) == 0:
			delete(m.failed, e.Digest) // it was pushed again
		case m.answers[e.Name] == e.Digest || m.failed[e.Digest] != "" || r != nil && r.IntN(2) == 0:
		case poisonous(e.Digest):
			m.crashes[e.Digest]++
			if m.crashes[e.Digest] == 2 {
				m.failed[e.Digest] = v1alpha1.FailureCrashedLoading
			}
			m.restart()
			return
		case r != nil && r.IntN(4) == 0:
			m.failed[e.Digest] = []string{v1alpha1.FailureTrialFailed, v1alpha1.FailurePullFailed}[r.IntN(2)]
		default:
			m.answers[e.Name] = e.Digest
		}
	}
}

// restart makes it a process that has its last assignment and artifacts, and so comes back with what it answered with.
func (m *machine) restart() {
	m.started = m.started.Add(time.Minute)
	next := m.pod.DeepCopy()
	next.Status.Conditions = nil
	next.Status.ContainerStatuses[0].RestartCount++
	next.Status.ContainerStatuses[0].State.Running.StartedAt.Time = m.started
	m.pod.Pod = next
}

// ready makes what kubelet says of it be so, or not.
func (m *machine) ready(is bool) {
	next := m.pod.DeepCopy()
	if next.Status.Conditions = nil; is {
		next.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	}
	m.pod.Pod = next
}

func (m *machine) terminate() {
	next := m.pod.DeepCopy()
	next.DeletionTimestamp = &next.CreationTimestamp
	m.pod.Pod = next
}

func (m *machine) living() bool { return m.pod.DeletionTimestamp.IsZero() }

func (m *machine) report() {
	b := wrappers.Assignment("demo", m.pod.Name).Owner(m.pod.Pod).Started(m.started).Observed(m.taken.Revision)
	for _, e := range m.taken.Adapters {
		switch {
		case m.answers[e.Name] == e.Digest:
		case m.failed[e.Digest] != "":
			b.Failed(e.Name, e.Digest, m.failed[e.Digest], "")
		default:
			b.Pending(e.Name, e.Digest)
		}
		if e.FallbackDigest != "" && m.answers[e.Name] != e.Digest && m.answers[e.Name] != e.FallbackDigest {
			if why := m.failed[e.FallbackDigest]; why != "" {
				b.Failed(e.Name, e.FallbackDigest, why, "")
			} else {
				b.Pending(e.Name, e.FallbackDigest)
			}
		}
	}
	spec := m.pod.Assignment.Spec
	m.pod.Assignment = b.Obj()
	m.pod.Assignment.Spec = spec
}

// history is a pool through which time passes.
type history struct {
	t        *testing.T
	seed     uint64
	r        *rand.Rand
	adapters map[string]placement.Adapter
	pods     []*machine
	created  int             // pods so far
	served   map[string]bool // digests that some pod has ever answered with
	spare    bool            // the last pod that is ready, or all while they are replaced
}

var names = []string{"a", "b", "c", "d", "e"}

func (h *history) fatalf(format string, args ...any) {
	h.t.Helper()
	h.t.Fatalf("seed %d: "+format, append([]any{h.seed}, args...)...)
}

// holders are the living pods whose assignment has a digest.
func (h *history) holders(digest string) (holders []string) {
	for _, m := range h.pods {
		if m.living() && m.pod.Assignment != nil && slices.ContainsFunc(m.pod.Assignment.Spec.Adapters,
			func(e v1alpha1.AssignedAdapter) bool { return e.Digest == digest || e.FallbackDigest == digest }) {
			holders = append(holders, m.pod.Name)
		}
	}
	return holders
}

// said are the digests that a report in hand proves.
func (h *history) said() map[string]bool {
	said := map[string]bool{}
	for _, m := range h.pods {
		if m.pod.Assignment != nil && placement.Fresh(m.pod.Pod, m.pod.Assignment) {
			for _, e := range m.pod.Assignment.Spec.Adapters {
				if placement.Serves(m.pod.Assignment, e) {
					said[e.Digest] = true
				}
			}
		}
	}
	return said
}

// plan carries a plan out, and holds it to what must be so.
func (h *history) plan() {
	var list []placement.Adapter
	for _, a := range h.adapters {
		list = append(list, a)
	}
	in := make([]placement.Pod, 0, len(h.pods))
	for _, m := range h.pods {
		in = append(in, m.pod)
	}
	said, held := h.said(), map[string]int{}
	for _, a := range h.adapters {
		held[a.Digest] = len(h.holders(a.Digest))
	}
	limits := placement.Limits{Count: 10, Bytes: 1000, Spare: h.spare} // five adapters, each in the midst of a swap
	out := placement.EveryPod("pool", list, in, limits)
	for _, limits := range []placement.Limits{
		limits,
		{Count: 10, Bytes: 1000, Spare: !h.spare},
		{Count: len(list), Bytes: 1000},
		{Count: 10, Bytes: 10 * int64(len(list))},
	} {
		out := placement.EveryPod("pool", list, in, limits)
		for name := range h.adapters {
			full, first, tried := placement.Fit("pool", name, list, in, limits)
			if at, planned := out.First[name]; full != out.Full[name] || first != at || tried != planned {
				h.fatalf("%s: expected as planned %+v, %q, found %+v, %q", name, out.Full[name], at, full, first)
			}
		}
	}
	for _, m := range h.pods {
		if !m.living() {
			if _, planned := out.Specs[m.pod.Name]; planned {
				h.fatalf("a plan for %s, which is on its way out", m.pod.Name)
			}
			continue
		}
		if m.pod.Assignment == nil {
			m.pod.Assignment = wrappers.Assignment("demo", m.pod.Name).Owner(m.pod.Pod).Obj()
		}
		h.assign(m, out.Specs[m.pod.Name], said)
	}
	for digest, before := range held {
		now := h.holders(digest)
		if !h.served[digest] && len(now) > 1 {
			h.fatalf("%s, which nobody has served, is in %v", digest, now)
		}
		if !h.spare && digest != "" && before == 0 && len(now) == 0 && len(h.waiting(digest)) == 0 &&
			slices.ContainsFunc(h.pods, (*machine).living) {
			h.fatalf("%s is in no pod", digest)
		}
	}
}

// assign writes a pod's assignment.
func (h *history) assign(m *machine, after v1alpha1.AdapterAssignmentSpec, said map[string]bool) {
	before := m.pod.Assignment.Spec
	same := slices.Equal(before.Adapters, after.Adapters) && before.Revision > 0
	if after.Revision < before.Revision || same != (after.Revision == before.Revision) {
		h.fatalf("revision %d became %d, entries the same: %v", before.Revision, after.Revision, same)
	}
	former := m.pod.Assignment
	m.pod.Assignment = former.DeepCopy()
	m.pod.Assignment.Spec = after
	for _, name := range names {
		a, wanted := h.adapters[name]
		e, ok := placement.Entry(m.pod.Assignment, name)
		if !ok {
			m.gone[name] = true
		}
		if _, had := placement.Entry(former, name); wanted && !had && (a.Proven || said[a.Digest]) && e.Digest != a.Digest {
			h.fatalf("%s: %s is known to be served, and pod %s has %+v", name, a.Digest, m.pod.Name, e)
		}
	}
}

// waiting are the pods in which a swap under way has to end before the next: an entry has one fallback.
func (h *history) waiting(digest string) (waiting []string) {
	for _, m := range h.pods {
		for name, a := range h.adapters {
			if e, ok := placement.Entry(m.pod.Assignment, name); ok && a.Digest == digest && e.FallbackDigest != "" {
				waiting = append(waiting, m.pod.Name)
			}
		}
	}
	return waiting
}

// observe sets what the status of adapters would: which targets were served by a pod whose report counts.
func (h *history) observe() {
	for name, a := range h.adapters {
		for _, m := range h.pods {
			e, ok := placement.Entry(m.pod.Assignment, name)
			if ok && e.Digest == a.Digest && placement.Counts(m.pod.Pod, m.pod.Assignment) &&
				placement.Serves(m.pod.Assignment, e) {
				a.Proven = true
				h.adapters[name] = a
			}
		}
	}
}

func (h *history) add() {
	name := fmt.Sprint("pod", h.created)
	m := &machine{
		started: start, answers: map[string]string{}, failed: map[string]string{}, crashes: map[string]int{},
		gone: map[string]bool{},
	}
	at := start.Add(time.Duration(h.created/2) * time.Second)
	m.pod.Pod = wrappers.Pod("demo", name).Template(strconv.Itoa(h.created / 3)).Created(at).Running(start).Obj()
	m.ready(h.r.IntN(2) == 0)
	h.pods = append(h.pods, m)
	h.created++
}

// happen makes something happen to one pod.
func (h *history) happen(m *machine) {
	switch r := h.r; {
	case r.IntN(40) == 0:
		m.terminate()
	case m.pod.Assignment == nil:
	case r.IntN(12) == 0:
		m.restart()
	case r.IntN(8) == 0:
		m.ready(r.IntN(3) > 0)
	case r.IntN(3) == 0:
		m.take(h.t)
	case r.IntN(2) == 0:
		m.load(r)
		for _, digest := range m.answers {
			h.served[digest] = true
		}
	default:
		m.report()
	}
}

func (h *history) step() {
	name := names[h.r.IntN(len(names))]
	switch h.r.IntN(10) {
	case 0:
		if next := fmt.Sprint(name, h.r.IntN(4)); h.adapters[name].Digest != next {
			h.adapters[name] = adapter(name, next, h.r.IntN(9))
		}
	case 1:
		if h.r.IntN(3) == 0 {
			delete(h.adapters, name)
		}
	case 2:
		if len(h.pods) < 4 {
			h.add()
		}
	case 3:
		h.pods = slices.DeleteFunc(h.pods, func(m *machine) bool { return !m.living() && h.r.IntN(2) == 0 })
	case 4, 5:
		h.spare = h.r.IntN(2) == 0
		h.plan()
	case 6:
		h.observe()
	default:
		if len(h.pods) > 0 {
			h.happen(h.pods[h.r.IntN(len(h.pods))])
		}
	}
}

// rest lets nothing happen any more but what must: what fails fails, the rest is loaded.
func (h *history) rest() {
	h.pods = slices.DeleteFunc(h.pods, func(m *machine) bool { return !m.living() })
	h.spare = false
	for range 40 {
		h.plan()
		for _, m := range h.pods {
			m.take(h.t)
			maps.DeleteFunc(m.failed, func(digest, _ string) bool { return !poisonous(digest) })
			m.load(nil)
			for _, digest := range m.answers {
				h.served[digest] = true
			}
			m.report()
			m.ready(true)
		}
		h.observe()
	}
}

// Whatever happens in whatever order: a pod never loses the digest it answers with while it does not serve its target;
// revisions only grow; planning twice changes nothing; what nobody has served is in one pod alone, what is known to be
// served in every new entry; and in the end every pod has what it should, and what ends processes has cost one pod.
func TestPlansAreSafe(t *testing.T) {
	seeds := uint64(100)
	if testing.Short() {
		seeds = 25
	}
	for seed := range seeds {
		h := &history{
			t: t, seed: seed, r: rand.New(rand.NewPCG(seed, 1)),
			adapters: map[string]placement.Adapter{}, served: map[string]bool{},
		}
		for range 200 {
			h.step()
		}
		h.rest()
		for name, a := range h.adapters {
			if holders := h.holders(a.Digest); poisonous(a.Digest) && len(h.pods) > 0 && len(holders) != 1 {
				h.fatalf("%s: expected %s in one pod, found it in %v", name, a.Digest, holders)
			}
			for _, m := range h.pods {
				e, ok := placement.Entry(m.pod.Assignment, name)
				if !poisonous(a.Digest) &&
					(!ok || e.Digest != a.Digest || e.FallbackDigest != "" || !placement.Serves(m.pod.Assignment, e)) {
					h.fatalf("%s should be %s in %s, found %+v", name, a.Digest, m.pod.Name, e)
				}
			}
		}
		for _, m := range h.pods {
			for _, e := range m.taken.Adapters {
				if _, known := h.adapters[e.Name]; !known {
					h.fatalf("%s: an entry of no adapter: %+v", m.pod.Name, e)
				}
			}
		}
	}
}
