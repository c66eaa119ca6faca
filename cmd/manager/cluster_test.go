package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/switchyard-dev/switchyard/api/v1alpha1"
	"github.com/switchyard-dev/switchyard/controllers/artifact/registry"
	"github.com/switchyard-dev/switchyard/test/controlplane"
	"github.com/switchyard-dev/switchyard/test/digits"
	"github.com/switchyard-dev/switchyard/test/localnode"
	"github.com/switchyard-dev/switchyard/test/ocisource"
	"github.com/switchyard-dev/switchyard/test/wrappers"
)

const (
	sample = "../../hack/samples/digits"
	// within bounds every wait for a state; the states themselves take a fraction of a second.
	within = 30 * time.Second
	system = "switchyard-system"

	managerAccount  = "switchyard-manager"
	registryAccount = "switchyard-registry"
)

// The cluster of all tests: a real control plane with config/default, the manager under its own service account, and a
// source registry. Tests stand in for kubelet and agents.
var (
	plane       *controlplane.ControlPlane
	admin       client.Client
	kube        kubernetes.Interface // as admin, too
	sourceHost  string               // host of the source registry
	registryDir string               // of the artifact registry
	managerLog  logged
	metricsURL  string // of the manager
)

// asProgram, in the environment, makes this binary the program that it tests.
const asProgram = "SWITCHYARD_TEST_AS_PROGRAM"

// logged is what was logged.
type logged struct {
	mu   sync.Mutex
	text strings.Builder
}

// Write adds to it.
func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
		return
	}
	code, err := withCluster(m.Run)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func withCluster(tests func() int) (code int, err error) {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	dir, err := os.MkdirTemp("", "manager-test-")
	if err != nil {
		return 0, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	plane, err = controlplane.Start(ctx, controlplane.Options{
		Dir: filepath.Join(dir, "plane"), CRDs: []string{"../../config/crd"},
	})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, plane.Stop()) }()
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		return 0, err
	}
	if admin, err = client.New(plane.Config(), client.Options{Scheme: scheme}); err != nil {
		return 0, err
	}
	// Its Deployments make pods that nobody runs.
	if err := kubectl(ctx, "apply", "--server-side", "--kustomize", "../../config/default"); err != nil {
		return 0, err
	}
	sources, err := registry.New(registry.Options{Dir: filepath.Join(dir, "source"), AllowPush: true})
	if err != nil {
		return 0, err
	}
	server := httptest.NewServer(sources)
	defer server.Close()
	sourceHost = strings.TrimPrefix(server.URL, "http://")
	if err := pushSamples(ctx); err != nil {
		return 0, err
	}

	parts, err := startParts(ctx, plane, dir)
	if err != nil {
		return 0, err
	}
	code = tests()
	stop()
	return code, parts.Wait()
}

// startParts starts the manager, and the artifact registry once the manager has made its certificate.
func startParts(ctx context.Context, plane *controlplane.ControlPlane, dir string) (*errgroup.Group, error) {
	path := func(name string) string { return filepath.Join(dir, name) }
	registryDir = path("registry")
	address, err := freeAddress(ctx)
	if err != nil {
		return nil, err
	}
	for name, file := range map[string]string{
		managerAccount: path("manager.kubeconfig"), registryAccount: path("registry.kubeconfig"),
	} {
		if err := plane.ServiceAccountKubeconfig(ctx, system, name, file); err != nil {
			return nil, err
		}
	}
	err = plane.ServiceAccountToken(ctx, system, managerAccount, v1alpha1.RegistryAudience, path("registry-token"))
	if err != nil {
		return nil, err
	}
	if kube, err = kubernetes.NewForConfig(plane.Config()); err != nil {
		return nil, err
	}
	metricsAddress, err := freeAddress(ctx)
	if err != nil {
		return nil, err
	}
	metricsURL = "http://" + metricsAddress + "/metrics"
	said := io.MultiWriter(os.Stderr, &managerLog)
	log := slog.New(slog.NewTextHandler(said, &slog.HandlerOptions{Level: slog.LevelWarn}))
	var parts errgroup.Group
	parts.Go(func() error {
		return run(ctx, []string{
			"--kubeconfig", path("manager.kubeconfig"), "--namespace", system, "--leader-elect",
			"--metrics-address", metricsAddress, "--metrics-secure=false", "--health-address", "0", "--runtime-image", "runtime",
			"--registry-url", "https://" + address, "--registry-token-file", path("registry-token"),
			"--source-allow-cidr", "127.0.0.0/8", "--source-allow-cidr", "::1/128",
		}, log)
	})
	mounted := make(chan error, 1) // the first time
	parts.Go(func() error {
		return localnode.MountSecret(ctx, kube, system, certificatesSecret, path("tls"), []string{"tls.crt", "tls.key"},
			func(err error) {
				select {
				case mounted <- err:
				default:
				}
			})
	})
	parts.Go(func() error {
		select {
		case <-ctx.Done():
			return nil
		case err := <-mounted:
			if err != nil {
				return err
			}
		}
		return serveRegistry(ctx, []string{
			"--kubeconfig", path("registry.kubeconfig"), "--metrics-address", "0", "--dir", registryDir,
			"--address", address, "--tls-dir", path("tls"), "--manager-account", system + "/" + managerAccount,
		}, log)
	})
	return &parts, nil
}

func freeAddress(ctx context.Context) (string, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return listener.Addr().String(), listener.Close()
}

func pushSamples(ctx context.Context) error {
	folders := map[string]string{"base": digits.Base(sample)}
	for _, name := range []string{"digit", "parity", "holes"} {
		folders[name] = filepath.Join(digits.Adapters(sample), name)
	}
	for name, folder := range folders {
		if _, err := ocisource.Push(ctx, ref(name), folder); err != nil {
			return fmt.Errorf("sample %s: %w", name, err)
		}
	}
	return nil
}

// ref is where the source registry has something.
func ref(name string) string { return sourceHost + "/" + name + ":v1" }

// push puts a folder into the source registry.
func push(t *testing.T, name, folder string) string {
	t.Helper()
	if _, err := ocisource.Push(t.Context(), ref(name), folder); err != nil {
		t.Fatal(err)
	}
	return ref(name)
}

// kubectl runs it as admin.
func kubectl(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, plane.Kubectl, append([]string{"--kubeconfig", plane.KubeconfigPath}, args...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("kubectl %v: %w: %s", args, err, out)
	}
	return nil
}

// space is a namespace of one test, with the kubelet and the agents of its pods.
type space struct {
	t         *testing.T
	ctx       context.Context //nolint:containedctx // the test's own
	namespace string

	mu      sync.Mutex
	pending map[string]bool   // digests that stay loading
	failing map[string]string // reasons by digest
	started time.Time         // of all containers and processes
	silent  bool              // agents report nothing
	agents  map[types.UID]client.Client
}

func newSpace(t *testing.T) *space {
	t.Helper()
	namespace := corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		GenerateName: "test-", Labels: map[string]string{"pod-security.kubernetes.io/enforce": "restricted"},
	}}
	if err := admin.Create(t.Context(), &namespace); err != nil {
		t.Fatal(err)
	}
	s := &space{
		t: t, ctx: t.Context(), namespace: namespace.Name,
		pending: map[string]bool{}, failing: map[string]string{}, started: time.Now().Add(-time.Minute),
		agents: map[types.UID]client.Client{},
	}
	var agents sync.WaitGroup
	ctx, stop := context.WithCancel(t.Context())
	agents.Go(func() {
		_ = wait.PollUntilContextCancel(ctx, 30*time.Millisecond, true, func(ctx context.Context) (bool, error) {
			s.report(ctx)
			return false, nil
		})
	})
	t.Cleanup(func() { stop(); agents.Wait() })
	return s
}

// set changes how the agents behave.
func (s *space) set(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

// report makes every agent report what it makes of its assignment.
func (s *space) report(ctx context.Context) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list v1alpha1.AdapterAssignmentList
	if s.silent || admin.List(ctx, &list, client.InNamespace(s.namespace)) != nil {
		return
	}
	for i := range list.Items {
		a := &list.Items[i]
		before := a.DeepCopy()
		at := metav1.NewTime(s.started)
		a.Status = v1alpha1.AdapterAssignmentStatus{
			ObservedRevision: a.Spec.Revision, StartedAt: &at, BootID: s.started.Format(time.RFC3339Nano),
		}
		for _, e := range a.Spec.Adapters {
			if s.pending[e.Digest] {
				a.Status.Pending = append(a.Status.Pending, v1alpha1.PendingAdapter{Name: e.Name, Digest: e.Digest})
			}
			if reason := s.failing[e.Digest]; reason != "" {
				a.Status.Failed = append(a.Status.Failed, v1alpha1.FailedAdapter{
					Name: e.Name, Digest: e.Digest, Reason: reason, Message: "says the test",
				})
			}
		}
		if agent := s.agent(a); agent != nil {
			_ = agent.Status().Patch(ctx, a, client.MergeFrom(before)) // the next round repairs what failed
		}
	}
}

// agent is a client that speaks as the pod that an assignment is of; nil if none can be had.
func (s *space) agent(a *v1alpha1.AdapterAssignment) client.Client {
	pod := metav1.GetControllerOf(a)
	if pod == nil {
		return nil
	}
	if s.agents[pod.UID] == nil {
		config := plane.Config()
		config.Impersonate = controlplane.AsPod(a.Namespace, a.Spec.PoolName+"-runtime", pod.Name, pod.UID)
		agent, err := client.New(config, client.Options{Scheme: admin.Scheme(), Mapper: admin.RESTMapper()})
		if err != nil {
			return nil
		}
		s.agents[pod.UID] = agent
	}
	return s.agents[pod.UID]
}

// pods are those of a pool that are not on their way out.
func (s *space) pods(pool string) []corev1.Pod {
	s.t.Helper()
	var list corev1.PodList
	err := admin.List(s.ctx, &list, client.InNamespace(s.namespace), client.MatchingLabels{v1alpha1.LabelPool: pool})
	if err != nil {
		s.t.Fatal(err)
	}
	return slices.DeleteFunc(list.Items, func(p corev1.Pod) bool { return !p.DeletionTimestamp.IsZero() })
}

// runPods waits for so many pods of a pool and makes them run and be ready.
func (s *space) runPods(pool string, n int) []corev1.Pod {
	s.t.Helper()
	var pods []corev1.Pod
	s.until("pods", func() string {
		pods = s.pods(pool)
		return strconv.Itoa(len(pods))
	}, strconv.Itoa(n))
	for i := range pods {
		s.runPod(&pods[i], s.started, true)
	}
	return pods
}

// runPod writes what kubelet would of a pod whose container runs since then.
func (s *space) runPod(pod *corev1.Pod, since time.Time, ready bool) {
	s.t.Helper()
	err := retry.RetryOnConflict(retry.DefaultRetry, func() error {
		if err := admin.Get(s.ctx, client.ObjectKeyFromObject(pod), pod); err != nil {
			return err
		}
		status := wrappers.Pod("", "").Running(since).Ready().Obj().Status
		if !ready {
			status.Conditions[0].Status = corev1.ConditionFalse
		}
		pod.Status.Phase, pod.Status.Conditions = status.Phase, status.Conditions
		pod.Status.ContainerStatuses = status.ContainerStatuses
		return admin.Status().Update(s.ctx, pod)
	})
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *space) create(objects ...client.Object) {
	s.t.Helper()
	for _, o := range objects {
		if err := admin.Create(s.ctx, o); err != nil {
			s.t.Fatal(err)
		}
	}
}

func (s *space) remove(o client.Object) {
	s.t.Helper()
	if err := admin.Delete(s.ctx, o); err != nil {
		s.t.Fatal(err)
	}
}

func (s *space) pool(name string) *wrappers.PoolBuilder {
	return wrappers.Pool(s.namespace, name).Source(ref("base"))
}

func (s *space) lora(name, sourceName string) *v1alpha1.LoRAAdapter {
	return wrappers.LoRAAdapter(s.namespace, name).Pool("digits").Source(ref(sourceName)).Obj()
}

// change updates the spec of an adapter.
func (s *space) change(name string, edit func(*v1alpha1.LoRAAdapterSpec)) {
	s.t.Helper()
	err := retry.RetryOnConflict(retry.DefaultRetry, func() error {
		a := s.adapter(name)
		edit(&a.Spec)
		return admin.Update(s.ctx, a)
	})
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *space) adapter(name string) *v1alpha1.LoRAAdapter {
	s.t.Helper()
	var a v1alpha1.LoRAAdapter
	if err := admin.Get(s.ctx, client.ObjectKey{Namespace: s.namespace, Name: name}, &a); err != nil {
		s.t.Fatal(err)
	}
	return &a
}

// says is a status in a line: the conditions that a user looks at, of the current generation.
func says(generation int64, conditions []metav1.Condition, kinds ...string) string {
	var words []string
	for _, kind := range kinds {
		c := apimeta.FindStatusCondition(conditions, kind)
		switch {
		case c == nil:
			words = append(words, kind+"=–")
		case c.ObservedGeneration != generation:
			words = append(words, kind+" of another generation")
		default:
			words = append(words, kind+"="+string(c.Status)+" "+c.Reason)
		}
	}
	return strings.Join(words, ", ")
}

// untilAdapter waits until an adapter's Ready is as wanted: "True Serving".
func (s *space) untilAdapter(name, want string) *v1alpha1.LoRAAdapter {
	s.t.Helper()
	var a *v1alpha1.LoRAAdapter
	s.until(name, func() string {
		a = s.adapter(name)
		return says(a.Generation, a.Status.Conditions, v1alpha1.ConditionReady)
	}, "Ready="+want)
	return a
}

// untilServed waits until an adapter is Ready in so many pods.
func (s *space) untilServed(name string, pods int32) *v1alpha1.LoRAAdapter {
	s.t.Helper()
	var a *v1alpha1.LoRAAdapter
	want := v1alpha1.PodCounts{Desired: pods, Ready: pods}
	s.until(name, func() string {
		a = s.adapter(name)
		return fmt.Sprintf("%s, %+v", says(a.Generation, a.Status.Conditions, v1alpha1.ConditionReady), a.Status.Pods)
	}, fmt.Sprintf("Ready=True Serving, %+v", want))
	return a
}

func (s *space) untilPool(name, want string) *v1alpha1.InferencePool {
	s.t.Helper()
	var p v1alpha1.InferencePool
	s.until("pool "+name, func() string {
		if err := admin.Get(s.ctx, client.ObjectKey{Namespace: s.namespace, Name: name}, &p); err != nil {
			s.t.Fatal(err)
		}
		return says(p.Generation, p.Status.Conditions, v1alpha1.ConditionReady)
	}, "Ready="+want)
	return &p
}

// until waits until something is as wanted.
func (s *space) until(what string, is func() string, want string) {
	s.t.Helper()
	var last string
	seen := map[string]bool{}
	err := wait.PollUntilContextTimeout(s.ctx, 10*time.Millisecond, within, true, func(context.Context) (bool, error) {
		last = is()
		seen[last] = true
		return last == want, nil
	})
	if err != nil {
		s.dump()
		s.t.Fatalf("%s: expected %s, found %s (before: %v)", what, want, last, slices.Sorted(maps.Keys(seen)))
	}
}

// entries is what a pod's assignment says, in a line: "parity=A<B" is A with the fallback B.
func (s *space) entries(pod string, names map[string]string) string {
	var a v1alpha1.AdapterAssignment
	err := admin.Get(s.ctx, client.ObjectKey{Namespace: s.namespace, Name: pod}, &a)
	if apierrors.IsNotFound(err) {
		return "none"
	}
	var words []string
	for _, e := range a.Spec.Adapters {
		word := e.Name + "=" + names[e.Digest]
		if e.FallbackDigest != "" {
			word += "<" + names[e.FallbackDigest]
		}
		words = append(words, word)
	}
	return strings.Join(words, " ")
}

// events are the reasons of what was told of an object.
func (s *space) events(name string) string {
	s.t.Helper()
	var list corev1.EventList
	if err := admin.List(s.ctx, &list, client.InNamespace(s.namespace)); err != nil {
		s.t.Fatal(err)
	}
	reasons := map[string]bool{}
	for _, e := range list.Items {
		if e.InvolvedObject.Name == name {
			reasons[e.Reason] = true
		}
	}
	return strings.Join(slices.Sorted(maps.Keys(reasons)), " ")
}

// dump logs what there is, for a test that failed.
func (s *space) dump() {
	for _, list := range []client.ObjectList{
		&v1alpha1.InferencePoolList{}, &v1alpha1.LoRAAdapterList{}, &v1alpha1.AdapterAssignmentList{},
		&appsv1.DeploymentList{}, &corev1.EventList{},
	} {
		if err := admin.List(context.WithoutCancel(s.ctx), list, client.InNamespace(s.namespace)); err != nil {
			s.t.Log(err)
			continue
		}
		raw, _ := json.Marshal(list)
		s.t.Logf("%T: %s", list, raw)
	}
}
