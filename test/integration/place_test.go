package integration

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/switchyard-dev/switchyard/api/v1alpha1"
	"github.com/switchyard-dev/switchyard/test/digits"
	"github.com/switchyard-dev/switchyard/test/load"
	"github.com/switchyard-dev/switchyard/test/local"
	"github.com/switchyard-dev/switchyard/test/localnode/process"
	"github.com/switchyard-dev/switchyard/test/wrappers"
)

const (
	poolName = "digits"
	// clients ask at the same time where there is load.
	clients = 4
	// soon is how long anything may take on a busy machine before a test gives up. What must be quick is measured apart.
	soon = time.Minute
	// every is how often a state that is waited for is looked at.
	every = 20 * time.Millisecond
)

var logsFlag = flag.String("logs", "", "the folder to which processes' logs are copied when a test has failed")

// What all tests share: the place, its folder, and an image to ask about.
var (
	place    *local.Place
	placeDir string
	image    []byte
	lasting  context.Context // of what outlives a test
)

func TestMain(m *testing.M) {
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "integration:", err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	ctrllog.SetLogger(logr.Discard())
	repository, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		return 0, err
	}
	if placeDir, err = os.MkdirTemp("", "switchyard-integration-"); err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(placeDir)) }()
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	lasting = ctx
	build := exec.CommandContext(ctx, "go", "build", "-tags", "failpoints", "-o", placeDir+"/",
		"./cmd/manager", "./cmd/runtime")
	build.Dir = repository
	if out, err := build.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("go build: %w\n%s", err, out)
	}
	place, err = local.Start(ctx, local.Options{
		Dir: placeDir, Repository: repository, SourceAddress: "127.0.0.1:0",
		Manager: filepath.Join(placeDir, "manager"), Runtime: filepath.Join(placeDir, "runtime"),
		Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, place.Close()) }()
	images, _, err := digits.Images(place.Sample())
	if err != nil {
		return 0, err
	}
	image = images[0].PNG
	if code = m.Run(); code != 0 && *logsFlag != "" {
		err = keepLogs(*logsFlag)
	}
	return code, err
}

// keepLogs copies what the place's processes have logged into a folder.
func keepLogs(to string) error {
	return filepath.WalkDir(placeDir, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) { // a pod's folder, which went
			return nil
		}
		if err != nil || !entry.Type().IsRegular() || filepath.Ext(path) != ".log" {
			return err
		}
		log, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := os.MkdirAll(to, 0o700); err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, entry.Name()), log, 0o600)
	})
}

// site is one test's namespace, with its pool.
type site struct {
	t     *testing.T
	ns    string
	truth *truth
}

// newSite makes a pool of so many pods, and the sample's adapters of these names, and waits until all are Ready.
func newSite(t *testing.T, replicas int32, adapters ...string) *site {
	t.Helper()
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "integration-"}}
	if err := place.Client.Create(t.Context(), ns); err != nil {
		t.Fatal(err)
	}
	s := &site{t: t, ns: ns.Name}
	t.Cleanup(func() {
		if t.Failed() {
			s.explain()
		}
		if err := place.Client.Delete(lasting, ns); err != nil {
			t.Errorf("namespace: %v", err)
		}
	})
	s.truth = watchTruth(t, s.ns)
	s.apply(wrappers.Pool(s.ns, poolName).Source(place.Ref("base", "v1")).Replicas(replicas).Obj())
	for _, name := range adapters {
		s.apply(wrappers.LoRAAdapter(s.ns, name).Pool(poolName).Source(place.Ref(name, "v1")).Obj())
	}
	s.await("the pool to be Ready", func() error { return s.poolIs(replicas) })
	for _, name := range adapters {
		s.awaitServed(name, replicas)
		s.await("the watcher to see "+name, func() error { return s.truth.begin(name, replicas) })
	}
	return s
}

// standBy has a second manager wait until the test ends.
func standBy(t *testing.T) {
	t.Helper()
	if err := place.StartManager(lasting); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // either of them
		if err := place.KillManager(lasting); err != nil {
			t.Error(err)
		}
	})
}

// long leaves a test out of the short form.
func long(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("not in the short form")
	}
}

// explain prints what somebody needs who has to find out why a test failed.
func (s *site) explain() {
	out, err := place.Kubectl(lasting, "get", "-n", s.ns, "lorapool,lora,adapterassignments,pods,events", "-o", "wide")
	s.t.Logf("%s%v", out, err)
	if pressure, err := os.ReadFile("/proc/pressure/cpu"); err == nil { // was it busy with others?
		s.t.Logf("the machine's: %s", pressure)
	}
}

func (s *site) apply(o client.Object) {
	s.t.Helper()
	if err := place.Client.Create(s.t.Context(), o); err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) kubectl(args ...string) {
	s.t.Helper()
	if out, err := place.Kubectl(s.t.Context(), append([]string{"-n", s.ns}, args...)...); err != nil {
		s.t.Fatalf("%v\n%s", err, out)
	}
}

// await waits until holds returns nil; its error says what is not so yet.
func (s *site) await(what string, holds func() error) {
	s.t.Helper()
	s.awaitFor(soon, what, holds)
}

func (s *site) awaitFor(most time.Duration, what string, holds func() error) {
	s.t.Helper()
	var last error
	err := wait.PollUntilContextTimeout(s.t.Context(), every, most, true, func(context.Context) (bool, error) {
		last = holds()
		return last == nil, nil
	})
	if err != nil {
		s.t.Fatalf("waiting for %s: %v: %v", what, err, last)
	}
}

func (s *site) adapter(name string) *v1alpha1.LoRAAdapter {
	s.t.Helper()
	var a v1alpha1.LoRAAdapter
	if err := place.Client.Get(s.t.Context(), client.ObjectKey{Namespace: s.ns, Name: name}, &a); err != nil {
		s.t.Fatal(err)
	}
	return &a
}

func (s *site) pool() *v1alpha1.InferencePool {
	s.t.Helper()
	var p v1alpha1.InferencePool
	if err := place.Client.Get(s.t.Context(), client.ObjectKey{Namespace: s.ns, Name: poolName}, &p); err != nil {
		s.t.Fatal(err)
	}
	return &p
}

// pods lists the pods that are not on their way out.
func (s *site) pods() (living []corev1.Pod) {
	s.t.Helper()
	var list corev1.PodList
	if err := place.Client.List(s.t.Context(), &list, client.InNamespace(s.ns)); err != nil {
		s.t.Fatal(err)
	}
	for _, pod := range list.Items {
		if pod.DeletionTimestamp.IsZero() {
			living = append(living, pod)
		}
	}
	return living
}

// assignments by the names of their pods.
func (s *site) assignments() map[string]*v1alpha1.AdapterAssignment {
	s.t.Helper()
	var list v1alpha1.AdapterAssignmentList
	if err := place.Client.List(s.t.Context(), &list, client.InNamespace(s.ns)); err != nil {
		s.t.Fatal(err)
	}
	found := map[string]*v1alpha1.AdapterAssignment{}
	for i := range list.Items {
		found[list.Items[i].Name] = &list.Items[i]
	}
	return found
}

// poolIs tells whether the pool is Ready with so many pods.
func (s *site) poolIs(replicas int32) error {
	pool := s.pool()
	ready := apimeta.FindStatusCondition(pool.Status.Conditions, v1alpha1.ConditionReady)
	if ready == nil || ready.Status != metav1.ConditionTrue || ready.ObservedGeneration != pool.Generation ||
		pool.Status.ReadyReplicas != replicas {
		return fmt.Errorf("generation %d, %d of %d ready, condition %+v",
			pool.Generation, pool.Status.ReadyReplicas, replicas, ready)
	}
	return nil
}

// awaitServed waits until an adapter is Ready as its spec is now, in so many pods.
func (s *site) awaitServed(name string, pods int32) *v1alpha1.LoRAAdapter {
	s.t.Helper()
	var a *v1alpha1.LoRAAdapter
	s.await(name+" to be Ready", func() error {
		a = s.adapter(name)
		return served(a, pods)
	})
	return a
}

func served(a *v1alpha1.LoRAAdapter, pods int32) error {
	ready := apimeta.FindStatusCondition(a.Status.Conditions, v1alpha1.ConditionReady)
	want := v1alpha1.PodCounts{Desired: pods, Ready: pods}
	if ready == nil || ready.Status != metav1.ConditionTrue || ready.ObservedGeneration != a.Generation ||
		a.Status.Pods != want || a.Status.ServedRevision != a.Status.TargetRevision.Digest {
		return fmt.Errorf("%s: generation %d, served %q, pods %+v, condition %+v",
			a.Name, a.Generation, a.Status.ServedRevision, a.Status.Pods, ready)
	}
	return nil
}

// awaitGone waits until an object is not there any more.
func (s *site) awaitGone(o client.Object) {
	s.t.Helper()
	s.await(fmt.Sprintf("%T %s to be gone", o, o.GetName()), func() error {
		err := place.Client.Get(s.t.Context(), client.ObjectKeyFromObject(o), o)
		if apierrors.IsNotFound(err) {
			return nil
		}
		return errors.Join(errors.New("it is still there"), err)
	})
}

// source has an adapter's spec name another source.
func (s *site) source(name, ref string) {
	s.t.Helper()
	s.kubectl("patch", "lora", name, "--type=merge", "-p", fmt.Sprintf(`{"spec":{"source":{"oci":{"ref":%q}}}}`, ref))
}

// ask has clients ask an adapter through the pool's address until the test ends.
func (s *site) ask(adapter string) *load.Load {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), soon)
	defer cancel()
	endpoint, err := place.Endpoint(ctx, s.ns, poolName)
	if err != nil {
		s.t.Fatal(err)
	}
	asking := load.Start(lasting, endpoint.HTTP, adapter, image, clients)
	s.t.Cleanup(func() { asking.Stop() })
	s.answers(asking, 10*clients)
	return asking
}

// answers waits for so many more answers.
func (s *site) answers(asking *load.Load, n int) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), soon)
	defer cancel()
	if err := asking.Answers(ctx, n); err != nil {
		s.t.Fatalf("waiting for %d more answers: %v", n, errors.Join(err, asking.Stop().Err()))
	}
}

// noneLost ends the clients, of whose requests all must have been answered.
func (s *site) noneLost(asking *load.Load) *load.Report {
	s.t.Helper()
	report := asking.Stop()
	total := len(report.Failures)
	for _, r := range report.Revisions {
		total += r.Answers
	}
	s.t.Logf("%d requests, %d lost", total, len(report.Failures))
	if len(report.Failures) > 0 {
		s.t.Errorf("%d of %d requests were lost, the first of them: %v", len(report.Failures), total, report.Err())
	}
	return report
}

// process is that of a pod's container, from the note that the node keeps of it.
func (s *site) process(pod *corev1.Pod) process.Process {
	s.t.Helper()
	p, lives := s.runs(pod)
	if !lives {
		s.t.Fatalf("pod %s: expected the note of a living process", pod.Name)
	}
	return p
}

// runs is the process of a pod's container, if it lives.
func (*site) runs(pod *corev1.Pod) (p process.Process, lives bool) {
	return process.Noted(filepath.Join(placeDir, "node", "pods", string(pod.UID), "runtime.process.json"))
}
