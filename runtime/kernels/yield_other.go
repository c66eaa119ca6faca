//go:build !linux

package kernels

import "runtime"

// yield lets other goroutines run.
func yield() { runtime.Gosched() }
