package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	// own is the namespace of this test's own pods.
	own   = "switchyard-e2e"
	image = "ghcr.io/switchyard-dev/e2e:dev"
	// sourceHost is test/e2e/files/source.yaml's registry, localSource the one that config/samples names.
	sourceHost, localSource = "source.switchyard-e2e.svc:5000", "localhost:5001"

	// config/samples' namespace, its pool of images and that pool's pods' container, and an adapter.
	demo, pool, container, adapter = "demo", "digits", "runtime", "parity"
	replicas                       = 2
	// texts is the other pool of config/samples.
	texts = "packages"
)

// use installs Switchyard, uses and disturbs it, and uninstalls it.
func use(t *testing.T, in installer) {
	c := connect(t)
	before, err := c.inventory(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			c.explain(t)
		}
	})
	steps := []struct {
		name string
		do   func(*testing.T)
	}{
		{"install", func(t *testing.T) { c.install(t, in) }},
		{"pod security is enforced", c.refusesPrivilege},
		{"apply the samples", c.applySamples},
		{"network policies and budgets are there", c.hasGuards},
		{"ask a mixed batch by the cluster address", func(t *testing.T) { c.askMixed(t, c.address(t), pool) }},
		{"ask a mixed batch by name", func(t *testing.T) { c.askMixed(t, byName(pool), pool) }},
		{"ask a mixed batch of texts by name", func(t *testing.T) { c.askMixed(t, byName(texts), texts) }},
		{"disturb", c.disturb},
		{"uninstall", func(t *testing.T) {
			c.removeSamples(t)
			in.uninstall(t, c)
			c.kubectl(t, "delete", "namespace", own)
			c.awaitNothingLeft(t, before)
		}},
	}
	for _, step := range steps {
		if !t.Run(step.name, step.do) {
			return // what follows builds on it
		}
	}
}

// byName is a pool's Service as pods of other namespaces know it.
func byName(pool string) string { return "http://" + pool + "." + demo + ".svc:8080" }

func (c *cluster) install(t *testing.T, in installer) {
	in.install(t, c)
	c.kubectl(t, "create", "namespace", own)
	c.kubectl(t, "label", "namespace", own, "pod-security.kubernetes.io/enforce=restricted")
	source, err := os.ReadFile(filepath.Join("files", "source.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	c.apply(t, source)
	for _, deployment := range []string{"switchyard-manager", "switchyard-registry"} {
		c.kubectl(t, "rollout", "status", "-n", system, "deployment/"+deployment, "--timeout=3m")
	}
	c.kubectl(t, "rollout", "status", "-n", own, "deployment/source", "--timeout=2m")
}

// refusesPrivilege holds that Switchyard's namespace takes no pod that is not restricted.
func (c *cluster) refusesPrivilege(t *testing.T) {
	yes := true
	p := pod("privileged", "ask")
	p.Namespace = system
	p.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{Privileged: &yes}
	_, err := c.kube.CoreV1().Pods(system).Create(t.Context(), p, metav1.CreateOptions{})
	if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "PodSecurity") {
		t.Errorf("expected a privileged pod to be refused by PodSecurity, found %v", err)
	}
}

// samples are config/samples with the sources in the cluster.
func (c *cluster) samples(t *testing.T) []byte {
	t.Helper()
	objects := c.kubectl(t, "kustomize", "config/samples")
	if !strings.Contains(objects, localSource) {
		t.Fatalf("expected sources at %s, found\n%s", localSource, objects)
	}
	return bytes.ReplaceAll([]byte(objects), []byte(localSource), []byte(sourceHost))
}

func (c *cluster) applySamples(t *testing.T) {
	c.kubectl(t, "create", "namespace", demo)
	c.kubectl(t, "label", "namespace", demo, "pod-security.kubernetes.io/enforce=restricted")
	c.apply(t, c.samples(t))
	c.awaitReady(t)
	t.Log("\n" + c.kubectl(t, "get", "-n", demo, "lorapool,lora,pods", "-o", "wide"))
}

// awaitReady waits until the pools and all adapters are Ready, and the pool of images has as many pods as it should.
func (c *cluster) awaitReady(t *testing.T) {
	t.Helper()
	c.kubectl(t, "wait", "-n", demo, "--for=condition=Ready", "lorapool,lora", "--all", "--timeout=3m")
	await(t, "the pool's pods to be ready", func(ctx context.Context) error {
		pods, err := c.pods(ctx)
		if err != nil {
			return err
		}
		ready := 0
		for i := range pods {
			if isReady(&pods[i]) {
				ready++
			}
		}
		if ready != replicas || len(pods) != replicas {
			return fmt.Errorf("%d of %d pods are ready, expected %d", ready, len(pods), replicas)
		}
		return nil
	})
	c.kubectl(t, "wait", "-n", demo, "--for=condition=Ready", "lorapool,lora", "--all", "--timeout=3m")
}

func isReady(p *corev1.Pod) bool {
	for _, condition := range p.Status.Conditions {
		if condition.Type == corev1.PodReady {
			return condition.Status == corev1.ConditionTrue
		}
	}
	return false
}

// pods are the pool's that are there, those on their way out among them.
func (c *cluster) pods(ctx context.Context) ([]corev1.Pod, error) {
	list, err := c.kube.CoreV1().Pods(demo).List(ctx, metav1.ListOptions{LabelSelector: "switchyard.dev/pool=" + pool})
	if err != nil {
		return nil, err
	}
	return list.Items, nil
}

// hasGuards holds that the API server has taken what guards each part.
func (c *cluster) hasGuards(t *testing.T) {
	for namespace, names := range map[string][]string{
		system: {"networkpolicy/switchyard-manager", "networkpolicy/switchyard-registry", "pdb/switchyard-manager"},
		demo:   {"networkpolicy/" + pool, "pdb/" + pool},
	} {
		c.kubectl(t, append([]string{"get", "-n", namespace}, names...)...)
	}
}

func (c *cluster) address(t *testing.T) string {
	t.Helper()
	service, err := c.kube.CoreV1().Services(demo).Get(t.Context(), pool, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return "http://" + net.JoinHostPort(service.Spec.ClusterIP, "8080")
}

// askMixed has a pod of another namespace ask a pool a mixed batch.
func (c *cluster) askMixed(t *testing.T, url, pool string) {
	t.Log("\n" + c.runs(t, pod("ask", "ask", "-url", url, "-model", pool)))
}

// disturb does to the pool what clusters do to pods, while a pod of another namespace asks it.
func (c *cluster) disturb(t *testing.T) {
	asking := c.ask(t, byName(pool), adapter)
	count := asking.more(t, 50)
	disturbances := []struct {
		name string
		do   func(*testing.T)
	}{
		{"a deleted pod", c.deletePod},
		{"a rolled template of the pool", func(t *testing.T) {
			c.rolled(t, func() {
				c.kubectl(t, "patch", "lorapool", "-n", demo, pool, "--type=merge", "-p",
					`{"spec":{"template":{"annotations":{"switchyard.test/roll":"1"}}}}`)
			})
		}},
		{"a rolled Deployment", func(t *testing.T) {
			c.rolled(t, func() { c.kubectl(t, "rollout", "restart", "-n", demo, "deployment/"+pool) })
		}},
		{"rolled managers and registry", c.rollSystem},
		{"a drain", c.drain},
	}
	for _, d := range disturbances {
		if !t.Run(d.name, d.do) {
			return
		}
		c.awaitReady(t)
		count = asking.lostNone(t, d.name, count)
	}
	t.Run("a crashed container", c.crash)
	c.awaitReady(t)
	after := asking.more(t, 50)
	t.Logf("a crashed container: %d requests answered, %d lost: %s",
		after.Answers-count.Answers, after.Lost-count.Lost, after.Last)
	c.kubectl(t, "delete", "pod", "-n", own, asking.name, "--now")
	c.askMixed(t, byName(pool), pool)
}

func (c *cluster) deletePod(t *testing.T) {
	pods, err := c.pods(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	c.kubectl(t, "delete", "pod", "-n", demo, pods[0].Name)
}

// rolled waits until no pod is left of those before.
func (c *cluster) rolled(t *testing.T, roll func()) {
	t.Helper()
	former, err := c.pods(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	roll()
	await(t, "all pods to be new", func(ctx context.Context) error {
		now, err := c.pods(ctx)
		if err != nil {
			return err
		}
		for _, p := range now {
			for _, was := range former {
				if p.UID == was.UID {
					return fmt.Errorf("pod %s is still there", p.Name)
				}
			}
		}
		return nil
	})
}

func (c *cluster) rollSystem(t *testing.T) {
	for _, name := range []string{"switchyard-manager", "switchyard-registry"} {
		c.kubectl(t, "rollout", "restart", "-n", system, "deployment/"+name)
		c.kubectl(t, "rollout", "status", "-n", system, "deployment/"+name, "--timeout=3m")
	}
}

// drain evicts the pods of the pool as kubectl drain does: the budget lets one go, and the next only when that is
// replaced.
func (c *cluster) drain(t *testing.T) {
	pods, err := c.pods(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	evict := func(ctx context.Context, p *corev1.Pod) error {
		return c.kube.PolicyV1().Evictions(demo).Evict(ctx, &policyv1.Eviction{
			ObjectMeta:    metav1.ObjectMeta{Namespace: demo, Name: p.Name},
			DeleteOptions: metav1.NewPreconditionDeleteOptions(string(p.UID)),
		})
	}
	if err := evict(t.Context(), &pods[0]); err != nil {
		t.Fatalf("the first eviction: %v", err)
	}
	if err := evict(t.Context(), &pods[1]); !apierrors.IsTooManyRequests(err) {
		t.Fatalf("expected that the budget refuses the second eviction, found %v", err)
	}
	await(t, "the budget to let the second go", func(ctx context.Context) error { return evict(ctx, &pods[1]) })
}

// crash has the process of a container end by itself, and waits until it was started again.
func (c *cluster) crash(t *testing.T) {
	pods, err := c.pods(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	victim := pods[0]
	c.kubectl(t, "debug", "-n", demo, "pod/"+victim.Name, "--image="+image, "--image-pull-policy=IfNotPresent",
		"--target="+container, "--profile=restricted", "--", "/e2e", "crash")
	await(t, "the container to be started again", func(ctx context.Context) error {
		now, err := c.kube.CoreV1().Pods(demo).Get(ctx, victim.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if status := now.Status.ContainerStatuses[0]; status.RestartCount != 1 || !isReady(now) {
			return fmt.Errorf("%+v", status)
		}
		return nil
	})
}

func (c *cluster) removeSamples(t *testing.T) {
	if _, err := c.try(t.Context(), c.samples(t), c.kubectlPath, "delete", "-f", "-", "--timeout=2m"); err != nil {
		t.Fatal(err)
	}
}

// explain prints what somebody needs who has to find out why a test failed.
func (c *cluster) explain(t *testing.T) {
	ctx := context.WithoutCancel(t.Context())
	for _, args := range [][]string{
		{"get", "-A", "lorapool,lora,adapterassignments,pods,pvc", "-o", "wide"},
		{"get", "-A", "events", "--sort-by=.metadata.creationTimestamp"},
		{"logs", "-n", system, "-l", "app.kubernetes.io/name=switchyard", "--prefix", "--tail=40"},
		{"logs", "-n", demo, "-l", "switchyard.dev/pool=" + pool, "--prefix", "--tail=40"},
	} {
		out, err := c.try(ctx, nil, c.kubectlPath, args...)
		t.Logf("kubectl %s\n%s%v", strings.Join(args, " "), out, errors.Join(err))
	}
}
