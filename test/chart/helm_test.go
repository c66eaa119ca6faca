package chart_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"

	"github.com/switchyard-dev/switchyard/test/controlplane"
)

const (
	chart  = "../../charts/switchyard"
	system = "switchyard-system"
)

// allValues sets every value to something else than its default, as far as they go together.
const allValues = "testdata/all-values.yaml"

// objects are those of a manifest by kind, namespace and name.
type objects map[string]map[string]any

// helm runs the project's helm, which knows nothing of the user's.
func helm(t *testing.T, args ...string) (out, said string, err error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "../../hack/helm", args...)
	dir := t.TempDir()
	cmd.Env = slices.DeleteFunc(os.Environ(), func(e string) bool {
		return strings.HasPrefix(e, "HELM_") || strings.HasPrefix(e, "KUBECONFIG=")
	})
	for _, folder := range []string{"CACHE", "CONFIG", "DATA"} {
		cmd.Env = append(cmd.Env, "HELM_"+folder+"_HOME="+filepath.Join(dir, folder))
	}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err = cmd.Run()
	return stdout.String(), stderr.String(), err
}

// mustHelm fails the test where helm does, or has something to say besides its output.
func mustHelm(t *testing.T, args ...string) string {
	t.Helper()
	out, said, err := helm(t, args...)
	if err != nil || said != "" {
		t.Fatalf("helm %s: %v\n%s", strings.Join(args, " "), err, said)
	}
	return out
}

// rendered is what the chart is in a namespace.
func rendered(t *testing.T, namespace string, args ...string) objects {
	t.Helper()
	return parsed(t, mustHelm(t, slices.Concat([]string{"template", "switchyard", chart, "-n", namespace}, args)...))
}

// kustomized is what kubectl makes of a folder.
func kustomized(t *testing.T, folder string) objects {
	t.Helper()
	assets, err := controlplane.Assets(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), filepath.Join(assets, "kubectl"), "kustomize", folder)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("kubectl kustomize %s: %v", folder, err)
	}
	return parsed(t, string(out))
}

func parsed(t *testing.T, manifest string) objects {
	t.Helper()
	found := objects{}
	decoder := yaml.NewYAMLOrJSONDecoder(strings.NewReader(manifest), 4096)
	for {
		var object unstructured.Unstructured
		err := decoder.Decode(&object)
		if errors.Is(err, io.EOF) {
			return found
		}
		if err != nil {
			t.Fatalf("%v in:\n%s", err, manifest)
		}
		if len(object.Object) == 0 { // nothing but comments
			continue
		}
		key := fmt.Sprintf("%s %s/%s", object.GetKind(), object.GetNamespace(), object.GetName())
		if found[key] != nil {
			t.Errorf("%s is there twice", key)
		}
		found[key] = object.Object
	}
}
