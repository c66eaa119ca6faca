package adapters

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sync/errgroup"

	"github.com/switchyard-dev/switchyard/runtime/quote"
	"github.com/switchyard-dev/switchyard/runtime/weights"
)

// FromFolder makes every folder in dir known as an adapter named after it; load then loads them, and returns when each
// is served or refused, or when ctx ends. Plain files and hidden folders are passed over; a reserved name is refused,
// and so is one that no request could spell. What is refused is logged with its reason.
func (s *Set) FromFolder(
	dir *weights.Folder, reserved []string, log *slog.Logger,
) (load func(ctx context.Context), err error) {
	entries, err := dir.Entries()
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		mayBeFolder := e.IsDir() || e.Type()&fs.ModeSymlink != 0
		switch {
		case !mayBeFolder || strings.HasPrefix(e.Name(), "."):
		case !printable(e.Name()):
			log.Error("adapter refused", "adapter", quote.Name(e.Name()), "reason", "name: expected printable UTF-8")
		default:
			names = append(names, e.Name())
		}
	}
	s.Expect(names...)
	s.Told()
	return func(ctx context.Context) {
		var loads errgroup.Group
		loads.SetLimit(runtime.GOMAXPROCS(0))
		for _, name := range names {
			loads.Go(func() error {
				if ctx.Err() == nil {
					s.loadFrom(dir, name, reserved, log)
				}
				return nil
			})
		}
		_ = loads.Wait() // refusals are kept in the set
	}, nil
}

// printable tells whether a name can stand in a request, an answer and a log as it is.
func printable(name string) bool {
	return utf8.ValidString(name) && !strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) })
}

func (s *Set) loadFrom(dir *weights.Folder, name string, reserved []string, log *slog.Logger) {
	entry := s.Load(name, func() (*weights.Folder, error) {
		if slices.Contains(reserved, name) {
			return nil, fmt.Errorf("name: %s stands for the base model", quote.Name(name))
		}
		return dir.Sub(name)
	})
	var refused *RefusedError
	if errors.As(entry.Err, &refused) {
		log.Error("adapter refused", "adapter", name, "reason", refused.Reason)
		return
	}
	a := entry.Adapter
	log.Info("adapter loaded", "adapter", name, "revision", a.Digest, "labels", len(a.Labels), "bytes", a.Bytes())
}
