package agent

import (
	"cmp"
	"strings"
	"unicode/utf8"

	"github.com/switchyard-dev/switchyard/api/v1alpha1"
	"github.com/switchyard-dev/switchyard/runtime/agent/artifacts"
	"github.com/switchyard-dev/switchyard/runtime/quote"
)

// phase is how far a revision has come.
type phase int

const (
	absent  phase = iota
	loading       // being pulled, opened or tried; begun again by itself where that may help
	loaded        // may answer
	broken        // never will
)

// revision is what is known of one digest.
type revision struct {
	phase phase
	// failure is why it is broken, or why it could not be pulled so far; nil while nothing is wrong, or the registry
	// is merely away.
	failure *failure
	away    bool // the registry gave no answer so far
	early   bool // it could not be pulled, but has not been tried often: what the registry has lost is soon pushed again
}

// failure is why an entry is not served, as it is reported.
type failure struct{ reason, message string }

// Error makes a failure the reason of a refusal.
func (f *failure) Error() string { return f.reason + ": " + f.message }

// answer is what a name stands for in the server: a revision, or a failure, or neither while it is loading.
type answer struct {
	digest  string
	failure *failure
}

// state is what the pod holds.
type state struct {
	revisions map[string]revision // by digest
	answers   map[string]answer   // by name
	crashes   map[string]int      // by digest: former processes that ended while they loaded it
	// returns says that a former process of the container was ready. What it had not pulled is not waited for while the
	// registry is away or lacks it: a restart takes nothing from those who are served.
	returns bool
}

// hopeless tells whether nothing is to be gained by waiting for a revision.
func (s state) hopeless(r revision) bool {
	return r.failure != nil && (s.returns || !r.early) || s.returns && r.away
}

// suspected tells whether a revision may be what ended a former process.
func (s state) suspected(digest string) bool {
	phase := s.revisions[digest].phase
	return s.crashes[digest] > 0 && (phase == absent || phase == loading)
}

// next chooses which of the wanted revisions to begin to load. While some are suspected everything is loaded alone, so
// that the next crash has one cause; first the innocent, so that they answer whatever comes, then the suspects one by
// one.
func (s state) next(wanted []string) (digests []string, alone bool) {
	suspect, busy := "", false
	for _, digest := range wanted {
		r, suspected := s.revisions[digest], s.suspected(digest)
		alone = alone || suspected
		switch {
		case r.phase == loading:
			busy = busy || r.failure == nil && !r.away
		case r.phase != absent:
		case suspected:
			suspect = cmp.Or(suspect, digest)
		default:
			digests = append(digests, digest)
		}
	}
	if len(digests) == 0 && !busy && suspect != "" {
		digests = append(digests, suspect)
	}
	return digests, alone
}

// decision is what an assignment asks of a state.
type decision struct {
	answers map[string]answer // what every name stands for from now on; others are unknown
	wanted  []string          // revisions to hold, to load where absent; in the order of their need
	pending []v1alpha1.PendingAdapter
	failed  []v1alpha1.FailedAdapter
	settled map[string]bool // names for which nothing is left to wait for
}

// maxReported is how many entries a status holds of each kind: as many as an assignment has.
const maxReported = 2000

// decide compares what a pod should hold with what it holds. An entry is answered by its target once that is loaded;
// until then by what answers now, so that no name ever goes back to a former revision, or else by its fallback.
func decide(entries []v1alpha1.AssignedAdapter, reserved []string, s state) decision {
	d := decision{answers: make(map[string]answer, len(entries)), settled: make(map[string]bool, len(entries))}
	var fallbacks decision // what is reported of them, behind what is reported of targets
	seen := make(map[string]bool)
	want := func(digest string) {
		if !seen[digest] {
			seen[digest] = true
			d.wanted = append(d.wanted, digest)
		}
	}
	for _, e := range entries {
		_, twice := d.answers[e.Name]
		if f := refuse(e, reserved, twice); f != nil {
			d.report(e.Name, e.Digest, revision{failure: f})
			if !twice {
				d.answers[e.Name], d.settled[e.Name] = answer{failure: f}, true
			}
			continue
		}
		d.take(e, s, want, &fallbacks)
	}
	d.pending = append(d.pending, fallbacks.pending...)
	d.failed = append(d.failed, fallbacks.failed...)
	d.pending = d.pending[:min(len(d.pending), maxReported)]
	d.failed = d.failed[:min(len(d.failed), maxReported)]
	return d
}

// take decides one sound entry.
func (d *decision) take(
	e v1alpha1.AssignedAdapter, s state, want func(digest string), fallbacks *decision,
) {
	target := s.revisions[e.Digest]
	if target.phase == loaded {
		want(e.Digest)
		d.answers[e.Name], d.settled[e.Name] = answer{digest: e.Digest}, true
		return
	}
	now := answer{digest: s.answers[e.Name].digest}
	if s.revisions[now.digest].phase != loaded {
		now.digest = ""
	}
	waiting := false // for the fallback
	if artifacts.IsDigest(e.FallbackDigest) && e.FallbackDigest != e.Digest {
		waiting = d.fallBack(e, s, &now, want, fallbacks)
	}
	if now.digest != "" {
		want(now.digest)
	}
	want(e.Digest)
	d.report(e.Name, e.Digest, target)
	d.settled[e.Name] = s.hopeless(target) && !waiting
	if now.digest == "" && target.phase == broken && !waiting {
		now.failure = target.failure
	}
	d.answers[e.Name] = now
}

// fallBack has the fallback answer if nothing does and it is loaded; if it is not, that is reported, and waited for.
func (d *decision) fallBack(
	e v1alpha1.AssignedAdapter, s state, now *answer, want func(digest string), fallbacks *decision,
) (waiting bool) {
	r := s.revisions[e.FallbackDigest]
	if now.digest == "" && r.phase == loaded {
		now.digest = e.FallbackDigest
	}
	if now.digest == e.FallbackDigest {
		return false
	}
	fallbacks.report(e.Name, e.FallbackDigest, r)
	if now.digest != "" {
		return false // a later revision than the fallback answers
	}
	want(e.FallbackDigest) // before the target: it is what answers soonest
	return !s.hopeless(r)
}

// report tells of a revision that an entry names and that does not answer for it.
func (d *decision) report(name, digest string, r revision) {
	if f := r.failure; f != nil {
		d.failed = append(d.failed, v1alpha1.FailedAdapter{Name: name, Digest: digest, Reason: f.reason, Message: f.message})
		return
	}
	d.pending = append(d.pending, v1alpha1.PendingAdapter{Name: name, Digest: digest})
}

// refuse is why an entry cannot be taken up at all. The manager writes none such; what it writes becomes a file's name
// and a model's, so it is checked.
func refuse(e v1alpha1.AssignedAdapter, reserved []string, twice bool) *failure {
	message := ""
	switch {
	case twice:
		message = "name: expected each once, found " + quote.Name(e.Name) + " twice"
	case !artifacts.IsDigest(e.Digest):
		message = "digest: expected sha256: and 64 hexadecimal digits, found " + quote.Name(e.Digest)
	}
	for _, name := range reserved {
		if e.Name == name {
			message = "name: " + quote.Name(e.Name) + " stands for the base model"
		}
	}
	if message == "" {
		return nil
	}
	return newFailure(v1alpha1.FailureInvalidAdapter, message)
}

// newFailure makes a failure of any text.
func newFailure(reason, message string) *failure {
	const most, mark = 256, "…" // bytes that a status holds
	message = strings.ToValidUTF8(message, "?")
	if len(message) > most {
		end := most - len(mark)
		for !utf8.RuneStart(message[end]) {
			end--
		}
		message = message[:end] + mark
	}
	return &failure{reason, message}
}
