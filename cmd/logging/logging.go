// Package logging is how the commands log: structured, as two flags say.
package logging

import (
	"flag"
	"fmt"
	"io"
	"log/slog"
)

// Flags are how the process logs, where they say so.
type Flags struct{ Format, Level string }

// Define defines them.
func (f *Flags) Define(set *flag.FlagSet) {
	set.StringVar(&f.Format, "log-format", "", "`format` of the log: text or json (default text)")
	set.StringVar(&f.Level, "log-level", "", "least `level` that is logged: debug, info, warn or error (default info)")
}

// Open makes the logger that the flags ask for, and the process's default, in place of the one given.
func (f *Flags) Open(given *slog.Logger, w io.Writer) (*slog.Logger, error) {
	if f.Format == "" && f.Level == "" {
		return given, nil
	}
	level := slog.LevelInfo
	if f.Level != "" {
		if err := level.UnmarshalText([]byte(f.Level)); err != nil {
			return nil, fmt.Errorf("--log-level: expected debug, info, warn or error, found %q", f.Level)
		}
	}
	options := &slog.HandlerOptions{Level: level}
	var handler slog.Handler = slog.NewTextHandler(w, options)
	switch f.Format {
	case "", "text":
	case "json":
		handler = slog.NewJSONHandler(w, options)
	default:
		return nil, fmt.Errorf("--log-format: expected text or json, found %q", f.Format)
	}
	log := slog.New(handler)
	slog.SetDefault(log)
	return log, nil
}
