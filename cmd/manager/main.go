// Command manager is the control plane. "manager run" runs the controllers, "manager registry" the artifact registry.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
)

const usage = `usage: manager run --runtime-image IMAGE --registry-url URL --registry-token-file FILE [flags]
       manager registry --dir DIR | --s3-bucket NAME --tls-dir DIR --manager-account NAMESPACE/NAME [flags]

manager run -h and manager registry -h list the flags.
`

// errUsage says that the flags were wrong and the user has been told.
var errUsage = errors.New("usage")

// commands are the subcommands by name.
var commands = map[string]func(ctx context.Context, args []string, log *slog.Logger) error{
	"run":      run,
	"registry": serveRegistry,
}

func main() {
	slog.SetDefault(slog.New(slog.NewTextHandler(os.Stderr, nil)))
	if len(os.Args) < 2 || commands[os.Args[1]] == nil {
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := commands[os.Args[1]](ctx, os.Args[2:], slog.Default())
	stop()
	switch {
	case errors.Is(err, errUsage):
		os.Exit(2)
	case err != nil:
		slog.Error("stopped", "error", err)
		os.Exit(1)
	}
}
