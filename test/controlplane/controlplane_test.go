package controlplane_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/switchyard-dev/switchyard/test/controlplane"
)

const crd = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: things.example.com}
spec:
  group: example.com
  names: {kind: Thing, plural: things}
  scope: Namespaced
  versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object}}}]
`

// One life of a detached control plane: up, found again, down, and up again with what it held.
func TestTheClusterOutlivesItsProcesses(t *testing.T) {
	ctx := t.Context()
	dir := t.TempDir()
	crds := filepath.Join(dir, "crd.yaml")
	if err := os.WriteFile(crds, []byte(crd), 0o600); err != nil {
		t.Fatal(err)
	}
	options := controlplane.Options{Dir: filepath.Join(dir, "plane"), Detach: true, CRDs: []string{crds}}
	t.Cleanup(func() { stop(t, options.Dir) })
	plane := start(ctx, t, options)
	client := kubernetes.NewForConfigOrDie(plane.Config())
	kept := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "kept"}}
	if _, err := client.CoreV1().ConfigMaps("default").Create(ctx, kept, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	serviceAccountsAreAuthorizedByRBAC(t, plane)
	theAPIServerMayBeAway(t, plane)

	again := start(ctx, t, options)
	if again.Config().Host != plane.Config().Host {
		t.Errorf("a second start made another: %s, expected %s", again.Config().Host, plane.Config().Host)
	}
	attached := options
	attached.Detach = false
	if _, err := controlplane.Start(ctx, attached); err == nil {
		t.Error("two control planes in one folder")
	}
	stop(t, options.Dir)
	stop(t, options.Dir)
	if _, err := client.CoreV1().Namespaces().List(ctx, metav1.ListOptions{}); err == nil {
		t.Error("the apiserver answers after Stop")
	}

	start(ctx, t, options)
	if _, err := client.CoreV1().ConfigMaps("default").Get(ctx, "kept", metav1.GetOptions{}); err != nil {
		t.Errorf("the client of before, after a restart: %v", err)
	}
	kubectl := exec.CommandContext(ctx, plane.Kubectl, "--kubeconfig", plane.KubeconfigPath, "get", "things")
	out, err := kubectl.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "No resources found") {
		t.Errorf("kubectl get things: %v: %s", err, out)
	}
}

func theAPIServerMayBeAway(t *testing.T, plane *controlplane.ControlPlane) {
	t.Helper()
	client := kubernetes.NewForConfigOrDie(plane.Config())
	if err := plane.StopAPIServer(); err != nil {
		t.Fatal(err)
	}
	if _, err := client.CoreV1().Namespaces().List(t.Context(), metav1.ListOptions{}); err == nil {
		t.Error("the apiserver answers while it is away")
	}
	if err := plane.StartAPIServer(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := client.CoreV1().ConfigMaps("default").Get(t.Context(), "kept", metav1.GetOptions{}); err != nil {
		t.Errorf("the client of before, after the apiserver was away: %v", err)
	}
}

func serviceAccountsAreAuthorizedByRBAC(t *testing.T, plane *controlplane.ControlPlane) {
	t.Helper()
	ctx := t.Context()
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := plane.ServiceAccountKubeconfig(ctx, "default", "default", path); err != nil {
		t.Fatal(err)
	}
	config, err := clientcmd.BuildConfigFromFlags("", path)
	if err != nil {
		t.Fatal(err)
	}
	client, admin := kubernetes.NewForConfigOrDie(config), kubernetes.NewForConfigOrDie(plane.Config())
	if _, err := client.CoreV1().Pods("default").List(ctx, metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("an account without a role lists pods: %v", err)
	}
	_, err = admin.RbacV1().RoleBindings("default").Create(ctx, &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "view"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "view"},
		Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Name: "default", Namespace: "default"}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for ctx.Err() == nil { // the authorizer watches; the role itself is aggregated by a controller
		if _, err = client.CoreV1().Pods("default").List(ctx, metav1.ListOptions{}); !apierrors.IsForbidden(err) {
			break
		}
	}
	if err != nil {
		t.Errorf("an account with the role: %v", err)
	}
}

func TestAFailedStartSaysWhyAndLeavesNothing(t *testing.T) {
	assets, program := t.TempDir(), []byte("#!/bin/sh\necho no luck >&2; exit 3\n")
	for _, name := range []string{"etcd", "kube-apiserver", "kube-controller-manager", "kubectl"} {
		if err := os.WriteFile(filepath.Join(assets, name), program, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	_, err := controlplane.Start(t.Context(), controlplane.Options{Dir: t.TempDir(), Assets: assets})
	if err == nil || !strings.Contains(err.Error(), "etcd did not come up: the process ended") ||
		!strings.Contains(err.Error(), "no luck") {
		t.Errorf("error %v, expected the process and the end of its log", err)
	}
	_, err = controlplane.Start(t.Context(), controlplane.Options{Dir: t.TempDir(), Assets: t.TempDir()})
	if err == nil || !strings.Contains(err.Error(), "kube-apiserver") {
		t.Errorf("error %v, expected the missing binaries", err)
	}
}

func start(ctx context.Context, t *testing.T, o controlplane.Options) *controlplane.ControlPlane {
	t.Helper()
	plane, err := controlplane.Start(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	return plane
}

func stop(t *testing.T, dir string) {
	t.Helper()
	if err := controlplane.Stop(dir); err != nil {
		t.Error(err)
	}
}
