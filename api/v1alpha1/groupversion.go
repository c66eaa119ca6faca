// Package v1alpha1 is the API of Switchyard, group switchyard.dev. A field exists only once it works.
//
// +kubebuilder:object:generate=true
// +kubebuilder:ac:generate=true
// +kubebuilder:ac:output:package="applyconfiguration"
// +groupName=switchyard.dev
package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// GroupVersion is the group and version of these types.
var GroupVersion = schema.GroupVersion{Group: "switchyard.dev", Version: "v1alpha1"}

// SchemeGroupVersion is GroupVersion, under the name that generated code asks for.
var SchemeGroupVersion = GroupVersion

var (
	// SchemeBuilder collects the types.
	SchemeBuilder = runtime.NewSchemeBuilder(addKnownTypes)
	// AddToScheme adds the types to a scheme.
	AddToScheme = SchemeBuilder.AddToScheme
)

func addKnownTypes(scheme *runtime.Scheme) error {
	scheme.AddKnownTypes(GroupVersion,
		&InferencePool{}, &InferencePoolList{},
		&LoRAAdapter{}, &LoRAAdapterList{},
		&AdapterAssignment{}, &AdapterAssignmentList{},
	)
	metav1.AddToGroupVersion(scheme, GroupVersion)
	return nil
}
