package agent_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/yaml"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/switchyard-dev/switchyard/api/v1alpha1"
	"github.com/switchyard-dev/switchyard/runtime/agent"
	"github.com/switchyard-dev/switchyard/test/controlplane"
)

// assets is where the control plane's binaries are, which are built once for all tests.
func assets(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("KUBEBUILDER_ASSETS")
	if dir == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			t.Fatal(err)
		}
		dir = filepath.Join(cache, "switchyard/controlplane/v1.37.2")
	}
	if _, err := os.Stat(filepath.Join(dir, "kube-apiserver")); err != nil {
		t.Skipf("no control plane in %s", dir)
	}
	return dir
}

// podUID is of the pod that the agents are in.
const podUID = "uid-of-digits-0"

// cluster is a real API server with the pod's assignment in it, with the roles and policies of a real one.
type cluster struct {
	env *envtest.Environment
	client.WithWatch
	manager client.Client // who writes assignments
	key     client.ObjectKey

	mu          sync.Mutex
	away        bool
	connections []net.Conn // of the agents
}

// setAway cuts the agents' connections and lets them make no others, or lets them again.
func (c *cluster) setAway(away bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.away = away
	for _, connection := range c.connections {
		_ = connection.Close()
	}
	c.connections = nil
}

// dial is how agents reach the API server.
func (c *cluster) dial(ctx context.Context, network, address string) (net.Conn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.away {
		return nil, errors.New("nobody there")
	}
	connection, err := (&net.Dialer{}).DialContext(ctx, network, address)
	c.connections = append(c.connections, connection)
	return connection, err
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	env := &envtest.Environment{
		BinaryAssetsDirectory: assets(t), CRDDirectoryPaths: []string{"../../config/crd"}, ErrorIfCRDPathMissing: true,
	}
	config, err := env.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = env.Stop() })
	scheme := runtime.NewScheme()
	if err := clientgoscheme.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	c, err := client.NewWithWatch(config, client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "demo"}}); err != nil {
		t.Fatal(err)
	}
	install(t, c, "rbac/runtime_role.yaml", "policy/assignment_status.yaml", "policy/assignment_spec.yaml")
	if err := c.Create(t.Context(), &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Namespace: "demo", Name: "digits-runtime"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "switchyard-runtime"},
		Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: "demo", Name: "digits-runtime"}},
	}); err != nil {
		t.Fatal(err)
	}
	config = rest.CopyConfig(config)
	config.Impersonate = controlplane.AsServiceAccount("switchyard-system", "switchyard-manager")
	config.Impersonate.Groups = append(config.Impersonate.Groups, "system:masters") // its role is not this test's
	manager, err := client.New(config, client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	return &cluster{
		env: env, WithWatch: c, manager: manager, key: client.ObjectKey{Namespace: "demo", Name: "digits-0"},
	}
}

// install creates the objects of files of config.
func install(t *testing.T, c client.Client, files ...string) {
	t.Helper()
	for _, name := range files {
		file, err := os.Open(filepath.Join("../../config", name))
		if err != nil {
			t.Fatal(err)
		}
		for decoder := yaml.NewYAMLOrJSONDecoder(file, 4096); ; {
			var o unstructured.Unstructured
			if err := decoder.Decode(&o.Object); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
			if err := c.Create(t.Context(), &o); err != nil {
				t.Fatal(err)
			}
		}
		_ = file.Close()
	}
}

// source is the agent's own client, which speaks as its pod.
func (c *cluster) source(t *testing.T) *agent.Client {
	t.Helper()
	config := rest.CopyConfig(c.env.Config)
	config.Dial = c.dial
	config.Impersonate = controlplane.AsPod(c.key.Namespace, "digits-runtime", c.key.Name, podUID)
	source, err := agent.NewClient(config, c.key.Namespace, c.key.Name, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return source
}

// assign writes the next revision of the spec, as the manager does.
func (c *cluster) assign(t *testing.T, entries ...v1alpha1.AssignedAdapter) int64 {
	t.Helper()
	var revision int64
	err := retry.RetryOnConflict(retry.DefaultRetry, func() (err error) {
		revision, err = c.write(t.Context(), podUID, entries)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return revision
}

// write writes the next revision, as of the pod of that UID.
func (c *cluster) write(ctx context.Context, uid types.UID, entries []v1alpha1.AssignedAdapter) (int64, error) {
	var a v1alpha1.AdapterAssignment
	err := c.Get(ctx, c.key, &a)
	if client.IgnoreNotFound(err) != nil {
		return 0, err
	}
	found := err == nil
	a.Name, a.Namespace = c.key.Name, c.key.Namespace
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: c.key.Name, UID: uid}}
	a.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(pod, corev1.SchemeGroupVersion.WithKind("Pod"))}
	a.Spec.PoolName = "digits"
	a.Spec.Revision++
	for i := range entries {
		entries[i].Since = a.Spec.Revision
	}
	a.Spec.Adapters = entries
	if found {
		return a.Spec.Revision, c.manager.Update(ctx, &a)
	}
	return a.Spec.Revision, c.manager.Create(ctx, &a)
}

// await watches the assignment until its status is so.
func (c *cluster) await(t *testing.T, what string, holds func(s v1alpha1.AdapterAssignmentStatus) bool) {
	t.Helper()
	var status v1alpha1.AdapterAssignmentStatus
	for began := time.Now(); time.Since(began) < patient; {
		var a v1alpha1.AdapterAssignment
		if err := c.Get(t.Context(), c.key, &a); err != nil {
			t.Fatal(err)
		}
		if status = a.Status; holds(status) {
			return
		}
	}
	t.Fatalf("waited for %s, found %+v", what, status)
}

func (c *cluster) served(t *testing.T, revision int64) {
	t.Helper()
	c.await(t, "all served", func(s v1alpha1.AdapterAssignmentStatus) bool {
		return s.ObservedRevision == revision && s.StartedAt != nil && len(s.Pending) == 0 && len(s.Failed) == 0
	})
}

// The same life as with the stand-in, against a real API server: it refuses what the CRD does not allow, resumes
// watches, and goes away.
func TestAgainstAnAPIServer(t *testing.T) {
	c := newCluster(t)
	r, base, digest := shelf(t)
	dir := t.TempDir()
	p := start(t, c.source(t), r, dir, base)
	entry := func(name, target, fallback string) v1alpha1.AssignedAdapter {
		return v1alpha1.AssignedAdapter{Name: name, Digest: digest[target], FallbackDigest: digest[fallback]}
	}
	c.served(t, c.assign(t))
	p.ready(t)
	c.served(t, c.assign(t, entry("x", "parity", "")))
	p.answers(t, "x", digest["parity"])

	revision := c.assign(t, entry("bad", "overflow", ""), entry("x", "holes", "parity"))
	c.await(t, "a failure", func(s v1alpha1.AdapterAssignmentStatus) bool {
		return s.ObservedRevision == revision && len(s.Pending) == 0 && len(s.Failed) == 1 && s.Failed[0].Name == "bad"
	})
	p.answers(t, "x", digest["holes"])
	// Lists that are empty again are so in the status too.
	c.served(t, c.assign(t, entry("x", "holes", "")))
	p.refuses(t, "bad", http.StatusNotFound)

	// Another object of the same name: its spec counts from the beginning, and no former report is in it.
	if err := c.Delete(t.Context(), &v1alpha1.AdapterAssignment{
		ObjectMeta: metav1.ObjectMeta{Name: c.key.Name, Namespace: c.key.Namespace},
	}); err != nil {
		t.Fatal(err)
	}
	p.answers(t, "x", digest["holes"])
	c.served(t, c.assign(t, entry("x", "digit", "holes")))
	p.answers(t, "x", digest["digit"])
	p.stop()

	// Restarted while nobody is there.
	r.Away(true)
	c.setAway(true)
	p = start(t, c.source(t), r, dir, base)
	p.ready(t)
	p.answers(t, "x", digest["digit"])
	if n := strings.Count(p.log.String(), "level=WARN"); n > 5 {
		t.Errorf("expected a few lines about the API server, found %d:\n%s", n, p.log.String())
	}

	// It is back: the new process reports, and takes up what changed.
	r.Away(false)
	c.setAway(false)
	c.served(t, c.assign(t, entry("x", "parity", "digit"), entry("y", "holes", "")))
	p.answers(t, "x", digest["parity"])
	p.answers(t, "y", digest["holes"])

	// A watch that breaks is taken up again.
	c.setAway(true)
	revision = c.assign(t, entry("x", "digit", "parity"), entry("y", "holes", ""))
	p.answers(t, "x", digest["parity"])
	c.setAway(false)
	c.served(t, revision)
	p.answers(t, "x", digest["digit"])
}

// A report to another object than the one it speaks of is refused.
func TestAReportIsOfOneObject(t *testing.T) {
	c := newCluster(t)
	c.assign(t)
	started := metav1.NewTime(time.Now().Truncate(time.Second))
	err := c.source(t).Report(t.Context(), "another", &v1alpha1.AdapterAssignmentStatus{
		ObservedRevision: 7, StartedAt: &started, BootID: "x",
	})
	if err == nil {
		t.Error("expected a refusal")
	}
	var a v1alpha1.AdapterAssignment
	if err := c.Get(t.Context(), c.key, &a); err != nil || a.Status.ObservedRevision != 0 {
		t.Errorf("expected no report, found %+v, %v", a.Status, err)
	}
}

// While the assignment of the pod's name is still another pod's, as a former one's may be, reports are refused: that is
// said in the log, once, the pod serves what it is assigned but is not ready, and tries until it is heard.
func TestARefusedReport(t *testing.T) {
	c := newCluster(t)
	r, base, digest := shelf(t)
	entries := []v1alpha1.AssignedAdapter{{Name: "x", Digest: digest["parity"]}}
	if _, err := c.write(t.Context(), "former", entries); err != nil {
		t.Fatal(err)
	}
	c.untilPolicies(t)
	p := start(t, c.source(t), r, t.TempDir(), base)
	const refusal = `level=WARN msg="the status cannot be written"`
	for began := time.Now(); !strings.Contains(p.log.String(), refusal); {
		if time.Since(began) > patient {
			t.Fatalf("waited for a refusal, found %s", p.log.String())
		}
	}
	for began := time.Now(); time.Since(began) < patient; {
		if _, code := p.ask(t, "x"); code == http.StatusOK {
			break
		}
	}
	p.answers(t, "x", digest["parity"])
	if p.agent.Ready() == nil {
		t.Error("expected a pod that cannot report not to be ready")
	}
	if _, err := c.write(t.Context(), podUID, entries); err != nil {
		t.Fatal(err)
	}
	p.ready(t)
	c.served(t, 2)
	log := p.log.String()
	for _, want := range []string{
		"the status of this AdapterAssignment is written only by pod",
		"(UID former) as system:serviceaccount:demo:digits-runtime",
		"found system:serviceaccount:demo:digits-runtime in pod", "(UID " + podUID + ")",
	} {
		if !strings.Contains(log, want) {
			t.Errorf("expected %s, found %s", want, log)
		}
	}
	if n := strings.Count(log, refusal); n != 1 {
		t.Errorf("expected the refusal to be said once, found %d:\n%s", n, log)
	}
}

// untilPolicies waits until the API server carries them out: it learns of them by a watch.
func (c *cluster) untilPolicies(t *testing.T) {
	t.Helper()
	var err error
	for began := time.Now(); time.Since(began) < patient; {
		a := &v1alpha1.AdapterAssignment{ObjectMeta: metav1.ObjectMeta{Namespace: c.key.Namespace, Name: c.key.Name}}
		err = c.Status().Patch(t.Context(), a, client.RawPatch(types.MergePatchType, []byte(`{"status":{"bootID":"x"}}`)),
			&client.SubResourcePatchOptions{PatchOptions: client.PatchOptions{DryRun: []string{metav1.DryRunAll}}})
		if apierrors.IsForbidden(err) {
			return
		}
	}
	t.Fatalf("waited for a refusal of an admin's report, found %v", err)
}
