package chart_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"

	"github.com/switchyard-dev/switchyard/test/controlplane"
)

const pool = `
apiVersion: switchyard.dev/v1alpha1
kind: InferencePool
metadata: {name: kept, namespace: default}
spec: {baseModel: {source: {oci: {ref: "registry.example/base:v1"}}}}
`

// cluster is a real control plane, whose pods nobody runs.
type cluster struct {
	t     *testing.T
	plane *controlplane.ControlPlane
	dir   string
}

// One life of a release, by helm, in a real API server: every object is taken without a warning, another release is
// none of the cluster's, an upgrade changes what it should, and an uninstall leaves pools or nothing, as it was told.
func TestALifeInACluster(t *testing.T) {
	dir := t.TempDir()
	plane, err := controlplane.Start(t.Context(), controlplane.Options{Dir: filepath.Join(dir, "plane")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := plane.Stop(); err != nil {
			t.Error(err)
		}
	})
	c := &cluster{t, plane, dir}
	before := c.clusterWide()

	c.helm("install", "switchyard", chart, "--create-namespace", "--set", "registry.storage.emptyDir=true")
	c.policiesAreTyped()
	c.everyVariantIsTaken()
	if _, said, err := helm(t, c.with("install", "second", chart)...); err == nil || !strings.Contains(said, "exists") {
		t.Errorf("a second release in one cluster: %v: %s", err, said)
	}
	c.apply(pool)

	c.helm("uninstall", "switchyard", "--wait")
	if left := c.kubectl("get", "inferencepools", "-A", "-o", "name"); left != "inferencepool.switchyard.dev/kept\n" {
		t.Errorf("after an uninstall that keeps them the pools are %q", left)
	}
	left := slices.DeleteFunc(c.clusterWide(), func(name string) bool { return slices.Contains(before, name) })
	if slices.ContainsFunc(left, func(name string) bool { return !strings.HasPrefix(name, "customresourcedefinition") }) {
		t.Errorf("an uninstall that keeps CRDs leaves %v", left)
	}

	c.helm("install", "switchyard", chart, "--set", "registry.storage.emptyDir=true") // finds its CRDs again
	c.helm("upgrade", "switchyard", chart, "--reuse-values", "--set", "crds.keep=false,manager.replicas=1")
	replicas := c.kubectl("-n", "elsewhere", "get", "deployment/switchyard-manager", "-o", "jsonpath={.spec.replicas}")
	if replicas != "1" {
		t.Errorf("after an upgrade there are %s managers, expected 1", replicas)
	}
	c.helm("uninstall", "switchyard")
	c.awaitKindsGone()
	c.nothingIsLeft(before)
	c.takesOverFromKustomize()
}

func (c *cluster) nothingIsLeft(before []string) {
	c.t.Helper()
	if after := c.clusterWide(); !slices.Equal(before, after) {
		c.t.Errorf("an uninstall leaves %v, where there was %v", after, before)
	}
	objects := "all,configmaps,secrets,serviceaccounts,roles,rolebindings,networkpolicies,poddisruptionbudgets,pvc"
	for line := range strings.Lines(c.kubectl("-n", "elsewhere", "get", objects, "-o", "name")) {
		if strings.Contains(line, "switchyard") && !strings.HasPrefix(line, "pod/") &&
			!strings.HasPrefix(line, "replicaset.apps/") { // the garbage collector is on its way to them
			c.t.Errorf("an uninstall leaves %s", line)
		}
	}
}

// awaitKindsGone waits until the API server has taken the CRDs away. One that is deleted soon after it was changed may
// stay Terminating for minutes: its controller finds the kind's storage not ready, writes that, meets its own write
// when it tries again, and waits for a change (crd_finalizer.go of k8s.io/apiextensions-apiserver 0.37). An annotation
// is one.
func (c *cluster) awaitKindsGone() {
	c.t.Helper()
	crds, touched := []string{"get", "crd", "-o", "name"}, time.Now()
	err := wait.PollUntilContextTimeout(c.t.Context(), 100*time.Millisecond, time.Minute, true,
		func(context.Context) (bool, error) {
			left := strings.Fields(c.kubectl(crds...)) //nolint:contextcheck // a test's own
			if len(left) > 0 && time.Since(touched) > 5*time.Second {
				touched = time.Now()
				change := []string{"annotate", "crd", "--all", "--overwrite", "test/touched=" + touched.Format(time.RFC3339)}
				_, _ = c.try(change...) //nolint:contextcheck // a test's own; some may just have gone
			}
			return len(left) == 0, nil
		})
	if err != nil {
		c.t.Fatalf("CRDs are left: %v:\n%s", err, c.kubectl("get", "crd", "-o", "yaml"))
	}
}

// takesOverFromKustomize has helm keep what kubectl installed.
func (c *cluster) takesOverFromKustomize() {
	c.t.Helper()
	c.kubectl("apply", "--server-side", "-k", "../../config/default")
	mustHelm(c.t, "upgrade", "--install", "switchyard", chart, "--kubeconfig", c.plane.KubeconfigPath, "-n", system,
		"--take-ownership", "--force-conflicts", "--set", "manager.replicas=1,manager.extraArgs={--log-format=json}")
	found := c.kubectl("-n", system, "get", "deployment/switchyard-manager", "-o",
		"jsonpath={.spec.replicas} {.spec.template.spec.containers[0].args}")
	if !strings.HasPrefix(found, "1 ") || !strings.Contains(found, "--log-format=json") {
		c.t.Errorf("taken over from kustomize the manager has %s", found)
	}
}

// policiesAreTyped waits until the controller has looked at all expressions by the kinds that they are of.
func (c *cluster) policiesAreTyped() {
	c.t.Helper()
	client := kubernetes.NewForConfigOrDie(c.plane.Config())
	var said string
	err := wait.PollUntilContextTimeout(c.t.Context(), 50*time.Millisecond, time.Minute, true,
		func(ctx context.Context) (bool, error) {
			policies, err := client.AdmissionregistrationV1().ValidatingAdmissionPolicies().List(ctx, metav1.ListOptions{})
			if err != nil {
				return false, err
			}
			for _, p := range policies.Items {
				if p.Status.ObservedGeneration != p.Generation || p.Status.TypeChecking == nil {
					said = p.Name + " is not looked at"
					return false, nil
				}
				if len(p.Status.TypeChecking.ExpressionWarnings) != 0 {
					return false, fmt.Errorf("%s: %v", p.Name, p.Status.TypeChecking.ExpressionWarnings)
				}
			}
			said = fmt.Sprintf("%d policies", len(policies.Items))
			return len(policies.Items) == 9, nil
		})
	if err != nil {
		c.t.Errorf("%v: %s", err, said)
	}
}

// everyVariantIsTaken has the API server look at objects that it does not keep, but for other operators' kinds.
func (c *cluster) everyVariantIsTaken() {
	c.t.Helper()
	for _, namespace := range []string{"demo", "456"} {
		c.kubectl("create", "namespace", namespace)
	}
	for _, args := range [][]string{
		nil, {"-f", allValues, "--set", "certManager.enabled=false,metrics.serviceMonitor.enabled=false"},
	} {
		manifest := mustHelm(c.t, slices.Concat([]string{"template", "switchyard", chart, "-n", "elsewhere"}, args)...)
		c.apply(manifest, "--dry-run=server", "--field-manager=helm")
	}
}

// with are arguments of helm for this cluster.
func (c *cluster) with(args ...string) []string {
	return append(args, "--kubeconfig", c.plane.KubeconfigPath, "--namespace", "elsewhere", "--timeout", "60s")
}

func (c *cluster) helm(args ...string) {
	c.t.Helper()
	mustHelm(c.t, c.with(args...)...)
}

func (c *cluster) apply(manifest string, args ...string) {
	c.t.Helper()
	path := filepath.Join(c.dir, "manifest.yaml")
	if err := os.WriteFile(path, []byte(manifest), 0o600); err != nil {
		c.t.Fatal(err)
	}
	c.kubectl(slices.Concat([]string{"apply", "--server-side", "--validate=strict", "-f", path}, args)...)
}

// kubectl fails the test where it does, or where the API server warns.
func (c *cluster) kubectl(args ...string) string {
	c.t.Helper()
	out, err := c.try(args...)
	if err != nil {
		c.t.Fatalf("kubectl %s: %v", strings.Join(args, " "), err)
	}
	return out
}

// try is kubectl, which fails where the API server warns, too.
func (c *cluster) try(args ...string) (string, error) {
	args = append([]string{"--kubeconfig", c.plane.KubeconfigPath, "--warnings-as-errors"}, args...)
	cmd := exec.CommandContext(c.t.Context(), c.plane.Kubectl, args...)
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err == nil && strings.Contains(said.String(), "Warning") {
		err = errors.New("warned")
	}
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, said.String())
	}
	return string(out), nil
}

// clusterWide are the names of what lies in no namespace and a release makes.
func (c *cluster) clusterWide() []string {
	c.t.Helper()
	kinds := "crd,clusterroles,clusterrolebindings,validatingadmissionpolicies,validatingadmissionpolicybindings"
	return strings.Fields(c.kubectl("get", kinds, "-o", "name"))
}
