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

// byHelm installs the chart.
type byHelm struct{}

func (byHelm) install(t *testing.T, c *cluster) {
	c.run(t, filepath.Join("hack", "helm"), "install", "switchyard", "charts/switchyard",
		"--namespace", system, "--create-namespace", "--values", "test/e2e/files/values.yaml", "--wait", "--timeout", "3m")
}

func (byHelm) uninstall(t *testing.T, c *cluster) {
	c.run(t, filepath.Join("hack", "helm"), "uninstall", "switchyard", "--namespace", system, "--wait", "--timeout", "3m")
	c.kubectl(t, "delete", "namespace", system, "--timeout=2m")
}

func TestInstalledByKustomize(t *testing.T) { use(t, byKustomize{}) }

func TestInstalledByHelm(t *testing.T) { use(t, byHelm{}) }
