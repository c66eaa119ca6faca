package v1alpha1_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/yaml"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/switchyard-dev/switchyard/api/v1alpha1"
	apply "github.com/switchyard-dev/switchyard/api/v1alpha1/applyconfiguration/api/v1alpha1"
	"github.com/switchyard-dev/switchyard/test/controlplane"
)

// A real apiserver takes the CRDs, checks objects as testdata/validation.yaml says, and takes apply configurations.
// hack/api/crds runs the same cases without a server.
func TestApiserver(t *testing.T) {
	plane, err := controlplane.Start(t.Context(),
		controlplane.Options{Dir: t.TempDir(), CRDs: []string{"../../config/crd"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := plane.Stop(); err != nil {
			t.Error(err)
		}
	})
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		t.Fatal(err)
	}
	c, err := client.New(plane.Config(), client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	t.Run("validation", func(t *testing.T) { testValidation(t, c) })
	t.Run("apply", func(t *testing.T) { testApply(t, c) })
	t.Run("largest assignment", func(t *testing.T) { testLargestAssignment(t, c) })
}

// The largest assignment that a pool can have fits an object, also when nothing in it could be loaded.
func testLargestAssignment(t *testing.T, c client.Client) {
	const most = 2000 // revisions that a pod holds, fallbacks included
	name := func(i int) string { return fmt.Sprintf("%04d%s", i, strings.Repeat("n", 63-4)) }
	digest := func(i int) string { return fmt.Sprintf("sha256:%064x", i) }
	a := v1alpha1.AdapterAssignment{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace(t, c, "largest"), Name: "pod"},
		Spec:       v1alpha1.AdapterAssignmentSpec{PoolName: "digits", Revision: 1 << 40},
	}
	for i := range most {
		entry := v1alpha1.AssignedAdapter{Name: name(i), Digest: digest(i), Since: 1 << 40}
		a.Spec.Adapters = append(a.Spec.Adapters, entry)
	}
	if err := c.Create(t.Context(), &a); err != nil {
		t.Fatal(err)
	}
	a.Status = v1alpha1.AdapterAssignmentStatus{ObservedRevision: 1 << 40, StartedAt: new(metav1.Now()), BootID: "boot"}
	for i := range most {
		a.Status.Failed = append(a.Status.Failed, v1alpha1.FailedAdapter{
			Name: name(i), Digest: digest(i), Reason: v1alpha1.FailureInvalidAdapter, Message: strings.Repeat("m", 256),
		})
	}
	if err := c.Status().Update(t.Context(), &a); err != nil {
		t.Fatal(err)
	}
	raw, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d bytes", len(raw))
}

func testValidation(t *testing.T, c client.Client) {
	var table struct {
		Bases map[string]map[string]any
		Cases []struct {
			Name, Base    string
			Update        bool
			Patch, Result map[string]any
			Errors        []string
		}
	}
	content, err := os.ReadFile("testdata/validation.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.UnmarshalStrict(content, &table); err != nil {
		t.Fatal(err)
	}
	for i, test := range table.Cases {
		t.Run(test.Name, func(t *testing.T) {
			base := merge(table.Bases[test.Base], test.Patch)
			if test.Update {
				base = table.Bases[test.Base]
			}
			object := &unstructured.Unstructured{Object: merge(base, nil)}
			object.SetNamespace(namespace(t, c, fmt.Sprintf("case-%d", i)))
			err := c.Create(t.Context(), object)
			if test.Update && err == nil {
				patch, _ := json.Marshal(test.Patch)
				err = c.Patch(t.Context(), object, client.RawPatch("application/merge-patch+json", patch))
			}
			slices.Sort(test.Errors)
			if found := causes(err); !slices.Equal(found, test.Errors) {
				t.Fatalf("expected the errors\n%q\nfound\n%q", test.Errors, found)
			}
			if err == nil {
				if err := c.Get(t.Context(), client.ObjectKeyFromObject(object), object); err != nil {
					t.Fatal(err)
				}
				if !reflect.DeepEqual(merge(object.Object, test.Result), merge(object.Object, nil)) {
					t.Errorf("expected %v in %v", test.Result, object.Object)
				}
			}
		})
	}
}

// Apply configurations make a pool and an adapter, and a second owner's status leaves the first one's fields alone.
func testApply(t *testing.T, c client.Client) {
	in := namespace(t, c, "apply")
	source := apply.Source().WithOCI(apply.OCISource().WithRef("localhost:5001/samples/digits-parity:v1"))
	adapter := apply.LoRAAdapter("parity", in).WithSpec(apply.LoRAAdapterSpec().
		WithPoolRef(apply.PoolReference().WithName("digits")).WithSource(source).WithClassNames("even", "odd"))
	pool := apply.InferencePool("digits", in).WithSpec(apply.InferencePoolSpec().
		WithBaseModel(apply.BaseModel().WithSource(source)).WithReplicas(0))
	for _, err := range []error{
		c.Apply(t.Context(), adapter, client.FieldOwner("user")),
		c.Apply(t.Context(), pool, client.FieldOwner("user")),
		c.Status().Apply(t.Context(), apply.LoRAAdapter("parity", in).WithStatus(
			apply.LoRAAdapterStatus().WithObservedGeneration(1).WithPods(apply.PodCounts().
				WithDesired(2).WithReady(0).WithFailed(0))), client.FieldOwner("manager"), client.ForceOwnership),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	var got v1alpha1.LoRAAdapter
	if err := c.Get(t.Context(), client.ObjectKey{Namespace: in, Name: "parity"}, &got); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got.Spec.ClassNames, []string{"even", "odd"}) || got.Status.ObservedGeneration != 1 ||
		got.Status.Pods != (v1alpha1.PodCounts{Desired: 2}) {
		t.Errorf("expected the applied spec and status, found %+v", got)
	}
}

func namespace(t *testing.T, c client.Client, name string) string {
	t.Helper()
	if err := c.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}); err != nil {
		t.Fatal(err)
	}
	return name
}

// causes are the errors that an apiserver refuses an object with, sorted.
func causes(err error) []string {
	if err == nil {
		return nil
	}
	status, ok := errors.AsType[*apierrors.StatusError](err)
	if !ok || status.Status().Details == nil {
		return []string{err.Error()}
	}
	var found []string
	for _, c := range status.Status().Details.Causes {
		found = append(found, c.Field+": "+c.Message)
	}
	slices.Sort(found)
	return found
}

// merge is a JSON merge patch, with numbers as JSON has them.
func merge(base, patch map[string]any) map[string]any {
	merged := maps.Clone(base)
	if merged == nil {
		merged = map[string]any{}
	}
	for key, value := range patch {
		switch v := value.(type) {
		case nil:
			delete(merged, key)
		case map[string]any:
			inner, _ := merged[key].(map[string]any)
			merged[key] = merge(inner, v)
		default:
			merged[key] = value
		}
	}
	var decoded map[string]any
	encoded, err := json.Marshal(merged)
	if err == nil {
		err = json.Unmarshal(encoded, &decoded)
	}
	if err != nil {
		panic(err) // of values that came from JSON
	}
	return decoded
}
