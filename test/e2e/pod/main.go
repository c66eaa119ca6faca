// Command pod is what test/e2e runs in pods of its own, beside Switchyard's:
//
//	source   serves a source registry with the samples, which are in its image
//	ask      asks the pool of a sample, which has its name, one mixed batch, and fails if not all is right
//	load     asks an adapter until it is told to end, and says each second what came back
//	crash    ends the first process of the container that it shares processes with, as a fault of its own would
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/switchyard-dev/switchyard/controllers/artifact/registry"
	"github.com/switchyard-dev/switchyard/test/digits"
	"github.com/switchyard-dev/switchyard/test/load"
	"github.com/switchyard-dev/switchyard/test/ocisource"
	"github.com/switchyard-dev/switchyard/test/packages"
)

const (
	samples = "/samples" // in the image
	port    = "5000"     // of the source registry
	clients = 4
)

// ask asks the pool of a sample.
var ask = map[string]func(ctx context.Context, url, pool, sample string, out io.Writer) error{
	"digits": digits.AskMixedBatch, "packages": packages.AskMixedBatch,
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "pod:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return errors.New("expected source, ask, load or crash, found nothing")
	}
	set := flag.NewFlagSet(args[0], flag.ContinueOnError)
	url := set.String("url", "", "`URL` of the inference protocol")
	model := set.String("model", "", "`name` of the pool or the adapter")
	dir := set.String("dir", "", "`folder` of the source registry")
	if err := set.Parse(args[1:]); err != nil {
		return err
	}
	switch args[0] {
	case "source":
		return source(ctx, *dir)
	case "ask":
		if ask[*model] == nil {
			return fmt.Errorf("-model: expected the name of a sample, found %q", *model)
		}
		return ask[*model](ctx, *url, *model, filepath.Join(samples, *model), os.Stdout)
	case "load":
		return keepAsking(ctx, *url, *model)
	case "crash":
		// SIGKILL does not reach the first process of a PID namespace from within; Go's programs end by this one.
		return syscall.Kill(1, syscall.SIGQUIT)
	}
	return fmt.Errorf("expected source, ask, load or crash, found %q", args[0])
}

func source(ctx context.Context, dir string) error {
	r, err := registry.New(registry.Options{Dir: dir, AllowPush: true}) //nolint:contextcheck // Close ends it
	if err != nil {
		return err
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", ":"+port)
	if err != nil {
		return err
	}
	served := make(chan error, 1)
	go func() { served <- r.Serve(ctx, listener) }()
	for name := range ask {
		if err := ocisource.PushSample(ctx, "localhost:"+port, filepath.Join(samples, name)); err != nil {
			return err
		}
	}
	go func() { // tells that all is there
		ready := &http.Server{Addr: ":8080", ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(
			func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })}
		served <- ready.ListenAndServe()
	}()
	return <-served
}

// keepAsking prints a load.Count as a line of JSON each second.
func keepAsking(ctx context.Context, url, adapter string) error {
	images, _, err := digits.Images(filepath.Join(samples, "digits"))
	if err != nil {
		return err
	}
	asking := load.Start(ctx, url, adapter, images[0].PNG, clients)
	defer asking.Stop()
	out := json.NewEncoder(os.Stdout)
	wait.UntilWithContext(ctx, func(context.Context) { err = out.Encode(asking.Count()) }, time.Second)
	return err
}
