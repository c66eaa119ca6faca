package main

import (
	"context"
	"fmt"
	"io"
	"path/filepath"

	"github.com/switchyard-dev/switchyard/test/standalone"
)

// standaloneDemo serves each sample from its folder and asks one mixed batch of it.
func standaloneDemo(ctx context.Context, binary, repository string, out io.Writer) error {
	for i, sample := range samples {
		if i > 0 {
			fmt.Fprintln(out)
		}
		dir := filepath.Join(repository, "hack", "samples", sample.name)
		ask := func(url string) error { return sample.askMixedBatch(ctx, url, sample.name, dir, out) }
		if err := served(ctx, binary, dir, sample.name, ask); err != nil {
			return err
		}
	}
	return nil
}

// served serves a sample for the time of a call.
func served(ctx context.Context, binary, dir, pool string, call func(url string) error) (err error) {
	server, err := standalone.Start(ctx, binary, filepath.Join(dir, "base"), filepath.Join(dir, "adapters"), pool)
	if err != nil {
		return err
	}
	defer func() {
		if stopErr := server.Stop(); err == nil && stopErr != nil {
			err = fmt.Errorf("the server did not end well: %w\n%s", stopErr, server.Log())
		}
	}()
	return call(server.URL)
}
