package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/switchyard-dev/switchyard/test/controlplane"
	"github.com/switchyard-dev/switchyard/test/load"
)

const (
	// soon bounds what takes seconds on a machine that is not busy.
	soon  = 3 * time.Minute
	every = 200 * time.Millisecond
)

// cluster is the one under test, as an admin sees it.
type cluster struct {
	kubeconfig, kubectlPath, repository string

	kube    kubernetes.Interface
	dynamic dynamic.Interface
}

// connect is the cluster of E2E_KUBECONFIG; the test is skipped where there is none.
func connect(t *testing.T) *cluster {
	t.Helper()
	kubeconfig := os.Getenv("E2E_KUBECONFIG")
	if kubeconfig == "" {
		t.Skip("E2E_KUBECONFIG is not set: make e2e brings up a cluster of its own")
	}
	assets, err := controlplane.Assets(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	repository, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	config.QPS = -1
	quiet := rest.CopyConfig(config)
	quiet.WarningHandler = rest.NoWarnings{} // that a kind is deprecated, to an inventory of all
	return &cluster{
		kubeconfig: kubeconfig, kubectlPath: filepath.Join(assets, "kubectl"), repository: repository,
		kube: kubernetes.NewForConfigOrDie(config), dynamic: dynamic.NewForConfigOrDie(quiet),
	}
}

// run runs a program in the repository with the cluster as its own, and returns what it printed.
func (c *cluster) run(t *testing.T, program string, args ...string) string {
	t.Helper()
	out, err := c.try(t.Context(), nil, program, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (c *cluster) try(ctx context.Context, stdin []byte, program string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	if !filepath.IsAbs(program) {
		cmd = exec.CommandContext(ctx, filepath.Join(c.repository, program), args...)
	}
	cmd.Dir, cmd.Env, cmd.Stdin = c.repository, append(os.Environ(), "KUBECONFIG="+c.kubeconfig), bytes.NewReader(stdin)
	var out, told bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &told
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s %s: %w: %s%s", program, strings.Join(args, " "), err, out.Bytes(), told.Bytes())
	}
	return out.String(), nil
}

func (c *cluster) kubectl(t *testing.T, args ...string) string {
	t.Helper()
	return c.run(t, c.kubectlPath, args...)
}

// apply applies objects as kubectl does.
func (c *cluster) apply(t *testing.T, objects []byte) {
	t.Helper()
	if _, err := c.try(t.Context(), objects, c.kubectlPath, "apply", "--server-side", "-f", "-"); err != nil {
		t.Fatal(err)
	}
}

// await waits until holds returns nil; its error says what is not so yet.
func await(t *testing.T, what string, holds func(context.Context) error) {
	t.Helper()
	var last error
	err := wait.PollUntilContextTimeout(t.Context(), every, soon, true, func(ctx context.Context) (bool, error) {
		last = holds(ctx)
		return last == nil, nil
	})
	if err != nil {
		t.Fatalf("waiting for %s: %v: %v", what, err, last)
	}
}

// pod is one of the e2e image, by its command line, as restricted namespaces have it.
func pod(name string, args ...string) *corev1.Pod {
	yes, no := true, false
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: own},
		Spec: corev1.PodSpec{
			RestartPolicy: corev1.RestartPolicyNever, AutomountServiceAccountToken: &no,
			SecurityContext: &corev1.PodSecurityContext{
				RunAsNonRoot: &yes, SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
			},
			Containers: []corev1.Container{{
				Name: "e2e", Image: image, Args: args,
				SecurityContext: &corev1.SecurityContext{
					AllowPrivilegeEscalation: &no, Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
				},
			}},
		},
	}
}

// runs has a pod run to its end and returns what it printed; it must succeed.
func (c *cluster) runs(t *testing.T, p *corev1.Pod) string {
	t.Helper()
	c.create(t, p)
	var phase corev1.PodPhase
	await(t, "pod "+p.Name+" to end", func(ctx context.Context) error {
		now, err := c.kube.CoreV1().Pods(p.Namespace).Get(ctx, p.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if phase = now.Status.Phase; phase != corev1.PodSucceeded && phase != corev1.PodFailed {
			return fmt.Errorf("%s: %+v", phase, now.Status.ContainerStatuses)
		}
		return nil
	})
	out := c.kubectl(t, "logs", "-n", p.Namespace, p.Name)
	if phase != corev1.PodSucceeded {
		t.Fatalf("pod %s failed:\n%s", p.Name, out)
	}
	c.kubectl(t, "delete", "pod", "-n", p.Namespace, p.Name, "--now")
	return out
}

func (c *cluster) create(t *testing.T, p *corev1.Pod) {
	t.Helper()
	await(t, "pod "+p.Name+" to be made", func(ctx context.Context) error { // a new namespace's account takes a moment
		_, err := c.kube.CoreV1().Pods(p.Namespace).Create(ctx, p, metav1.CreateOptions{})
		return err
	})
}

// asking is a pod that asks an adapter without a pause.
type asking struct {
	c    *cluster
	name string
}

func (c *cluster) ask(t *testing.T, url, adapter string) *asking {
	t.Helper()
	p := pod("asking", "load", "-url", url, "-model", adapter)
	c.create(t, p)
	a := &asking{c, p.Name}
	a.more(t, 20)
	return a
}

// more waits for so many more answers, and returns what came back so far.
func (a *asking) more(t *testing.T, n int) load.Count {
	t.Helper()
	from, now := -1, load.Count{}
	await(t, "answers", func(ctx context.Context) error {
		out, err := a.c.try(ctx, nil, a.c.kubectlPath, "logs", "-n", own, a.name, "--tail=1")
		if err != nil {
			return err
		}
		if err := json.Unmarshal([]byte(out), &now); err != nil {
			return fmt.Errorf("%q: %w", out, err)
		}
		if from < 0 {
			from = now.Answers
		}
		if now.Answers < from+n {
			return fmt.Errorf("%d of %d more: %+v", now.Answers-from, n, now)
		}
		return nil
	})
	return now
}

// lostNone holds that no request was lost since former was counted.
func (a *asking) lostNone(t *testing.T, during string, former load.Count) load.Count {
	t.Helper()
	now := a.more(t, 50)
	t.Logf("%s: %d requests answered, %d lost", during, now.Answers-former.Answers, now.Lost-former.Lost)
	if now.Lost > former.Lost {
		t.Errorf("%s: %d requests were lost, the last of them: %s", during, now.Lost-former.Lost, now.Last)
	}
	return now
}

// passing are kinds whose objects come and go by themselves.
var passing = []string{"events", "leases", "endpoints", "endpointslices", "ipaddresses", "pods", "replicasets"}

// inventory is all objects that the cluster has, by resource, namespace and name; of passing kinds only those in
// namespaces that are not Kubernetes' own.
func (c *cluster) inventory(ctx context.Context) (map[string]bool, error) {
	lists, err := c.kube.Discovery().ServerPreferredResources()
	if err != nil && !discovery.IsGroupDiscoveryFailedError(err) {
		return nil, err
	}
	found := map[string]bool{}
	for _, list := range lists {
		group, err := schema.ParseGroupVersion(list.GroupVersion)
		if err != nil {
			return nil, err
		}
		for _, resource := range list.APIResources {
			if !slices.Contains(resource.Verbs, "list") {
				continue
			}
			all, err := c.dynamic.Resource(group.WithResource(resource.Name)).List(ctx, metav1.ListOptions{})
			if apierrors.IsNotFound(err) || apierrors.IsMethodNotSupported(err) {
				continue // a kind that is going
			}
			if err != nil {
				return nil, fmt.Errorf("%s: %w", resource.Name, err)
			}
			for _, o := range all.Items {
				if slices.Contains(passing, resource.Name) && strings.HasPrefix(o.GetNamespace(), "kube-") {
					continue
				}
				found[fmt.Sprintf("%s.%s %s/%s", resource.Name, group.Group, o.GetNamespace(), o.GetName())] = true
			}
		}
	}
	return found, nil
}

// awaitNothingLeft waits until the cluster has no object that it did not have before.
func (c *cluster) awaitNothingLeft(t *testing.T, before map[string]bool) {
	t.Helper()
	await(t, "nothing to be left", func(ctx context.Context) error {
		now, err := c.inventory(ctx)
		if err != nil {
			return err
		}
		maps.DeleteFunc(now, func(o string, _ bool) bool {
			return before[o] || strings.HasPrefix(o, "events")
		})
		if len(now) > 0 {
			return errors.New(strings.Join(slices.Sorted(maps.Keys(now)), ", "))
		}
		return nil
	})
}
