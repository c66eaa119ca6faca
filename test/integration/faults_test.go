package integration

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/switchyard-dev/switchyard/controllers/placement"
	"github.com/switchyard-dev/switchyard/test/wrappers"
)

// fault is something that goes wrong, or is done, in a schedule.
type fault interface {
	name() string
	// unfit is why it cannot be now, or "".
	unfit(now *state) string
	// apply brings it about, and tells what exactly.
	apply(ctx context.Context, random *rand.Rand) (what string, err error)
	// lasts is how long it stands once it was applied; 0 is what is over at once.
	lasts(random *rand.Rand) time.Duration
	// heal ends it.
	heal(ctx context.Context) error
}

// state is what a fault must know of those that stand.
type state struct {
	noAPI     bool // the API server is away
	noLeader  bool // the leading manager was killed or stopped
	noStore   bool // the artifact registry is away, or cannot write
	lost      bool // it has lost its disk
	replicas  int32
	ready     int32 // pods
	poisonous bool  // an adapter may kill a pod
}

// spares tells whether a pod that is ready would be left if one were taken, whatever poisonous adapters do.
func (s *state) spares() bool {
	left := s.ready - 1
	if s.poisonous {
		left--
	}
	return left >= 1
}

// momentary is what is over at once.
type momentary struct{}

func (momentary) lasts(*rand.Rand) time.Duration { return 0 }
func (momentary) heal(context.Context) error     { return nil }

// between is a time of at least a and at most b.
func between(random *rand.Rand, a, b time.Duration) time.Duration {
	return a + time.Duration(random.Int64N(int64(b-a)))
}

// killedRuntime is a pod's process that ends at once.
type killedRuntime struct {
	momentary
	s *site
}

func (killedRuntime) name() string { return "a runtime is killed" }
func (killedRuntime) unfit(now *state) string {
	if !now.spares() {
		return "no other pod would be left"
	}
	return ""
}

func (f killedRuntime) apply(_ context.Context, random *rand.Rand) (string, error) {
	pod := f.s.truth.anyReady(random)
	if pod == nil {
		return "", errors.New("no pod is ready")
	}
	p, lives := f.s.runs(pod)
	if !lives {
		return "pod " + pod.Name + ", which had just ended", nil
	}
	f.s.truth.take(pod)
	f.s.truth.died(death{pod.Name, time.Now(), "killed by the schedule"})
	return "pod " + pod.Name, syscall.Kill(p.PID, syscall.SIGKILL)
}

// takeover is how long another manager may take to lead once the leading one is gone without a word: the lease of 6 s,
// twice the pause between two looks at it, and, where it had just been started itself, what that takes on a busy
// machine.
const takeover = 30 * time.Second

// killedLeader is a leading manager that ends at once. A standby takes over, and a new standby is started.
type killedLeader struct {
	s    *site
	over chan error
}

func (*killedLeader) name() string { return "the leading manager is killed" }
func (*killedLeader) unfit(now *state) string {
	if now.noAPI || now.noLeader {
		return "none leads"
	}
	return ""
}

func (f *killedLeader) apply(ctx context.Context, _ *rand.Rand) (string, error) {
	holder, _, err := place.Lease(ctx)
	if err != nil {
		return "", err
	}
	f.s.truth.stop(noLeader)
	if err := place.KillManager(ctx); err != nil {
		return "", err
	}
	f.over = f.s.awaitLeader(ctx, holder)
	return "", place.StartManager(lasting) //nolint:contextcheck // it outlives the test
}
func (*killedLeader) lasts(*rand.Rand) time.Duration { return takeover / 4 }
func (f *killedLeader) heal(context.Context) error   { return <-f.over }

// pausedLeader is a leading manager whose machine hangs until another has taken over, and which then goes on as if
// nothing had been: it must find out before it writes.
type pausedLeader struct {
	s    *site
	over chan error
	wake func(ctx context.Context, lost bool) error
}

func (*pausedLeader) name() string                   { return "the leading manager hangs" }
func (*pausedLeader) unfit(now *state) string        { return (*killedLeader)(nil).unfit(now) }
func (*pausedLeader) lasts(*rand.Rand) time.Duration { return takeover / 4 }

func (f *pausedLeader) apply(ctx context.Context, _ *rand.Rand) (string, error) {
	holder, _, err := place.Lease(ctx)
	if err != nil {
		return "", err
	}
	f.s.truth.stop(noLeader)
	if f.wake, err = place.PauseManager(ctx); err != nil {
		return "", err
	}
	f.over = f.s.awaitLeader(ctx, holder)
	return "", nil
}

func (f *pausedLeader) heal(ctx context.Context) error {
	return errors.Join(<-f.over, f.wake(ctx, true))
}

// awaitLeader has the truth's time run again once another than the former manager holds the lease, within takeover.
func (s *site) awaitLeader(ctx context.Context, former string) chan error {
	over := make(chan error, 1)
	go func() {
		err := wait.PollUntilContextTimeout(ctx, again, takeover, true, func(ctx context.Context) (bool, error) {
			holder, _, err := place.Lease(ctx)
			return err == nil && holder != "" && holder != former, nil
		})
		if err != nil {
			over <- fmt.Errorf("no other manager leads within %v: %w", takeover, err)
			return
		}
		over <- s.truth.resume(ctx, noLeader)
	}()
	return over
}

// awayAPIServer is an API server that is not there for a while.
type awayAPIServer struct{ s *site }

func (awayAPIServer) name() string { return "the API server is away" }
func (awayAPIServer) unfit(now *state) string {
	switch {
	case now.noAPI || now.noLeader:
		return "a manager is to take over"
	case now.lost:
		return "what is lost is to be pushed again"
	}
	return ""
}

func (f awayAPIServer) apply(context.Context, *rand.Rand) (string, error) {
	f.s.truth.stop(apiServerAway)
	defer f.s.truth.stop(apiServerAway)
	return "", place.Plane.StopAPIServer()
}

func (awayAPIServer) lasts(random *rand.Rand) time.Duration {
	if random.IntN(3) == 0 {
		return 30 * time.Second // no lease, no watch, no cache that was not read again survives that
	}
	return between(random, time.Second, 8*time.Second)
}

// heal returns when the truth's time runs again: the API server is ready and a manager has renewed the lease, the
// former or another.
func (f awayAPIServer) heal(ctx context.Context) error {
	if err := place.Plane.StartAPIServer(ctx); err != nil {
		return err
	}
	back := time.Now()
	err := wait.PollUntilContextTimeout(ctx, again, takeover, true, func(ctx context.Context) (bool, error) {
		holder, renewed, err := place.Lease(ctx)
		return err == nil && holder != "" && renewed.After(back), nil
	})
	if err != nil {
		return fmt.Errorf("no manager leads %v after the API server is back: %w", takeover, err)
	}
	return f.s.truth.resume(ctx, apiServerAway)
}

// awayRegistry is an artifact registry whose process is not there for a while.
type awayRegistry struct{}

func (awayRegistry) name() string { return "the artifact registry is away" }
func (awayRegistry) unfit(now *state) string {
	if now.noStore {
		return "it is out of order"
	}
	return ""
}

func (awayRegistry) apply(context.Context, *rand.Rand) (string, error) {
	place.StopRegistry()
	return "", nil
}

func (awayRegistry) lasts(random *rand.Rand) time.Duration {
	return between(random, time.Second, 10*time.Second)
}

func (awayRegistry) heal(context.Context) error {
	return place.StartRegistry(lasting) //nolint:contextcheck // it outlives the test
}

// lostRegistry is an artifact registry that comes back with an empty disk, just as all pods are replaced: what they are
// to pull is pushed again for them.
type lostRegistry struct{ s *schedule }

func (*lostRegistry) name() string {
	return "the artifact registry has lost its disk, and all pods are replaced"
}

func (f *lostRegistry) unfit(now *state) string {
	switch {
	case now.noStore:
		return "it is out of order"
	case now.noAPI:
		return apiServerAway
	case !f.s.askedAreGood():
		return "what a spec does not ask for any more cannot be pushed again"
	}
	return ""
}

func (f *lostRegistry) apply(ctx context.Context, random *rand.Rand) (string, error) {
	place.StopRegistry()
	err := empty(place.RegistryDir())
	if err := errors.Join(err, place.StartRegistry(lasting)); err != nil { //nolint:contextcheck // it outlives the test
		return "", err
	}
	return rolled{s: f.s}.apply(ctx, random)
}

func (*lostRegistry) lasts(*rand.Rand) time.Duration { return 2 * time.Minute } // unless nothing is missing any more

func (f *lostRegistry) heal(ctx context.Context) error {
	var missing string
	err := wait.PollUntilContextTimeout(ctx, every, soon, true, func(context.Context) (bool, error) {
		missing = f.missing() //nolint:contextcheck // a test's own
		return missing == "", nil
	})
	if err != nil {
		return fmt.Errorf("the artifact registry has not got back %s: %w", missing, err)
	}
	return nil
}

// missing is what of the pool and the adapters that are asked the artifact registry has not: what they are to answer
// with, and what pods are assigned. A former revision is not pushed again, but replaced.
func (f *lostRegistry) missing() string {
	digests := map[string]string{"the base model": f.s.site.pool().Status.BaseModel.Digest}
	assignments := f.s.site.assignments()
	for _, name := range asked {
		digests[name] = f.s.site.adapter(name).Status.TargetRevision.Digest
		for pod, assignment := range assignments {
			if e, ok := placement.Entry(assignment, name); ok {
				digests[name+" of pod "+pod] = e.Digest
			}
		}
	}
	for what, digest := range digests {
		if _, err := os.Stat(blob(digest)); err != nil {
			return what
		}
	}
	return ""
}

// blob is where the artifact registry keeps what has that digest.
func blob(digest string) string {
	algorithm, sum, _ := strings.Cut(digest, ":")
	return filepath.Join(place.RegistryDir(), "docker", "registry", "v2", "blobs", algorithm, sum[:2], sum, "data")
}

// empty removes all that is in a folder, which may be a mount, and so stays.
func empty(dir string) error {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		err = errors.Join(err, os.RemoveAll(filepath.Join(dir, e.Name())))
	}
	return err
}

// fullRegistry is an artifact registry whose disk is full for a while.
type fullRegistry struct{}

func (fullRegistry) name() string            { return "the artifact registry's disk is full" }
func (fullRegistry) unfit(now *state) string { return (awayRegistry{}).unfit(now) }
func (fullRegistry) lasts(random *rand.Rand) time.Duration {
	return between(random, time.Second, 10*time.Second)
}
func (fullRegistry) ballast() string { return filepath.Join(place.RegistryDir(), "ballast") }

func (f fullRegistry) apply(context.Context, *rand.Rand) (string, error) {
	file, err := os.Create(f.ballast())
	if err != nil {
		return "", err
	}
	defer func() { _ = file.Close() }() // written or not, the disk is full
	n, err := io.Copy(file, zeros{})
	if !errors.Is(err, syscall.ENOSPC) {
		return "", fmt.Errorf("expected a full disk, found %w", err)
	}
	return fmt.Sprintf("%d bytes more", n), nil
}
func (f fullRegistry) heal(context.Context) error { return os.Remove(f.ballast()) }

// zeros has no end.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// smallDisk puts the artifact registry on a disk of its own, small enough to be filled, until the test ends. It takes
// the right to mount.
func smallDisk(t *testing.T) bool {
	t.Helper()
	dir, kept := place.RegistryDir(), filepath.Join(t.TempDir(), "registry")
	place.StopRegistry()
	if err := os.CopyFS(kept, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=64m")
	if err == nil {
		err = os.CopyFS(dir, os.DirFS(kept))
		t.Cleanup(func() { // what is lost is pushed again by the next manager that looks
			place.StopRegistry()
			if err := errors.Join(syscall.Unmount(dir, 0), place.StartRegistry(lasting)); err != nil {
				t.Error(err)
			}
		})
	} else {
		t.Logf("the artifact registry's disk is never full: it takes root to mount a small one: %v", err)
		return false
	}
	if err := errors.Join(err, place.StartRegistry(lasting)); err != nil {
		t.Fatal(err)
	}
	return true
}

// needsAPI is a change that a user makes.
type needsAPI struct{ momentary }

func (needsAPI) unfit(now *state) string {
	if now.noAPI {
		return apiServerAway
	}
	return ""
}

// scaled is another number of replicas.
type scaled struct {
	needsAPI
	s *schedule
}

func (scaled) name() string { return "the pool is scaled" }
func (f scaled) apply(ctx context.Context, random *rand.Rand) (string, error) {
	const least, most = 2, 3
	next := least + random.Int32N(most-least+1)
	what := fmt.Sprintf("from %d pods to %d", f.s.replicas, next)
	f.s.replicas = next
	return what, f.s.patchPool(ctx, fmt.Sprintf(`{"spec":{"replicas":%d}}`, next))
}

// rolled is another template.
type rolled struct {
	needsAPI
	s *schedule
}

func (rolled) name() string { return "all pods are replaced" }
func (f rolled) apply(ctx context.Context, random *rand.Rand) (string, error) {
	return "", f.s.patchPool(ctx,
		fmt.Sprintf(`{"spec":{"template":{"annotations":{"switchyard.test/roll":"%d"}}}}`, random.Int64()))
}

func (s *schedule) patchPool(ctx context.Context, patch string) error {
	pool := wrappers.Pool(s.site.ns, poolName).Obj()
	return place.Client.Patch(ctx, pool, client.RawPatch(types.MergePatchType, []byte(patch)))
}

// deletedPod is a pod that an admin deletes.
type deletedPod struct {
	momentary
	s *site
}

func (deletedPod) name() string { return "a pod is deleted" }
func (deletedPod) unfit(now *state) string {
	if !now.spares() {
		return "no other pod would be left"
	}
	return needsAPI{}.unfit(now)
}

func (f deletedPod) apply(ctx context.Context, random *rand.Rand) (string, error) {
	pod := f.s.truth.anyReady(random)
	if pod == nil {
		return "", errors.New("no pod is ready")
	}
	f.s.truth.take(pod)
	err := place.Client.Delete(ctx, pod, client.Preconditions{UID: &pod.UID})
	return "pod " + pod.Name, client.IgnoreNotFound(err)
}

// evictedPod is a pod of a node that is drained.
type evictedPod struct {
	momentary
	s *site
}

func (evictedPod) name() string            { return "a pod is evicted" }
func (evictedPod) unfit(now *state) string { return deletedPod{}.unfit(now) }
func (f evictedPod) apply(ctx context.Context, random *rand.Rand) (string, error) {
	pod := f.s.truth.anyReady(random)
	if pod == nil {
		return "", errors.New("no pod is ready")
	}
	f.s.truth.take(pod)
	err := place.Kube.PolicyV1().Evictions(f.s.ns).Evict(ctx, &policyv1.Eviction{
		ObjectMeta: metav1.ObjectMeta{Namespace: f.s.ns, Name: pod.Name},
	})
	if apierrors.IsTooManyRequests(err) {
		f.s.truth.giveBack(pod)
		return "pod " + pod.Name + ", which its PodDisruptionBudget refused", nil
	}
	return "pod " + pod.Name, client.IgnoreNotFound(err)
}

// take has a pod count as none of those that are ready before its container is seen to have come back: what is known
// of it till then is of before it was taken.
func (w *truth) take(pod *corev1.Pod) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.taken[pod.Name] = restarts(pod)
}

// giveBack is for a pod that could not be taken.
func (w *truth) giveBack(pod *corev1.Pod) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.taken, pod.Name)
}

// standingPods are those that are ready, without those that were taken, by name; under the lock.
func (w *truth) standingPods() []*corev1.Pod {
	var standing []*corev1.Pod
	for _, name := range slices.Sorted(maps.Keys(w.pods)) { // the seed alone decides
		pod := w.pods[name]
		if before, taken := w.taken[name]; placement.Ready(pod) && (!taken || restarts(pod) > before) {
			standing = append(standing, pod)
		}
	}
	return standing
}

// restarts is how often the pod's container has come back.
func restarts(pod *corev1.Pod) int32 {
	for _, c := range pod.Status.ContainerStatuses {
		return c.RestartCount
	}
	return 0
}

// anyReady is a ready pod, whose object is not to be changed; nil if there is none.
func (w *truth) anyReady(random *rand.Rand) *corev1.Pod {
	w.mu.Lock()
	defer w.mu.Unlock()
	ready := w.standingPods()
	if len(ready) == 0 {
		return nil
	}
	return ready[random.IntN(len(ready))]
}
