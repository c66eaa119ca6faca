package controlplane

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// version of Kubernetes, as in hack/controlplane/build and its go.mod.
const version = "v1.37.2"

// Assets is the folder of etcd, kube-apiserver, kube-controller-manager and kubectl, in the user's cache. Where they
// are missing it runs hack/controlplane/build, which takes minutes, once.
func Assets(ctx context.Context) (string, error) {
	cache := os.Getenv("XDG_CACHE_HOME")
	if cache == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", err
		}
		cache = filepath.Join(home, ".cache")
	}
	folder := filepath.Join(cache, "switchyard", "controlplane", version)
	if complete(folder) == nil {
		return folder, nil
	}
	script, err := buildScript()
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, script)
	cmd.Stderr = os.Stderr // it says that it will take minutes
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w", script, err)
	}
	folder = strings.TrimSpace(string(out))
	if err := complete(folder); err != nil {
		return "", fmt.Errorf("%s left its folder incomplete: %w", script, err)
	}
	return folder, nil
}

// complete says which binary is missing.
func complete(folder string) error {
	var missing []error
	for _, name := range []string{"etcd", "kube-apiserver", "kube-controller-manager", "kubectl"} {
		if _, err := os.Stat(filepath.Join(folder, name)); err != nil {
			missing = append(missing, err)
		}
	}
	return errors.Join(missing...)
}

// buildScript is found from the working folder upwards: tests run in their package's folder, commands in the
// repository's.
func buildScript() (string, error) {
	start, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for folder := start; ; folder = filepath.Dir(folder) {
		script := filepath.Join(folder, "hack", "controlplane", "build")
		if _, err := os.Stat(script); err == nil {
			return script, nil
		}
		if folder == filepath.Dir(folder) {
			return "", fmt.Errorf("no hack/controlplane/build in %s or above it: run within the repository", start)
		}
	}
}
