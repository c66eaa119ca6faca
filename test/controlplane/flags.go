package controlplane

import (
	"path/filepath"
	"strings"
)

func etcdFlags(dir string, port int) []string {
	url := "http://" + address(port)
	return []string{
		"--name=local",
		"--data-dir=" + filepath.Join(dir, "etcd"),
		"--listen-client-urls=" + url,
		"--advertise-client-urls=" + url,
		"--listen-peer-urls=http://127.0.0.1:0", // it has no peers
		"--unsafe-no-fsync",
		"--log-level=warn",
	}
}

func apiserverFlags(o Options, files credentials, storage int, port string) []string {
	flags := []string{
		"--etcd-servers=http://" + address(storage),
		"--bind-address=" + o.host(),
		"--advertise-address=" + o.host(),
		"--secure-port=" + port,
		"--tls-cert-file=" + files.path("apiserver.crt"),
		"--tls-private-key-file=" + files.path("apiserver.key"),
		"--client-ca-file=" + files.path("ca.crt"),
		"--service-cluster-ip-range=" + o.services(),
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file=" + files.path("service-account.key"),
		"--service-account-signing-key-file=" + files.path("service-account.key"),
		"--allow-privileged=true",
		"--profiling=false",
	}
	if o.Nodes == nil {
		return append(flags,
			"--authorization-mode=RBAC",
			"--endpoint-reconciler-type=none", // of the Service kubernetes: Endpoints refuse loopback addresses
		)
	}
	return append(flags,
		"--authorization-mode=Node,RBAC",
		"--enable-admission-plugins=NodeRestriction",
		"--kubelet-certificate-authority="+files.path("ca.crt"),
		"--kubelet-client-certificate="+files.path("kubelet-client.crt"),
		"--kubelet-client-key="+files.path("kubelet-client.key"),
		"--kubelet-preferred-address-types=InternalIP", // names of nodes are known to nobody
	)
}

// needed are the controllers that a place without nodes needs; each costs something at start.
var needed = []string{
	"deployment-controller",
	"replicaset-controller",
	"garbage-collector-controller",
	"namespace-controller",
	"serviceaccount-controller",
	"serviceaccount-token-controller",
	"root-ca-certificate-publisher-controller", // every pod's token volume mounts its ConfigMap
	"clusterrole-aggregation-controller",
	"disruption-controller",
	"validatingadmissionpolicy-status-controller",
}

func controllerFlags(o Options, files credentials) []string {
	run := needed
	if o.Nodes != nil {
		run = []string{"*"}
	}
	return []string{
		"--kubeconfig=" + filepath.Join(o.Dir, "controllers.kubeconfig"),
		"--leader-elect=false",
		"--controllers=" + strings.Join(run, ","),
		"--root-ca-file=" + files.path("ca.crt"),
		"--service-account-private-key-file=" + files.path("service-account.key"),
		"--kube-api-qps=500",
		"--kube-api-burst=1000",
		"--secure-port=0", // nobody asks it; the service account says that it works
		"--profiling=false",
	}
}
