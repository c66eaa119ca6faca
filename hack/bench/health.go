package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/switchyard-dev/switchyard/runtime/adapters"
	"github.com/switchyard-dev/switchyard/runtime/arch"
	"github.com/switchyard-dev/switchyard/runtime/batcher"
	"github.com/switchyard-dev/switchyard/runtime/engine"
	"github.com/switchyard-dev/switchyard/runtime/server"
	"github.com/switchyard-dev/switchyard/runtime/server/rest"
)

// healthAtFullLoad prints how long a health request takes while the engine is never idle, and while garbage is
// collected all the time beside that.
func healthAtFullLoad(e *engine.Engine, workers int, batch engine.Batch, requests int) error {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(workers + 2)) // as cmd/runtime does
	queue := batcher.New(e, batcher.Options{
		MaxBatchRows: arch.MaxBatchRows, MaxBatchTokens: arch.MaxBatchTokens,
	})
	defer queue.Close()
	front := httptest.NewServer(rest.New(server.New(adapters.New(e), queue, nil, server.Options{
		Name: "base", RequestBytes: 1 << 20, MaxRows: rows, MaxRowsInFlight: 1 << 10, Registry: prometheus.NewRegistry(),
	}), rest.Options{MaxBodyBytes: 1 << 20, Log: slog.New(slog.DiscardHandler)}))
	defer front.Close()

	ctx, stop := context.WithCancel(context.Background())
	var load sync.WaitGroup
	defer load.Wait()
	defer stop()
	asks, asked := make([]batcher.Ask, len(batch.Rows)), make([]batcher.Row, len(batch.Rows))
	for i, r := range batch.Rows {
		asks[i] = batcher.Ask{Input: r.Input, Adapter: r.Adapter, Tokens: 1}
		asked[i] = batcher.Row{Input: &batch.Inputs[r.Input], Adapter: r.Adapter, Tokens: 1}
	}
	for range 4 { // one batch is computed while the others wait
		load.Go(func() {
			for ctx.Err() == nil {
				if ticket, err := queue.Admit(ctx, asks); err == nil { // its end alone is an error
					_, _ = ticket.Submit(ctx, asked, func() {})
				}
			}
		})
	}
	for _, collecting := range []bool{false, true} {
		during, done := context.WithCancel(ctx)
		var collector sync.WaitGroup
		if collecting {
			collector.Go(func() {
				for during.Err() == nil {
					runtime.GC()
				}
			})
		}
		times, err := askHealth(ctx, front.URL+"/v2/health/live", requests)
		done()
		collector.Wait()
		if err != nil {
			return err
		}
		slices.Sort(times)
		what := "at full load"
		if collecting {
			what += ", garbage collected all the time"
		}
		fmt.Printf("  health %s: %.2f ms, p99 %.2f ms of %d\n", what,
			ms(times[len(times)/2]), ms(times[len(times)*99/100]), len(times))
	}
	return nil
}

func askHealth(ctx context.Context, url string, requests int) (times []time.Duration, err error) {
	for range requests {
		began := time.Now()
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return nil, err
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			return nil, err
		}
		_, err = io.Copy(io.Discard, response.Body)
		if closed := response.Body.Close(); err == nil {
			err = closed
		}
		if err != nil {
			return nil, err
		}
		if response.StatusCode != http.StatusOK {
			return nil, fmt.Errorf("health: expected 200, found %s", response.Status)
		}
		times = append(times, time.Since(began))
	}
	return times, nil
}
