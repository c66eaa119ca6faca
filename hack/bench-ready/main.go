// Command bench-ready prints how long an adapter takes from its apply to Ready=True on a warm pool of two pods: one by
// one, and all at once. Every adapter has weights of its own: each is fetched, checked, stored, pulled and loaded.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/switchyard-dev/switchyard/test/local"
	"github.com/switchyard-dev/switchyard/test/warm"
)

func main() {
	bin := flag.String("bin", "bin", "`folder` of the binaries")
	repository := flag.String("repository", ".", "`folder` of this repository")
	n := flag.Int("adapters", 100, "`number` of adapters, one by one and again at once")
	flag.Parse()
	ctrllog.SetLogger(logr.Discard())
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, *bin, *repository, *n)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench-ready:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, bin, repository string, n int) (err error) {
	dir, err := os.MkdirTemp("", "switchyard-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	place, err := local.Start(ctx, local.Options{
		Dir: dir, Repository: repository, SourceAddress: "127.0.0.1:0",
		Manager: filepath.Join(bin, "manager"), Runtime: filepath.Join(bin, "runtime"),
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, place.Close()) }()
	const replicas, maxCount = 2, 512
	pool, err := warm.New(ctx, place, replicas, maxCount)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, pool.Close(context.WithoutCancel(ctx))) }()
	return measure(ctx, pool, n)
}

func measure(ctx context.Context, pool *warm.Pool, n int) error {
	var each []time.Duration
	for i := range n {
		name := fmt.Sprintf("single-%03d", i)
		if err := pool.Push(ctx, name); err != nil {
			return err
		}
		began := time.Now()
		if _, err := pool.Apply(ctx, name); err != nil {
			return err
		}
		if _, err := pool.Ready(ctx, name); err != nil {
			return err
		}
		each = append(each, time.Since(began))
	}
	slices.Sort(each)
	fmt.Printf("one by one, %d adapters on two pods, apply to Ready=True:\n", n)
	fmt.Printf("  median %6.0f ms   (goal: below 1000)\n", ms(each[n/2]))
	fmt.Printf("  p99    %6.0f ms   (goal: below 3000)\n", ms(each[(n*99+99)/100-1]))

	names := make([]string, n)
	for i := range n {
		names[i] = fmt.Sprintf("burst-%03d", i)
	}
	if err := pool.Push(ctx, names...); err != nil {
		return err
	}
	began := time.Now()
	if _, err := pool.Apply(ctx, names...); err != nil {
		return err
	}
	if _, err := pool.Ready(ctx, names...); err != nil {
		return err
	}
	fmt.Printf("%d more at once, until all are Ready: %.1f s\n", n, time.Since(began).Seconds())
	return nil
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
