package localnode

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	listers "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/switchyard-dev/switchyard/runtime/quote"
)

// AddressAnnotation is on each Service that this node balances: its address here.
const AddressAnnotation = "switchyard.dev/local-address"

const (
	mostConnections = 4096 // at a time, of one port of one Service
	dialWithin      = 2 * time.Second
)

// ServiceAddress waits until the Service has its local address.
func ServiceAddress(ctx context.Context, client kubernetes.Interface, namespace, name string) (string, error) {
	var address string
	err := wait.PollUntilContextCancel(ctx, eagerly/2, true, func(ctx context.Context) (bool, error) {
		service, err := client.CoreV1().Services(namespace).Get(ctx, name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		address = service.Annotations[AddressAnnotation]
		return address != "", nil
	})
	if err != nil {
		return "", fmt.Errorf("local address of service %s/%s: %w", namespace, name, err)
	}
	return address, nil
}

// balancer is where Services are listened for. One goroutine, run, owns it.
type balancer struct {
	node      *Node
	pods      listers.PodLister
	services  listers.ServiceLister
	wakeup    chan struct{} // of capacity 1
	kept      kept
	numbers   *numbers
	listeners map[endpoint]*listener
}

// endpoint is one port of a Service's address.
type endpoint struct {
	namespace, service string
	port               int32
}

// listener accepts connections to an endpoint.
type listener struct {
	net.Listener
	target atomic.Pointer[target]
	turn   atomic.Uint64 // round robin
	room   chan struct{} // a token a connection
}

// target is where an endpoint's connections go.
type target struct {
	selector labels.Selector
	port     corev1.ServicePort
	unready  bool // take pods that are not ready too
}

func newBalancer(n *Node, k kept) *balancer {
	k.Lane = n.lane.number
	b := &balancer{
		node: n, pods: listers.NewPodLister(n.pods.GetIndexer()), services: listers.NewServiceLister(n.services.GetIndexer()),
		wakeup: make(chan struct{}, 1), kept: k, numbers: newNumbers(), listeners: map[endpoint]*listener{},
	}
	for key, number := range k.Services {
		if taken, _, err := b.numbers.take(number); err != nil || taken != number {
			delete(k.Services, key) // two of one number: somebody wrote the file
		}
	}
	return b
}

func (b *balancer) handler() cache.ResourceEventHandler {
	wake := func() {
		select {
		case b.wakeup <- struct{}{}:
		default:
		}
	}
	return cache.ResourceEventHandlerFuncs{
		AddFunc: func(any) { wake() }, UpdateFunc: func(_, _ any) { wake() }, DeleteFunc: func(any) { wake() },
	}
}

// run follows the Services until ctx ends.
func (b *balancer) run(ctx context.Context) {
	defer func() {
		for _, l := range b.listeners {
			_ = l.Close()
		}
	}()
	for {
		var again <-chan time.Time
		if err := b.sync(ctx); err != nil && ctx.Err() == nil {
			b.node.log.Error("services", "error", err)
			again = b.node.clock.After(retryAfter)
		}
		select {
		case <-ctx.Done():
			return
		case <-b.wakeup:
		case <-again:
		}
	}
}

// sync gives each Service its address and listens there. The oldest are first, so that numbers follow their creation.
func (b *balancer) sync(ctx context.Context) error {
	services, err := b.services.List(labels.Everything())
	if err != nil {
		return err
	}
	services = slices.DeleteFunc(slices.Clone(services), func(s *corev1.Service) bool {
		return s.Spec.Type != corev1.ServiceTypeClusterIP || s.Spec.ClusterIP == corev1.ClusterIPNone ||
			len(s.Spec.Selector) == 0 || s.DeletionTimestamp != nil
	})
	slices.SortFunc(services, func(a, c *corev1.Service) int {
		return cmp.Or(a.CreationTimestamp.Compare(c.CreationTimestamp.Time), cmp.Compare(keyOfService(a), keyOfService(c)))
	})
	var failed []error
	there, wanted := map[string]bool{}, map[endpoint]bool{}
	for _, s := range services {
		there[keyOfService(s)] = true
	}
	for key, number := range b.kept.Services {
		if !there[key] {
			delete(b.kept.Services, key)
			b.numbers.release(number)
		}
	}
	for _, s := range services {
		failed = append(failed, b.serve(ctx, s, wanted))
	}
	for at, l := range b.listeners {
		if !wanted[at] {
			_ = l.Close()
			delete(b.listeners, at)
		}
	}
	return errors.Join(append(failed, b.kept.write(b.node.options.Dir))...)
}

// serve listens on the ports of one Service, and only then tells its address.
func (b *balancer) serve(ctx context.Context, s *corev1.Service, wanted map[endpoint]bool) error {
	key := keyOfService(s)
	number, known := b.kept.Services[key]
	if !known {
		var err error
		if number, _, err = b.numbers.take(0); err != nil {
			return fmt.Errorf("service %s: %w", key, err)
		}
		b.kept.Services[key] = number
	}
	address := b.node.lane.service(number)
	for _, port := range s.Spec.Ports {
		if port.Protocol != corev1.ProtocolTCP && port.Protocol != "" {
			continue
		}
		at := endpoint{s.Namespace, s.Name, port.Port}
		wanted[at] = true
		to := &target{labels.SelectorFromSet(s.Spec.Selector), port, s.Spec.PublishNotReadyAddresses}
		if l, listens := b.listeners[at]; listens {
			l.target.Store(to)
			continue
		}
		socket, err := (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort(address, strconv.Itoa(int(port.Port))))
		if err != nil {
			return fmt.Errorf("service %s: %w", key, err)
		}
		l := &listener{Listener: socket, room: make(chan struct{}, mostConnections)}
		l.target.Store(to)
		b.listeners[at] = l
		b.node.life.Go(func() { b.accept(ctx, at, l) })
	}
	if s.Annotations[AddressAnnotation] == address {
		return nil
	}
	patch := fmt.Sprintf(`{"metadata":{"annotations":{%q:%q}}}`, AddressAnnotation, address)
	_, err := b.node.client.CoreV1().Services(s.Namespace).
		Patch(ctx, s.Name, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	if apierrors.IsNotFound(err) {
		return nil // the watch will say so
	}
	return err
}

// accept passes connections on until the listener is closed; those that stand then go on.
func (b *balancer) accept(ctx context.Context, at endpoint, l *listener) {
	log := b.node.log.With("service", at.namespace+"/"+at.service, "port", at.port)
	for {
		l.room <- struct{}{}
		client, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // a lack of file descriptors, or a client that went away before
			<-l.room
			log.Error("accept", "error", err)
			if !pause(ctx, b.node.clock, b.node.clock.Now().Add(eagerly)) {
				return
			}
			continue
		}
		b.node.life.Go(func() {
			defer func() { <-l.room }()
			b.pass(ctx, at, l, client, log)
		})
	}
}

// pass connects a client to the next pod that takes it. Where none does the connection is closed.
func (b *balancer) pass(ctx context.Context, at endpoint, l *listener, client net.Conn, log *slog.Logger) {
	defer func() { _ = client.Close() }()
	to := l.target.Load()
	backends, err := b.ready(at.namespace, to)
	if len(backends) == 0 {
		log.Info("no ready pod", "error", err)
		return
	}
	turn := int((l.turn.Add(1) - 1) % uint64(len(backends)))
	for i := range backends {
		backend := backends[(turn+i)%len(backends)]
		dialer := net.Dialer{Timeout: dialWithin}
		pod, err := dialer.DialContext(ctx, "tcp", backend.address)
		if err != nil {
			log.Info("pod does not answer", "error", err)
			continue
		}
		if !to.unready && b.node.serving(backend.pod) == "" { // what has answered is its process's successor
			_ = pod.Close()
			continue
		}
		splice(ctx, client, pod)
		return
	}
}

// backend is where a connection may go.
type backend struct {
	pod     types.UID
	address string
}

// ready are the pods that take connections now, in the order of their names.
func (b *balancer) ready(namespace string, to *target) ([]backend, error) {
	pods, err := b.pods.Pods(namespace).List(to.selector)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(pods, func(a, c *corev1.Pod) int { return cmp.Compare(a.Name, c.Name) })
	var backends []backend
	var failed error
	for _, pod := range pods {
		address := b.node.serving(pod.UID)
		if to.unready {
			address = pod.Status.PodIP
		}
		if pod.DeletionTimestamp != nil || address == "" {
			continue
		}
		port, err := targetPort(pod, to.port)
		if err != nil {
			failed = err
			continue
		}
		backends = append(backends, backend{pod.UID, net.JoinHostPort(address, strconv.Itoa(port))})
	}
	return backends, failed
}

func targetPort(pod *corev1.Pod, port corev1.ServicePort) (int, error) {
	if number := port.TargetPort.IntValue(); number != 0 {
		return number, nil
	}
	if port.TargetPort.StrVal == "" {
		return int(port.Port), nil
	}
	for i := range pod.Spec.Containers {
		if number, err := portOf(port.TargetPort, &pod.Spec.Containers[i]); err == nil {
			return number, nil
		}
	}
	return 0, fmt.Errorf("pod %s has no port %s", pod.Name, quote.Name(port.TargetPort.StrVal))
}

// splice copies both ways until both have ended, or ctx has, and closes both.
func splice(ctx context.Context, client, pod net.Conn) {
	shut := func() {
		_ = client.Close()
		_ = pod.Close()
	}
	defer shut()
	defer context.AfterFunc(ctx, shut)()
	copyOne := func(to, from net.Conn) {
		if _, err := io.Copy(to, from); err != nil {
			shut() // the other side must not wait for what will not come
			return
		}
		if half, ok := to.(*net.TCPConn); ok {
			_ = half.CloseWrite() // an error says that it is closed altogether
		}
	}
	var back sync.WaitGroup
	back.Go(func() { copyOne(client, pod) })
	copyOne(pod, client)
	back.Wait()
}

func keyOfService(s *corev1.Service) string { return s.Namespace + "/" + s.Name }
