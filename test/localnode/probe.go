package localnode

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/switchyard-dev/switchyard/runtime/quote"
)

// eagerly is how often a container that never answered is asked, whatever its period: a pod should not wait for the
// rest of a second to be Ready. Only what such a question finds good counts, so a threshold of failures keeps its time.
const eagerly = 100 * time.Millisecond

// probeSet are a container's probes, nil where it has none.
type probeSet struct{ startup, liveness, readiness *question }

type question struct {
	spec *corev1.Probe
	ask  func(context.Context) error
}

func probesOf(pod *corev1.Pod, c *corev1.Container) (set probeSet, err error) {
	for _, p := range []struct {
		name string
		spec *corev1.Probe
		into **question
	}{
		{"startupProbe", c.StartupProbe, &set.startup},
		{"livenessProbe", c.LivenessProbe, &set.liveness},
		{"readinessProbe", c.ReadinessProbe, &set.readiness},
	} {
		if p.spec == nil {
			continue
		}
		ask, err := asker(p.spec, pod, c)
		if err != nil {
			return set, fmt.Errorf("%s: %w", p.name, err)
		}
		*p.into = &question{p.spec, ask}
	}
	return set, nil
}

// begin sets what holds before any answer.
func (s probeSet) begin(r *run) {
	r.started.Store(s.startup == nil)
	r.ready.Store(s.startup == nil && s.readiness == nil)
}

// watch asks until ctx ends: the startup probe first, then the others beside each other. It wakes on each change.
func (s probeSet) watch(ctx context.Context, clock Clock, r *run, wake func()) {
	unhealthy := func(name string, err error) {
		why := fmt.Sprintf("%s probe: %v", name, err)
		r.unhealthy.Store(&why)
		wake()
	}
	if s.startup != nil {
		starting, stop := context.WithCancel(ctx)
		defer stop()
		probe(starting, clock, s.startup.spec, true, s.startup.ask, func(err error) {
			if err != nil {
				unhealthy("startup", err)
			} else {
				r.started.Store(true)
			}
			stop() // its only verdict
		})
		if !r.started.Load() {
			return
		}
		r.ready.Store(s.readiness == nil)
		wake()
	}
	var both sync.WaitGroup
	defer both.Wait()
	if s.liveness != nil {
		both.Go(func() {
			probe(ctx, clock, s.liveness.spec, false, s.liveness.ask, func(err error) {
				if err != nil {
					unhealthy("liveness", err)
				}
			})
		})
	}
	if s.readiness != nil {
		both.Go(func() {
			probe(ctx, clock, s.readiness.spec, true, s.readiness.ask, func(err error) {
				if r.ready.Swap(err == nil) != (err == nil) {
					wake()
				}
			})
		})
	}
}

// threshold turns single answers into a verdict, as the kubelet does: so many of one kind in a row.
type threshold struct {
	success, failure int32
	row              int32
	last             bool
}

func newThreshold(p *corev1.Probe) *threshold {
	return &threshold{success: max(1, p.SuccessThreshold), failure: cmp.Or(p.FailureThreshold, 3)}
}

// observe counts an answer, and says whether the row is long enough to be the verdict.
func (t *threshold) observe(ok bool) bool {
	if t.row == 0 || t.last != ok {
		t.last, t.row = ok, 0
	}
	t.row++
	if ok {
		return t.row >= t.success
	}
	return t.row >= t.failure
}

// probe asks again and again until ctx ends, and tells each verdict. eager asks often until the first good answer.
func probe(
	ctx context.Context, clock Clock, p *corev1.Probe, eager bool, ask func(context.Context) error, tell func(error),
) {
	period := time.Duration(cmp.Or(p.PeriodSeconds, 10)) * time.Second
	counted := clock.Now().Add(time.Duration(p.InitialDelaySeconds) * time.Second)
	if !pause(ctx, clock, counted) {
		return
	}
	t := newThreshold(p)
	for {
		now := clock.Now()
		due := !now.Before(counted)
		err := within(ctx, time.Duration(cmp.Or(p.TimeoutSeconds, 1))*time.Second, ask)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			eager = false
		}
		if (due || err == nil) && t.observe(err == nil) {
			tell(err)
		}
		if due || err == nil {
			counted = now.Add(period)
		}
		next := counted
		if often := now.Add(eagerly); eager && often.Before(next) {
			next = often
		}
		if !pause(ctx, clock, next) {
			return
		}
	}
}

// pause waits until then, or says that ctx has ended.
func pause(ctx context.Context, clock Clock, then time.Time) bool {
	select {
	case <-ctx.Done():
		return false
	case <-clock.After(then.Sub(clock.Now())):
		return true
	}
}

func within(ctx context.Context, d time.Duration, ask func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	return ask(ctx)
}

// asker is how a probe asks; its error is for a probe that this node has not.
func asker(p *corev1.Probe, pod *corev1.Pod, c *corev1.Container) (func(context.Context) error, error) {
	switch {
	case p.HTTPGet != nil:
		return httpAsker(p.HTTPGet, pod.Status.PodIP, c)
	case p.TCPSocket != nil:
		port, err := portOf(p.TCPSocket.Port, c)
		if err != nil {
			return nil, err
		}
		address := net.JoinHostPort(cmp.Or(p.TCPSocket.Host, pod.Status.PodIP), strconv.Itoa(port))
		return func(ctx context.Context) error {
			conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
			if err != nil {
				return err
			}
			return conn.Close()
		}, nil
	default:
		return nil, errors.New("expected a probe by httpGet or tcpSocket, found one that this node has not")
	}
}

func httpAsker(
	get *corev1.HTTPGetAction, podIP string, c *corev1.Container,
) (func(context.Context) error, error) {
	port, err := portOf(get.Port, c)
	if err != nil {
		return nil, err
	}
	path, err := url.Parse(cmp.Or(get.Path, "/"))
	if err != nil {
		return nil, fmt.Errorf("probe's path %s: %w", quote.Name(get.Path), err)
	}
	path.Scheme = strings.ToLower(string(cmp.Or(get.Scheme, corev1.URISchemeHTTP)))
	path.Host = net.JoinHostPort(cmp.Or(get.Host, podIP), strconv.Itoa(port))
	client := &http.Client{
		Transport: &http.Transport{
			DisableKeepAlives: true, // each probe is a connection of its own, as the kubelet's
			TLSClientConfig:   &tls.Config{InsecureSkipVerify: true},
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return func(ctx context.Context) error {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, path.String(), http.NoBody)
		if err != nil {
			return err
		}
		for _, header := range get.HTTPHeaders {
			request.Header.Add(header.Name, header.Value)
		}
		response, err := client.Do(request)
		if err != nil {
			return err
		}
		body, _ := io.ReadAll(io.LimitReader(response.Body, 1<<10))
		_ = response.Body.Close()
		if response.StatusCode < 200 || response.StatusCode >= 400 {
			return fmt.Errorf("HTTP %d: %s", response.StatusCode, quote.Text(strings.TrimSpace(string(body))))
		}
		return nil
	}, nil
}

// portOf is a port by number, or by its name among the container's.
func portOf(port intstr.IntOrString, c *corev1.Container) (int, error) {
	if port.Type == intstr.Int {
		return port.IntValue(), nil
	}
	for _, p := range c.Ports {
		if p.Name == port.StrVal {
			return int(p.ContainerPort), nil
		}
	}
	if number, err := strconv.Atoi(port.StrVal); err == nil {
		return number, nil
	}
	return 0, fmt.Errorf("container %s has no port %s", quote.Name(c.Name), quote.Name(port.StrVal))
}
