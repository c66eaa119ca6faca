package cluster

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"text/template"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/switchyard-dev/switchyard/test/controlplane"
)

const (
	nodeName = "switchyard"
	// What the cluster itself needs of images.
	pauseImage = "ghcr.io/switchyard-dev/pause:dev"
	dnsImage   = "ghcr.io/switchyard-dev/coredns:dev"

	socket = "/run/containerd/containerd.sock"
	// startWithin bounds each step of a start, which takes a tenth of it on a machine that is not busy.
	startWithin = 2 * time.Minute
)

// files are the configurations of the node's programs and the objects that every cluster has, as templates of names.
//
//go:embed files
var files embed.FS

// Options of Start.
type Options struct {
	Dir          string   // for everything it writes
	NodePrograms string   // the folder of kubelet, kube-proxy and kube-scheduler
	Images       []string // docker-archives, pause and coredns of hack/images among them
	Log          *slog.Logger
}

// Cluster is a running one.
type Cluster struct {
	Plane *controlplane.ControlPlane

	options Options
	ended   chan error // of a program that should have gone on
	names   names
}

// names are what the files name.
type names struct {
	Dir, Socket, Cgroup, CNIPlugins string
	Node, PodRange, DNS             string // addresses
	Pause, DNSImage                 string
	Volumes                         []string

	Serving, ServingKey, Authority string // files of kubelet's certificates
}

func newNames(dir string) names {
	return names{
		Dir: dir, Socket: socket, Cgroup: "/" + cgroup, CNIPlugins: plugins(),
		Node: nodeAddress, PodRange: podRange, DNS: dnsAddress,
		Pause: pauseImage, DNSImage: dnsImage, Volumes: volumes,
	}
}

// programs are those that must be on the machine.
var programs = []string{"containerd", "ctr", "runc", "ip", "nft"}

// Packages are Debian's that have them.
const Packages = "containerd runc containernetworking-plugins nftables iproute2"

// Check tells what the machine lacks.
func Check() error {
	if err := check(os.Geteuid()); err != nil {
		return err
	}
	return mayIsolate()
}

func check(user int) error {
	if user != 0 {
		return errors.New("not root, which makes namespaces, mounts and cgroups")
	}
	var missing []string
	for _, name := range programs {
		if _, err := exec.LookPath(name); err != nil {
			missing = append(missing, name)
		}
	}
	if plugins() == "" {
		missing = append(missing, "the CNI plugin bridge")
	}
	if len(missing) > 0 {
		return fmt.Errorf("not on this machine: %s; on Debian: apt-get install %s", strings.Join(missing, ", "), Packages)
	}
	return nil
}

// plugins is the folder of the CNI plugins: Debian's, or everybody else's.
func plugins() string {
	for _, folder := range []string{"/usr/lib/cni", "/opt/cni/bin"} {
		if _, err := os.Stat(filepath.Join(folder, "bridge")); err == nil {
			return folder
		}
	}
	return ""
}

// Start brings a cluster up in namespaces that Command made and Link linked, and returns once its node is Ready and its
// names are answered. Everything ends with the namespaces.
func Start(ctx context.Context, o Options) (*Cluster, error) {
	c := &Cluster{options: o, ended: make(chan error, 1), names: newNames(o.Dir)}
	if err := prepareMounts(o.Dir); err != nil {
		return nil, err
	}
	if err := prepareCgroups(); err != nil {
		return nil, err
	}
	if err := prepareNetwork(ctx); err != nil {
		return nil, err
	}
	plane, err := controlplane.Start(ctx, controlplane.Options{
		Dir: c.path("controlplane"), Nodes: &controlplane.Nodes{Address: nodeAddress, Services: serviceRange},
	})
	if err != nil {
		return nil, err
	}
	c.Plane = plane
	for _, step := range []func(context.Context) error{
		c.identify, c.configure, c.startContainerd, c.importImages, c.startNode, c.startVolumes, c.startDNS,
	} {
		if err := c.within(ctx, step); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// within runs a step, and ends it when one of the programs has ended.
func (c *Cluster) within(ctx context.Context, step func(context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startWithin, fmt.Errorf("not done in %v", startWithin))
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- step(ctx) }()
	select {
	case err := <-done:
		return err
	case err := <-c.ended:
		return err
	}
}

// Ended tells of a program of the node that has ended, which none should.
func (c *Cluster) Ended() <-chan error { return c.ended }

func (c *Cluster) path(name string) string { return filepath.Join(c.options.Dir, name) }

// identify makes who the node's programs are.
func (c *Cluster) identify(context.Context) error {
	for _, who := range []struct{ file, user, group string }{
		{"kubelet.kubeconfig", "system:node:" + nodeName, "system:nodes"},
		{"proxy.kubeconfig", "system:kube-proxy", ""},
		{"scheduler.kubeconfig", "system:kube-scheduler", ""},
	} {
		if err := c.Plane.UserKubeconfig(who.user, who.group, c.path(who.file)); err != nil {
			return err
		}
	}
	var err error
	n := &c.names
	n.Serving, n.ServingKey, n.Authority, err = c.Plane.ServingCertificate("kubelet", nodeAddress)
	return err
}

// configure writes the configurations of the node's programs.
func (c *Cluster) configure(context.Context) error {
	for name, to := range map[string]string{
		"containerd.toml": "containerd.toml", "kubelet.yaml": "kubelet.yaml", "proxy.yaml": "proxy.yaml",
		"bridge.conflist": "cni/bridge.conflist", "resolv.conf": "resolv.conf",
	} {
		text, err := c.file(name)
		if err != nil {
			return err
		}
		if err := os.MkdirAll(filepath.Dir(c.path(to)), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(c.path(to), text, 0o600); err != nil {
			return err
		}
	}
	return nil
}

func (c *Cluster) file(name string) ([]byte, error) {
	parsed, err := template.ParseFS(files, "files/"+name)
	if err != nil {
		return nil, err
	}
	var text bytes.Buffer
	err = parsed.Execute(&text, c.names)
	return text.Bytes(), err
}

// start runs a program of the node; its log is in the folder logs.
func (c *Cluster) start(ctx context.Context, program string, args ...string) error {
	name := filepath.Base(program)
	if err := os.MkdirAll(c.path("logs"), 0o755); err != nil {
		return err
	}
	log, err := os.Create(c.path("logs/" + name + ".log"))
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()                                       // the program has its own
	cmd := exec.CommandContext(context.WithoutCancel(ctx), program, args...) // it ends with the namespaces
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	go func() {
		err := cmd.Wait()
		select {
		case c.ended <- fmt.Errorf("%s ended: %w; its log is %s", name, err, log.Name()):
		default: // another did first
		}
	}()
	return nil
}

func (c *Cluster) startContainerd(ctx context.Context) error {
	if err := c.start(ctx, "containerd", "--config", c.path("containerd.toml")); err != nil {
		return err
	}
	return wait.PollUntilContextCancel(ctx, 50*time.Millisecond, true, func(ctx context.Context) (bool, error) {
		return c.ctr(ctx, "version") == nil, nil
	})
}

func (c *Cluster) importImages(ctx context.Context) error {
	for _, archive := range c.options.Images {
		if err := c.ctr(ctx, "images", "import", archive); err != nil {
			return err
		}
	}
	return nil
}

func (c *Cluster) ctr(ctx context.Context, args ...string) error {
	return command(ctx, "ctr", append([]string{"--address", socket, "--namespace", "k8s.io"}, args...)...)
}

// startNode starts what makes this a node, and the scheduler, and waits until pods may come.
func (c *Cluster) startNode(ctx context.Context) error {
	program := func(name string) string { return filepath.Join(c.options.NodePrograms, name) }
	if err := errors.Join(
		c.start(ctx, program("kubelet"), "--config="+c.path("kubelet.yaml"),
			"--kubeconfig="+c.path("kubelet.kubeconfig"), "--hostname-override="+nodeName, "--node-ip="+nodeAddress),
		c.start(ctx, program("kube-proxy"), "--config="+c.path("proxy.yaml"), "--hostname-override="+nodeName),
		c.start(ctx, program("kube-scheduler"), "--kubeconfig="+c.path("scheduler.kubeconfig"),
			"--leader-elect=false", "--secure-port=0"),
	); err != nil {
		return err
	}
	var last error
	err := wait.PollUntilContextCancel(ctx, 100*time.Millisecond, true, func(ctx context.Context) (bool, error) {
		last = c.Kubectl(ctx, nil, "wait", "--for=condition=Ready", "--timeout=10s", "node/"+nodeName)
		return last == nil, nil
	})
	if err != nil {
		return fmt.Errorf("the node does not become ready: %w; see %s", last, c.path("logs/kubelet.log"))
	}
	return nil
}

// startDNS runs CoreDNS and waits until it answers.
func (c *Cluster) startDNS(ctx context.Context) error {
	objects, err := c.file("dns.yaml")
	if err != nil {
		return err
	}
	if err := c.Kubectl(ctx, objects, "apply", "--server-side", "-f", "-"); err != nil {
		return err
	}
	return c.Kubectl(ctx, nil, "-n", "kube-system", "rollout", "status", "deployment/coredns", "--timeout=2m")
}

// Kubectl runs kubectl as admin.
func (c *Cluster) Kubectl(ctx context.Context, stdin []byte, args ...string) error {
	cmd := exec.CommandContext(ctx, c.Plane.Kubectl, args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+c.Plane.KubeconfigPath)
	cmd.Stdin = bytes.NewReader(stdin)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}
