package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/metrics/filters"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
)

const (
	// namespaceFile is where a pod finds the name of its namespace.
	namespaceFile = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"
	// maxToken is far more than any token or name.
	maxToken = 16 << 10
)

// cluster is how the API server is reached: as a kubeconfig says, or as a pod does.
func cluster(kubeconfig string) (*rest.Config, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("cluster: %w", err)
	}
	return config, nil
}

// ownNamespace is this pod's, where a flag has not said.
func ownNamespace(given string) (string, error) {
	if given != "" {
		return given, nil
	}
	found, err := readSmall(namespaceFile)
	if errors.Is(err, fs.ErrNotExist) {
		return "", errors.New("expected --namespace where this is not a pod with a service account")
	}
	return found, err
}

// readSmall reads a file of one word: a token, a name.
func readSmall(path string) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer func() { _ = file.Close() }() // only read
	raw, err := io.ReadAll(io.LimitReader(file, maxToken+1))
	if err != nil {
		return "", err
	}
	word := strings.TrimSpace(string(raw))
	if word == "" || len(raw) > maxToken {
		return "", fmt.Errorf("%s: expected 1 to %d bytes, found %d", path, maxToken, len(raw))
	}
	return word, nil
}

// metricsOptions are those of /metrics: open to who may read them by RBAC, over TLS with a certificate of one start of
// the process; or to everybody without TLS.
func metricsOptions(address string, secure bool) metricsserver.Options {
	o := metricsserver.Options{BindAddress: address, SecureServing: secure}
	if secure {
		o.FilterProvider = filters.WithAuthenticationAndAuthorization
	}
	return o
}
