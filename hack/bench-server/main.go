// Command bench-server measures a server beside its engine, on a base of MiniLM-L6's shape with adapters that each have
// a classifier of their own: what a protocol costs, whether 256 connections get their own answers, what remains at
// twice the capacity, and what a quiet adapter sees of one that floods. Every answer is held to the engine's own, to
// the bit. What is compared runs in turn; ratios count, not milliseconds.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"
	"time"

	"github.com/switchyard-dev/switchyard/test/standalone"
)

const (
	loaded = 64 // adapters
	texts  = 32
	rows   = 32 // of a large request
)

func main() {
	binary := flag.String("runtime", "bin/runtime", "`file` of the runtime")
	tokens := flag.Int("tokens", 32, "`number` of tokens of each text")
	rounds := flag.Int("rounds", 9, "`number` of rounds of what is compared in turn")
	requests := flag.Int("requests", 10000, "`number` of requests of 256 connections")
	during := flag.Duration("during", 20*time.Second, "how `long` the overload, and the flood, last")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, *binary, *tokens, *rounds, *requests, *during, flag.Args())
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench-server:", err)
		os.Exit(1)
	}
}

// bench is a world and its server.
type bench struct {
	world  *world
	server *standalone.Server
	http   asker
	grpc   asker
}

// protocols are what is compared with the engine alone.
func (b *bench) protocols() []protocol {
	return []protocol{{"HTTP, binary", b.http}, {"gRPC", b.grpc}}
}

type protocol struct {
	name  string
	asker asker
}

// run measures a server that is started with those flags beside its own.
func run(
	ctx context.Context, binary string, tokens, rounds, requests int, during time.Duration, flags []string,
) (err error) {
	dir, err := os.MkdirTemp("", "switchyard-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	workers := runtime.GOMAXPROCS(0)
	b := &bench{}
	if b.world, err = newWorld(dir, loaded, texts, tokens, workers); err != nil {
		return err
	}
	if binary, err = filepath.Abs(binary); err != nil {
		return err
	}
	if b.server, err = standalone.Start(ctx, binary, b.world.base, b.world.adapters, "base", flags...); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.server.Stop()) }()
	b.http = newOverHTTP(b.world, b.server.URL, 1024)
	overGRPC, end, err := newOverGRPC(b.world, b.server.GRPC)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, end()) }()
	b.grpc = overGRPC
	fmt.Printf("%d workers, %d adapters of rank 8, texts of %d tokens\n", workers, loaded, tokens)
	if err := b.throughput(ctx, rounds); err != nil {
		return err
	}
	if err := b.oneRow(ctx, 50*rounds); err != nil {
		return err
	}
	capacity, err := b.connections(ctx, requests)
	if err != nil {
		return err
	}
	if err := b.overload(ctx, capacity, during); err != nil {
		return err
	}
	return b.flood(ctx, capacity, during)
}

// throughput compares the rows a second of large requests, two of them under way, with the engine's of such batches.
func (b *bench) throughput(ctx context.Context, rounds int) error {
	const perRound = 6 // requests
	protocols := b.protocols()
	var alone []float64
	served := make([][]float64, len(protocols))
	for round := range rounds + 1 {
		began := time.Now()
		for i := range perRound {
			if _, err := b.world.engine.Run(b.world.batch(b.world.mixed(rows, i))); err != nil {
				return err
			}
		}
		engine := rows * perRound / time.Since(began).Seconds()
		if round > 0 { // the first warms up
			alone = append(alone, engine)
		}
		for p, protocol := range protocols {
			o := closed(ctx, b.world, protocol.asker, 2, perRound, func(i int) []row { return b.world.mixed(rows, i) })
			if o.failed != nil {
				return fmt.Errorf("%s: %w", protocol.name, o.failed)
			}
			if round > 0 {
				served[p] = append(served[p], o.rate())
			}
		}
	}
	fmt.Printf("requests of %d rows, two under way, medians of %d rounds in turn\n", rows, rounds)
	fmt.Printf("  engine alone           %8.1f rows/s\n", middle(alone))
	for p, protocol := range protocols {
		fmt.Printf("  %-22s %8.1f rows/s   %.3f of the engine's (goal: at least 0.95)\n",
			protocol.name, middle(served[p]), middle(served[p])/middle(alone))
	}
	return nil
}

func middle(values []float64) float64 { return slices.Sorted(slices.Values(values))[len(values)/2] }

// oneRow compares how long one row takes.
func (b *bench) oneRow(ctx context.Context, rounds int) error {
	protocols := b.protocols()
	var alone []time.Duration
	served := make([][]time.Duration, len(protocols))
	for round := range rounds {
		asked := b.world.mixed(1, round)
		batch := b.world.batch(asked)
		began := time.Now()
		if _, err := b.world.engine.Run(batch); err != nil {
			return err
		}
		alone = append(alone, time.Since(began))
		for p, protocol := range protocols {
			o := closed(ctx, b.world, protocol.asker, 1, 1, func(int) []row { return asked })
			if o.failed != nil {
				return fmt.Errorf("%s: %w", protocol.name, o.failed)
			}
			served[p] = append(served[p], o.answered...)
		}
	}
	engine := quantile(alone, 0.5)
	fmt.Printf("one row, medians of %d rounds in turn\n", rounds)
	fmt.Printf("  engine alone           %8.2f ms\n", ms(engine))
	for p, protocol := range protocols {
		took := quantile(served[p], 0.5)
		fmt.Printf("  %-22s %8.2f ms       %.0f µs more (goal: at most 300)\n", protocol.name, ms(took), 1e3*ms(took-engine))
	}
	return nil
}

// connections has 256 of them ask for one row after the other, and returns how many rows a second were answered.
func (b *bench) connections(ctx context.Context, requests int) (capacity float64, err error) {
	const connections = 256
	var o *outcome
	before, after, _, err := watched(ctx, b.server.Metrics, func() {
		o = closed(ctx, b.world, b.http, connections, requests, func(i int) []row { return b.world.mixed(1, i) })
	})
	if err == nil {
		err = o.failed
	}
	if err != nil {
		return 0, err
	}
	batch, queue := after.mean(engineSeconds, before), after.mean(queueSeconds, before)
	p99 := quantile(o.answered, 0.99)
	fmt.Printf("%d requests of one row from %d connections over %d adapters\n", requests, connections, loaded)
	fmt.Printf("  answered, each its own %8d          %.1f rows/s, %d refused\n", o.rows, o.rate(), len(o.refused))
	fmt.Printf("  p50, p99               %8.1f ms, %.1f ms; a batch %.1f ms, in the queue %.1f ms\n",
		ms(quantile(o.answered, 0.5)), ms(p99), ms(batch), ms(queue))
	fmt.Printf("  p99                    %8.3f of twice a batch and the queue (goal: at most 1)\n",
		float64(p99)/float64(2*batch+queue))
	return o.rate(), nil
}

// overload has twice as many requests come as can be answered.
func (b *bench) overload(ctx context.Context, capacity float64, during time.Duration) error {
	var o *outcome
	before, after, most, err := watched(ctx, b.server.Metrics, func() {
		o = open(ctx, b.world, b.http, 2*capacity, during, func(i int) []row { return b.world.mixed(1, i) })
	})
	if err == nil {
		err = o.failed
	}
	if err != nil {
		return err
	}
	fmt.Printf("twice the capacity for %s: %d answered, %d refused\n", during, len(o.answered), len(o.refused))
	fmt.Printf("  goodput                %8.3f of the capacity (goal: at least 0.9)\n", o.rate()/capacity)
	fmt.Printf("  a refusal, p50, p99    %8.2f ms, %.2f ms (goal: within 10 ms)\n",
		ms(quantile(o.refused, 0.5)), ms(quantile(o.refused, 0.99)))
	fmt.Printf("  memory                 %8.1f MiB before, %.1f MiB after, at most %.1f MiB (goal: flat)\n",
		before.values[residentBytes]/(1<<20), after.values[residentBytes]/(1<<20), most/(1<<20))
	return nil
}

// flood has one adapter asked ten times as much as can be answered, and another for one row after the other.
func (b *bench) flood(ctx context.Context, capacity float64, during time.Duration) error {
	const perRequest = 16 // rows of the flood's
	quiet, stop := context.WithCancel(ctx)
	var flood, calm *outcome
	before, after, _, err := watched(ctx, b.server.Metrics, func() {
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			calm = closed(quiet, b.world, newOverHTTP(b.world, b.server.URL, 1), 1, 1<<30, func(i int) []row {
				return []row{{adapter: 1, text: i % texts}}
			})
		}()
		flood = open(ctx, b.world, b.http, 10*capacity/perRequest, during, func(i int) []row {
			asked := make([]row, perRequest)
			for j := range asked {
				asked[j].text = (i + j) % texts
			}
			return asked
		})
		stop()
		<-ended
	})
	stop()
	if err == nil {
		err = flood.failed
	}
	if err == nil && !errors.Is(calm.failed, context.Canceled) {
		err = calm.failed
	}
	if err != nil {
		return err
	}
	batch, p99 := after.mean(engineSeconds, before), quantile(calm.answered, 0.99)
	fmt.Printf("an adapter at ten times the capacity for %s: %d requests of %d rows answered, %d refused\n",
		during, len(flood.answered), perRequest, len(flood.refused))
	fmt.Printf("  a quiet one            %8d answered, %d refused, p50 %.1f ms, p99 %.1f ms; a batch %.1f ms\n",
		len(calm.answered), len(calm.refused), ms(quantile(calm.answered, 0.5)), ms(p99), ms(batch))
	fmt.Printf("  its p99                %8.2f batches (goal: at most 2)\n", float64(p99)/float64(batch))
	return nil
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
