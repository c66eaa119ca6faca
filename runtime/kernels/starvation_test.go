package kernels_test

import (
	"runtime"
	"testing"

	"github.com/switchyard-dev/switchyard/runtime/kernels"
)

// While every worker is in a product that takes about a second, goroutines go on talking and garbage is collected: all
// of it before the product has ended. Assembly cannot be preempted; it returns to Go often enough for that, whichever
// it is.
func TestGoGoesOnBesideKernels(t *testing.T) {
	if testing.Short() {
		t.Skip("not in the short form")
	}
	kernels.EachVariant(t, func(t *testing.T) {
		if variant, _ := kernels.Variant(); variant == "portable" {
			t.Skip("no assembly")
		}
		for name, dtype := range map[string]kernels.DType{"float32": kernels.Float32, "bfloat16": kernels.BFloat16} {
			t.Run(name, func(t *testing.T) { testGoGoesOnBesideKernels(t, dtype) })
		}
	})
}

func testGoGoesOnBesideKernels(t *testing.T, dtype kernels.DType) {
	const (
		k, n, rows  = 4096, 4096, 1024 // of each worker: 34 GFLOP
		collections = 20
		roundTrips  = 200
	)
	workers := runtime.GOMAXPROCS(0)
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(workers + 2)) // as cmd/runtime does
	p := newPool(t, workers)
	op := kernels.Gemm{
		X: make([]float32, workers*rows*k), Rows: workers * rows, W: kernels.NewPacked(nil, dtype, n, k),
		Dst: make([]float32, workers*rows*n),
	}
	computed := make(chan struct{})
	begun := make(chan struct{})
	go func() {
		defer close(computed)
		close(begun)
		p.Gemm(op)
	}()
	<-begun
	ping, pong := make(chan int), make(chan int)
	go func() {
		for i := range ping {
			pong <- i
		}
		close(pong)
	}()
	for i := range roundTrips {
		ping <- i
		if got := <-pong; got != i {
			t.Fatalf("expected %d, found %d", i, got)
		}
		if i%(roundTrips/collections) == 0 {
			runtime.GC()
		}
	}
	close(ping)
	select {
	case <-computed:
		t.Errorf("the product had ended before %d round trips and %d collections", roundTrips, collections)
	default:
	}
	<-computed
}
