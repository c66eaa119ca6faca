// Package cluster is a real Kubernetes cluster of one node on this machine, without Docker: the control plane of
// test/controlplane with all its controllers, kube-scheduler, kubelet, containerd, kube-proxy and CoreDNS. hack/cluster
// is made of it, and so is `make e2e`.
//
// It needs root, and Debian's containerd, runc, containernetworking-plugins, nftables and iproute2. The node's programs
// are those of hack/controlplane/build node.
//
// Everything lives in mount, PID and network namespaces of its own ([Command]), whose first process reaps ([Init]).
// When that ends, however it ends, the kernel ends every process and container, and takes away what was mounted there.
// Three things lie outside: a folder, a cgroup, and the link from the machine ([Clean]).
//
// Where it differs from a cluster of one's own: NetworkPolicies are kept and not enforced, as the bridge plugin knows
// none; nothing is reached but the machine, by the link to it; connections to Services come from the node's address.
package cluster
