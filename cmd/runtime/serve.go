package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/errgroup"

	"github.com/switchyard-dev/switchyard/runtime/adapters"
	"github.com/switchyard-dev/switchyard/runtime/batcher"
	"github.com/switchyard-dev/switchyard/runtime/engine"
	"github.com/switchyard-dev/switchyard/runtime/model"
	"github.com/switchyard-dev/switchyard/runtime/preprocess"
	"github.com/switchyard-dev/switchyard/runtime/server"
	"github.com/switchyard-dev/switchyard/runtime/weights"
)

const (
	// Beyond a few rows a batch gains nothing on CPUs, and a long one makes the next request wait.
	maxBatchRows = 32
	// A request's rows and the rows in flight bound memory: a row of ViT-B holds 600 KiB of pixels.
	maxRequestRows  = 256
	maxRowsInFlight = 512
	maxBodyBytes    = 64 << 20

	// Of a request's header, and of a body that nobody reads; the server gives the bodies it reads their own time.
	readTimeout  = 10 * time.Second
	drainTimeout = 30 * time.Second
)

// errUsage says that the flags were wrong and the user has been told.
var errUsage = errors.New("usage")

type serveFlags struct {
	baseModel, adapters, name   string
	httpAddress, metricsAddress string
}

func parseServeFlags(args []string) (*serveFlags, error) {
	var f serveFlags
	set := flag.NewFlagSet("runtime serve", flag.ContinueOnError)
	set.StringVar(&f.baseModel, "base-model", "", "`folder` of the base model, as HuggingFace saves it")
	set.StringVar(&f.adapters, "adapters", "", "`folder` in which every folder is a PEFT adapter, served under its name")
	set.StringVar(&f.name, "name", "", "the base model's `name` in requests (default: its folder's)")
	set.StringVar(&f.httpAddress, "http-address", "127.0.0.1:8080", "`address` of the inference protocol")
	set.StringVar(&f.metricsAddress, "metrics-address", "127.0.0.1:9090", "`address` of /metrics")
	if err := set.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil, nil
		}
		return nil, errUsage // the flag set has said what is wrong
	}
	if f.baseModel == "" || f.adapters == "" || set.NArg() > 0 {
		fmt.Fprintln(set.Output(), "expected --base-model and --adapters, and no other arguments")
		set.Usage()
		return nil, errUsage
	}
	return &f, nil
}

// serve runs the data plane until ctx ends, then answers what it has admitted.
func serve(ctx context.Context, args []string, log *slog.Logger) error {
	f, err := parseServeFlags(args)
	if f == nil || err != nil {
		return err
	}
	base, name, err := openBase(f.baseModel, log)
	if err != nil {
		return fmt.Errorf("base model %s: %w", f.baseModel, err)
	}
	if f.name != "" {
		name = f.name
	}
	dir, err := weights.OpenFolder(f.adapters)
	if err != nil {
		return fmt.Errorf("adapters: %w", err)
	}
	defer func() { _ = dir.Close() }()
	var images *preprocess.Image
	if base.Preprocessor != nil {
		size := base.Description.Image
		if images, err = preprocess.ParseImage(base.Preprocessor, size.Channels, size.Height, size.Width); err != nil {
			return fmt.Errorf("base model %s: %w", f.baseModel, err)
		}
	}

	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	eng := engine.New(base, runtime.GOMAXPROCS(0))
	defer eng.Close()
	set := adapters.New(eng)
	queue := batcher.New(eng, batcher.Options{
		MaxBatchRows: maxBatchRows, MaxQueueRows: maxRowsInFlight, Observe: server.NewBatchObserver(registry),
	})
	defer queue.Close()
	front := server.New(set, queue, images, server.Options{
		Name: name, MaxBodyBytes: maxBodyBytes, MaxRows: maxRequestRows, MaxRowsInFlight: maxRowsInFlight,
		Log: log, Registry: registry,
	})
	// The names are known before the first request is answered: an adapter still loading is a 503, not a 404.
	load, err := set.FromFolder(dir, []string{name, server.BaseName}, log)
	if err != nil {
		return fmt.Errorf("adapters %s: %w", f.adapters, err)
	}

	metrics := http.NewServeMux()
	metrics.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		load(ctx)
		log.Info("ready")
		return nil
	})
	if err := listen(ctx, group, "http", f.httpAddress, front.Handler(), front.Drain, log); err != nil {
		return err
	}
	if err := listen(ctx, group, "metrics", f.metricsAddress, metrics, func() {}, log); err != nil {
		return err
	}
	if err := group.Wait(); err != nil {
		return err
	}
	log.Info("drained")
	return nil
}

// openBase opens the base model; name is its folder's.
func openBase(path string, log *slog.Logger) (base *model.Base, name string, err error) {
	folder, err := weights.OpenFolder(path)
	if err != nil {
		return nil, "", err
	}
	defer func() { _ = folder.Close() }()
	if base, err = model.Open(folder); err != nil {
		return nil, "", err
	}
	log.Info("base model loaded", "name", folder.Name(), "architecture", base.Description.Architecture,
		"revision", base.Digest, "labels", len(base.Description.Labels))
	if len(base.Unused) > 0 {
		log.Warn("the base model's file has tensors that nothing asks for", "tensors", base.Unused)
	}
	return base, folder.Name(), nil
}

// listen serves handler until ctx ends; then it calls drain and waits for the requests under way.
func listen(
	ctx context.Context, group *errgroup.Group, what, address string, handler http.Handler, drain func(), log *slog.Logger,
) error {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	srv := &http.Server{
		Handler: handler, ReadTimeout: readTimeout, IdleTimeout: 2 * time.Minute,
		MaxHeaderBytes: 64 << 10, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	log.Info("listening", "for", what, "address", listener.Addr().String())
	group.Go(func() error {
		if err := srv.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("%s: %w", what, err)
		}
		return nil
	})
	group.Go(func() error {
		<-ctx.Done()
		drain()
		draining, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
		defer cancel()
		if err := srv.Shutdown(draining); err != nil {
			_ = srv.Close() // ends their contexts, and so their rows
			return fmt.Errorf("%s: requests still under way after %s: %w", what, drainTimeout, err)
		}
		return nil
	})
	return nil
}
