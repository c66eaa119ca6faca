// Package local is the whole of Switchyard on one machine, on loopback and without root: a real control plane
// (test/controlplane), the manager and the artifact registry under their own service accounts, test/localnode running
// the pods, and a source registry filled with the samples. `make up`, the demo, the benchmark and the integration tests
// are made of it.
//
// Everything ends with the context given to Start, or with the process.
package local

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/switchyard-dev/switchyard/api/v1alpha1"
	"github.com/switchyard-dev/switchyard/controllers/artifact/registry"
	"github.com/switchyard-dev/switchyard/test/controlplane"
	"github.com/switchyard-dev/switchyard/test/digits"
	"github.com/switchyard-dev/switchyard/test/localnode"
	"github.com/switchyard-dev/switchyard/test/localnode/process"
	"github.com/switchyard-dev/switchyard/test/ocisource"
)

const (
	// RuntimeImage is the image of the pools' pods: localnode runs the runtime's binary for it.
	RuntimeImage = "switchyard/runtime:local"

	system          = "switchyard-system"
	managerAccount  = "switchyard-manager"
	registryAccount = "switchyard-registry"
	// tlsSecret has the artifact registry's certificate, which the manager makes.
	tlsSecret = "switchyard-registry-tls"

	// lease is how long a manager that was killed goes on leading. Shorter than a cluster's, for who waits for that; long
	// enough for a machine that is busy with other tests.
	lease = 6 * time.Second
	// startWithin bounds what takes a tenth of it on a machine that is not busy.
	startWithin = time.Minute
)

// Options of Start.
type Options struct {
	Dir           string   // for everything it writes
	Repository    string   // the root of this repository
	Manager       string   // the manager's binary
	Runtime       string   // the runtime's binary
	SourceAddress string   // of the source registry; "127.0.0.1:0" takes a free port
	Managers      int      // of which one leads; 1 where 0
	ManagerFlags  []string // of the managers, after the place's own
	Log           *slog.Logger
}

// Place is a running Switchyard.
type Place struct {
	Plane  *controlplane.ControlPlane
	Client client.Client // as admin
	Kube   kubernetes.Interface
	Source string // host:port of the source registry, as sources name it

	options Options
	address string // of the artifact registry
	mounted chan struct{}
	stop    context.CancelFunc
	parts   sync.WaitGroup

	mu       sync.Mutex
	managers []*program // that have not been killed
	started  int        // managers, to tell their logs apart
	registry *program   // nil while it is away
}

// Start brings everything up, and returns when the artifact registry answers with the certificate that the leading
// manager has made for it. Close ends it.
func Start(ctx context.Context, o Options) (place *Place, err error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	ctx, stop := context.WithCancel(ctx)
	p := &Place{options: o, stop: stop, mounted: make(chan struct{})}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.Close())
		}
	}()
	if err := p.startSource(ctx); err != nil {
		return nil, err
	}
	if p.Plane, err = controlplane.Start(ctx, controlplane.Options{
		Dir: filepath.Join(o.Dir, "controlplane"), CRDs: []string{filepath.Join(o.Repository, "config", "crd")},
	}); err != nil {
		return nil, err
	}
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		return nil, err
	}
	if p.Client, err = client.New(p.Plane.Config(), client.Options{Scheme: scheme}); err != nil {
		return nil, err
	}
	if p.Kube, err = kubernetes.NewForConfig(p.Plane.Config()); err != nil {
		return nil, err
	}
	if err := p.startNode(ctx); err != nil {
		return nil, err
	}
	if err := p.prepareManager(ctx); err != nil {
		return nil, err
	}
	for range max(1, o.Managers) {
		if err := p.StartManager(ctx); err != nil {
			return nil, err
		}
	}
	return p, p.StartRegistry(ctx)
}

// startSource serves a source registry and puts the samples into it.
func (p *Place) startSource(ctx context.Context) error {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", p.options.SourceAddress)
	if err != nil {
		return fmt.Errorf("source registry: %w", err)
	}
	_, port, err := net.SplitHostPort(listener.Addr().String())
	if err != nil {
		return err
	}
	p.Source = "localhost:" + port
	sources, err := registry.New(registry.Options{ //nolint:contextcheck // distribution begins one of its own
		Dir: filepath.Join(p.options.Dir, "source"), AllowPush: true, Log: p.options.Log,
	})
	if err != nil {
		return fmt.Errorf("source registry: %w", err)
	}
	p.parts.Go(func() {
		if err := sources.Serve(ctx, listener); err != nil && !errors.Is(err, http.ErrServerClosed) {
			p.options.Log.Error("source registry", "error", err)
		}
		_ = sources.Close() // nothing is left to lose
	})
	return p.pushSamples(ctx)
}

func (p *Place) pushSamples(ctx context.Context) error {
	sample := p.Sample()
	folders := map[string]string{"base": digits.Base(sample)}
	for _, name := range []string{"digit", "parity", "holes"} {
		folders[name] = filepath.Join(digits.Adapters(sample), name)
	}
	for name, folder := range folders {
		if _, err := ocisource.Push(ctx, p.Ref(name, "v1"), folder); err != nil {
			return fmt.Errorf("sample %s: %w", name, err)
		}
	}
	return nil
}

// Sample is the folder of the sample.
func (p *Place) Sample() string {
	return filepath.Join(p.options.Repository, "hack", "samples", "digits")
}

// Ref is where the source registry keeps a part of the sample: base, digit, parity or holes.
func (p *Place) Ref(name, tag string) string { return p.Source + "/samples/digits-" + name + ":" + tag }

func (p *Place) startNode(ctx context.Context) error {
	node, err := localnode.New(localnode.Options{
		Config: p.Plane.Config(), Dir: filepath.Join(p.options.Dir, "node"),
		Images: map[string]string{RuntimeImage: p.options.Runtime}, Log: p.options.Log,
	})
	if err != nil {
		return err
	}
	p.parts.Go(func() {
		if err := node.Run(ctx); err != nil {
			p.options.Log.Error("node", "error", err)
		}
	})
	return nil
}

// prepareManager installs what the manager needs in the cluster: its namespace, its account, and what everybody may do.
func (p *Place) prepareManager(ctx context.Context) error {
	config := filepath.Join(p.options.Repository, "config")
	if out, err := p.Kubectl(ctx, "apply", "-f", filepath.Join(config, "manager", "namespace.yaml")); err != nil {
		return fmt.Errorf("%w:\n%s", err, out)
	}
	for _, folder := range []string{"rbac", "policy"} {
		if out, err := p.Kubectl(ctx, "apply", "-k", filepath.Join(config, folder)); err != nil {
			return fmt.Errorf("%w:\n%s", err, out)
		}
	}
	for name, path := range map[string]string{
		managerAccount: p.path("manager.kubeconfig"), registryAccount: p.path("registry.kubeconfig"),
	} {
		if err := p.Plane.ServiceAccountKubeconfig(ctx, system, name, path); err != nil {
			return err
		}
	}
	err := p.Plane.ServiceAccountToken(ctx, system, managerAccount, v1alpha1.RegistryAudience, p.path("registry-token"))
	if err != nil {
		return err
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	p.address = listener.Addr().String()
	p.mountCertificate(ctx)
	return listener.Close()
}

// mountCertificate has the registry's process find its certificate as kubelet would give it to its pod.
func (p *Place) mountCertificate(ctx context.Context) {
	var once sync.Once
	p.parts.Go(func() {
		err := localnode.MountSecret(ctx, p.Kube, system, tlsSecret, p.path("registry-tls"), []string{"tls.crt", "tls.key"},
			func(err error) {
				if err != nil {
					p.options.Log.Error("the registry's certificate", "error", err)
					return
				}
				once.Do(func() { close(p.mounted) })
			})
		if err != nil {
			p.options.Log.Error("the registry's certificate", "error", err)
		}
	})
}

// path is a file or folder of this place.
func (p *Place) path(name string) string { return filepath.Join(p.options.Dir, name) }

// RegistryDir is the folder of the artifact registry.
func (p *Place) RegistryDir() string { return p.path("registry") }

// StartRegistry starts the artifact registry's process, where none runs, and waits until it answers. It ends with ctx.
// Its first start needs a manager, which makes its certificate.
func (p *Place) StartRegistry(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.registry != nil {
		return nil
	}
	waiting, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	select {
	case <-p.mounted:
	case <-waiting.Done():
		return fmt.Errorf(
			"artifact registry: no manager has made Secret %s; see manager-1.log in %s",
			tlsSecret,
			p.options.Dir,
		)
	}
	registry, err := startProgram(ctx, p.path("registry.log"), p.options.Manager, "registry",
		"--kubeconfig", p.path("registry.kubeconfig"), "--metrics-address", "0",
		"--dir", p.RegistryDir(), "--address", p.address, "--tls-dir", p.path("registry-tls"),
		"--manager-account", system+"/"+managerAccount)
	if err != nil {
		return fmt.Errorf("artifact registry: %w", err)
	}
	p.registry = registry
	return p.awaitRegistry(ctx)
}

func (p *Place) awaitRegistry(ctx context.Context) error {
	err := wait.PollUntilContextTimeout(ctx, 10*time.Millisecond, startWithin, true,
		func(ctx context.Context) (bool, error) {
			conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", p.address)
			if err != nil {
				return false, nil // not yet
			}
			return true, conn.Close()
		})
	if err != nil {
		return fmt.Errorf("artifact registry: %w; see registry.log in %s", err, p.options.Dir)
	}
	return nil
}

// StopRegistry ends the artifact registry's process at once; what it keeps stays in RegistryDir.
func (p *Place) StopRegistry() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.registry != nil {
		p.registry.kill()
		p.registry = nil
	}
}

// StartManager starts one more manager, which leads if no other does. It ends with ctx.
func (p *Place) StartManager(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.started++
	flags := []string{
		"run",
		"--kubeconfig", p.path("manager.kubeconfig"), "--namespace", system,
		"--metrics-address", "0", "--health-address", "0",
		"--leader-elect", "--leader-elect-lease-duration", lease.String(),
		"--runtime-image", RuntimeImage, "--registry-url", "https://" + p.address,
		"--registry-token-file", p.path("registry-token"),
		"--source-allow-cidr", "127.0.0.0/8", "--source-allow-cidr", "::1/128",
	}
	flags = append(flags, p.options.ManagerFlags...)
	manager, err := startProgram(ctx, p.managerLog(p.started), p.options.Manager, flags...)
	if err != nil {
		return fmt.Errorf("manager: %w", err)
	}
	p.managers = append(p.managers, manager)
	return nil
}

// KillManager waits until a manager leads and ends its process at once, as kill -9 does. It stays away; another takes
// over when the lease is over.
func (p *Place) KillManager(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	leader, err := p.leading(ctx)
	if err != nil {
		return err
	}
	p.managers[leader].kill()
	p.managers = slices.Delete(p.managers, leader, leader+1)
	return nil
}

// PauseManager waits until a manager leads and stops its process, as a machine that hangs does. wake has it go on: if
// it has lost the lease meanwhile it ends by itself and is started again, which wake waits for.
func (p *Place) PauseManager(ctx context.Context) (wake func(ctx context.Context, lost bool) error, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	i, err := p.leading(ctx)
	if err != nil {
		return nil, err
	}
	leader := p.managers[i]
	paused, err := process.Of(int(leader.pid.Load()))
	if err != nil {
		return nil, fmt.Errorf("the leading manager: %w", err)
	}
	if err := syscall.Kill(paused.PID, syscall.SIGSTOP); err != nil {
		return nil, fmt.Errorf("the leading manager: %w", err)
	}
	leader.paused.Store(true)
	return func(ctx context.Context, lost bool) error {
		defer leader.paused.Store(false)
		if err := syscall.Kill(paused.PID, syscall.SIGCONT); err != nil || !lost {
			return err
		}
		ctx, cancel := context.WithTimeout(ctx, startWithin)
		defer cancel()
		if err := paused.Wait(ctx); err != nil {
			return fmt.Errorf("a manager that has lost its lease still runs: %w", err)
		}
		return nil
	}, nil
}

// leading waits until a manager leads, and is which.
func (p *Place) leading(ctx context.Context) (leader int, err error) {
	err = wait.PollUntilContextTimeout(ctx, 10*time.Millisecond, startWithin, true, func(context.Context) (bool, error) {
		leader = slices.IndexFunc(p.managers, func(m *program) bool {
			return !m.paused.Load() && m.says("this manager leads")
		})
		return leader >= 0, nil
	})
	if err != nil {
		return 0, fmt.Errorf("none of %d managers leads: %w", len(p.managers), err)
	}
	return leader, nil
}

// Lease tells who leads of the managers, and when that was last renewed.
func (p *Place) Lease(ctx context.Context) (holder string, renewed time.Time, err error) {
	lease, err := p.Kube.CoordinationV1().Leases(system).Get(ctx, "manager.switchyard.dev", metav1.GetOptions{})
	if err != nil {
		return "", time.Time{}, err
	}
	if lease.Spec.HolderIdentity != nil {
		holder = *lease.Spec.HolderIdentity
	}
	if lease.Spec.RenewTime != nil {
		renewed = lease.Spec.RenewTime.Time
	}
	return holder, renewed, nil
}

// Processes are those of the control plane, the managers, the artifact registry and the pods' containers, by what they
// are.
func (p *Place) Processes() map[string]process.Process {
	found := p.Plane.Processes()
	p.mu.Lock()
	defer p.mu.Unlock()
	add := func(name string, program *program) {
		if child, err := process.Of(int(program.pid.Load())); err == nil {
			found[name] = child
		}
	}
	if p.registry != nil {
		add("artifact registry", p.registry)
	}
	for i, manager := range p.managers {
		name := "manager"
		if len(p.managers) > 1 {
			name = fmt.Sprintf("manager %d", i+1)
		}
		add(name, manager)
	}
	notes, _ := filepath.Glob(filepath.Join(p.options.Dir, "node", "pods", "*", "*.process.json"))
	for i, note := range notes {
		if container, lives := process.Noted(note); lives {
			found[fmt.Sprintf("runtime of pod %d", i+1)] = container
		}
	}
	return found
}

// Kubectl runs kubectl as admin and returns what it printed.
func (p *Place) Kubectl(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, p.Plane.Kubectl, args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+p.Plane.KubeconfigPath)
	cmd.Dir = p.options.Repository
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("kubectl %v: %w", args, err)
	}
	return string(out), err
}

// Endpoint waits until a pool's Service has its address, and is the URL of the inference protocol there.
func (p *Place) Endpoint(ctx context.Context, namespace, pool string) (string, error) {
	address, err := localnode.ServiceAddress(ctx, p.Kube, namespace, pool)
	return "http://" + net.JoinHostPort(address, "8080"), err
}

func (p *Place) managerLog(number int) string {
	return p.path(fmt.Sprintf("manager-%d.log", number))
}

// ManagerLog is what all managers have logged, one after the other.
func (p *Place) ManagerLog() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []byte
	for n := 1; n <= p.started; n++ {
		text, _ := readLog(p.managerLog(n), 0) // what can be read
		all = append(all, text...)
	}
	return string(all)
}

// Close ends everything and returns when nothing is left running.
func (p *Place) Close() error {
	p.stop()
	p.StopRegistry()
	p.mu.Lock()
	for _, m := range p.managers {
		m.kill()
	}
	p.managers = nil
	p.mu.Unlock()
	p.parts.Wait()
	if p.Plane == nil {
		return nil
	}
	return p.Plane.Stop()
}
