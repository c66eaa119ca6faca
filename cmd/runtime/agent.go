package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/switchyard-dev/switchyard/cmd/logging"
	"github.com/switchyard-dev/switchyard/runtime/agent"
	"github.com/switchyard-dev/switchyard/runtime/agent/artifacts"
	"github.com/switchyard-dev/switchyard/runtime/arch"
	"github.com/switchyard-dev/switchyard/runtime/server"
	"github.com/switchyard-dev/switchyard/runtime/server/rest"
	"github.com/switchyard-dev/switchyard/runtime/server/rpc"
)

type agentFlags struct {
	pool, podName, podNamespace string
	baseDigest                  string
	dtype                       arch.DType
	queue                       queueFlags
	logging                     logging.Flags
	registry, repository        string
	registryToken, registryCA   string
	cacheDir, serviceAccountDir string
	httpAddress, metricsAddress string
	grpcAddress                 string
	drainDelay                  time.Duration
}

func parseAgentFlags(args []string) (*agentFlags, error) {
	var f agentFlags
	set := flag.NewFlagSet("runtime agent", flag.ContinueOnError)
	set.StringVar(&f.pool, "pool", "", "the pool's `name`, and the base model's in requests")
	set.StringVar(&f.podName, "pod-name", "", "the pod's `name`, and its AdapterAssignment's")
	set.StringVar(&f.podNamespace, "pod-namespace", "", "the pod's `namespace` (default: the service account's)")
	set.StringVar(&f.baseDigest, "base-digest", "", "`digest` of the base model")
	dtypeVar(set, &f.dtype)
	f.queue.define(set)
	f.logging.Define(set)
	set.StringVar(&f.registry, "registry", "", "`address` of the artifact registry, https://host:port")
	set.StringVar(&f.repository, "repository", "", "`repository` of the artifact registry, namespace/pool")
	set.StringVar(&f.registryToken, "registry-token-file", "", "`file` with the pod's token for the artifact registry")
	set.StringVar(&f.registryCA, "registry-ca-file", "",
		"`file` with the certificates that the artifact registry's must come from")
	set.StringVar(&f.cacheDir, "cache-dir", "", "`folder` that lives as long as the pod, for artifacts")
	set.StringVar(&f.serviceAccountDir, "service-account-dir", "/var/run/secrets/kubernetes.io/serviceaccount",
		"`folder` of the pod's token, ca.crt and namespace")
	set.StringVar(&f.httpAddress, "http-address", ":8080", "`address` of the inference protocol")
	set.StringVar(&f.grpcAddress, "grpc-address", ":8081", "`address` of the inference protocol over gRPC")
	set.StringVar(&f.metricsAddress, "metrics-address", ":9090", "`address` of /metrics")
	set.DurationVar(&f.drainDelay, "drain-delay", 0,
		"how `long` to go on answering after SIGTERM, unready: balancers learn of it late")
	if err := set.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil, nil
		}
		return nil, errUsage // the flag set has said what is wrong
	}
	var missing []string
	for _, required := range []string{
		"pool", "pod-name", "base-digest", "registry", "repository", "registry-token-file", "registry-ca-file", "cache-dir",
	} {
		if set.Lookup(required).Value.String() == "" {
			missing = append(missing, "--"+required)
		}
	}
	if len(missing) > 0 || set.NArg() > 0 {
		fmt.Fprintf(set.Output(), "expected %sand no other arguments\n", strings.Join(append(missing, ""), ", "))
		set.Usage()
		return nil, errUsage
	}
	return &f, nil
}

// runAgent runs the data plane as the pod's AdapterAssignment says until ctx ends, then answers what it has admitted.
func runAgent(ctx context.Context, args []string, given *slog.Logger) error {
	startedAt := time.Now()
	f, err := parseAgentFlags(args)
	if f == nil || err != nil {
		return err
	}
	process, err := begin(ctx, &f.logging, given)
	if err != nil {
		return err
	}
	defer process.end(ctx)
	log := process.log
	agent.LogTo(log)
	client, err := f.client(log)
	if err != nil {
		return err
	}
	repository, err := artifacts.NewRegistry(artifacts.RegistryOptions{
		Address: f.registry, Repository: f.repository, TokenFile: f.registryToken, CAFile: f.registryCA,
	})
	if err != nil {
		return err
	}
	store, err := artifacts.NewStore(f.cacheDir, repository)
	if err != nil {
		return err
	}

	// It listens before there is a base model: to pull that may take longer than the kubelet waits for a sign of life.
	registry := newRegistry()
	front := door{grpc: overGRPC(process)}
	front.handler.Store(new(rest.Starting()))
	group, ctx := errgroup.WithContext(ctx)
	drain := func() { front.leave(f.drainDelay) }
	if err := listen(ctx, group, "http", f.httpAddress, &front, drain, log); err != nil {
		return err
	}
	drainGRPC := func() {
		drain()
		front.grpc.Drain()
	}
	serveGRPC := http.HandlerFunc(front.serveGRPC)
	if err := listen(ctx, group, "grpc", f.grpcAddress, serveGRPC, drainGRPC, log, rpc.Configure); err != nil {
		return err
	}
	if err := listen(ctx, group, "metrics", f.metricsAddress, metricsHandler(registry), func() {}, log); err != nil {
		return err
	}
	var plane *dataPlane
	group.Go(func() error {
		var err error
		if plane, err = f.open(ctx, store, registry, process); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("base model %s: %w", f.baseDigest, err)
		}
		a := agent.New(agent.Options{
			Set: plane.set, Store: store, Source: client, BaseDigest: f.baseDigest,
			Reserved: []string{f.pool, server.BaseName}, StartedAt: startedAt, Log: log,
		})
		front.open(plane.front(f.pool, a.Ready, registry), process)
		return a.Run(ctx)
	})
	err = group.Wait()
	if plane != nil {
		plane.close(ctx)
	}
	if err == nil {
		log.Info("drained")
	}
	return err
}

func (f *agentFlags) client(log *slog.Logger) (*agent.Client, error) {
	config, namespace, err := agent.ServiceAccount(f.serviceAccountDir, os.Getenv)
	if err != nil {
		return nil, err
	}
	if f.podNamespace != "" {
		namespace = f.podNamespace
	}
	return agent.NewClient(config, namespace, f.podName, log)
}

func (f *agentFlags) open(
	ctx context.Context, store *artifacts.Store, registry *prometheus.Registry, process *process,
) (*dataPlane, error) {
	base, err := agent.OpenBase(ctx, store, f.baseDigest, f.dtype, process.log)
	if err != nil {
		return nil, err
	}
	logBase(process.log, f.pool, base)
	return newDataPlane(ctx, base, f.queue, filepath.Join(f.cacheDir, "compiled"), registry, process)
}

// door leads to whoever answers now.
type door struct {
	handler atomic.Pointer[http.Handler]
	grpc    *rpc.Handler
	server  atomic.Pointer[server.Server] // nil while there is no base model
	leaving atomic.Bool
}

// ServeHTTP implements http.Handler.
func (d *door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	d.sendElsewhere(w)
	(*d.handler.Load()).ServeHTTP(w, r)
}

// serveGRPC is ServeHTTP of what listens for gRPC.
func (d *door) serveGRPC(w http.ResponseWriter, r *http.Request) {
	d.sendElsewhere(w)
	d.grpc.ServeHTTP(w, r)
}

// sendElsewhere sends a client that keeps its connection elsewhere with its last answer: one that is closed while it is
// idle may already carry the next request. Over HTTP/2 the header becomes the frame that says so.
func (d *door) sendElsewhere(w http.ResponseWriter) {
	if d.leaving.Load() {
		w.Header().Set("Connection", "close")
	}
}

func (d *door) open(s *server.Server, process *process) {
	d.server.Store(s)
	d.grpc.Open(s)
	d.handler.Store(new(overHTTP(s, process)))
}

// leave turns readiness off, goes on answering for a while, and then drains.
func (d *door) leave(delay time.Duration) {
	s := d.server.Load()
	if s == nil {
		return
	}
	s.Leave()
	d.leaving.Store(true)
	<-time.After(delay) //nolint:forbidigo // how long balancers take is told by nobody
	s.Drain()
}
