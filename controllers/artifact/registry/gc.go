package registry

import (
	"context"
	"errors"
	"fmt"
	"path"
	"time"
)

// Roots are the manifests that are needed, by repository. A repository that is not there is garbage as a whole; one
// that is there without a digest is empty.
type Roots map[string]map[string]bool

// Add says that a manifest is needed; "" that its repository is, and no more.
func (r Roots) Add(repository, digest string) {
	if r[repository] == nil {
		r[repository] = map[string]bool{}
	}
	if digest != "" {
		r[repository][digest] = true
	}
}

// rootsAge is how long roots are fresh enough to remove what they do not name.
const rootsAge = 30 * time.Second

// Collect is one round of the garbage collection: it marks what nobody needs, and removes what a former round, the
// grace ago or more, has marked already and nobody has asked for since. Links go before the bytes that they lead to.
// What it fails of leaves more than it might, never less.
func (r *Registry) Collect(ctx context.Context) error {
	r.collecting.Lock()
	defer r.collecting.Unlock()
	r.rounds++
	c := &round{Registry: r, due: due{r.rounds, r.options.GCGrace}, linked: map[sum]int{}}
	err := c.run(ctx)
	if c.blobs > 0 || c.links > 0 {
		r.options.Log.Info("garbage removed", "links", c.links, "blobs", c.blobs, "bytes", c.bytes)
	}
	if err != nil {
		return fmt.Errorf("garbage collection: %w", err)
	}
	r.uses.forget(r.rounds)
	r.metrics.collected.Set(float64(r.options.Now().Unix()))
	return nil
}

// round is one of the collector's.
type round struct {
	*Registry

	due    due
	roots  Roots
	read   time.Time   // when roots were
	linked map[sum]int // in how many repositories each digest is

	links, blobs int
	bytes        int64
}

func (c *round) run(ctx context.Context) error {
	if err := c.freshen(ctx); err != nil {
		return err
	}
	repositories, err := c.shelves.repositories(ctx)
	if err != nil {
		return err
	}
	var with []string // something that is due
	for _, repository := range repositories {
		due, err := c.mark(ctx, repository)
		if err != nil {
			return fmt.Errorf("%s: %w", repository, err)
		}
		if due {
			with = append(with, repository)
		}
	}
	c.read = time.Time{} // what is removed is looked for again
	for _, repository := range with {
		if err := c.sweep(ctx, repository); err != nil {
			return fmt.Errorf("%s: %w", repository, err)
		}
	}
	return c.sweepBytes(ctx)
}

// freshen reads the roots, unless it has just been done.
func (c *round) freshen(ctx context.Context) error {
	now := c.options.Now()
	if !c.read.IsZero() && now.Sub(c.read) < rootsAge {
		return nil
	}
	roots, err := c.options.Roots(ctx)
	if err != nil {
		return fmt.Errorf("what is needed is not known: %w", err)
	}
	c.roots, c.read = roots, now
	return nil
}

// needed are the digests that a repository needs: its roots, and what their manifests name.
func (c *round) needed(ctx context.Context, repository string) (map[string]bool, error) {
	needed := map[string]bool{}
	for root := range c.roots[repository] {
		if !byDigest.MatchString(root) {
			return nil, fmt.Errorf("expected the digest of a manifest, found %.80q", root)
		}
		raw, err := c.shelves.manifest(ctx, root)
		if err != nil {
			return nil, err
		}
		if raw == nil { // lost or damaged; whoever needs it pushes it again, and what it names
			if _, err := c.heal(ctx, root); err != nil {
				return nil, err
			}
		}
		needed[root] = true
		for _, blob := range references(raw) {
			needed[blob] = true
		}
	}
	return needed, nil
}

// eachLink calls with each link that a repository has, manifests first.
func (c *round) eachLink(ctx context.Context, repository string, do func(kind, digest string) error) error {
	for _, kind := range []string{revisionsPath, layersPath} {
		digests, err := c.shelves.links(ctx, repository, kind)
		if err != nil {
			return err
		}
		for _, digest := range digests {
			if err := do(kind, digest); err != nil {
				return err
			}
		}
	}
	return nil
}

// mark marks the links of a repository that it does not need, and tells whether any is due, or all are gone.
func (c *round) mark(ctx context.Context, repository string) (due bool, err error) {
	needed, err := c.needed(ctx, repository)
	if err != nil {
		return false, err
	}
	empty := true
	err = c.eachLink(ctx, repository, func(_, digest string) error {
		empty = false
		c.linked[sumOf(digest)]++
		if needed[digest] {
			c.uses.needed(digest, repository)
		} else if c.uses.found(digest, repository, c.due) {
			due = true
		}
		return nil
	})
	return due || empty, err
}

// sweep removes the links of a repository that are due, as of roots that are fresh, and then the repository itself if
// it is of no pool and nothing is left in it.
func (c *round) sweep(ctx context.Context, repository string) error {
	if err := c.freshen(ctx); err != nil {
		return err
	}
	needed, err := c.needed(ctx, repository)
	if err != nil {
		return err
	}
	err = c.eachLink(ctx, repository, func(kind, digest string) error {
		if needed[digest] {
			c.uses.needed(digest, repository)
			return nil
		}
		_, err := c.uses.sweep(digest, repository, c.due, func() error {
			if err := c.shelves.remove(ctx, linkPath(repository, kind, digest)); err != nil {
				return err
			}
			c.uses.pass(digest, repository)
			c.links++
			c.linked[sumOf(digest)]--
			c.options.Log.Debug("link removed", "repository", repository, "digest", digest)
			return nil
		})
		return err
	})
	if err != nil {
		return err
	}
	if _, wanted := c.roots[repository]; wanted {
		return nil
	}
	_, err = c.uses.only(repository, func() error { return c.removeEmpty(ctx, repository) })
	return err
}

func (c *round) removeEmpty(ctx context.Context, repository string) error {
	for _, kind := range []string{revisionsPath, layersPath, uploadsPath} {
		left, err := c.shelves.names(ctx, path.Join(repositoriesPath, repository, kind))
		if err != nil || len(left) > 0 {
			return err
		}
	}
	return c.shelves.remove(ctx, path.Join(repositoriesPath, repository))
}

// sweepBytes removes the bytes that are due and that no repository has.
func (c *round) sweepBytes(ctx context.Context) error {
	return c.shelves.eachBlob(ctx, 0, func(digest string) error {
		if c.linked[sumOf(digest)] > 0 {
			c.uses.needed(digest, "")
			return nil
		}
		if !c.uses.found(digest, "", c.due) {
			return nil
		}
		_, err := c.uses.sweep(digest, "", c.due, func() error {
			size, err := c.shelves.size(ctx, digest)
			if err != nil {
				return err
			}
			if err := c.shelves.remove(ctx, blobPath(digest)); err != nil {
				return err
			}
			c.uses.needed(digest, "")
			c.blobs++
			c.bytes += size
			c.metrics.count(causeGarbage, size)
			return nil
		})
		return err
	})
}

// eachBlob calls with each blob's digest, those that begin with the same byte at once, beginning with one of these.
func (s *shelves) eachBlob(ctx context.Context, first int, do func(digest string) error) error {
	for i := range 256 {
		digests, err := s.digests(ctx, path.Join(blobsPath, fmt.Sprintf("%02x", (first+i)%256)))
		if err != nil {
			return err
		}
		for _, digest := range digests {
			if err := errors.Join(ctx.Err(), do(digest)); err != nil {
				return err
			}
		}
	}
	return nil
}
