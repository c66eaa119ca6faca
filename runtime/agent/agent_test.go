package agent_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/switchyard-dev/switchyard/api/v1alpha1"
	"github.com/switchyard-dev/switchyard/runtime/adapters"
	"github.com/switchyard-dev/switchyard/runtime/agent"
	"github.com/switchyard-dev/switchyard/runtime/agent/artifacts"
	"github.com/switchyard-dev/switchyard/runtime/agent/artifacts/registrytest"
	"github.com/switchyard-dev/switchyard/runtime/arch"
	"github.com/switchyard-dev/switchyard/runtime/batcher"
	"github.com/switchyard-dev/switchyard/runtime/engine"
	"github.com/switchyard-dev/switchyard/runtime/memory"
	"github.com/switchyard-dev/switchyard/runtime/model"
	"github.com/switchyard-dev/switchyard/runtime/peft"
	"github.com/switchyard-dev/switchyard/runtime/server"
	"github.com/switchyard-dev/switchyard/runtime/server/rest"
	"github.com/switchyard-dev/switchyard/test/oip"
	"github.com/switchyard-dev/switchyard/test/wrappers"
)

const (
	sample  = "../../hack/samples/digits/"
	patient = 30 * time.Second // for states that come within milliseconds
)

// desk stands in for the API server's one object: it hands out the assignment and takes the reports.
type desk struct {
	changed chan struct{} // closed and replaced at each change

	mu      sync.Mutex
	current *v1alpha1.AdapterAssignment
	status  v1alpha1.AdapterAssignmentStatus
	away    bool
}

func newDesk() *desk { return &desk{changed: make(chan struct{})} }

func (d *desk) change(f func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f()
	close(d.changed)
	d.changed = make(chan struct{})
}

// assign writes the next revision of the spec: "name", digest, fallback.
func (d *desk) assign(entries ...[3]string) (revision int64) {
	d.change(func() {
		next := &v1alpha1.AdapterAssignment{}
		next.UID = "one"
		if d.current != nil {
			next.Spec.Revision = d.current.Spec.Revision
		}
		next.Spec.Revision++
		for _, e := range entries {
			next.Spec.Adapters = append(next.Spec.Adapters, v1alpha1.AssignedAdapter{
				Name: e[0], Digest: e[1], FallbackDigest: e[2], Since: next.Spec.Revision,
			})
		}
		d.current, revision = next, next.Spec.Revision
	})
	return revision
}

func (d *desk) setAway(away bool) { d.change(func() { d.away = away }) }

// Follow implements agent.Source.
func (d *desk) Follow(ctx context.Context, seen func(*v1alpha1.AdapterAssignment)) {
	for ctx.Err() == nil {
		d.mu.Lock()
		now, changed := d.current, d.changed
		if d.away {
			now = nil
		}
		d.mu.Unlock()
		if now != nil {
			seen(now)
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}

// Report implements agent.Source.
func (d *desk) Report(_ context.Context, uid types.UID, status *v1alpha1.AdapterAssignmentStatus) error {
	err := errors.New("nobody there")
	d.change(func() {
		if !d.away && d.current != nil && uid == d.current.UID {
			d.status, err = *status.DeepCopy(), nil
		}
	})
	return err
}

// await waits for a report in which the state holds.
func (d *desk) await(
	t *testing.T, what string, holds func(s v1alpha1.AdapterAssignmentStatus) bool,
) v1alpha1.AdapterAssignmentStatus {
	t.Helper()
	limit := time.After(patient) //nolint:forbidigo // only a test that fails sees it
	for {
		d.mu.Lock()
		status, changed := d.status, d.changed
		d.mu.Unlock()
		if holds(status) {
			return status
		}
		select {
		case <-changed:
		case <-limit:
			t.Fatalf("waited for %s, found %+v", what, status)
		}
	}
}

// served waits until everything of a revision is served.
func (d *desk) served(t *testing.T, revision int64) v1alpha1.AdapterAssignmentStatus {
	t.Helper()
	return d.await(t, "all served", func(s v1alpha1.AdapterAssignmentStatus) bool {
		return s.ObservedRevision == revision && len(s.Pending) == 0 && len(s.Failed) == 0
	})
}

// pod is the runtime of one container, in this process.
type pod struct {
	agent *agent.Agent
	set   *adapters.Set
	url   string
	log   *lines
	stop  func()
}

// lines is a log.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// start starts a container whose cache is in dir.
func start(t *testing.T, source agent.Source, r *registrytest.Registry, dir, base string) *pod {
	t.Helper()
	p := &pod{log: &lines{}}
	log := slog.New(slog.NewTextHandler(p.log, nil))
	registry, err := artifacts.NewRegistry(r.Options())
	if err != nil {
		t.Fatal(err)
	}
	store, err := artifacts.NewStore(dir, registry)
	if err != nil {
		t.Fatal(err)
	}
	opened, err := agent.OpenBase(t.Context(), store, base, arch.Float32, log)
	if err != nil {
		t.Fatal(err)
	}
	eng := engine.New(opened, 2)
	p.set = adapters.New(eng)
	metrics := prometheus.NewRegistry()
	queue := batcher.New(eng, batcher.Options{
		MaxBatchRows: 4, Observe: server.NewBatchObserver(metrics),
	})
	p.agent = agent.New(agent.Options{
		Set: p.set, Store: store, Source: source, BaseDigest: base, Reserved: []string{"digits"},
		StartedAt: time.Now(), Log: log, Backoff: func(int) time.Duration { return time.Millisecond },
	})
	front := httptest.NewServer(rest.New(server.New(p.set, queue, nil, server.Options{
		Name: "digits", RequestBytes: 64 << 20, MaxRows: 8, MaxRowsInFlight: 64, Ready: p.agent.Ready, Registry: metrics,
	}), rest.Options{MaxBodyBytes: 1 << 20, Log: log}))
	p.url = front.URL
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- p.agent.Run(ctx) }()
	p.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		front.Close()
		queue.Close()
		eng.Close()
		if t.Failed() {
			t.Log(p.log.String())
		}
	})
	t.Cleanup(p.stop)
	return p
}

// ask asks an adapter about zeros and returns the revision that answered; code is 200 or what came.
func (p *pod) ask(t *testing.T, name string) (revision string, code int) {
	t.Helper()
	answers, err := oip.Infer(t.Context(), p.url, name, oip.Request{Inputs: []oip.Tensor{
		oip.Pixels(make([]float32, 3*32*32), 1, 3, 32, 32),
	}})
	var status *oip.StatusError
	if errors.As(err, &status) {
		return "", status.Code
	}
	if err != nil {
		t.Error(err)
		return "", 0
	}
	return answers[0].Revision, http.StatusOK
}

func (p *pod) answers(t *testing.T, name, revision string) {
	t.Helper()
	if got, code := p.ask(t, name); code != http.StatusOK || got != revision {
		t.Errorf("%s: expected an answer by %s, found %d, %s", name, revision, code, got)
	}
}

func (p *pod) refuses(t *testing.T, name string, code int) {
	t.Helper()
	if _, got := p.ask(t, name); got != code {
		t.Errorf("%s: expected %d, found %d", name, code, got)
	}
}

// shelf is a registry with the sample's base and some adapters by name.
func shelf(t *testing.T) (r *registrytest.Registry, base string, digests map[string]string) {
	t.Helper()
	r = registrytest.New(t)
	digests = make(map[string]string)
	for _, name := range []string{"parity", "digit", "holes"} {
		digests[name] = r.Adapter(sample+"adapters/"+name, peft.Settings{})
	}
	digests["named"] = r.Adapter(sample+"adapters/parity", peft.Settings{ClassNames: []string{"a", "b"}})
	digests["overflow"] = r.Adapter(wrappers.Adapter(t).Unset("target_modules").
		Tensor(wrappers.F32("base_model.model.classifier.weight", slices.Repeat([]float32{3e38}, 2*96), 2, 96)).
		Tensor(wrappers.F32("base_model.model.classifier.bias", []float32{3e38, 3e38}, 2)).Write(), peft.Settings{})
	digests["invalid"] = r.Adapter(wrappers.Adapter(t).Set("peft_type", "LOHA").Update("x", 1, 1).Write(), peft.Settings{})
	digests["lost"] = "sha256:" + strings.Repeat("0", 64)
	return r, r.Base(sample + "base"), digests
}

func TestTheLifeOfAnAdapter(t *testing.T) {
	r, base, digest := shelf(t)
	d, dir := newDesk(), t.TempDir()
	began := time.Now().Truncate(time.Second)
	p := start(t, d, r, dir, base)
	if err := p.agent.Ready(); err == nil {
		t.Error("ready before its assignment was seen")
	}
	p.refuses(t, "x", http.StatusServiceUnavailable) // it may be assigned
	d.served(t, d.assign())
	if err := p.agent.Ready(); err != nil {
		t.Errorf("an empty assignment: expected ready, found %v", err)
	}
	p.refuses(t, "x", http.StatusNotFound)

	status := d.served(t, d.assign([3]string{"x", digest["parity"]}, [3]string{"y", digest["parity"]}))
	p.answers(t, "x", digest["parity"])
	p.answers(t, "y", digest["parity"])
	if n := len(p.set.Loaded()); n != 1 {
		t.Errorf("two names of one digest: expected one revision loaded, found %d", n)
	}
	if status.StartedAt == nil || status.StartedAt.Time.Before(began) || status.BootID == "" {
		t.Errorf("expected when and as which the process started, found %+v", status)
	}

	// The settings are part of the revision.
	d.served(t, d.assign([3]string{"x", digest["named"], digest["parity"]}, [3]string{"y", digest["parity"]}))
	p.answers(t, "x", digest["named"])
	p.answers(t, "y", digest["parity"])

	d.served(t, d.assign([3]string{"x", digest["named"]}))
	p.refuses(t, "y", http.StatusNotFound)
	d.served(t, d.assign([3]string{"x", digest["named"]})) // by now it has tidied up after the last
	revisions, _ := filepath.Glob(filepath.Join(dir, "revisions", "*"))
	if len(revisions) != 2 || len(p.set.Loaded()) != 1 { // the base's and x's
		t.Errorf("expected two revisions on disk and one loaded, found %v and %v", revisions, p.set.Loaded())
	}
}

// A new revision that cannot be served leaves the old one served, and says why.
func TestABadRevisionKeepsTheOldOne(t *testing.T) {
	r, base, digest := shelf(t)
	for bad, want := range map[string]string{
		"invalid":  v1alpha1.FailureInvalidAdapter + ` adapter_config.json: peft_type: expected "LORA", found "LOHA"`,
		"overflow": v1alpha1.FailureTrialFailed + " an input of zeros: logit 0: expected a finite number",
		"lost":     v1alpha1.FailurePullFailed + " artifact " + digest["lost"] + ": manifest: registry",
	} {
		t.Run(bad, func(t *testing.T) {
			d := newDesk()
			p := start(t, d, r, t.TempDir(), base)
			d.served(t, d.assign([3]string{"x", digest["parity"]}))
			revision := d.assign([3]string{"x", digest[bad], digest["parity"]}, [3]string{"new", digest[bad]},
				[3]string{"other", digest["holes"]})
			status := d.await(t, "failures", func(s v1alpha1.AdapterAssignmentStatus) bool {
				return s.ObservedRevision == revision && len(s.Pending) == 0 && len(s.Failed) == 2
			})
			for _, f := range status.Failed {
				if f.Digest != digest[bad] || !strings.HasPrefix(f.Reason+" "+f.Message, want) {
					t.Errorf("expected %q, found %+v", want, f)
				}
			}
			p.answers(t, "x", digest["parity"])
			p.answers(t, "other", digest["holes"])
			p.refuses(t, "new", http.StatusServiceUnavailable)
			d.served(t, d.assign([3]string{"x", digest["parity"]}))
			p.answers(t, "x", digest["parity"])
		})
	}
}

// What the registry lacked is served once it is there, without another word.
func TestALostArtifactComesBack(t *testing.T) {
	r, base, digest := shelf(t)
	raw, err := os.ReadFile(sample + "adapters/holes/adapter_model.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	r.Damage(raw, nil)
	d := newDesk()
	p := start(t, d, r, t.TempDir(), base)
	revision := d.assign([3]string{"x", digest["holes"]})
	d.await(t, "PullFailed", func(s v1alpha1.AdapterAssignmentStatus) bool {
		return len(s.Failed) == 1 && s.Failed[0].Reason == v1alpha1.FailurePullFailed
	})
	p.ready(t) // nobody waits for it for ever
	r.Adapter(sample+"adapters/holes", peft.Settings{})
	d.served(t, revision)
	p.answers(t, "x", digest["holes"])
}

// A swap under load loses no request, and once the new revision has answered the old one never does again.
func TestASwapUnderLoad(t *testing.T) {
	r, base, digest := shelf(t)
	d := newDesk()
	p := start(t, d, r, t.TempDir(), base)
	order := []string{digest["parity"], digest["holes"], digest["digit"], digest["named"]}
	d.served(t, d.assign([3]string{"x", order[0]}))
	done := make(chan struct{})
	var clients sync.WaitGroup
	for range 4 {
		clients.Go(func() {
			last := 0
			for {
				select {
				case <-done:
					return
				default:
				}
				revision, code := p.ask(t, "x")
				at := slices.Index(order, revision)
				if code != http.StatusOK || at < last {
					t.Errorf("after revision %d: status %d, revision %d", last, code, at)
					return
				}
				last = at
			}
		})
	}
	for i := 1; i < len(order); i++ {
		d.served(t, d.assign([3]string{"x", order[i], order[i-1]}))
		p.answers(t, "x", order[i])
	}
	close(done)
	clients.Wait()
	if n := len(p.set.Loaded()); n != 1 {
		t.Errorf("expected the old revisions to be freed, found %d loaded", n)
	}
}

// A restarted container serves what the former one did, in the middle of a swap too, with nobody there to ask.
func TestARestartNeedsNobody(t *testing.T) {
	r, base, digest := shelf(t)
	d, dir := newDesk(), t.TempDir()
	p := start(t, d, r, dir, base)
	d.served(t, d.assign([3]string{"x", digest["parity"]}))
	revision := d.assign([3]string{"x", digest["invalid"], digest["parity"]}, [3]string{"y", digest["holes"]})
	former := d.await(t, "the new spec", func(s v1alpha1.AdapterAssignmentStatus) bool {
		return s.ObservedRevision == revision && len(s.Pending) == 0
	})
	p.stop()

	r.Away(true)
	d.setAway(true)
	p = start(t, d, r, dir, base)
	p.ready(t)
	p.answers(t, "x", digest["parity"])
	p.answers(t, "y", digest["holes"])
	p.refuses(t, "z", http.StatusServiceUnavailable) // it may have been assigned meanwhile

	d.setAway(false)
	d.await(t, "a report of the new process", func(s v1alpha1.AdapterAssignmentStatus) bool {
		return s.BootID != former.BootID && s.ObservedRevision == revision && len(s.Failed) == 1 && len(s.Pending) == 0
	})

	// The registry is away: what is new stays pending, nobody is flooded with it, and the rest is served.
	revision = d.assign([3]string{"x", digest["digit"], digest["parity"]}, [3]string{"z", digest["named"]})
	d.await(t, "pending", func(s v1alpha1.AdapterAssignmentStatus) bool {
		return s.ObservedRevision == revision && len(s.Pending) == 2 && len(s.Failed) == 0
	})
	for asked := r.Asks.Load(); r.Asks.Load() < asked+20; { // tries go on
		p.answers(t, "x", digest["parity"])
	}
	p.refuses(t, "z", http.StatusServiceUnavailable)
	p.refuses(t, "y", http.StatusNotFound)
	p.stop()
	p = start(t, d, r, dir, base) // what its predecessor lacked does not keep it from being ready
	p.ready(t)
	p.answers(t, "x", digest["parity"])
	if n := strings.Count(p.log.String(), "cannot be pulled"); n < 1 || n > 2 {
		t.Errorf("expected a line or two about the registry, found %d:\n%s", n, p.log.String())
	}
	r.Away(false)
	d.served(t, revision)
	p.answers(t, "x", digest["digit"])
	p.answers(t, "z", digest["named"])
}

// A container whose process ends before it was ready comes back as a new pod does: it waits for all that was first
// assigned, though the registry is away.
func TestARestartBeforeReadiness(t *testing.T) {
	r, base, digest := shelf(t)
	d, dir := newDesk(), t.TempDir()
	p := start(t, d, r, dir, base)
	r.Away(true)
	revision := d.assign([3]string{"x", digest["parity"]})
	pending := func(s v1alpha1.AdapterAssignmentStatus) bool {
		return s.ObservedRevision == revision && len(s.Pending) == 1
	}
	former := d.await(t, "pending", pending)
	p.stop()
	p = start(t, d, r, dir, base)
	d.await(t, "pending again", func(s v1alpha1.AdapterAssignmentStatus) bool {
		return s.BootID != former.BootID && pending(s)
	})
	for asked := r.Asks.Load(); r.Asks.Load() < asked+20; { // tries go on
		if err := p.agent.Ready(); err == nil {
			t.Fatal("ready without what it was assigned first")
		}
	}
	r.Away(false)
	p.ready(t)
	p.answers(t, "x", digest["parity"])
}

// ready waits until the pod's own probe is answered with 200.
func (p *pod) ready(t *testing.T) {
	t.Helper()
	for began := time.Now(); time.Since(began) < patient; {
		_, err := oip.Do(t.Context(), "GET", p.url+"/v2/health/ready", nil)
		if err == nil {
			return
		}
	}
	t.Fatal("the pod does not get ready")
}

// Readiness waits for the first assignment, and never ends for a later one.
func TestReadinessLatches(t *testing.T) {
	r, base, digest := shelf(t)
	d := newDesk()
	p := start(t, d, r, t.TempDir(), base)
	r.Away(true)
	revision := d.assign([3]string{"x", digest["parity"]}, [3]string{"bad", digest["invalid"]})
	d.await(t, "pending", func(s v1alpha1.AdapterAssignmentStatus) bool {
		return s.ObservedRevision == revision && len(s.Pending) == 2
	})
	if err := p.agent.Ready(); err == nil || !strings.Contains(err.Error(), "2 are still loading") {
		t.Errorf("expected two still loading, found %v", err)
	}
	r.Away(false)
	p.ready(t)
	p.answers(t, "x", digest["parity"])
	r.Away(true)
	d.assign([3]string{"x", digest["digit"], digest["parity"]}, [3]string{"y", digest["holes"]})
	d.await(t, "pending", func(s v1alpha1.AdapterAssignmentStatus) bool { return len(s.Pending) == 2 })
	if err := p.agent.Ready(); err != nil {
		t.Errorf("expected ready for ever, found %v", err)
	}
}

// mute is a desk that takes no report until it listens.
type mute struct {
	*desk
	listens atomic.Bool
}

func (m *mute) Report(ctx context.Context, uid types.UID, status *v1alpha1.AdapterAssignmentStatus) error {
	if !m.listens.Load() {
		return errors.New("not now")
	}
	return m.desk.Report(ctx, uid, status)
}

// A pod that were ready before its report would make every adapter seem to be loading again.
func TestReadinessWaitsForItsReport(t *testing.T) {
	r, base, digest := shelf(t)
	m := &mute{desk: newDesk()}
	p := start(t, m, r, t.TempDir(), base)
	m.assign([3]string{"x", digest["parity"]})
	const want = "has not been reported yet"
	for began := time.Now(); ; {
		err := p.agent.Ready()
		if err == nil || time.Since(began) > patient {
			t.Fatalf("expected that what is loaded %s, found %v", want, err)
		}
		if strings.Contains(err.Error(), want) {
			break
		}
	}
	p.answers(t, "x", digest["parity"])
	m.listens.Store(true)
	p.ready(t)
}

// openBase opens a base as a new pod does.
func openBase(t *testing.T, r *registrytest.Registry, digest string, dtype arch.DType) (*model.Base, error) {
	t.Helper()
	registry, err := artifacts.NewRegistry(r.Options())
	if err != nil {
		t.Fatal(err)
	}
	store, err := artifacts.NewStore(t.TempDir(), registry)
	if err != nil {
		t.Fatal(err)
	}
	return agent.OpenBase(t.Context(), store, digest, dtype, slog.New(slog.DiscardHandler))
}

func TestABaseThatIsNotOneIsRefused(t *testing.T) {
	r, _, digest := shelf(t)
	_, err := openBase(t, r, digest["parity"], arch.Float32)
	const want = "artifactType: expected application/vnd.switchyard.base.v1"
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("expected %q, found %v", want, err)
	}
}

// A base of several files is pulled with all that stands beside them, and is what it is on disk.
func TestABaseOfSeveralFiles(t *testing.T) {
	r := registrytest.New(t)
	dir := wrappers.Base(t, `{
		"model_type": "bert", "vocab_size": 30, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
		"intermediate_size": 8, "max_position_embeddings": 16
	}`).Sharded(3).File("tokenizer.json", []byte("{}")).File("vocab.txt", []byte("[PAD]")).Write()
	digest := r.Base(dir)
	base, err := openBase(t, r, digest, arch.Float32)
	if err != nil {
		t.Fatal(err)
	}
	if base.Digest != digest || string(base.Tokenizer) != "{}" || string(base.Vocab) != "[PAD]" ||
		base.TokenizerConfig != nil {
		t.Errorf("expected %s with its tokenizer, found %s with %s, %s, %s", digest, base.Digest,
			base.Tokenizer, base.Vocab, base.TokenizerConfig)
	}
}

// A base as bfloat16 takes half the memory of one as float32, has the same digest, and answers as rounded weights do:
// nearly the same.
func TestABaseIsKeptAsItIsAsked(t *testing.T) {
	r := registrytest.New(t)
	digest := r.Base(wrappers.Base(t, `{
		"model_type": "bert", "vocab_size": 3000, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
		"intermediate_size": 256, "max_position_embeddings": 16, "num_labels": 4
	}`).Write())
	took, answers := make(map[arch.DType]int64), make(map[arch.DType][]float32)
	for _, dtype := range []arch.DType{arch.Float32, arch.BFloat16} {
		before := memory.Held()
		base, err := openBase(t, r, digest, dtype)
		if err != nil {
			t.Fatal(err)
		}
		defer base.Close()
		if took[dtype] = memory.Held() - before; base.DType != dtype || base.Digest != digest {
			t.Errorf("expected %s as %s, found %s as %s", digest, dtype, base.Digest, base.DType)
		}
		e := engine.New(base, 1)
		defer e.Close()
		answer, err := e.Run(engine.Batch{Inputs: []engine.Input{{IDs: []int32{2, 7, 18}}}, Rows: []engine.Row{{}}})
		if err != nil {
			t.Fatal(err)
		}
		answers[dtype] = answer[0].Float32s()
	}
	if share := float64(took[arch.BFloat16]) / float64(took[arch.Float32]); share < 0.45 || share > 0.55 {
		t.Errorf("expected half the memory as bfloat16, found %v", took)
	}
	largest, off := float32(0), float32(0)
	for i, v := range answers[arch.Float32] {
		largest, off = max(largest, v, -v), max(off, v-answers[arch.BFloat16][i], answers[arch.BFloat16][i]-v)
	}
	if off == 0 || off > largest/20 {
		t.Errorf("expected an answer that is nearly float32's, found %v", answers)
	}
}

// A process whose node's clock has gone back reports as one that began with the last that did: it is the later one.
func TestAClockThatGoesBack(t *testing.T) {
	r, base, digest := shelf(t)
	d, dir := newDesk(), t.TempDir()
	first := start(t, d, r, dir, base)
	revision := d.assign([3]string{"x", digest["parity"], ""})
	d.served(t, revision)
	first.stop()
	later := metav1.NewTime(time.Now().Add(time.Hour).Truncate(time.Second))
	d.change(func() {
		d.current = d.current.DeepCopy()
		d.current.Status = v1alpha1.AdapterAssignmentStatus{BootID: "former", StartedAt: &later, ObservedRevision: revision}
		d.status = d.current.Status
	})
	second := start(t, d, r, dir, base)
	status := d.await(t, "a report of the second process", func(s v1alpha1.AdapterAssignmentStatus) bool {
		return s.BootID != "former" && s.StartedAt.Equal(&later) && len(s.Pending) == 0
	})
	if len(status.BootID) == 0 || status.ObservedRevision != revision {
		t.Errorf("found %+v", status)
	}
	second.answers(t, "x", digest["parity"])
	if n := strings.Count(second.log.String(), "the clock has gone back"); n != 1 {
		t.Errorf("expected the clock to be spoken of once, found %d:\n%s", n, second.log.String())
	}
}
