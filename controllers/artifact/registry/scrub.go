package registry

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"

	"golang.org/x/time/rate"
)

// Scrub reads every blob, at most Options.ScrubRate bytes a second, and removes those whose bytes are not their
// digest's. A disk that has changed a bit tells nobody, and the size remains. What cannot be read is left, and told of.
func (r *Registry) Scrub(ctx context.Context) error {
	pace := rate.NewLimiter(rate.Limit(r.options.ScrubRate), pieceSize)
	var blobs, damaged, unread int
	var bytes int64
	// From another place each time: a process that never lives long enough comes to all of them as well.
	first := rand.IntN(256) //nolint:gosec // no secret
	err := r.shelves.eachBlob(ctx, first, func(digest string) error {
		ok, size, err := r.shelves.whole(ctx, digest, func(n int) error { return pace.WaitN(ctx, n) })
		blobs, bytes = blobs+1, bytes+size
		if err == nil && !ok {
			var removed bool
			if removed, err = r.heal(ctx, digest); removed {
				damaged++
			}
		}
		if err != nil && ctx.Err() == nil {
			unread++
			r.options.Log.Error("blob cannot be read", "digest", digest, "error", err)
		}
		return ctx.Err()
	})
	if err != nil {
		return fmt.Errorf("scrub: %w", err)
	}
	r.metrics.unreadable.Set(float64(unread))
	if unread > 0 {
		return fmt.Errorf("scrub: %d of %d blobs cannot be read", unread, blobs)
	}
	r.metrics.scrubbed.Set(float64(r.options.Now().Unix()))
	r.options.Log.Info("all blobs read", "blobs", blobs, "bytes", bytes, "damaged", damaged)
	return nil
}

// heal removes the bytes of a digest if they are not its own, unless somebody uses it: then it may be about to be
// replaced, and is looked at again another time. Whoever needs it finds it lost, and pushes it again.
func (r *Registry) heal(ctx context.Context, digest string) (removed bool, err error) {
	check := func() (ok bool, size int64, err error) {
		return r.shelves.whole(ctx, digest, func(int) error { return nil })
	}
	if ok, _, err := check(); ok || err != nil {
		return false, err
	}
	_, err = r.uses.only(digest, func() error {
		ok, size, err := check() // others may have been quicker
		if ok || err != nil {
			return err
		}
		if err := r.shelves.remove(ctx, blobPath(digest)); err != nil {
			return err
		}
		removed = true
		r.metrics.count(causeDamage, size)
		r.options.Log.Error("damaged blob removed", "digest", digest, "bytes", size)
		return nil
	})
	return removed, err
}

// tryHeal is heal where nothing depends on it.
func (r *Registry) tryHeal(ctx context.Context, digest string) {
	if _, err := r.heal(ctx, digest); err != nil && !errors.Is(err, context.Canceled) {
		r.options.Log.Error("blob cannot be read", "digest", digest, "error", err)
	}
}
