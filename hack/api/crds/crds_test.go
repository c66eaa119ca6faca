package crds

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	crdvalidation "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	"k8s.io/apiextensions-apiserver/pkg/registry/customresource"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	runtimeschema "k8s.io/apimachinery/pkg/runtime/schema"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/yaml"
)

// An apiserver would take the CRDs: their schemas are structural, their rules compile and cost little enough.
func TestCRDsAreValid(t *testing.T) {
	for kind, crd := range readCRDs(t) {
		for _, err := range crdvalidation.ValidateCustomResourceDefinition(t.Context(), crd) {
			t.Errorf("%s: %v", kind, err)
		}
	}
}

// What api/v1alpha1/testdata/validation.yaml says is accepted, refused and filled in, is so.
func TestValidation(t *testing.T) {
	var table struct {
		Bases map[string]json.RawMessage
		Cases []struct {
			Name, Base    string
			Update        bool
			Patch, Result json.RawMessage
			Errors        []string
		}
	}
	readYAML(t, "../../../api/v1alpha1/testdata/validation.yaml", &table)
	resources := map[string]*resource{}
	for kind, crd := range readCRDs(t) {
		resources[kind] = newResource(t, crd)
	}
	for _, c := range table.Cases {
		t.Run(c.Name, func(t *testing.T) {
			base := table.Bases[c.Base]
			kind := object(t, base).GetKind()
			var got *unstructured.Unstructured
			var errs field.ErrorList
			if c.Update {
				old := object(t, base)
				old.SetResourceVersion("1")
				if errs := resources[kind].create(t.Context(), old); len(errs) > 0 {
					t.Fatalf("the base is refused: %v", errs)
				}
				stored, err := old.MarshalJSON()
				if err != nil {
					t.Fatal(err)
				}
				got = object(t, merge(t, stored, c.Patch))
				errs = resources[kind].update(t.Context(), got, old)
			} else {
				got = object(t, merge(t, base, c.Patch))
				errs = resources[kind].create(t.Context(), got)
			}
			var messages []string
			for _, err := range errs {
				messages = append(messages, err.Error())
			}
			slices.Sort(messages) // those of one object come in any order
			slices.Sort(c.Errors)
			if !slices.Equal(messages, c.Errors) {
				t.Fatalf("expected the errors\n%q\nfound\n%q", c.Errors, messages)
			}
			if c.Result != nil {
				result, err := got.MarshalJSON()
				if err != nil {
					t.Fatal(err)
				}
				if !jsonpatch.Equal(result, merge(t, result, c.Result)) {
					t.Errorf("expected %s in %s", c.Result, result)
				}
			}
		})
	}
}

// resource checks objects of one CRD as an apiserver does.
type resource struct {
	structural *schema.Structural
	strategy   interface {
		PrepareForCreate(context.Context, runtime.Object)
		PrepareForUpdate(ctx context.Context, obj, old runtime.Object)
		Validate(context.Context, runtime.Object) field.ErrorList
		ValidateUpdate(ctx context.Context, obj, old runtime.Object) field.ErrorList
	}
}

func newResource(t *testing.T, crd *apiextensions.CustomResourceDefinition) *resource {
	t.Helper()
	version := crd.Spec.Versions[0]
	if crd.Spec.Validation == nil { // the conversion hoists what is the same for all versions, which of one is all
		t.Fatalf("%s: expected one version", crd.Name)
	}
	structural, err := schema.NewStructural(crd.Spec.Validation.OpenAPIV3Schema)
	if err != nil {
		t.Fatal(err)
	}
	validator, _, err := validation.NewSchemaValidator(crd.Spec.Validation.OpenAPIV3Schema)
	if err != nil {
		t.Fatal(err)
	}
	statusSchema := crd.Spec.Validation.OpenAPIV3Schema.Properties["status"]
	statusValidator, _, err := validation.NewSchemaValidator(&statusSchema)
	if err != nil {
		t.Fatal(err)
	}
	gvk := runtimeschema.GroupVersionKind{Group: crd.Spec.Group, Version: version.Name, Kind: crd.Spec.Names.Kind}
	return &resource{structural, customresource.NewStrategy(nil, true, gvk, validator, statusValidator, structural,
		crd.Spec.Subresources.Status, crd.Spec.Subresources.Scale, nil)}
}

// create makes of an object what an apiserver would store, or says why not.
func (r *resource) create(ctx context.Context, u *unstructured.Unstructured) field.ErrorList {
	r.decode(u)
	r.strategy.PrepareForCreate(ctx, u)
	errs := r.strategy.Validate(ctx, u)
	r.decode(u) // what it reads back has the defaults of its status
	return errs
}

func (r *resource) update(ctx context.Context, u, old *unstructured.Unstructured) field.ErrorList {
	r.decode(u)
	r.strategy.PrepareForUpdate(ctx, u, old)
	return r.strategy.ValidateUpdate(ctx, u, old)
}

func (r *resource) decode(u *unstructured.Unstructured) {
	pruning.Prune(u.Object, r.structural, true)
	defaulting.PruneNonNullableNullsWithoutDefaults(u.Object, r.structural)
	defaulting.Default(u.Object, r.structural)
}

// readCRDs reads what is generated, by kind.
func readCRDs(t *testing.T) map[string]*apiextensions.CustomResourceDefinition {
	t.Helper()
	paths, err := filepath.Glob("../../../config/crd/switchyard.dev_*.yaml")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no CRDs in config/crd: %v", err)
	}
	crds := map[string]*apiextensions.CustomResourceDefinition{}
	for _, path := range paths {
		var external apiextensionsv1.CustomResourceDefinition
		readYAML(t, path, &external)
		apiextensionsv1.SetDefaults_CustomResourceDefinition(&external)
		apiextensionsv1.SetDefaults_CustomResourceDefinitionSpec(&external.Spec)
		external.Status.StoredVersions = []string{external.Spec.Versions[0].Name}
		var crd apiextensions.CustomResourceDefinition
		err := apiextensionsv1.Convert_v1_CustomResourceDefinition_To_apiextensions_CustomResourceDefinition(
			&external, &crd, nil)
		if err != nil {
			t.Fatal(err)
		}
		crds[crd.Spec.Names.Kind] = &crd
	}
	return crds
}

func readYAML(t *testing.T, path string, into any) {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.UnmarshalStrict(content, into); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

func merge(t *testing.T, base, patch []byte) []byte {
	t.Helper()
	if patch == nil {
		return base
	}
	merged, err := jsonpatch.MergePatch(base, patch)
	if err != nil {
		t.Fatal(err)
	}
	return merged
}

// object parses as an apiserver does, whole numbers as int64.
func object(t *testing.T, content []byte) *unstructured.Unstructured {
	t.Helper()
	u := &unstructured.Unstructured{}
	if err := utiljson.Unmarshal(content, &u.Object); err != nil {
		t.Fatal(err)
	}
	return u
}
