package controlplane

import (
	"cmp"
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/switchyard-dev/switchyard/test/localnode/process"
)

// The processes, in the order of their start.
const (
	etcd        = "etcd"
	apiserver   = "kube-apiserver"
	controllers = "kube-controller-manager"
)

const loopback = "127.0.0.1"

// startWithin bounds a start on a machine that is busy with other tests; alone it takes a tenth of it.
const startWithin = 90 * time.Second

// Options of Start.
type Options struct {
	// Dir keeps everything; made if missing. One that was used before is taken up again.
	Dir string
	// Assets is the folder of the binaries; Assets() where empty.
	Assets string
	// Detach lets the processes outlive this one, until Stop(Dir). Where they run already, Start returns them.
	Detach bool
	// Nodes makes it the control plane of real nodes; nil: of none, on loopback.
	Nodes *Nodes
	// CRDs are files or folders of CustomResourceDefinitions, established before the controllers start: the garbage
	// collector would take up to 30 s to notice kinds that come later. Kinds of controllers need it, others do not.
	CRDs []string
}

// Nodes says how nodes and pods reach the control plane. With it all of Kubernetes' controllers run, and kubelets are
// held to what is theirs.
type Nodes struct {
	Address  string // of the apiserver, IPv4, which the machine has
	Services string // the CIDR that addresses of Services are from; its first is the apiserver's
}

// ControlPlane is a running one.
type ControlPlane struct {
	Dir            string
	KubeconfigPath string // of an admin
	Kubectl        string // the binary

	config *rest.Config
	// How the apiserver was started by this process, to start it again.
	options Options
	storage int // port
}

// Start starts a control plane and waits until it can be used. ctx bounds the start, not the life of what was started.
func Start(ctx context.Context, o Options) (*ControlPlane, error) {
	if o.Assets == "" {
		folder, err := Assets(ctx)
		if err != nil {
			return nil, err
		}
		o.Assets = folder
	}
	if err := complete(o.Assets); err != nil {
		return nil, fmt.Errorf("control plane's binaries: %w", err)
	}
	unlock, err := prepare(&o)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if slices.ContainsFunc([]string{etcd, apiserver, controllers}, func(name string) bool {
		_, lives := running(o.Dir, name)
		return lives
	}) {
		if !o.Detach {
			return nil, fmt.Errorf("a control plane runs already in %s", o.Dir)
		}
		if plane, err := attach(ctx, o); err == nil {
			return plane, nil
		}
		if err := Stop(o.Dir); err != nil { // half of it is no use
			return nil, err
		}
	}
	plane, err := launch(ctx, o)
	// A port that was free when asked may be taken when used.
	for attempt := 0; err != nil && attempt < 2 && portTaken(o.Dir); attempt++ {
		_ = os.Remove(filepath.Join(o.Dir, "port"))
		plane, err = launch(ctx, o)
	}
	return plane, err
}

// Config is that of an admin, without a limit of the client's own. The caller may change it.
func (p *ControlPlane) Config() *rest.Config { return rest.CopyConfig(p.config) }

// Processes are those that run, by the names of their programs.
func (p *ControlPlane) Processes() map[string]process.Process {
	found := map[string]process.Process{}
	for _, name := range []string{etcd, apiserver, controllers} {
		if child, lives := running(p.Dir, name); lives {
			found[name] = child
		}
	}
	return found
}

// Stop ends the processes; what is in Dir stays.
func (p *ControlPlane) Stop() error { return Stop(p.Dir) }

// Stop ends the control plane of a folder, whoever started it. Where none runs it does nothing.
func Stop(dir string) error {
	return errors.Join(stop(dir, controllers), stop(dir, apiserver), stop(dir, etcd))
}

// StopAPIServer ends the apiserver alone, at once: everybody else finds it away.
func (p *ControlPlane) StopAPIServer() error {
	return process.StopNoted(notePath(p.Dir, apiserver), 0)
}

// StartAPIServer starts the apiserver again, where it was, and waits until it is ready. Its port may be somebody's for
// a moment: a client that calls it while nobody listens may be given that very port to call from, and meets itself.
func (p *ControlPlane) StartAPIServer(ctx context.Context) error {
	if p.storage == 0 {
		return fmt.Errorf("%s: expected a control plane that this process started, found one that was there", p.Dir)
	}
	ctx, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	var last error
	err := wait.PollUntilContextCancel(ctx, poll, true, func(ctx context.Context) (bool, error) {
		last = p.startAPIServer(ctx)
		return last == nil || !portTaken(p.Dir), nil
	})
	return cmp.Or(last, err)
}

// UserKubeconfig writes a kubeconfig that speaks as a user, by a certificate made for it: a kubelet is
// system:node:<name> of the group system:nodes.
func (p *ControlPlane) UserKubeconfig(user, group, path string) error {
	files := credentials{filepath.Join(p.Dir, "certificates")}
	name := strings.NewReplacer("/", "-", ":", "-").Replace(user)
	certificate := &x509.Certificate{
		Subject:     pkix.Name{CommonName: user},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	if group != "" {
		certificate.Subject.Organization = []string{group}
	}
	if err := files.issue(name, certificate); err != nil {
		return err
	}
	return files.kubeconfig(p.config.Host, name, path)
}

// ServingCertificate makes a certificate for an address, and its key, by the authority that is everybody's here, and
// returns their files and the authority's.
func (p *ControlPlane) ServingCertificate(name, address string) (certificate, key, authority string, err error) {
	files := credentials{filepath.Join(p.Dir, "certificates")}
	err = files.issue(name, &x509.Certificate{
		Subject:     pkix.Name{CommonName: name},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		IPAddresses: []net.IP{net.ParseIP(address)},
	})
	return files.path(name + ".crt"), files.path(name + ".key"), files.path("ca.crt"), err
}

// ServiceAccountKubeconfig writes a kubeconfig that speaks as a service account, by a Token.
func (p *ControlPlane) ServiceAccountKubeconfig(ctx context.Context, namespace, name, path string) error {
	token, err := p.Token(ctx, namespace, name, nil)
	if err != nil {
		return err
	}
	return writeKubeconfig(path, p.config.Host, p.config.CAData, clientcmdapi.AuthInfo{Token: token}, namespace)
}

// ServiceAccountToken writes a Token for others than the apiserver, as a pod finds it projected.
func (p *ControlPlane) ServiceAccountToken(ctx context.Context, namespace, name, audience, path string) error {
	token, err := p.Token(ctx, namespace, name, nil, audience)
	if err != nil {
		return err
	}
	return writeFile(path, []byte(token))
}

// prepare makes the folders and takes the folder's lock, so that two Starts of one folder take turns.
func prepare(o *Options) (unlock func(), err error) {
	if o.Dir, err = filepath.Abs(o.Dir); err != nil {
		return nil, err
	}
	for _, folder := range []string{"certificates", "etcd", "logs", "run"} {
		if err := os.MkdirAll(filepath.Join(o.Dir, folder), 0o700); err != nil {
			return nil, err
		}
	}
	lock, err := os.Create(filepath.Join(o.Dir, "lock"))
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		_ = lock.Close()
		return nil, fmt.Errorf("lock of %s: %w", o.Dir, err)
	}
	return func() { _ = lock.Close() }, nil // closing unlocks
}

// attach returns the control plane that runs in the folder already.
func attach(ctx context.Context, o Options) (*ControlPlane, error) {
	for _, name := range []string{etcd, apiserver, controllers} {
		if _, lives := running(o.Dir, name); !lives {
			return nil, fmt.Errorf("%s does not run", name)
		}
	}
	plane, err := load(o)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := plane.waitReady(ctx); err != nil {
		return nil, err
	}
	return plane, plane.installCRDs(ctx, o.CRDs)
}

// launch starts the processes one after the other, and stops them again where one does not come up.
func launch(ctx context.Context, o Options) (_ *ControlPlane, err error) {
	ctx, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	files := credentials{filepath.Join(o.Dir, "certificates")}
	if err := files.ensure(o.host(), o.service()); err != nil {
		return nil, err
	}
	storage, port, err := ports(o.Dir, o.host())
	if err != nil {
		return nil, err
	}
	server := "https://" + net.JoinHostPort(o.host(), strconv.Itoa(port))
	for user, path := range map[string]string{"admin": "kubeconfig", "controllers": "controllers.kubeconfig"} {
		if err := files.kubeconfig(server, user, filepath.Join(o.Dir, path)); err != nil {
			return nil, err
		}
	}
	plane, err := load(o)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, plane.Stop())
		}
	}()
	if err := plane.start(ctx, etcd, etcdFlags(o.Dir, storage), accepts(storage)); err != nil {
		return nil, err
	}
	plane.storage = storage
	if err := plane.startAPIServer(ctx); err != nil {
		return nil, err
	}
	if err := plane.installCRDs(ctx, o.CRDs); err != nil {
		return nil, err
	}
	if err := plane.start(ctx, controllers, controllerFlags(o, files), plane.waitServiceAccount); err != nil {
		return nil, err
	}
	return plane, nil
}

func (p *ControlPlane) startAPIServer(ctx context.Context) error {
	server, err := url.Parse(p.config.Host)
	if err != nil {
		return err
	}
	files := credentials{filepath.Join(p.Dir, "certificates")}
	return p.start(ctx, apiserver, apiserverFlags(p.options, files, p.storage, server.Port()), p.waitReady)
}

// start starts one of the processes and waits until it is up.
func (p *ControlPlane) start(
	ctx context.Context, name string, args []string, up func(context.Context) error,
) error {
	if err := start(ctx, p.Dir, filepath.Join(p.options.Assets, name), args, p.options.Detach); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if err := p.while(ctx, name, up); err != nil {
		return fmt.Errorf("%s did not come up: %w; its log in %s ends:\n%s",
			name, err, logPath(p.Dir, name), tail(p.Dir, name))
	}
	return nil
}

// load is the handle of what the folder describes.
func load(o Options) (*ControlPlane, error) {
	p := &ControlPlane{
		Dir: o.Dir, KubeconfigPath: filepath.Join(o.Dir, "kubeconfig"), Kubectl: filepath.Join(o.Assets, "kubectl"),
		options: o,
	}
	config, err := clientcmd.BuildConfigFromFlags("", p.KubeconfigPath)
	if err != nil {
		return nil, err
	}
	config.QPS = -1 // the server has its own fairness
	p.config = config
	return p, nil
}

// while runs up, and gives up as soon as the process has ended.
func (p *ControlPlane) while(ctx context.Context, name string, up func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	child, _ := running(p.Dir, name)
	go func() {
		if child.Wait(ctx) == nil {
			cancel(errors.New("the process ended"))
		}
	}()
	if err := up(ctx); err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return cause
		}
		return err
	}
	return nil
}

func (p *ControlPlane) waitReady(ctx context.Context) error {
	client, err := rest.HTTPClientFor(p.config)
	if err != nil {
		return err
	}
	defer client.CloseIdleConnections()
	return wait.PollUntilContextCancel(ctx, poll, true, func(ctx context.Context) (bool, error) {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, p.config.Host+"/readyz", http.NoBody)
		if err != nil {
			return false, err
		}
		response, err := client.Do(request)
		if err != nil {
			return false, nil // not yet
		}
		return response.StatusCode == http.StatusOK, response.Body.Close()
	})
}

// waitServiceAccount waits for the first thing that the controllers make and every pod needs.
func (p *ControlPlane) waitServiceAccount(ctx context.Context) error {
	client, err := kubernetes.NewForConfig(p.config)
	if err != nil {
		return err
	}
	return wait.PollUntilContextCancel(ctx, poll, true, func(ctx context.Context) (bool, error) {
		_, err := client.CoreV1().ServiceAccounts("default").Get(ctx, "default", metav1.GetOptions{})
		return err == nil, nil
	})
}

func (p *ControlPlane) installCRDs(ctx context.Context, paths []string) error {
	if len(paths) == 0 {
		return nil
	}
	arguments := []string{"apply", "--server-side", "--force-conflicts"}
	for _, path := range paths {
		arguments = append(arguments, "--filename", path)
	}
	if err := p.kubectl(ctx, arguments...); err != nil {
		return err
	}
	return p.kubectl(ctx, "wait", "--for=condition=Established", "--timeout=30s", "crd", "--all")
}

func (p *ControlPlane) kubectl(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, p.Kubectl, append([]string{"--kubeconfig", p.KubeconfigPath}, args...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// ports are a free one for etcd, and for the apiserver the one it had before if that is free.
func ports(dir, host string) (storage, server int, err error) {
	kept := filepath.Join(dir, "port")
	before, _ := os.ReadFile(kept)
	if server, _ = strconv.Atoi(string(before)); server != 0 {
		server, err = free(host, server)
	}
	if server == 0 || err != nil {
		if server, err = free(host, 0); err != nil {
			return 0, 0, err
		}
	}
	if storage, err = free(loopback, 0); err != nil {
		return 0, 0, err
	}
	return storage, server, writeFile(kept, []byte(strconv.Itoa(server)))
}

func free(host string, port int) (int, error) {
	l, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(port))) //nolint:noctx // on this machine nothing waits
	if err != nil {
		return 0, err
	}
	return l.Addr().(*net.TCPAddr).Port, l.Close()
}

func portTaken(dir string) bool {
	return strings.Contains(tail(dir, etcd)+tail(dir, apiserver), "address already in use")
}

func address(port int) string { return net.JoinHostPort(loopback, strconv.Itoa(port)) }

// host is the address of the apiserver.
func (o *Options) host() string {
	if o.Nodes == nil {
		return loopback
	}
	return o.Nodes.Address
}

// services is the CIDR of Services.
func (o *Options) services() string {
	if o.Nodes == nil {
		return "10.0.0.0/24"
	}
	return o.Nodes.Services
}

// service is the apiserver's address as a Service, which is the first of theirs.
func (o *Options) service() netip.Addr {
	prefix, err := netip.ParsePrefix(o.services())
	if err != nil {
		return netip.Addr{} // the apiserver refuses it with a better message
	}
	return prefix.Masked().Addr().Next()
}

func accepts(port int) func(context.Context) error {
	return func(ctx context.Context) error {
		return wait.PollUntilContextCancel(ctx, poll/5, true, func(ctx context.Context) (bool, error) {
			conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address(port))
			if err != nil {
				return false, nil // not yet
			}
			return true, conn.Close()
		})
	}
}

func (c credentials) kubeconfig(server, user, path string) error {
	ca, err := os.ReadFile(c.path("ca.crt"))
	if err != nil {
		return err
	}
	certificate, err := os.ReadFile(c.path(user + ".crt"))
	if err != nil {
		return err
	}
	key, err := os.ReadFile(c.path(user + ".key"))
	if err != nil {
		return err
	}
	return writeKubeconfig(path, server, ca,
		clientcmdapi.AuthInfo{ClientCertificateData: certificate, ClientKeyData: key}, "default")
}

func writeKubeconfig(path, server string, ca []byte, user clientcmdapi.AuthInfo, namespace string) error {
	text, err := clientcmd.Write(clientcmdapi.Config{
		Clusters:       map[string]*clientcmdapi.Cluster{"local": {Server: server, CertificateAuthorityData: ca}},
		AuthInfos:      map[string]*clientcmdapi.AuthInfo{"user": &user},
		Contexts:       map[string]*clientcmdapi.Context{"local": {Cluster: "local", AuthInfo: "user", Namespace: namespace}},
		CurrentContext: "local",
	})
	if err != nil {
		return err
	}
	return writeFile(path, text)
}
