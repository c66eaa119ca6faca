//go:build !failpoints

package agent

// failpoint is where tests have a process end (failpoint_on.go). What is shipped has nothing of it.
func failpoint(string) {}
