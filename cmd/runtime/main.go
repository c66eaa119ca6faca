// Command runtime is the data plane. "runtime serve" serves a base model and a folder of adapters; "runtime agent"
// serves what its pod's AdapterAssignment says.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/switchyard-dev/switchyard/runtime/kernels"
)

const usage = `usage: runtime serve --base-model DIR --adapters DIR [flags]
       runtime agent --pool NAME --pod-name NAME --base-digest DIGEST --registry URL --repository NAME
                     --cache-dir DIR [flags]

runtime serve -h and runtime agent -h list the flags.
`

// commands are the subcommands by name.
var commands = map[string]func(ctx context.Context, args []string, log *slog.Logger) error{
	"serve": serve,
	"agent": runAgent,
}

// run carries a command out, where the processor has the kernels that are asked for.
func run(ctx context.Context, command string, args []string, log *slog.Logger) error {
	if _, err := kernels.Variant(); err != nil {
		return err
	}
	return commands[command](ctx, args, log)
}

func main() {
	slog.SetDefault(slog.New(slog.NewTextHandler(os.Stderr, nil)))
	if len(os.Args) < 2 || commands[os.Args[1]] == nil {
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	err := run(ctx, os.Args[1], os.Args[2:], slog.Default())
	stop()
	switch {
	case errors.Is(err, errUsage):
		os.Exit(2)
	case err != nil:
		slog.Error("stopped", "error", err)
		os.Exit(1)
	}
}
