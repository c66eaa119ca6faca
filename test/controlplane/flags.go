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

func apiserverFlags(files credentials, storage int, port string) []string {
	return []string{
		"--etcd-servers=http://" + address(storage),
		"--bind-address=127.0.0.1",
		"--advertise-address=127.0.0.1",
		"--secure-port=" + port,
		"--endpoint-reconciler-type=none", // of the Service kubernetes: Endpoints refuse loopback addresses
		"--tls-cert-file=" + files.path("apiserver.crt"),
		"--tls-private-key-file=" + files.path("apiserver.key"),
		"--client-ca-file=" + files.path("ca.crt"),
		"--authorization-mode=RBAC",
		"--service-cluster-ip-range=10.0.0.0/24",
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file=" + files.path("service-account.key"),
		"--service-account-signing-key-file=" + files.path("service-account.key"),
		"--allow-privileged=true",
		"--profiling=false",
	}
}

// controllerFlags name the controllers that the local place needs; each costs something at start.
func controllerFlags(dir string, files credentials) []string {
	kubeconfig := filepath.Join(dir, "controllers.kubeconfig")
	return []string{
		"--kubeconfig=" + kubeconfig,
		"--leader-elect=false",
		"--controllers=" + strings.Join([]string{
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
		}, ","),
		"--root-ca-file=" + files.path("ca.crt"),
		"--service-account-private-key-file=" + files.path("service-account.key"),
		"--kube-api-qps=500",
		"--kube-api-burst=1000",
		"--secure-port=0", // nobody asks it; the service account says that it works
		"--profiling=false",
	}
}
