package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"golang.org/x/sync/errgroup"

	"github.com/switchyard-dev/switchyard/cmd/logging"
	"github.com/switchyard-dev/switchyard/runtime/arch"
	"github.com/switchyard-dev/switchyard/runtime/model"
	"github.com/switchyard-dev/switchyard/runtime/server"
	"github.com/switchyard-dev/switchyard/runtime/server/rpc"
	"github.com/switchyard-dev/switchyard/runtime/weights"
)

// errUsage says that the flags were wrong and the user has been told.
var errUsage = errors.New("usage")

type serveFlags struct {
	baseModel, adapters, name   string
	dtype                       arch.DType
	queue                       queueFlags
	logging                     logging.Flags
	httpAddress, metricsAddress string
	grpcAddress                 string
}

func parseServeFlags(args []string) (*serveFlags, error) {
	var f serveFlags
	set := flag.NewFlagSet("runtime serve", flag.ContinueOnError)
	set.StringVar(&f.baseModel, "base-model", "", "`folder` of the base model, as HuggingFace saves it")
	set.StringVar(&f.adapters, "adapters", "", "`folder` in which every folder is a PEFT adapter, served under its name")
	set.StringVar(&f.name, "name", "", "the base model's `name` in requests (default: its folder's)")
	dtypeVar(set, &f.dtype)
	f.queue.define(set)
	f.logging.Define(set)
	set.StringVar(&f.httpAddress, "http-address", "127.0.0.1:8080", "`address` of the inference protocol")
	set.StringVar(&f.grpcAddress, "grpc-address", "127.0.0.1:8081", "`address` of the inference protocol over gRPC")
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

// dtypeVar defines --dtype.
func dtypeVar(set *flag.FlagSet, dtype *arch.DType) {
	*dtype = arch.Float32
	set.Func("dtype", "`type` that the base model's weights are kept as: float32, or bfloat16 in half the memory "+
		"(default float32)", func(name string) (err error) {
		*dtype, err = arch.ParseDType(name)
		return err
	})
}

// serve runs the data plane over a folder of adapters until ctx ends, then answers what it has admitted.
func serve(ctx context.Context, args []string, given *slog.Logger) error {
	f, err := parseServeFlags(args)
	if f == nil || err != nil {
		return err
	}
	process, err := begin(ctx, &f.logging, given)
	if err != nil {
		return err
	}
	defer process.end(ctx)
	log := process.log
	base, name, err := openBase(f.baseModel, f.dtype, log)
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
	registry := newRegistry()
	cacheDir := ""
	if user, err := os.UserCacheDir(); err == nil {
		cacheDir = filepath.Join(user, "switchyard", "compiled")
	}
	plane, err := newDataPlane(ctx, base, f.queue, cacheDir, registry, process)
	if err != nil {
		return fmt.Errorf("base model %s: %w", f.baseModel, err)
	}
	defer plane.close(ctx)
	front := plane.front(name, nil, registry)
	// The names are known before the first request is answered: an adapter still loading is a 503, not a 404.
	load, err := plane.set.FromFolder(dir, []string{name, server.BaseName}, log)
	if err != nil {
		return fmt.Errorf("adapters %s: %w", f.adapters, err)
	}

	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		load(ctx)
		log.Info("ready")
		return nil
	})
	if err := listen(ctx, group, "http", f.httpAddress, overHTTP(front, process), front.Drain, log); err != nil {
		return err
	}
	grpc := overGRPC(process)
	grpc.Open(front)
	drain := func() {
		front.Drain()
		grpc.Drain()
	}
	if err := listen(ctx, group, "grpc", f.grpcAddress, grpc, drain, log, rpc.Configure); err != nil {
		return err
	}
	if err := listen(ctx, group, "metrics", f.metricsAddress, metricsHandler(registry), func() {}, log); err != nil {
		return err
	}
	if err := group.Wait(); err != nil {
		return err
	}
	log.Info("drained")
	return nil
}

// openBase opens the base model; name is its folder's.
func openBase(path string, dtype arch.DType, log *slog.Logger) (base *model.Base, name string, err error) {
	folder, err := weights.OpenFolder(path)
	if err != nil {
		return nil, "", err
	}
	defer func() { _ = folder.Close() }()
	if base, err = model.Open(folder, dtype); err != nil {
		return nil, "", err
	}
	logBase(log, folder.Name(), base)
	return base, folder.Name(), nil
}
