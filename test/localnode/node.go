package localnode

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/retry"

	"github.com/switchyard-dev/switchyard/controllers/watching"
	"github.com/switchyard-dev/switchyard/test/localnode/process"
)

// Clock is the time that probes, back-off, grace periods and renewals go by.
type Clock interface {
	Now() time.Time
	After(d time.Duration) <-chan time.Time
}

// Options of New.
type Options struct {
	// Config reaches the apiserver, as somebody who may do all that a scheduler and a kubelet may.
	Config *rest.Config
	// Dir keeps volumes, logs and addresses; made if missing.
	Dir string
	// Images maps an image's name, as pods give it, to the path of a binary.
	Images map[string]string

	Name       string        // of the Node; "local" where empty
	Backoff    time.Duration // before the second restart in a row, doubled for each further; 1 s where 0
	MaxBackoff time.Duration // 30 s where 0
	Log        *slog.Logger  // nothing is logged where nil
	Clock      Clock         // the real one where nil
}

// Node runs the pods of an apiserver as processes.
type Node struct {
	options          Options
	client           kubernetes.Interface
	clock            Clock
	log              *slog.Logger
	apiHost, apiPort string

	// Of the one Run.
	lane       lane
	podNumbers *numbers
	pods       cache.SharedIndexInformer
	services   cache.SharedIndexInformer

	mu       sync.Mutex
	workers  map[types.UID]*worker
	reserved map[types.UID]int // numbers of pods that had them before this Run
	life     sync.WaitGroup
}

// New checks the options; nothing runs yet.
func New(o Options) (*Node, error) {
	if o.Config == nil || o.Dir == "" {
		return nil, errors.New("localnode: Config and Dir must be given")
	}
	images := make(map[string]string, len(o.Images))
	for image, binary := range o.Images {
		path, err := filepath.Abs(binary)
		if err != nil {
			return nil, err
		}
		if info, err := os.Stat(path); err != nil {
			return nil, fmt.Errorf("localnode: binary of image %s: %w", image, err)
		} else if info.IsDir() || info.Mode()&0o111 == 0 {
			return nil, fmt.Errorf("localnode: binary of image %s: %s cannot be run", image, path)
		}
		images[image] = path
	}
	o.Images = images
	var err error
	if o.Dir, err = filepath.Abs(o.Dir); err != nil {
		return nil, err
	}
	o.Name = cmp.Or(o.Name, "local")
	o.Backoff = cmp.Or(o.Backoff, time.Second)
	o.MaxBackoff = cmp.Or(o.MaxBackoff, 30*time.Second)
	n := &Node{options: o, clock: o.Clock, log: o.Log}
	if n.clock == nil {
		n.clock = realClock{}
	}
	if n.log == nil {
		n.log = slog.New(slog.DiscardHandler)
	}
	config := rest.CopyConfig(o.Config)
	config.QPS = -1 // a node that waits for its own client makes pods late
	if n.client, err = kubernetes.NewForConfig(config); err != nil {
		return nil, err
	}
	server, err := url.Parse(config.Host)
	if err != nil {
		return nil, fmt.Errorf("localnode: apiserver's address: %w", err)
	}
	if n.apiHost, n.apiPort, err = net.SplitHostPort(server.Host); err != nil {
		return nil, fmt.Errorf("localnode: apiserver's address: %w", err)
	}
	return n, nil
}

// Run registers the node, and runs pods and Services until ctx ends: then nil. No process is left when it returns. Call
// it once.
func (n *Node) Run(ctx context.Context) error {
	for _, folder := range []string{"pods", "logs"} {
		if err := os.MkdirAll(filepath.Join(n.options.Dir, folder), 0o700); err != nil {
			return err
		}
	}
	kept, err := readKept(n.options.Dir)
	if err != nil {
		return err
	}
	if n.lane, err = takeLane(kept.Lane); err != nil {
		return err
	}
	defer func() { _ = n.lane.hold.Close() }()
	if err := n.killLeftovers(); err != nil {
		return err
	}
	if err := n.register(ctx); err != nil {
		return fmt.Errorf("register node %s: %w", n.options.Name, err)
	}
	n.workers, n.reserved, n.podNumbers = map[types.UID]*worker{}, map[types.UID]int{}, newNumbers()

	// What was started last is waited for first: informers, then pods, then Services' connections.
	ctx, cancel := context.WithCancel(ctx)
	factory := informers.NewSharedInformerFactory(n.client, 0)
	informer := func(kind string, of runtime.Object) cache.SharedIndexInformer {
		return factory.InformerFor(of, func(client kubernetes.Interface, resync time.Duration) cache.SharedIndexInformer {
			from := cache.NewListWatchFromClient(client.CoreV1().RESTClient(), kind, metav1.NamespaceAll, fields.Everything())
			return watching.NewInformer(from, of, resync, cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc})
		})
	}
	n.pods, n.services = informer("pods", &corev1.Pod{}), informer("services", &corev1.Service{})
	balancer := newBalancer(n, kept)
	defer func() {
		cancel()
		factory.Shutdown()
		n.life.Wait()
	}()
	factory.Start(ctx.Done())
	if !cache.WaitForCacheSync(ctx.Done(), n.pods.HasSynced, n.services.HasSynced) {
		return nil
	}
	if err := n.reserve(); err != nil {
		return err
	}
	if _, err := n.pods.AddEventHandler(n.podHandler(ctx)); err != nil {
		return err
	}
	if _, err := n.services.AddEventHandler(balancer.handler()); err != nil {
		return err
	}
	n.life.Go(func() { balancer.run(ctx) })
	n.log.Info("node runs", "name", n.options.Name, "pods", n.lane.pod(0)+"/24", "services", n.lane.service(0)+"/24")
	<-ctx.Done()
	return nil
}

// podHandler gives each pod its worker. Handlers of one informer run one after the other.
func (n *Node) podHandler(ctx context.Context) cache.ResourceEventHandler {
	see := func(object any) {
		pod, ok := object.(*corev1.Pod)
		if !ok || pod.Spec.NodeName != "" && pod.Spec.NodeName != n.options.Name {
			return
		}
		n.mu.Lock()
		defer n.mu.Unlock()
		if w, known := n.workers[pod.UID]; known {
			w.update(pod)
			return
		}
		if ctx.Err() != nil {
			return
		}
		w := newWorker(n, pod, n.reserved[pod.UID])
		delete(n.reserved, pod.UID)
		n.workers[pod.UID] = w
		n.life.Go(func() {
			w.live(ctx)
			n.mu.Lock()
			defer n.mu.Unlock()
			delete(n.workers, pod.UID)
		})
	}
	return cache.ResourceEventHandlerFuncs{
		AddFunc:    see,
		UpdateFunc: func(_, object any) { see(object) },
		DeleteFunc: func(object any) {
			if last, ok := object.(cache.DeletedFinalStateUnknown); ok {
				object = last.Obj
			}
			if pod, ok := object.(*corev1.Pod); ok {
				n.mu.Lock()
				defer n.mu.Unlock()
				if w, known := n.workers[pod.UID]; known {
					w.update(nil)
				}
			}
		},
	}
}

// serving is the address of a pod that is ready, as this node knows: the API server, and the node's own watch of it,
// may not have heard of it yet. It is empty while the pod is not.
func (n *Node) serving(pod types.UID) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	if w := n.workers[pod]; w != nil {
		address, _ := w.serves.Load().(string)
		return address
	}
	return ""
}

// killLeftovers ends what a Run that was killed may have left, by the notes it wrote.
func (n *Node) killLeftovers() error {
	notes, err := filepath.Glob(filepath.Join(n.options.Dir, "pods", "*", "*.process.json"))
	if err != nil {
		return err
	}
	for _, note := range notes {
		if err := process.StopNoted(note, 0); err != nil {
			return err
		}
	}
	return nil
}

// reserve keeps the addresses of pods that were here before, and removes the folders of those that are no more.
func (n *Node) reserve() error {
	here := map[string]bool{}
	for _, object := range n.pods.GetStore().List() {
		pod := object.(*corev1.Pod)
		if pod.Spec.NodeName != n.options.Name {
			continue
		}
		here[string(pod.UID)] = true
		for number := 1; number <= mostAddresses; number++ {
			if n.lane.pod(number) != pod.Status.PodIP {
				continue
			}
			taken, _, err := n.podNumbers.take(number)
			if err != nil {
				return err
			}
			n.reserved[pod.UID] = taken
		}
	}
	folders, err := os.ReadDir(filepath.Join(n.options.Dir, "pods"))
	if err != nil {
		return err
	}
	for _, folder := range folders {
		if !here[folder.Name()] {
			if err := os.RemoveAll(filepath.Join(n.options.Dir, "pods", folder.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

func (n *Node) labels() map[string]string {
	return map[string]string{
		corev1.LabelHostname: n.options.Name, corev1.LabelOSStable: goruntime.GOOS, corev1.LabelArchStable: goruntime.GOARCH,
	}
}

// register makes the Node, or takes it up again.
func (n *Node) register(ctx context.Context) error {
	nodes := n.client.CoreV1().Nodes()
	_, err := nodes.Create(ctx, &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: n.options.Name, Labels: n.labels()},
	}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return err
	}
	return retry.RetryOnConflict(retry.DefaultRetry, func() error {
		node, err := nodes.Get(ctx, n.options.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		node.Spec.Taints = nil // admission says that a new node is not ready, and no controller will take that back
		if node, err = nodes.Update(ctx, node, metav1.UpdateOptions{}); err != nil {
			return err
		}
		now := metav1.NewTime(n.clock.Now())
		room := corev1.ResourceList{
			corev1.ResourceCPU:    *resource.NewQuantity(int64(goruntime.NumCPU()), resource.DecimalSI),
			corev1.ResourceMemory: *resource.NewQuantity(memory(), resource.BinarySI),
			corev1.ResourcePods:   *resource.NewQuantity(mostAddresses, resource.DecimalSI),
		}
		node.Status.Capacity, node.Status.Allocatable = room, room
		node.Status.Addresses = []corev1.NodeAddress{
			{Type: corev1.NodeInternalIP, Address: n.lane.host()}, {Type: corev1.NodeHostName, Address: n.options.Name},
		}
		node.Status.Conditions = []corev1.NodeCondition{{
			Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "LocalNodeReady",
			LastHeartbeatTime: now, LastTransitionTime: now,
		}}
		_, err = nodes.UpdateStatus(ctx, node, metav1.UpdateOptions{})
		return err
	})
}

// memory is the machine's, in bytes; 0 where it does not say.
func memory() int64 {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0
	}
	var kibibytes int64
	_, rest, _ := strings.Cut(string(text), "MemTotal:")
	_, _ = fmt.Sscan(rest, &kibibytes)
	return kibibytes << 10
}

// kept is what a node remembers over its runs.
type kept struct {
	Lane     int            `json:"lane"`
	Services map[string]int `json:"services"` // namespace/name → number
}

func readKept(dir string) (kept, error) {
	k := kept{Services: map[string]int{}}
	text, err := os.ReadFile(filepath.Join(dir, "addresses.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return k, nil
	}
	if err != nil {
		return k, err
	}
	if err := json.Unmarshal(text, &k); err != nil || k.Services == nil || k.Lane < 0 || k.Lane >= mostAddresses {
		return kept{Services: map[string]int{}}, nil // it is only a wish
	}
	return k, nil
}

func (k kept) write(dir string) error {
	text, err := json.Marshal(k)
	if err != nil {
		return err
	}
	path := filepath.Join(dir, "addresses.json")
	if err := os.WriteFile(path+".new", text, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

type realClock struct{}

func (realClock) Now() time.Time { return time.Now() }
func (realClock) After(d time.Duration) <-chan time.Time {
	return time.After(d) //nolint:forbidigo // the one clock: tests give another
}
