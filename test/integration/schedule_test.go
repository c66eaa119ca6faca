package integration

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/switchyard-dev/switchyard/api/v1alpha1"
	"github.com/switchyard-dev/switchyard/test/oip"
	"github.com/switchyard-dev/switchyard/test/wrappers"
)

var (
	faultsFor = flag.Duration("faults", time.Minute, "how long TestTruthUnderFaults lets things go wrong")
	seedFlag  = flag.Uint64("seed", 0, "of its schedule; 0 takes one at random")
)

// asked are the adapters that clients ask all the time.
var asked = []string{"parity", "holes", "digit"}

const (
	variants = 4 // of each adapter that is asked
	extras   = 8 // adapters more, at most
	// settling is how long it may take until all is as it should be once nothing goes wrong any more: what was tried in
	// vain for half a minute is tried again after as long, and a source that does not answer is given up after half a
	// minute.
	settling = 3 * time.Minute
)

// schedule is what goes wrong, when, and what should be so at its end.
type schedule struct {
	site   *site
	random *rand.Rand
	began  time.Time
	crowd  *crowd
	deck   []fault // in the order of their turns, all of them once
	all    []fault
	stands []standing
	past   []string // what happened, for people

	kinds    []kind
	replicas int32
	wanted   map[string]kind // by adapter: what its spec asks for
}

// standing is a fault that has been applied and is to be healed.
type standing struct {
	fault fault
	until time.Time
}

// kind is a source that an adapter may have, and what becomes of it.
type kind struct {
	name    string
	sample  string // whose labels it has; "" is no good one
	variant int
	apply   func(a *v1alpha1.LoRAAdapter)
	reason  string // of Ready False; "" is Ready
	poison  bool
	hangs   bool
}

// Whatever goes wrong, in whatever order, no status lies for longer than it takes to notice, every request is answered
// but those that a killed process had taken, and in the end all is as it should be. The seed decides the order; the
// same seed is the same order of faults, not the same race.
func TestTruthUnderFaults(t *testing.T) {
	long(t)
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("the seed is %d", seed)
	s := newSchedule(t, seed)
	t.Cleanup(func() {
		if t.Failed() || len(s.site.truth.lied()) > 0 { // for which the watcher is to fail the test
			t.Logf("seed %d:\n%s", seed, strings.Join(s.past, "\n"))
		}
	})
	s.run(t.Context(), *faultsFor)
	s.note("the end")
	s.healAll(t.Context())
	s.settle()
	s.crowd.end()
	s.report()
}

func newSchedule(t *testing.T, seed uint64) *schedule {
	t.Helper()
	s := &schedule{
		random: rand.New(rand.NewPCG(seed, seed)), began: time.Now(), wanted: map[string]kind{}, replicas: 2,
	}
	full := smallDisk(t)
	standBy(t)
	s.site = newSite(t, s.replicas, asked...)
	s.kinds = sources(t, s.site.ns)
	for _, name := range asked {
		s.wanted[name] = kind{name: "the sample's " + name, sample: name}
	}
	s.all = []fault{
		&killedRuntime{s: s.site}, &killedLeader{s: s.site}, &pausedLeader{s: s.site}, &awayAPIServer{s.site},
		&awayRegistry{}, &lostRegistry{s}, &scaled{s: s}, &rolled{s: s},
		&deletedPod{s: s.site}, &evictedPod{s: s.site},
	}
	if full {
		s.all = append(s.all, &fullRegistry{})
	}
	endpoint, err := place.Endpoint(t.Context(), s.site.ns, poolName)
	if err != nil {
		t.Fatal(err)
	}
	s.crowd = startCrowd(s.site.truth, endpoint.HTTP, 2, asked...)
	t.Cleanup(s.crowd.end)
	return s
}

// run has things go wrong for a time.
func (s *schedule) run(ctx context.Context, most time.Duration) {
	s.site.t.Helper()
	next := time.Now().Add(time.Minute)
	for end := time.Now().Add(most); time.Now().Before(end) && ctx.Err() == nil; {
		s.healDue(ctx)
		if s.random.IntN(2) == 0 {
			s.strike(ctx)
		} else if !s.now().noAPI {
			s.churn(ctx)
		}
		if lies := s.site.truth.lied(); len(lies) > 0 {
			s.note("a status has lied: %q", lies)
			return // the watcher fails the test
		}
		if time.Now().After(next) {
			next = next.Add(time.Minute)
			s.progress()
		}
		pause(ctx, between(s.random, 50*time.Millisecond, time.Second))
	}
}

// note keeps what happened.
func (s *schedule) note(format string, args ...any) {
	now := time.Now()
	s.past = append(s.past, fmt.Sprintf("%s %7.3f ", now.Format(stamp), now.Sub(s.began).Seconds())+
		fmt.Sprintf(format, args...))
}

// now is what stands.
func (s *schedule) now() *state {
	now := &state{replicas: s.replicas}
	for _, stands := range s.stands {
		switch stands.fault.(type) {
		case *awayAPIServer:
			now.noAPI = true
		case *killedLeader, *pausedLeader:
			now.noLeader = true
		case *lostRegistry:
			now.noStore, now.lost = true, true
		case *awayRegistry, *fullRegistry:
			now.noStore = true
		}
	}
	for _, k := range s.wanted {
		now.poisonous = now.poisonous || k.poison
	}
	now.ready = s.site.truth.readyPods()
	return now
}

func (w *truth) readyPods() int32 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return int32(len(w.standingPods()))
}

// strike brings the next fault about whose turn it is and that can be.
func (s *schedule) strike(ctx context.Context) {
	if len(s.deck) == 0 {
		s.deck = slices.Clone(s.all)
		s.random.Shuffle(len(s.deck), func(i, j int) { s.deck[i], s.deck[j] = s.deck[j], s.deck[i] })
	}
	now := s.now()
	i := slices.IndexFunc(s.deck, func(f fault) bool { return f.unfit(now) == "" })
	if i < 0 {
		return
	}
	f := s.deck[i]
	s.deck = slices.Delete(s.deck, i, i+1)
	what, err := f.apply(ctx, s.random)
	s.note("%s %s", f.name(), what)
	if err != nil {
		s.site.t.Errorf("%s: %v", f.name(), err)
		return
	}
	if lasts := f.lasts(s.random); lasts > 0 {
		s.stands = append(s.stands, standing{f, time.Now().Add(lasts)})
	}
}

// healDue ends what has stood for its time.
func (s *schedule) healDue(ctx context.Context) {
	s.heal(ctx, func(stands standing) bool { //nolint:contextcheck // a test's own
		f, lost := stands.fault.(*lostRegistry)
		if lost && !s.now().noAPI && f.missing() == "" {
			return true
		}
		return time.Now().After(stands.until)
	})
}

func (s *schedule) healAll(ctx context.Context) { s.heal(ctx, func(standing) bool { return true }) }

func (s *schedule) heal(ctx context.Context, due func(standing) bool) {
	for _, stands := range slices.Clone(s.stands) {
		if !due(stands) {
			continue
		}
		if err := stands.fault.heal(ctx); err != nil {
			s.site.t.Errorf("the end of: %s: %v", stands.fault.name(), err)
		}
		s.note("over: %s", stands.fault.name())
		s.stands = slices.DeleteFunc(s.stands, func(other standing) bool { return other == stands })
	}
}

// askedAreGood tells whether the adapters that are asked have good sources.
func (s *schedule) askedAreGood() bool {
	return !slices.ContainsFunc(asked, func(name string) bool { return s.wanted[name].reason != "" })
}

// churn creates, changes or deletes an adapter.
func (s *schedule) churn(ctx context.Context) {
	var names []string // of those that nobody asks
	for _, name := range slices.Sorted(maps.Keys(s.wanted)) {
		if !slices.Contains(asked, name) {
			names = append(names, name)
		}
	}
	var err error
	switch choice := s.random.IntN(10); {
	case choice < 3 && len(names) < extras:
		name := fmt.Sprintf("extra-%d", s.random.IntN(1000))
		if _, taken := s.wanted[name]; taken {
			return
		}
		err = s.create(ctx, name, s.pick(""))
	case choice < 5 && len(names) > 0:
		name := names[s.random.IntN(len(names))]
		s.note("%s is deleted", name)
		delete(s.wanted, name)
		a := wrappers.LoRAAdapter(s.site.ns, name).Obj()
		err = place.Client.Delete(ctx, a)
	case choice < 7 && len(names) > 0:
		err = s.change(ctx, names[s.random.IntN(len(names))], s.pick(""))
	default:
		name := asked[s.random.IntN(len(asked))]
		k := s.pick(name)
		if s.now().lost && k.reason != "" {
			return // what it asked for before could not be pushed again
		}
		err = s.change(ctx, name, k)
	}
	if err != nil {
		s.site.t.Errorf("adapters: %v", err)
	}
}

// pick is a source for an adapter: for one that is asked, of the same name if it is good.
func (s *schedule) pick(name string) kind {
	poisonous, hangs := false, false
	for _, k := range s.wanted {
		poisonous, hangs = poisonous || k.poison, hangs || k.hangs
	}
	for {
		k := s.kinds[s.random.IntN(len(s.kinds))]
		// One that kills at a time: two may take all pods of two with them. One source that hangs: two hold all places that
		// a namespace has.
		if k.poison && poisonous || k.hangs && hangs || name != "" && k.sample != "" && k.sample != name {
			continue
		}
		return k
	}
}

func (s *schedule) create(ctx context.Context, name string, k kind) error {
	s.note("%s is created: %s", name, k.name)
	s.wanted[name] = k
	a := wrappers.LoRAAdapter(s.site.ns, name).Pool(poolName).Obj()
	k.apply(a)
	return place.Client.Create(ctx, a)
}

func (s *schedule) change(ctx context.Context, name string, k kind) error {
	if s.wanted[name].name == k.name {
		return nil
	}
	s.note("%s is changed: %s", name, k.name)
	s.wanted[name] = k
	if slices.Contains(asked, name) {
		variant := noVariant
		if k.reason == "" {
			variant = k.variant
		}
		s.crowd.expect(name, variant)
	}
	a := wrappers.LoRAAdapter(s.site.ns, name).Obj()
	if err := place.Client.Get(ctx, client.ObjectKeyFromObject(a), a); err != nil {
		return err
	}
	former := a.DeepCopy()
	a.Spec.Source, a.Spec.SecretRef = v1alpha1.Source{}, nil
	k.apply(a)
	return place.Client.Patch(ctx, a, client.MergeFrom(former))
}

// sources makes all kinds of sources that there are, and keeps them there until the test ends.
func sources(t *testing.T, tag string) []kind {
	t.Helper()
	from := func(ref string) func(*v1alpha1.LoRAAdapter) {
		return func(a *v1alpha1.LoRAAdapter) { a.Spec.Source.OCI = &v1alpha1.OCISource{Ref: ref} }
	}
	url := func(url string) func(*v1alpha1.LoRAAdapter) {
		return func(a *v1alpha1.LoRAAdapter) { a.Spec.Source.HTTP = &v1alpha1.HTTPSource{URL: url} }
	}
	var kinds []kind
	for _, sample := range asked {
		for n := range variants {
			ref := place.Ref(sample, "v1")
			if n > 0 {
				ref = push(t, sample, fmt.Sprintf("%d-%s", n, tag), labelled(t, sample, n))
			}
			kinds = append(kinds, kind{name: fmt.Sprintf("%s@%d", sample, n), sample: sample, variant: n, apply: from(ref)})
		}
	}
	for _, b := range bads(t, tag) {
		kinds = append(kinds, kind{name: b.name, reason: b.reason, apply: from(b.ref)})
	}
	missing := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(missing.Close)
	secret := func(a *v1alpha1.LoRAAdapter) {
		from(place.Ref("parity", "v1"))(a)
		a.Spec.SecretRef = &v1alpha1.SecretReference{Name: "none"}
	}
	for range 2 { // as often as others
		kinds = append(kinds, kind{
			name: "poison", reason: v1alpha1.ReasonLoadFailed, poison: true,
			apply: from(push(t, "poison", "killing-"+tag, wrappers.Poison(t, copied(t, "parity")))),
		})
	}
	return append(kinds,
		kind{name: "404", reason: v1alpha1.ReasonSourceNotFound, apply: url(missing.URL + "/adapter.tar.gz")},
		kind{name: "no secret", reason: v1alpha1.ReasonSecretNotFound, apply: secret},
		kind{name: "hangs", reason: v1alpha1.ReasonSourceUnreachable, hangs: true, apply: url(silent(t) + "/adapter.tar.gz")})
}

// silent is the URL of a server that takes connections and never says a word.
func silent(t *testing.T) string {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { _ = conn.Close() })
		}
	}()
	return "http://" + listener.Addr().String()
}

// labelled is a variant of an adapter: its labels end in "@n".
func labelled(t *testing.T, name string, n int) string {
	t.Helper()
	dir := copied(t, name)
	edit(t, filepath.Join(dir, "config.json"), func(config map[string]any) {
		labels := config["id2label"].(map[string]any)
		for id, label := range labels {
			labels[id] = fmt.Sprintf("%v@%d", label, n)
		}
	})
	return dir
}

// settle waits until all is as it should be, and holds that nothing else is there.
func (s *schedule) settle() {
	s.site.t.Helper()
	s.site.awaitFor(settling, "the pool to be Ready", func() error { return s.site.poolIs(s.replicas) })
	for _, name := range slices.Sorted(maps.Keys(s.wanted)) {
		s.site.awaitFor(settling, name+" to be as it should be", func() error { return s.isAsWanted(name) })
	}
	s.site.awaitAssignmentsOfPodsOnly()
	s.site.await("nothing but the adapters that are wanted", func() error {
		var list v1alpha1.LoRAAdapterList
		if err := place.Client.List(s.site.t.Context(), &list, client.InNamespace(s.site.ns)); err != nil {
			return err
		}
		if len(list.Items) != len(s.wanted) {
			return fmt.Errorf("expected %d, found %d", len(s.wanted), len(list.Items))
		}
		return nil
	})
	s.site.await("each pod to answer for each adapter as it should", s.answersAreRight)
	s.site.await("no processes but the pods'", s.site.noStrays)
	s.noLeaks()
	s.note("all is as it should be")
}

// isAsWanted holds an adapter's status to what its spec asks for.
func (s *schedule) isAsWanted(name string) error {
	a, k := s.site.adapter(name), s.wanted[name]
	if k.reason == "" {
		if a.Status.TargetRevision == nil {
			return fmt.Errorf("expected a target, found %+v", a.Status)
		}
		return served(a, s.replicas)
	}
	ready := apimeta.FindStatusCondition(a.Status.Conditions, v1alpha1.ConditionReady)
	if ready == nil || ready.Status != metav1.ConditionFalse || ready.Reason != k.reason ||
		ready.ObservedGeneration != a.Generation {
		return fmt.Errorf("generation %d: expected Ready to be False with the reason %s, found %+v",
			a.Generation, k.reason, ready)
	}
	if k.poison && !strings.Contains(ready.Message, v1alpha1.FailureCrashedLoading) {
		return fmt.Errorf("expected %s, found %q", v1alpha1.FailureCrashedLoading, ready.Message)
	}
	return nil
}

// answersAreRight asks each pod itself.
func (s *schedule) answersAreRight() error {
	for _, pod := range s.site.pods() {
		for name, k := range s.wanted {
			answers, err := oip.Infer(s.site.t.Context(), "http://"+pod.Status.PodIP+":8080", name,
				oip.Request{Inputs: []oip.Tensor{oip.Images(image)}})
			switch {
			case k.reason == "" && err != nil:
				return fmt.Errorf("pod %s, %s: %w", pod.Name, name, err)
			case k.reason == "" && variantOf(answers[0].Label) != k.variant:
				return fmt.Errorf("pod %s, %s: expected variant %d, found the label %q", pod.Name, name, k.variant,
					answers[0].Label)
			case slices.Contains(asked, name) && err != nil: // what was served before its spec went bad
				return fmt.Errorf("pod %s, %s: %w", pod.Name, name, err)
			}
		}
	}
	return nil
}

// noStrays holds that no runtime runs but those of pods.
func (*site) noStrays() error {
	noted := map[string]bool{}
	for name, p := range place.Processes() {
		if strings.HasPrefix(name, "runtime") {
			noted[strconv.Itoa(p.PID)] = true
		}
	}
	links, err := filepath.Glob("/proc/[0-9]*/exe")
	for _, link := range links {
		binary, err := os.Readlink(link)
		pid := strings.Split(link, "/")[2]
		if err == nil && binary == filepath.Join(placeDir, "runtime") && !noted[pid] {
			return fmt.Errorf("process %s is no pod's", pid)
		}
	}
	return err
}

// noLeaks holds what processes take, and how many objects there are, to bounds that no number of faults should reach.
func (s *schedule) noLeaks() {
	t := s.site.t
	const (
		mostMemory = 300 << 20
		mostFiles  = 200
		mostSets   = 12 // ReplicaSets: those that a Deployment keeps to go back to, and two
	)
	for name, p := range place.Processes() {
		ours := strings.HasPrefix(name, "manager") || strings.HasPrefix(name, "runtime") || name == "artifact registry"
		if used, err := p.Usage(); err == nil && ours && (used.Memory > mostMemory || used.Files > mostFiles) {
			t.Errorf("%s: expected at most %d bytes and %d files, found %d and %d", name, mostMemory, mostFiles,
				used.Memory, used.Files)
		}
	}
	var sets appsv1.ReplicaSetList
	if err := place.Client.List(t.Context(), &sets, client.InNamespace(s.site.ns)); err != nil {
		t.Fatal(err)
	}
	if n := len(sets.Items); n > mostSets {
		t.Errorf("expected at most %d ReplicaSets, found %d", mostSets, n)
	}
}

// progress prints how far it is.
func (s *schedule) progress() {
	t := s.site.t
	deaths, _ := s.site.truth.losses(s.began)
	t.Logf("%v: %d answers, %d processes ended, %d adapters, %s", time.Since(s.began).Round(time.Second), s.crowd.total(),
		len(deaths), len(s.wanted), usage())
}

// usage tells what the processes take.
func usage() string {
	var all []string
	processes := place.Processes()
	for _, name := range slices.Sorted(maps.Keys(processes)) {
		used, err := processes[name].Usage()
		if err == nil {
			all = append(all, fmt.Sprintf("%s %d MiB, %d files", name, used.Memory>>20, used.Files))
		}
	}
	return strings.Join(all, "; ")
}

// report tells what the clients saw, and fails the test for what they should not have seen.
func (s *schedule) report() {
	t := s.site.t
	deaths, deserted := s.site.truth.losses(s.began)
	unexcused, excused := s.crowd.unexcused(deaths)
	t.Logf("%d answers; %d requests lost with one of %d processes that ended; %d answers by a former revision of pods "+
		"that had come back", s.crowd.total(), excused, len(deaths), s.crowd.old)
	for _, d := range deserted {
		t.Logf("no pod was ready from %s to %s", d.from.Format(stamp), d.to.Format(stamp))
		for _, turn := range s.site.truth.turnsAround(d) {
			t.Logf("  %s %s", turn.at.Format(stamp), turn.what)
		}
	}
	for _, wrong := range [][]string{unexcused, s.crowd.wrong} {
		for _, what := range wrong[:min(len(wrong), most)] {
			t.Error(what)
		}
		if len(wrong) > most {
			t.Errorf("… %d of these in all, the last: %s", len(wrong), wrong[len(wrong)-1])
		}
	}
	if t.Failed() {
		for _, d := range deaths {
			t.Logf("pod %s ended at %s: %s", d.pod, d.at.Format(stamp), d.why)
		}
	}
}
