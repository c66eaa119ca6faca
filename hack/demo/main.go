// Command demo shows the whole on the samples, and exits with 0 only if all is right.
//
//	demo cluster      through Kubernetes: kubectl apply, wait, a mixed batch in each pool, a new revision under load
//	demo standalone   from folders of adapters: a mixed batch of each sample
//
// It ends by itself and leaves nothing running.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/switchyard-dev/switchyard/test/digits"
	"github.com/switchyard-dev/switchyard/test/packages"
)

// samples are those of hack/samples, each with a pool of its name.
var samples = []struct {
	name          string
	askMixedBatch func(ctx context.Context, url, pool, sample string, out io.Writer) error
}{
	{"digits", digits.AskMixedBatch},
	{"packages", packages.AskMixedBatch},
}

func main() {
	bin := flag.String("bin", "bin", "`folder` of the binaries")
	repository := flag.String("repository", ".", "`folder` of this repository")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	var err error
	switch flag.Arg(0) {
	case "cluster":
		err = clusterDemo(ctx, *bin, *repository, os.Stdout)
	case "standalone":
		err = standaloneDemo(ctx, filepath.Join(*bin, "runtime"), *repository, os.Stdout)
	default:
		err = fmt.Errorf("expected cluster or standalone, found %q", flag.Arg(0))
	}
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}
