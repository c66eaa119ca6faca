package e2e

import (
	"path/filepath"
	"testing"
)

// system is the namespace of the manager and the artifact registry.
const system = "switchyard-system"

// installer is a way to install Switchyard as a user does, and to take it away again.
type installer interface {
	install(t *testing.T, c *cluster)
	uninstall(t *testing.T, c *cluster)
}

// byKustomize installs config/default, by the overlay that names the images.
type byKustomize struct{}

func (byKustomize) install(t *testing.T, c *cluster) {
	c.kubectl(t, "apply", "--server-side", "-k", "test/e2e/kustomize")
}

func (byKustomize) uninstall(t *testing.T, c *cluster) {
	c.kubectl(t, "delete", "-k", "test/e2e/kustomize", "--timeout=2m")
}

// byHelm installs the chart, and takes it away with its kinds, as docs/operations.md says.
type byHelm struct{}

func (byHelm) install(t *testing.T, c *cluster) {
	c.kubectl(t, "create", "namespace", system)
	c.kubectl(t, "label", "namespace", system, "pod-security.kubernetes.io/enforce=restricted")
	c.helm(t, "install", "switchyard", "charts/switchyard", "--values", "test/e2e/files/values.yaml")
}

func (byHelm) uninstall(t *testing.T, c *cluster) {
	c.helm(t, "upgrade", "switchyard", "charts/switchyard", "--reuse-values", "--set", "crds.keep=false")
	c.helm(t, "uninstall", "switchyard")
	c.kubectl(t, "delete", "namespace", system, "--timeout=2m")
}

func (c *cluster) helm(t *testing.T, args ...string) {
	t.Helper()
	c.run(t, filepath.Join("hack", "helm"), append(args, "--namespace", system, "--wait", "--timeout", "3m")...)
}

func TestInstalledByKustomize(t *testing.T) { use(t, byKustomize{}) }

func TestInstalledByHelm(t *testing.T) { use(t, byHelm{}) }
