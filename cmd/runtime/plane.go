package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/errgroup"

	"github.com/switchyard-dev/switchyard/runtime/adapters"
	"github.com/switchyard-dev/switchyard/runtime/arch"
	"github.com/switchyard-dev/switchyard/runtime/batcher"
	"github.com/switchyard-dev/switchyard/runtime/engine"
	"github.com/switchyard-dev/switchyard/runtime/kernels"
	"github.com/switchyard-dev/switchyard/runtime/memory"
	"github.com/switchyard-dev/switchyard/runtime/model"
	"github.com/switchyard-dev/switchyard/runtime/peft"
	"github.com/switchyard-dev/switchyard/runtime/preprocess"
	"github.com/switchyard-dev/switchyard/runtime/preprocess/text"
	"github.com/switchyard-dev/switchyard/runtime/preprocess/tokenfiles"
	"github.com/switchyard-dev/switchyard/runtime/server"
	"github.com/switchyard-dev/switchyard/runtime/server/rest"
	"github.com/switchyard-dev/switchyard/runtime/server/rpc"
)

const (
	// What one request may be, and how many rows are decoded or wait. The memory that all take is arch.RequestBytes.
	maxRequestRows  = 256
	maxRowsInFlight = 512
	maxBodyBytes    = 64 << 20

	// Of a request's header, and of a body that nobody reads; the server gives the bodies it reads their own time.
	readTimeout  = 10 * time.Second
	drainTimeout = 30 * time.Second
)

// dataPlane is a base model and all that answers with it. What fills its set is the command's affair.
type dataPlane struct {
	engine *engine.Engine
	set    *adapters.Set
	queue  *batcher.Batcher
	images *preprocess.Image // nil where the base says nothing of preprocessing
	texts  *text.Tokenizer   // likewise
	// adapterBytes is what adapters may take of memory; 0 where there is no limit.
	adapterBytes int64
}

// queueFlags are the times that bound the queue.
type queueFlags struct{ maxBatch, maxQueue, maxDelay time.Duration }

// define defines them.
func (f *queueFlags) define(set *flag.FlagSet) {
	f.maxBatch, f.maxQueue = batcher.DefaultMaxBatch, batcher.DefaultMaxQueue
	millisecondsVar(set, &f.maxBatch, 1, "max-batch-milliseconds",
		"a batch takes about so many `milliseconds` at most, unless one row alone takes more")
	millisecondsVar(set, &f.maxQueue, 1, "max-queue-milliseconds",
		"`milliseconds` of work that wait at most: what is beyond is refused with 429")
	millisecondsVar(set, &f.maxDelay, 0, "max-delay-milliseconds",
		"`milliseconds` that an idle engine waits for more rows")
}

// millisecondsVar defines a flag of so many milliseconds at least.
func millisecondsVar(set *flag.FlagSet, d *time.Duration, least uint64, name, usage string) {
	set.Func(name, fmt.Sprintf("%s (default %d)", usage, d.Milliseconds()), func(given string) error {
		const most = 24 * 60 * 60 * 1000
		n, err := strconv.ParseUint(given, 10, 32)
		if err != nil || n < least || n > most {
			return fmt.Errorf("expected a whole number from %d to %d", least, most)
		}
		*d = time.Duration(n) * time.Millisecond
		return nil
	})
}

// newDataPlane makes a data plane of a base; what it compiles of its own is kept in cacheDir, if there is one.
func newDataPlane(
	ctx context.Context, base *model.Base, times queueFlags, cacheDir string, registry *prometheus.Registry,
	process *process,
) (*dataPlane, error) {
	var images *preprocess.Image
	if base.Preprocessor != nil && base.Description.Image != nil {
		size := base.Description.Image
		var err error
		if images, err = preprocess.ParseImage(base.Preprocessor, preprocess.Base{
			ModelType: base.Description.ModelType,
			Channels:  size.Channels, Height: size.Height, Width: size.Width, Takes: size.Takes,
		}); err != nil {
			return nil, err
		}
	}
	texts, err := openTokenizer(ctx, base, cacheDir)
	if err != nil {
		return nil, err
	}
	// A worker within assembly cannot be preempted: with two threads beside them, requests and the garbage collector never
	// wait for one.
	workers := runtime.GOMAXPROCS(0)
	runtime.GOMAXPROCS(workers + 2)
	eng := engine.New(base, workers)
	cost, err := batcher.Calibrate(eng)
	if err != nil {
		return nil, err
	}
	process.log.Info("engine calibrated", "batch", seconds(cost.Batch), "thousandTokens", seconds(1000*cost.Token),
		"millionPairs", seconds(1e6*cost.Pair), "billionUpdates", seconds(1e9*cost.Update))
	return &dataPlane{
		engine: eng, set: adapters.New(eng), images: images, texts: texts,
		adapterBytes: leftToAdapters(process.memoryLimit, base),
		queue: batcher.New(eng, batcher.Options{
			Cost: cost, MaxBatch: times.maxBatch, MaxQueue: times.maxQueue, MaxDelay: times.maxDelay,
			MaxBatchRows: arch.MaxBatchRows, MaxBatchTokens: arch.MaxBatchTokens,
			Observe: server.NewBatchObserver(registry),
		}),
	}, nil
}

// leftToAdapters is what base, a batch and requests leave of a process's memory limit. What a pool gives its adapters
// (spec.adapters.memory) is for the manager to keep: pods are not told of it.
func leftToAdapters(limit int64, base *model.Base) int64 {
	if limit == 0 {
		return 0
	}
	d, requests := base.Description, int64(arch.RequestBytes)
	if d.Image != nil {
		requests += arch.DecodingBytes
	}
	return max(1, limit-d.Bytes(base.DType)-d.BatchBytes(arch.MaxBatchRows, 0)-requests)
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// openTokenizer is nil where the base takes no texts, or has no tokenizer: then they have to come as ids.
func openTokenizer(ctx context.Context, base *model.Base, cacheDir string) (*text.Tokenizer, error) {
	files := tokenfiles.Files{
		Tokenizer: base.Tokenizer, Config: base.TokenizerConfig, Vocab: base.Vocab, Added: base.AddedTokens,
		Specials: base.SpecialTokens,
	}
	if base.Description.Text == nil || !files.Any() {
		return nil, nil //nolint:nilnil // as said above
	}
	resolved, err := files.Resolve(base.Description.ModelType, base.Description.Text.MaxTokens)
	if err != nil {
		return nil, err
	}
	tokenizer, err := peft.ReadTokenizer(bytes.NewReader(resolved.Tokenizer))
	if err != nil {
		return nil, err
	}
	return text.Open(ctx, resolved, text.Options{
		Instances: min(runtime.GOMAXPROCS(0), arch.MaxTokenizers), CacheDir: cacheDir,
		Memory: tokenizer.Memory(tokenfiles.MaxText(resolved.MaxTokens)),
	})
}

// front is the server; name is the base's in requests.
func (p *dataPlane) front(name string, ready func() error, registry *prometheus.Registry) *server.Server {
	return server.New(p.set, p.queue, p.images, server.Options{
		Name: name, RequestBytes: arch.RequestBytes, MaxRows: maxRequestRows, MaxRowsInFlight: maxRowsInFlight,
		Ready: ready, AdapterBytes: p.adapterBytes, Registry: registry, Texts: p.texts,
	})
}

// overHTTP is what a server answers over HTTP.
func overHTTP(front *server.Server, process *process) http.Handler {
	return rest.New(front, rest.Options{MaxBodyBytes: maxBodyBytes, Log: process.log, Tracer: process.tracer})
}

// overGRPC is what will be answered over gRPC, once it is open for a server.
func overGRPC(process *process) *rpc.Handler {
	return rpc.New(rpc.Options{MaxMessageBytes: maxBodyBytes, Log: process.log, Tracer: process.tracer})
}

// close answers what was admitted and ends the engine.
func (p *dataPlane) close(ctx context.Context) {
	p.queue.Close()
	p.engine.Close()
	if p.texts != nil {
		_ = p.texts.Close(ctx)
	}
}

func logBase(log *slog.Logger, name string, base *model.Base) {
	variant, _ := kernels.Variant() // main has looked at the error
	log.Info("base model loaded", "name", name, "architecture", base.Description.Architecture,
		"revision", base.Digest, "labels", len(base.Description.Classes.Labels),
		"dtype", base.DType, "kernels", variant)
	if len(base.Unused) > 0 {
		log.Warn("the base model's files have tensors that nothing asks for", "tensors", base.Unused)
	}
}

func newRegistry() *prometheus.Registry {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "switchyard_memory_bytes", Help: "Memory off Go's heap: weights, and what batches work with.",
		}, func() float64 { return float64(memory.Held()) }))
	return registry
}

func metricsHandler(registry *prometheus.Registry) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	return mux
}

// listen serves handler until ctx ends; then it calls drain and waits for the requests under way. What configures the
// HTTP server may be left out.
func listen(
	ctx context.Context, group *errgroup.Group, what, address string, handler http.Handler, drain func(), log *slog.Logger,
	configure ...func(*http.Server),
) error {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	srv := &http.Server{
		Handler: handler, ReadTimeout: readTimeout, IdleTimeout: 2 * time.Minute,
		MaxHeaderBytes: 64 << 10, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	for _, configure := range configure {
		configure(srv)
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
