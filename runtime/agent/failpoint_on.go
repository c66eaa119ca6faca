//go:build failpoints

package agent

import (
	"encoding/json"
	"os"
	"path/filepath"
	"syscall"
)

// failpoint ends the process as the kernel does when memory runs out, or a fault of the runtime, where the config.json
// beside an adapter asks for it: {"switchyard_failpoint": "kill"}. For tests of what becomes of the pod and the others.
func failpoint(folder string) {
	var config struct {
		Failpoint string `json:"switchyard_failpoint"`
	}
	raw, err := os.ReadFile(filepath.Join(folder, "config.json"))
	if err != nil || json.Unmarshal(raw, &config) != nil || config.Failpoint != "kill" {
		return
	}
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {} // it has not arrived yet
}
