// Command bench-scale applies many adapters at once to a warm pool of two pods and prints how long it took until all
// were Ready, what the processes took for it, what was written to the API server, and how quiet it is afterwards. Every
// adapter has weights of its own.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/switchyard-dev/switchyard/test/local"
	"github.com/switchyard-dev/switchyard/test/localnode/process"
	"github.com/switchyard-dev/switchyard/test/warm"
)

const (
	replicas = 2
	maxCount = 2000 // as many as a pool's pod may hold
	// within bounds the wait for all to be Ready.
	within = 20 * time.Minute
)

func main() {
	bin := flag.String("bin", "bin", "`folder` of the binaries")
	repository := flag.String("repository", ".", "`folder` of this repository")
	n := flag.Int("adapters", 1000, "`number` of adapters")
	idle := flag.Duration("idle", time.Minute, "`time` to count the writes while nothing happens")
	pprof := flag.String("pprof-address", "", "`address` of the manager's /debug/pprof/")
	flag.Parse()
	ctrllog.SetLogger(logr.Discard())
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, *bin, *repository, *pprof, *n, *idle)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench-scale:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, bin, repository, pprof string, n int, idle time.Duration) (err error) {
	dir, err := os.MkdirTemp("", "switchyard-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	place, err := local.Start(ctx, local.Options{
		Dir: dir, Repository: repository, SourceAddress: "127.0.0.1:0", ManagerFlags: []string{"--pprof-address", pprof},
		Manager: filepath.Join(bin, "manager"), Runtime: filepath.Join(bin, "runtime"),
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, place.Close()) }()
	pool, err := warm.New(ctx, place, replicas, maxCount)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, pool.Close(context.WithoutCancel(ctx))) }()
	b := bench{place, pool}
	if err := b.burst(ctx, n); err != nil {
		return err
	}
	if err := b.rest(ctx, idle); err != nil {
		return err
	}
	return b.more(ctx)
}

type bench struct {
	place *local.Place
	pool  *warm.Pool
}

// burst applies all at once.
func (b bench) burst(ctx context.Context, n int) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	names := make([]string, n)
	for i := range n {
		names[i] = fmt.Sprintf("adapter-%04d", i)
	}
	if err := b.pool.Push(ctx, names...); err != nil {
		return err
	}
	before, err := warm.CountWrites(ctx, b.place.Kube)
	if err != nil {
		return err
	}
	took := usage(b.place)
	start := time.Now()
	began, err := b.pool.Apply(ctx, names...)
	if err != nil {
		return err
	}
	applied := time.Since(start)
	seen, err := b.pool.Ready(ctx, names...)
	if err != nil {
		return err
	}
	all := time.Since(start)
	after, err := warm.CountWrites(ctx, b.place.Kube)
	if err != nil {
		return err
	}
	var each []time.Duration
	for name, at := range seen {
		each = append(each, at.Sub(began[name]))
	}
	slices.Sort(each)
	fmt.Printf("%d adapters at once on a warm pool of %d pods:\n", n, replicas)
	fmt.Printf("  until all are Ready   %6.1f s   (goal for 1000: below 120; applying took %.1f)\n",
		all.Seconds(), applied.Seconds())
	fmt.Printf("  apply to Ready: median %.1f s, p90 %.1f s, p99 %.1f s\n",
		each[n/2].Seconds(), each[n*9/10].Seconds(), each[n*99/100].Seconds())
	now := usage(b.place)
	for _, name := range slices.Sorted(maps.Keys(now)) {
		goal := ""
		if name == "manager" {
			goal = "   (goal: below 300 MiB)"
		}
		fmt.Printf("  %-24s %6.1f CPU seconds, at most %4d MiB%s\n", name,
			(now[name].CPU - took[name].CPU).Seconds(), now[name].PeakMemory>>20, goal)
	}
	writes := after.Since(before)
	total, _ := writes.Total()
	fmt.Printf("  writes: %.1f for each adapter: %v\n", float64(total)/float64(n), writes)
	return nil
}

// rest counts the writes while nothing happens.
func (b bench) rest(ctx context.Context, idle time.Duration) error {
	before, err := warm.CountWrites(ctx, b.place.Kube)
	if err != nil {
		return err
	}
	took := usage(b.place)
	select {
	case <-time.After(idle): //nolint:forbidigo // that nothing happens in it is what is measured
	case <-ctx.Done():
		return ctx.Err()
	}
	after, err := warm.CountWrites(ctx, b.place.Kube)
	if err != nil {
		return err
	}
	writes := after.Since(before)
	all, leases := writes.Total()
	fmt.Printf("idle for %v afterwards:\n", idle)
	fmt.Printf("  %.2f writes a second to the API server (goal: below 1), and %.2f of leases: %v\n",
		float64(all)/idle.Seconds(), float64(leases)/idle.Seconds(), writes)
	now := usage(b.place)
	fmt.Printf("  manager: %.1f CPU seconds, at most %d MiB so far\n",
		(now["manager"].CPU - took["manager"].CPU).Seconds(), now["manager"].PeakMemory>>20)
	return nil
}

// more applies a few one by one, to a pool that has many.
func (b bench) more(ctx context.Context) error {
	const n = 20
	var each []time.Duration
	for i := range n {
		name := fmt.Sprintf("single-%02d", i)
		if err := b.pool.Push(ctx, name); err != nil {
			return err
		}
		began := time.Now()
		if _, err := b.pool.Apply(ctx, name); err != nil {
			return err
		}
		if _, err := b.pool.Ready(ctx, name); err != nil {
			return err
		}
		each = append(each, time.Since(began))
	}
	first := each[0]
	slices.Sort(each)
	fmt.Printf("%d more one by one, apply to Ready: the first %.0f ms, median %.0f ms, at most %.0f ms\n", n,
		1000*first.Seconds(), 1000*each[n/2].Seconds(), 1000*each[n-1].Seconds())
	return nil
}

// usage of the place's processes, and of this one, which is node, source registry and client.
func usage(place *local.Place) map[string]process.Usage {
	processes := place.Processes()
	if self, err := process.Of(os.Getpid()); err == nil {
		processes["node, source and client"] = self
	}
	found := make(map[string]process.Usage, len(processes))
	for name, p := range processes {
		if u, err := p.Usage(); err == nil { // it may have ended
			found[name] = u
		}
	}
	return found
}
