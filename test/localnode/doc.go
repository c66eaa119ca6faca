// Package localnode stands in for scheduler, kubelet and Service addresses where there are no containers: the pods of a
// real apiserver (test/controlplane) run as processes on loopback.
//
//	node, err := localnode.New(localnode.Options{
//		Config: plane.Config(), Dir: filepath.Join(dir, "node"),
//		Images: map[string]string{"switchyard/runtime:dev": "bin/runtime"},
//	})
//	if err != nil {
//		return err
//	}
//	go node.Run(ctx) // until ctx ends; every process is gone when it returns
//	address, err := localnode.ServiceAddress(ctx, client, "demo", "digits") // 127.0.2.1
//
// A pod gets an address 127.0.1.N, and a Service 127.0.2.N (annotated on it as [AddressAnnotation]). A second
// localnode on the same machine gets 127.1.1.N and 127.1.2.N, and so on: the first number that no other holds, so that
// tests run beside each other and beside `make up`.
//
// A container is a process: the image's name maps to a binary, `command` replaces it (one of the binary's own name
// means the binary itself), arguments and environment are made as the kubelet makes them. There is no file system of
// its own: volumes are folders below Dir, and a mount path that begins an argument or a variable's value, or what
// follows its first "=", is rewritten to the folder. So a program must take every such path by flag or variable. That
// holds for its token too: client-go's InClusterConfig has its path fixed, so pass it, as in
// --token-file=/var/run/secrets/kubernetes.io/serviceaccount/token. A mount at /tmp becomes TMPDIR.
//
// Output goes to Dir/logs/<namespace>_<pod>_<container>.log, bounded.
//
// Invariants:
//   - Every start of a container has a new containerID and a startedAt that is not after its first instruction.
//   - A Service's address leads only to pods that are Ready and not being deleted, as of this node's watch; a
//     connection that finds none is closed. Connections that stand go on while their pod drains.
//   - A pod is out of the balance before its process gets SIGTERM, and its object is gone only after its processes are.
//   - No process outlives this one, however it ends; one that did is killed by the next Run over the same Dir, which
//     starts the containers again as restarts.
//   - What is not understood (init containers, exec probes, other volumes) keeps the container waiting with a message,
//     as a kubelet does with what it cannot run. Not enforced, and so ignored: limits, securityContext, read-only
//     mounts, affinity, topology spread, taints, network policies.
package localnode
