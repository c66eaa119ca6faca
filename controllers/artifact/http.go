package artifact

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"os"

	"github.com/switchyard-dev/switchyard/runtime/quote"
)

const (
	// maxURL is what the API takes.
	maxURL = 2048
	// spoolName is what an archive is called while it comes; no file of a kind is called so.
	spoolName = ".archive"
)

// fetchArchive gets an archive whole, and unpacks it only if it is the one that was asked for.
func (f *Fetcher) fetchArchive(
	ctx context.Context, kind Kind, from Origin, revision string, root *os.Root,
) (found string, err error) {
	u, err := from.parseURL()
	if err != nil {
		return "", err
	}
	g, err := f.guard(from, u.Scheme, u.Host)
	if err != nil {
		return "", err
	}
	// It has no name once it is open, so it is gone whatever happens.
	spool, err := root.OpenFile(spoolName, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return "", err
	}
	defer func() { _ = spool.Close() }()
	if err := root.Remove(spoolName); err != nil {
		return "", err
	}
	if found, err = f.download(ctx, kind, from, g, u.String(), spool); err != nil {
		return "", advise(err, g)
	}
	if from.SHA256 != "" && found != "sha256:"+from.SHA256 {
		return "", invalid(from.String(), "expected an archive whose sha256 is %s, found %s",
			quote.Name(from.SHA256), quote.Name(found[len("sha256:"):]))
	}
	if revision != "" && found != revision {
		return "", invalid(from.String(), "its archive is another than it was: expected %s, found %s",
			quote.Name(revision), found)
	}
	if _, err := spool.Seek(0, io.SeekStart); err != nil {
		return "", err
	}
	limits := bounds{entries: f.options.Entries, bytes: f.limit(kind)}
	return found, unpack(ctx, from.String(), spool, kind, limits, root)
}

// download writes what a URL gives to a file, and returns its digest.
func (f *Fetcher) download(
	ctx context.Context, kind Kind, from Origin, g *guard, url string, file io.Writer,
) (digest string, err error) {
	where, limit := place{from.String(), "a web server"}, f.limit(kind)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", invalid(where.name, "expected a URL")
	}
	request.Header.Set("User-Agent", userAgent)
	response, err := (&http.Client{Transport: g, CheckRedirect: sameScheme}).Do(request)
	if err != nil {
		return "", explain(ctx, where, err)
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		e := &Error{Reason: Unreachable, Retry: true, where: where.name}
		e.byStatus(where, response.StatusCode)
		return "", e
	}
	sum := sha256.New()
	n, err := io.Copy(io.MultiWriter(disk{file}, sum), io.LimitReader(response.Body, limit+1))
	switch {
	case err != nil:
		return "", explain(ctx, where, err)
	case n > limit:
		return "", invalid(where.name, "expected an archive of at most %d bytes, found more", limit)
	}
	return "sha256:" + hex.EncodeToString(sum.Sum(nil)), nil
}

// disk marks what cannot be written as this machine's failure.
type disk struct{ io.Writer }

// Write writes.
func (d disk) Write(p []byte) (int, error) {
	n, err := d.Writer.Write(p)
	if err != nil {
		err = local{err}
	}
	return n, err
}
