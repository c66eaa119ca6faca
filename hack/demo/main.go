// Command demo shows the whole on the samples, and exits with 0 only if all is right.
//
//	demo cluster      through Kubernetes: kubectl apply, wait, a mixed batch, a new revision under load
//	demo standalone   from a folder of adapters: a mixed batch
//
// It ends by itself and leaves nothing running.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
)

// pool is the sample's.
const pool = "digits"

func main() {
	bin := flag.String("bin", "bin", "`folder` of the binaries")
	repository := flag.String("repository", ".", "`folder` of this repository")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	var err error
	switch sample := filepath.Join(*repository, "hack", "samples", "digits"); flag.Arg(0) {
	case "cluster":
		err = clusterDemo(ctx, *bin, *repository, os.Stdout)
	case "standalone":
		err = standaloneDemo(ctx, filepath.Join(*bin, "runtime"), sample, os.Stdout)
	default:
		err = fmt.Errorf("expected cluster or standalone, found %q", flag.Arg(0))
	}
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}
