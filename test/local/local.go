// Package local is the whole of Switchyard on one machine, on loopback and without root: a real control plane
// (test/controlplane), the manager under its own service account, test/localnode running the pods, and a source
// registry filled with the samples. `make up`, the demo, the benchmark and the integration tests are made of it.
//
// Everything ends with the context given to Start, or with the process.
package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/switchyard-dev/switchyard/api/v1alpha1"
	"github.com/switchyard-dev/switchyard/controllers/artifact/registry"
	"github.com/switchyard-dev/switchyard/test/controlplane"
	"github.com/switchyard-dev/switchyard/test/digits"
	"github.com/switchyard-dev/switchyard/test/localnode"
	"github.com/switchyard-dev/switchyard/test/ocisource"
)

const (
	// RuntimeImage is the image of the pools' pods: localnode runs the runtime's binary for it.
	RuntimeImage = "switchyard/runtime:local"

	system         = "switchyard-system"
	serviceAccount = "switchyard-manager"
)

// Options of Start.
type Options struct {
	Dir           string // for everything it writes
	Repository    string // the root of this repository
	Manager       string // the manager's binary
	Runtime       string // the runtime's binary
	SourceAddress string // of the source registry; "127.0.0.1:0" takes a free port
	Log           *slog.Logger
}

// Place is a running Switchyard.
type Place struct {
	Plane  *controlplane.ControlPlane
	Client client.Client // as admin
	Kube   kubernetes.Interface
	Source string // host:port of the source registry, as sources name it

	options    Options
	kubeconfig string // the manager's
	registry   string // address of the artifact registry, in the manager's process
	stop       context.CancelFunc
	parts      sync.WaitGroup

	mu      sync.Mutex
	manager *process
}

// Start brings everything up; the manager may still be starting when it returns. Close ends it.
func Start(ctx context.Context, o Options) (place *Place, err error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	ctx, stop := context.WithCancel(ctx)
	p := &Place{options: o, stop: stop}
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
	return p, p.StartManager(ctx)
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

// prepareManager installs what the manager needs in the cluster: its namespace, its account and what that may do.
func (p *Place) prepareManager(ctx context.Context) error {
	config := filepath.Join(p.options.Repository, "config")
	if out, err := p.Kubectl(ctx, "apply", "-f", filepath.Join(config, "manager", "namespace.yaml")); err != nil {
		return fmt.Errorf("%w:\n%s", err, out)
	}
	if out, err := p.Kubectl(ctx, "apply", "-k", filepath.Join(config, "rbac")); err != nil {
		return fmt.Errorf("%w:\n%s", err, out)
	}
	p.kubeconfig = filepath.Join(p.options.Dir, "manager.kubeconfig")
	if err := p.Plane.ServiceAccountKubeconfig(ctx, system, serviceAccount, p.kubeconfig); err != nil {
		return err
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	p.registry = listener.Addr().String()
	return listener.Close()
}

// StartManager starts the manager's process, with the artifact registry in it. It ends with ctx.
func (p *Place) StartManager(ctx context.Context) error {
	log, err := os.OpenFile(filepath.Join(p.options.Dir, "manager.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, p.options.Manager, "run",
		"--kubeconfig", p.kubeconfig, "--metrics-address", "0", "--health-address", "0",
		"--runtime-image", RuntimeImage, "--registry-url", "http://"+p.registry,
		"--registry-dir", filepath.Join(p.options.Dir, "registry"), "--registry-address", p.registry)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return errors.Join(err, log.Close())
	}
	manager := &process{cmd: cmd, ended: make(chan struct{})}
	go func() {
		_ = cmd.Wait() // how it ended is nobody's concern: it is killed, or the log says why
		_ = log.Close()
		close(manager.ended)
	}()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.manager = manager
	return nil
}

// process is one start of the manager.
type process struct {
	cmd   *exec.Cmd
	ended chan struct{}
}

// KillManager ends the manager's process at once, as kill -9 does.
func (p *Place) KillManager() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.manager != nil {
		_ = p.manager.cmd.Process.Kill() // an error says that it has ended already
		<-p.manager.ended
	}
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

// ManagerLog is what the manager has logged.
func (p *Place) ManagerLog() string {
	file, err := os.Open(filepath.Join(p.options.Dir, "manager.log"))
	if err != nil {
		return ""
	}
	defer func() { _ = file.Close() }()
	const most = 1 << 20
	text, _ := io.ReadAll(io.LimitReader(file, most)) // of what can be read
	return string(text)
}

// Close ends everything and returns when nothing is left running.
func (p *Place) Close() error {
	p.KillManager()
	p.stop()
	p.parts.Wait()
	if p.Plane == nil {
		return nil
	}
	return p.Plane.Stop()
}
