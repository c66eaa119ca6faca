package main

import (
	"context"
	"fmt"
	"io"

	"github.com/switchyard-dev/switchyard/test/digits"
	"github.com/switchyard-dev/switchyard/test/standalone"
)

// standaloneDemo serves the samples from their folder and asks one mixed batch.
func standaloneDemo(ctx context.Context, binary, sample string, out io.Writer) (err error) {
	server, err := standalone.Start(ctx, binary, digits.Base(sample), digits.Adapters(sample), pool)
	if err != nil {
		return err
	}
	defer func() {
		if stopErr := server.Stop(); err == nil && stopErr != nil {
			err = fmt.Errorf("the server did not end well: %w\n%s", stopErr, server.Log())
		}
	}()
	return digits.AskMixedBatch(ctx, server.URL, pool, sample, out)
}
