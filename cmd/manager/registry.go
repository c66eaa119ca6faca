package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"

	"github.com/switchyard-dev/switchyard/controllers/artifact/registry"
)

// serveRegistry is the artifact registry as a process of its own.
func serveRegistry(ctx context.Context, args []string, log *slog.Logger) error {
	set := flag.NewFlagSet("manager registry", flag.ContinueOnError)
	dir := set.String("dir", "", "`folder` that keeps the artifacts")
	address := set.String("address", ":5000", "`address` to serve on")
	tokenFile := set.String("push-token-file", "", "`file` with the token that pushing takes")
	if err := set.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return errUsage // the flag set has said what is wrong
	}
	if *dir == "" || *tokenFile == "" || set.NArg() > 0 {
		fmt.Fprintln(set.Output(), "expected --dir and --push-token-file, and no other arguments")
		set.Usage()
		return errUsage
	}
	token, err := registry.ReadToken(*tokenFile)
	if err != nil {
		return err
	}
	r, err := registry.New(registry.Options{Dir: *dir, PushToken: token, Log: log}) //nolint:contextcheck // Close ends it
	if err != nil {
		return err
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", *address)
	if err != nil {
		return errors.Join(fmt.Errorf("artifact registry: %w", err), r.Close())
	}
	log.Info("artifact registry", "dir", *dir, "address", listener.Addr().String())
	return r.Serve(ctx, listener)
}
