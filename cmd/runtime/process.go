package main

import (
	"context"
	"log/slog"
	"os"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"go.opentelemetry.io/otel/trace"

	"github.com/switchyard-dev/switchyard/cmd/logging"
)

// process is what both commands begin with.
type process struct {
	log         *slog.Logger
	memoryLimit int64        // in bytes; 0 is none
	tracer      trace.Tracer // nil: requests are not traced
	tracing     *tracing
}

// begin has the process log and trace as it is told to, and keep within the memory that it may take.
func begin(ctx context.Context, flags *logging.Flags, given *slog.Logger) (*process, error) {
	log, err := flags.Open(given, os.Stderr)
	if err != nil {
		return nil, err
	}
	p := &process{log: log, memoryLimit: keepWithinLimit(os.Getenv("GOMEMLIMIT"), memlimit.FromCgroup, log)}
	if p.tracing, err = openTracing(ctx, log); err != nil {
		return nil, err
	}
	p.tracer = p.tracing.tracer()
	return p, nil
}

// end sends the spans that are not sent yet.
func (p *process) end(ctx context.Context) {
	if err := p.tracing.close(ctx); err != nil {
		p.log.Warn("spans are lost", "error", err)
	}
}
