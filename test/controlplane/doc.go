// Package controlplane runs a real Kubernetes control plane on loopback: etcd, kube-apiserver and
// kube-controller-manager as processes, for tests and for the local place. It has no nodes: test/localnode is one.
//
//	plane, err := controlplane.Start(ctx, controlplane.Options{Dir: t.TempDir(), CRDs: []string{"../../config/crd"}})
//	if err != nil {
//		return err
//	}
//	defer plane.Stop()
//	client := kubernetes.NewForConfigOrDie(plane.Config())
//	err = plane.ServiceAccountKubeconfig(ctx, "switchyard-system", "manager", filepath.Join(dir, "manager.kubeconfig"))
//
// envtest takes the same binaries: os.Setenv("KUBEBUILDER_ASSETS", assets), with assets from [Assets].
//
// Invariants:
//   - Start returns once the apiserver is ready, the namespace default has its service account, and the CRDs are
//     established; or with an error that carries the end of the logs, and nothing left running.
//   - Without Options.Detach the processes die with their parent, however it dies. With it they stay until [Stop].
//   - A process is known by its id and the time it started, so Stop never hits a stranger that got the id later.
//   - Everything is in Options.Dir: certificates, keys, etcd's data, logs, process ids. A Start over the same folder
//     finds the cluster as it was, at the same address unless somebody took the port.
//
// What differs from a cluster: every request is authorized by RBAC, but the controllers share one identity of
// system:masters, since an account for each costs seconds at start; etcd never waits for the disk; the EndpointSlice
// controllers are off, since slices refuse loopback addresses.
package controlplane
