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
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/switchyard-dev/switchyard/api/v1alpha1"
	"github.com/switchyard-dev/switchyard/controllers/artifact/registry"
	"github.com/switchyard-dev/switchyard/controllers/endpoint"
	"github.com/switchyard-dev/switchyard/test/controlplane"
	"github.com/switchyard-dev/switchyard/test/localnode"
	"github.com/switchyard-dev/switchyard/test/localnode/process"
	"github.com/switchyard-dev/switchyard/test/ocisource"
)

const (
	// RuntimeImage is the image of the pools' pods: localnode runs the runtime's binary for it.
	RuntimeImage = "switchyard/runtime:local"

	// System is the namespace of the manager and the artifact registry.
	System = "switchyard-system"
	// TLSSecret has the artifact registry's certificate, which the manager makes.
	TLSSecret = "switchyard-registry-tls"

	managerAccount  = "switchyard-manager"
	registryAccount = "switchyard-registry"

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
	for _, sample := range []string{p.Sample(), p.Packages()} {
		if err := ocisource.PushSample(ctx, p.Source, sample); err != nil {
			return err
		}
	}
	return nil
}

// Sample is the folder of the sample of images.
func (p *Place) Sample() string {
	return filepath.Join(p.options.Repository, "hack", "samples", "digits")
}

// Packages is the folder of the sample of texts.
func (p *Place) Packages() string {
	return filepath.Join(p.options.Repository, "hack", "samples", "packages")
}

// Ref is where the source registry keeps a part of the sample of images: base, digit, parity or holes.
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
		if err := p.Plane.ServiceAccountKubeconfig(ctx, System, name, path); err != nil {
			return err
		}
	}
	err := p.Plane.ServiceAccountToken(ctx, System, managerAccount, v1alpha1.RegistryAudience, p.path("registry-token"))
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

// path is a file or folder of this place.
func (p *Place) path(name string) string { return filepath.Join(p.options.Dir, name) }

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

// Endpoint waits until the Service of a pool or an adapter has its address, and is where the pods behind it are asked.
func (p *Place) Endpoint(ctx context.Context, namespace, name string) (v1alpha1.Endpoint, error) {
	address, err := localnode.ServiceAddress(ctx, p.Kube, namespace, name)
	return endpoint.Of(&corev1.Service{ObjectMeta: metav1.ObjectMeta{
		Annotations: map[string]string{endpoint.AnnotationLocalAddress: address},
	}}), err
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
