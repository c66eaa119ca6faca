// Package e2e tests Switchyard as an operator of clusters meets it: installed by kustomize and by the Helm chart into a
// real cluster, used, disturbed, and uninstalled. Everything is asked of the API server and of pods, so any cluster
// will do:
//
//	make e2e                              in a cluster of its own (hack/cluster), as root
//	E2E_KUBECONFIG=~/.kube/kind make e2e  in one that has the images of `go run ./hack/images manager runtime e2e`
//
// Without E2E_KUBECONFIG its tests are skipped.
package e2e
