package main

import (
	"flag"
	"fmt"
	"io"
	"log/slog"
)

// logging is how the process logs, where flags say so.
type logging struct{ format, level string }

func (l *logging) flags(set *flag.FlagSet) {
	set.StringVar(&l.format, "log-format", "", "`format` of the log: text or json (default text)")
	set.StringVar(&l.level, "log-level", "", "least `level` that is logged: debug, info, warn or error (default info)")
}

// open makes the logger that the flags ask for, and the process's default, in place of the one given.
func (l *logging) open(given *slog.Logger, w io.Writer) (*slog.Logger, error) {
	if l.format == "" && l.level == "" {
		return given, nil
	}
	level := slog.LevelInfo
	if l.level != "" {
		if err := level.UnmarshalText([]byte(l.level)); err != nil {
			return nil, fmt.Errorf("--log-level: expected debug, info, warn or error, found %q", l.level)
		}
	}
	options := &slog.HandlerOptions{Level: level}
	var handler slog.Handler = slog.NewTextHandler(w, options)
	switch l.format {
	case "", "text":
	case "json":
		handler = slog.NewJSONHandler(w, options)
	default:
		return nil, fmt.Errorf("--log-format: expected text or json, found %q", l.format)
	}
	log := slog.New(handler)
	slog.SetDefault(log)
	return log, nil
}
