package agent

import (
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/switchyard-dev/switchyard/api/v1alpha1"
	"github.com/switchyard-dev/switchyard/runtime/agent/artifacts"
)

// digestOf is a digest for a letter.
func digestOf(letter string) string {
	if letter == "" {
		return ""
	}
	return "sha256:" + strings.Repeat(letter, 64)
}

func entry(name, target, fallback string) v1alpha1.AssignedAdapter {
	return v1alpha1.AssignedAdapter{Name: name, Digest: digestOf(target), FallbackDigest: digestOf(fallback)}
}

func TestDecide(t *testing.T) {
	invalid := &failure{v1alpha1.FailureInvalidAdapter, "no adapter"}
	lost := &failure{v1alpha1.FailurePullFailed, "404"}
	down, up := revision{phase: loading}, revision{phase: loaded}
	bad, gone := revision{phase: broken, failure: invalid}, revision{phase: loading, failure: lost}
	out := revision{phase: loading, away: true}
	type revisions map[string]revision
	cases := []struct {
		name      string
		entries   []v1alpha1.AssignedAdapter
		revisions revisions         // by letter
		now       map[string]string // what names answer with, by letter
		answers   string            // name=letter, name=? while loading, name=! refused
		wanted    string
		pending   string // name:letter
		failed    string
		settled   string
		returns   bool
	}{
		{name: "nothing assigned"},
		{
			name: "new", entries: []v1alpha1.AssignedAdapter{entry("x", "a", "")},
			answers: "x=?", wanted: "a", pending: "x:a",
		},
		{
			name: "loading", entries: []v1alpha1.AssignedAdapter{entry("x", "a", "")}, revisions: revisions{"a": down},
			answers: "x=?", wanted: "a", pending: "x:a",
		},
		{
			name: "loaded", entries: []v1alpha1.AssignedAdapter{entry("x", "a", "")}, revisions: revisions{"a": up},
			answers: "x=a", wanted: "a", settled: "x",
		},
		{
			name: "invalid", entries: []v1alpha1.AssignedAdapter{entry("x", "a", "")}, revisions: revisions{"a": bad},
			answers: "x=!", wanted: "a", failed: "x:a", settled: "x",
		},
		{
			name: "not in the registry", entries: []v1alpha1.AssignedAdapter{entry("x", "a", "")},
			revisions: revisions{"a": gone}, answers: "x=?", wanted: "a", failed: "x:a", settled: "x",
		},
		{
			name: "two names of one digest", entries: []v1alpha1.AssignedAdapter{entry("x", "a", ""), entry("y", "a", "")},
			revisions: revisions{"a": up}, answers: "x=a y=a", wanted: "a", settled: "x y",
		},

		{
			name: "swap begins", entries: []v1alpha1.AssignedAdapter{entry("x", "b", "a")}, revisions: revisions{"a": up},
			now: map[string]string{"x": "a"}, answers: "x=a", wanted: "a b", pending: "x:b",
		},
		{
			name:    "swap without a fallback goes on with what answers",
			entries: []v1alpha1.AssignedAdapter{entry("x", "b", "")}, revisions: revisions{"a": up, "b": down},
			now: map[string]string{"x": "a"}, answers: "x=a", wanted: "a b", pending: "x:b",
		},
		{
			name: "swap ends, the fallback is let go of", entries: []v1alpha1.AssignedAdapter{entry("x", "b", "a")},
			revisions: revisions{"a": up, "b": up}, now: map[string]string{"x": "a"},
			answers: "x=b", wanted: "b", settled: "x",
		},
		{
			name: "swap fails, the old one answers", entries: []v1alpha1.AssignedAdapter{entry("x", "b", "a")},
			revisions: revisions{"a": up, "b": bad}, now: map[string]string{"x": "a"},
			answers: "x=a", wanted: "a b", failed: "x:b", settled: "x",
		},
		{
			name:    "swap fails without a fallback, the old one answers",
			entries: []v1alpha1.AssignedAdapter{entry("x", "b", "")}, revisions: revisions{"a": up, "b": bad},
			now: map[string]string{"x": "a"}, answers: "x=a", wanted: "a b", failed: "x:b", settled: "x",
		},
		{
			name:    "the next swap never goes back to an older fallback",
			entries: []v1alpha1.AssignedAdapter{entry("x", "c", "a")}, revisions: revisions{"a": up, "b": up, "c": down},
			now: map[string]string{"x": "b"}, answers: "x=b", wanted: "b c", pending: "x:c x:a",
		},
		{
			name: "a swap is taken back", entries: []v1alpha1.AssignedAdapter{entry("x", "a", "b")},
			revisions: revisions{"a": up, "b": up}, now: map[string]string{"x": "b"},
			answers: "x=a", wanted: "a", settled: "x",
		},
		{
			name:      "one of two names moves on",
			entries:   []v1alpha1.AssignedAdapter{entry("x", "b", "a"), entry("y", "a", "")},
			revisions: revisions{"a": up, "b": up}, now: map[string]string{"x": "a", "y": "a"},
			answers: "x=b y=a", wanted: "b a", settled: "x y",
		},

		{
			name: "restart in a swap: the fallback first", entries: []v1alpha1.AssignedAdapter{entry("x", "b", "a")},
			answers: "x=?", wanted: "a b", pending: "x:b x:a",
		},
		{
			name: "restart in a swap: the fallback answers", entries: []v1alpha1.AssignedAdapter{entry("x", "b", "a")},
			revisions: revisions{"a": up, "b": down}, answers: "x=a", wanted: "a b", pending: "x:b",
		},
		{
			name:    "restart in a failed swap waits for the fallback",
			entries: []v1alpha1.AssignedAdapter{entry("x", "b", "a")}, revisions: revisions{"a": down, "b": bad},
			answers: "x=?", wanted: "a b", failed: "x:b", pending: "x:a",
		},
		{
			name: "restart, both fail", entries: []v1alpha1.AssignedAdapter{entry("x", "b", "a")},
			revisions: revisions{"a": bad, "b": bad}, answers: "x=!", wanted: "a b", failed: "x:b x:a", settled: "x",
		},
		{
			name: "a fallback that is the target", entries: []v1alpha1.AssignedAdapter{entry("x", "a", "a")},
			revisions: revisions{"a": down}, answers: "x=?", wanted: "a", pending: "x:a",
		},

		{
			name: "new pod, the registry is away", entries: []v1alpha1.AssignedAdapter{entry("x", "a", "")},
			revisions: revisions{"a": out}, answers: "x=?", wanted: "a", pending: "x:a",
		},
		{
			name: "restart, the registry is away", entries: []v1alpha1.AssignedAdapter{entry("x", "a", "")},
			revisions: revisions{"a": out}, returns: true, answers: "x=?", wanted: "a", pending: "x:a", settled: "x",
		},
		{
			name: "restart in a swap, the registry is away", entries: []v1alpha1.AssignedAdapter{entry("x", "b", "a")},
			revisions: revisions{"a": up, "b": out}, returns: true,
			answers: "x=a", wanted: "a b", pending: "x:b", settled: "x",
		},

		{
			name: "new pod, the registry may have lost it", entries: []v1alpha1.AssignedAdapter{entry("x", "a", "")},
			revisions: revisions{"a": {phase: loading, failure: lost, early: true}}, answers: "x=?", wanted: "a", failed: "x:a",
		},
		{
			name: "restart, the registry may have lost it", entries: []v1alpha1.AssignedAdapter{entry("x", "a", "")},
			revisions: revisions{"a": {phase: loading, failure: lost, early: true}}, returns: true,
			answers: "x=?", wanted: "a", failed: "x:a", settled: "x",
		},
		{
			name:      "new pod, the registry may have lost the fallback",
			entries:   []v1alpha1.AssignedAdapter{entry("x", "b", "a")},
			revisions: revisions{"a": {phase: loading, failure: lost, early: true}, "b": bad},
			answers:   "x=?", wanted: "a b", failed: "x:b x:a",
		},

		{name: "removed", revisions: revisions{"a": up}, now: map[string]string{"x": "a"}},
		{
			name: "the base's name", entries: []v1alpha1.AssignedAdapter{entry("digits", "a", "")},
			answers: "digits=!", failed: "digits:a", settled: "digits",
		},
		{
			name: "a name twice", entries: []v1alpha1.AssignedAdapter{entry("x", "a", ""), entry("x", "b", "")},
			revisions: revisions{"a": up}, answers: "x=a", wanted: "a", failed: "x:b", settled: "x",
		},
		{
			name:    "a digest that is a path",
			entries: []v1alpha1.AssignedAdapter{{Name: "x", Digest: "../../etc"}, entry("y", "a", "")},
			answers: "x=! y=?", wanted: "a", pending: "y:a", failed: "x:?", settled: "x",
		},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			s := state{revisions: map[string]revision{}, answers: map[string]answer{}, returns: c.returns}
			for letter, r := range c.revisions {
				s.revisions[digestOf(letter)] = r
			}
			for name, letter := range c.now {
				s.answers[name] = answer{digest: digestOf(letter)}
			}
			d := decide(c.entries, []string{"digits", "__base__"}, s)
			for what, pair := range map[string][2]string{
				"answers": {c.answers, answersOf(d)},
				"wanted":  {c.wanted, strings.Join(each(d.wanted, letter), " ")},
				"pending": {c.pending, strings.Join(each(d.pending, func(p v1alpha1.PendingAdapter) string {
					return p.Name + ":" + letter(p.Digest)
				}), " ")},
				"failed": {c.failed, strings.Join(each(d.failed, func(f v1alpha1.FailedAdapter) string {
					return f.Name + ":" + letter(f.Digest)
				}), " ")},
				"settled": {c.settled, settledOf(d)},
			} {
				if diff := cmp.Diff(pair[0], pair[1]); diff != "" {
					t.Errorf("%s: expected %q, found %q", what, pair[0], pair[1])
				}
			}
		})
	}
}

func letter(digest string) string {
	if !strings.HasPrefix(digest, "sha256:") {
		return "?"
	}
	return digest[len(digest)-1:]
}

func each[T any](items []T, f func(T) string) (texts []string) {
	for _, item := range items {
		texts = append(texts, f(item))
	}
	return texts
}

func answersOf(d decision) string {
	var texts []string
	for name, a := range d.answers {
		switch {
		case a.digest != "":
			texts = append(texts, name+"="+letter(a.digest))
		case a.failure != nil:
			texts = append(texts, name+"=!")
		default:
			texts = append(texts, name+"=?")
		}
	}
	slices.Sort(texts)
	return strings.Join(texts, " ")
}

func settledOf(d decision) string {
	var names []string
	for name, settled := range d.settled {
		if settled {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}

func TestAMessageFitsTheStatus(t *testing.T) {
	for _, text := range []string{
		strings.Repeat("a", 300), strings.Repeat("ä", 200), "a\xffb", strings.Repeat("\xff", 300),
	} {
		f := newFailure("X", text)
		if len(f.message) > 256 || !strings.HasPrefix(f.message, strings.ToValidUTF8(text[:1], "")) ||
			strings.ToValidUTF8(f.message, "") != f.message {
			t.Errorf("%d bytes: %q", len(f.message), f.message)
		}
	}
}

func TestNext(t *testing.T) {
	failed := &failure{v1alpha1.FailurePullFailed, "404"}
	down, up := revision{phase: loading}, revision{phase: loaded}
	for _, c := range []struct {
		name      string
		wanted    string // letters
		revisions map[string]revision
		crashes   string // letters of those that ended a process
		want      string
		alone     bool
	}{
		{name: "nothing"},
		{name: "all that is missing", wanted: "abcd", revisions: map[string]revision{"a": up, "b": down}, want: "cd"},
		{name: "the innocent first", wanted: "abcd", crashes: "ac", want: "bd", alone: true},
		{
			name: "suspects wait while an innocent is loading", wanted: "abc", crashes: "ac",
			revisions: map[string]revision{"b": down}, alone: true,
		},
		{
			name: "one suspect", wanted: "abc", crashes: "ac", revisions: map[string]revision{"b": up}, want: "a", alone: true,
		},
		{
			name: "one at a time", wanted: "abc", crashes: "ac", revisions: map[string]revision{"a": down, "b": up}, alone: true,
		},
		{
			name: "the next", wanted: "abc", crashes: "ac", revisions: map[string]revision{"a": up, "b": up}, want: "c",
			alone: true,
		},
		{
			name: "an innocent that comes meanwhile", wanted: "abcd", crashes: "ac",
			revisions: map[string]revision{"a": down, "b": up}, want: "d", alone: true,
		},
		{
			name: "neither waits for what cannot be pulled", wanted: "abc", crashes: "ac",
			revisions: map[string]revision{"a": {phase: loading, failure: failed}, "b": {phase: loading, away: true}},
			want:      "c", alone: true,
		},
		{
			name: "no suspect is left", wanted: "abc", crashes: "ac",
			revisions: map[string]revision{"a": up, "c": {phase: broken, failure: failed}}, want: "b",
		},
		{name: "a suspect that nobody wants", wanted: "ab", crashes: "c", want: "ab"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := state{revisions: map[string]revision{}, crashes: map[string]int{}}
			for l, r := range c.revisions {
				s.revisions[digestOf(l)] = r
			}
			for _, l := range strings.Split(c.crashes, "") {
				s.crashes[digestOf(l)] = 1
			}
			got, alone := s.next(each(strings.Split(c.wanted, ""), digestOf))
			if letters := strings.Join(each(got, letter), ""); letters != c.want || alone != c.alone {
				t.Errorf("expected %q, alone %v, found %q, %v", c.want, c.alone, letters, alone)
			}
		})
	}
}

// A process that is told to end while it opens something leaves no suspicion, and none behind that was not there.
func TestLeavingIsNoCrash(t *testing.T) {
	dir := t.TempDir()
	store, err := artifacts.NewStore(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	m := &marks{store: store, log: slog.New(slog.DiscardHandler), opened: map[string]int{}}
	for l, crashes := range map[string]int{"a": 0, "b": 1, "c": 0, "d": 1} {
		if err := m.begin(digestOf(l), crashes); err != nil {
			t.Fatal(err)
		}
	}
	m.end(digestOf("d"))
	m.leave()
	m.end(digestOf("c")) // it came to its end all the same
	if err := m.begin(digestOf("e"), 0); err != nil {
		t.Fatal(err)
	}
	crashes, err := store.Crashes()
	if want := map[string]int{digestOf("b"): 1}; err != nil || !maps.Equal(crashes, want) {
		t.Errorf("expected %v, found %v, %v", want, crashes, err)
	}
}
