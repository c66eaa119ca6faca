// Package crds tests the generated CRDs on the libraries that an apiserver checks objects with: no server is needed, so
// every rule's message can be seen within a second. The same cases run on a real apiserver in api/v1alpha1.
package crds
