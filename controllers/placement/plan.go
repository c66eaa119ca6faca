package placement

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/switchyard-dev/switchyard/api/v1alpha1"
)

// Adapter is what placement needs to know of a LoRAAdapter.
type Adapter struct {
	Name     string
	Created  time.Time
	Deleting bool
	Digest   string // of its target revision; "" while there is none
	Bytes    int64  // of its target revision
	Proven   bool   // some pod has served its target revision
}

// Pod is a pod of the pool, and its assignment: nil as long as it has none.
type Pod struct {
	*corev1.Pod
	Assignment *v1alpha1.AdapterAssignment
}

// Limits bound what one pod holds, and is asked to try.
type Limits struct {
	Count int
	Bytes int64
	Spare bool // the only pod that is ready, or stays ready when all are replaced, tries nothing new
}

// Plan is what each pod should hold, and what did not fit.
type Plan struct {
	Specs map[string]v1alpha1.AdapterAssignmentSpec // by pod
	Full  map[string]Shortage                       // adapters for which some pod has no room
	First map[string]string                         // adapters whose target goes to one pod first; "" while none is fit
}

// Shortage is why a pod has no room for an adapter.
type Shortage struct {
	Reason  string // one of api/v1alpha1's; "" is no shortage
	Message string
}

// EveryPod plans that every pod holds every adapter, once one pod has served it. Terminating pods keep what they have.
//
// Where not all fit, the oldest adapters win, the same ones in every pod. While an adapter is swapped it takes its
// place twice, so a swap waits until there is room beside what the pod already holds: it never costs another its place.
func EveryPod(pool string, adapters []Adapter, pods []Pod, limits Limits) Plan {
	plan := Plan{
		Specs: make(map[string]v1alpha1.AdapterAssignmentSpec, len(pods)),
		Full:  map[string]Shortage{}, First: map[string]string{},
	}
	members := plan.choose(adapters, held(pods), limits)
	views := look(pods)
	onTrial := tryOut(members, views, limits.Spare)
	for _, a := range members {
		if first, tried := onTrial.first(a.Digest); tried {
			plan.First[a.Name] = first
		}
	}
	for i := range views {
		if pod := &views[i]; pod.DeletionTimestamp.IsZero() {
			plan.Specs[pod.Name] = number(pool, pod.Assignment, plan.fill(members, pod, views, onTrial, limits))
		}
	}
	return plan
}

// Fit is what EveryPod plans for one adapter: why some pod has no room for it, and whether its target is tried on one
// pod first, and on which. Where all have room, as nearly always, it does not plan for the others: each adapter of a
// pool asks at every turn.
func Fit(
	pool, name string, adapters []Adapter, pods []Pod, limits Limits,
) (full Shortage, first string, tried bool) {
	members, digest := make([]Adapter, 0, len(adapters)), ""
	var all room
	for _, a := range adapters {
		if a.Deleting || a.Digest == "" { // the latter keeps what it has, of no known size
			all.count += 2
			continue
		}
		members = append(members, a)
		all.add(a.Bytes, true) // beside what it replaces
		if a.Name == name {
			digest = a.Digest
		}
	}
	if all.count > limits.Count || all.bytes > limits.Bytes {
		plan := EveryPod(pool, adapters, pods, limits)
		first, tried = plan.First[name]
		return plan.Full[name], first, tried
	}
	first, tried = tryOut(members, look(pods), limits.Spare).first(digest)
	return full, first, tried
}

// held names what some pod has already.
func held(pods []Pod) map[string]bool {
	names := map[string]bool{}
	for _, pod := range pods {
		if pod.Assignment != nil {
			for _, e := range pod.Assignment.Spec.Adapters {
				names[e.Name] = true
			}
		}
	}
	return names
}

// choose lists the adapters that may be in a pod, oldest first, by what they take once their swaps are over.
func (p *Plan) choose(adapters []Adapter, held map[string]bool, limits Limits) []Adapter {
	var members []Adapter
	used := room{limits: limits}
	sorted := slices.SortedFunc(slices.Values(adapters), func(a, b Adapter) int {
		return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.Name, b.Name))
	})
	for _, a := range sorted {
		if a.Deleting || a.Digest == "" && !held[a.Name] {
			continue
		}
		if a.Digest != "" {
			why := used.take(a.Bytes)
			if why == "" {
				members = append(members, a)
				continue
			}
			p.Full[a.Name] = Shortage{v1alpha1.ReasonPoolFull, why}
		}
		// Without a target, or with one that has grown too large, a former revision stays where it is.
		a.Digest, a.Bytes = "", 0
		if held[a.Name] && used.take(0) == "" {
			members = append(members, a)
		}
	}
	return members
}

// fill makes the entries of one pod, sorted by name, their since left as it was.
func (p *Plan) fill(
	members []Adapter, pod *view, views []view, onTrial trials, limits Limits,
) []v1alpha1.AssignedAdapter {
	entries := make([]v1alpha1.AssignedAdapter, 0, len(members))
	used := room{limits: limits}
	var wishes []wish
	// What the pod has comes first, with the fallbacks of swaps under way.
	for _, a := range members {
		current, ok := Entry(pod.Assignment, a.Name)
		former := ""
		if !ok {
			former = onTrial.former(views, a)
		}
		if !onTrial.admit(a.Digest, pod.Name) { // it keeps what it has for now
			current, ok = withdraw(current, a.Digest)
			a.Digest = ""
		}
		if !ok {
			if e, ok := begin(a, former); ok {
				wishes = append(wishes, wish{a, e, -1, ""})
			}
			continue
		}
		state := Loading // of a process that has not reported, anything may be true
		if pod.fresh {
			state = pod.report.State(current)
		}
		next := step(current, a.Digest, state)
		if next.Digest != current.Digest {
			wishes = append(wishes, wish{a, next, len(entries), pod.missed(current)})
			next = current
		}
		used.add(a.Bytes, next.FallbackDigest != "")
		entries = append(entries, next)
	}
	// Then what is new to it, as far as there is room, in the order of age.
	for _, w := range wishes {
		if w.at >= 0 && (w.entry.FallbackDigest == "" || entries[w.at].FallbackDigest != "") {
			entries[w.at] = w.grant(&used) // takes no more than it did
			continue
		}
		why := used.take(w.adapter.Bytes)
		if why == "" && w.at < 0 && w.entry.FallbackDigest != "" {
			if why = used.take(w.adapter.Bytes); why != "" { // what answers comes first
				w.at = len(entries)
				entries = append(entries, v1alpha1.AssignedAdapter{Name: w.adapter.Name, Digest: w.entry.FallbackDigest})
			}
		}
		switch {
		case why != "" && w.at >= 0:
			p.Full[w.adapter.Name] = Shortage{
				v1alpha1.ReasonNoRoomForSwap, "its new revision needs room beside the one it replaces: " + why,
			}
		case why != "":
			p.Full[w.adapter.Name] = Shortage{v1alpha1.ReasonPoolFull, why}
		case w.at >= 0:
			entries[w.at] = w.entry
		default:
			entries = append(entries, w.entry)
		}
	}
	slices.SortFunc(entries, func(a, b v1alpha1.AssignedAdapter) int { return compareName(a, b.Name) })
	return entries
}

// begin is the first entry of an adapter in a pod, if there is anything to hold yet.
func begin(a Adapter, former string) (e v1alpha1.AssignedAdapter, ok bool) {
	e = v1alpha1.AssignedAdapter{Name: a.Name, Digest: a.Digest, FallbackDigest: former}
	if e.Digest == "" {
		e.Digest, e.FallbackDigest = former, ""
	}
	return e, e.Digest != ""
}

// wish is an entry that takes room its pod has not given yet: a new one, or in place of the one at an index.
type wish struct {
	adapter Adapter
	entry   v1alpha1.AssignedAdapter
	at      int
	missed  string // what the pod could not pull, in whose place it is
}

// grant is the entry, with what was missed beside it if there is room: that may be there again before the next is known
// to be any better.
func (w *wish) grant(used *room) v1alpha1.AssignedAdapter {
	granted := w.entry
	if w.missed != "" && used.take(w.adapter.Bytes) == "" {
		granted.FallbackDigest = w.missed
	}
	return granted
}

// step is the next entry on an adapter's way to a digest in one pod.
func step(current v1alpha1.AssignedAdapter, digest string, state State) v1alpha1.AssignedAdapter {
	next := current
	switch {
	case digest == "" || digest == current.Digest:
		if state == Served {
			next.FallbackDigest = ""
		}
	case state == Failed && digest == current.FallbackDigest:
		next.Digest, next.FallbackDigest = digest, ""
	case state == Failed:
		next.Digest = digest // the fallback, if there is one, is what answers
	case state == Served || current.FallbackDigest == "" || digest == current.FallbackDigest:
		next.Digest, next.FallbackDigest = digest, current.Digest
	default:
		// The pod answers with the one or the other, and an entry holds only one fallback: one swap at a time.
	}
	return next
}

// number gives the entries their since, and the spec its revision.
func number(
	pool string, a *v1alpha1.AdapterAssignment, entries []v1alpha1.AssignedAdapter,
) v1alpha1.AdapterAssignmentSpec {
	if a == nil {
		a = &v1alpha1.AdapterAssignment{}
	}
	changed := a.Spec.Revision == 0 || a.Spec.PoolName != pool || len(entries) != len(a.Spec.Adapters)
	revision := a.Spec.Revision + 1
	for i, e := range entries {
		current, ok := Entry(a, e.Name)
		// A dropped fallback changes nothing about what the entry asks for: the pod goes on serving it.
		if !ok || current.Digest != e.Digest {
			entries[i].Since = revision
		}
		changed = changed || entries[i] != current
	}
	if !changed {
		return a.Spec
	}
	return v1alpha1.AdapterAssignmentSpec{PoolName: pool, Revision: revision, Adapters: entries}
}

// room is what is taken of a pod.
type room struct {
	limits Limits
	count  int
	bytes  int64
}

// add takes room for what is there already, whether or not it fits.
func (r *room) add(bytes int64, twice bool) {
	n := 1
	if twice { // a fallback's size is not known: it is taken to be its successor's
		n = 2
	}
	r.count += n
	r.bytes += int64(n) * bytes
}

// take takes room for one revision, or says why there is none.
func (r *room) take(bytes int64) string {
	switch {
	case r.count >= r.limits.Count:
		return fmt.Sprintf("a pod holds at most %d revisions of adapters (spec.adapters.maxCount), older ones take them",
			r.limits.Count)
	case bytes > r.limits.Bytes-r.bytes:
		return fmt.Sprintf("it takes %d bytes, and of the %d that a pod has for adapters (spec.adapters.memory) older "+
			"ones take %d", bytes, r.limits.Bytes, r.bytes)
	}
	r.add(bytes, false)
	return ""
}

func compareName(e v1alpha1.AssignedAdapter, name string) int { return strings.Compare(e.Name, name) }
