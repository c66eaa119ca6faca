// Package registry is the artifact registry: an OCI registry over a folder or a bucket, from which pods pull what the
// manager pushed. The registry is distribution's; what is ours stands before it: who may what, and bounds; and beside
// it: what nobody needs any more is removed, and what is damaged.
//
// Invariants, unless everyone may push, as in a source registry of tests:
//   - Nothing is answered but to the bearer of a service account's token that the Reviewer knows; nobody is taken for
//     who he was for more than a minute.
//   - Only the manager's account changes anything. The account <pool>-runtime of a namespace reads <namespace>/<pool>.
//   - Everything goes by digest: there are no tags, what is there is never replaced by other bytes, and nothing is
//     deleted through it.
//   - What is a root, or was pushed or asked for by the manager within the grace, is not collected, whatever happens at
//     the same time. As long as the roots are not known nothing is.
//   - Bytes that are not their digest's are removed when they are found: read by a pod, pushed again, or by the scrub.
//
// And always: what it says of a blob it has just asked of the disk (no cache), so a lost blob is noticed; a request
// costs bounded memory and time, and so do all of a stranger's together. One process has a folder or bucket at a time:
// what the manager asked for is known to the one that it asked.
package registry

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry/handlers"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"
)

const (
	// maxBody is the largest base that a source may hold, which is one blob.
	maxBody = 16 << 30
	// HealthPath answers anyone with 200, for probes.
	HealthPath = "/healthz"
	// patience is how long requests under way may take to end when the registry is stopped.
	patience = 5 * time.Second
	// scrubRate is a fraction of what any disk gives.
	scrubRate = 32 << 20
)

// Options say where a registry keeps its artifacts and who may what.
type Options struct {
	Dir       string   // made if it is not there
	S3        *S3      // in place of Dir
	Reviewer  Reviewer // tells whose token a request bears
	Manager   string   // the user's name that may pull and push everywhere: system:serviceaccount:namespace:name
	AllowPush bool     // everything to anyone, without a token: for source registries of tests and samples
	MaxBody   int64    // of one request; 16 GiB

	// Roots are what is needed at this time, all of it or an error: what is not in them will be removed. nil: all is kept.
	Roots         func(context.Context) (Roots, error)
	GCInterval    time.Duration // between rounds of the garbage collection; 0: none but by Collect
	GCGrace       time.Duration // for which something must be unneeded, and not asked for, before it is removed
	ScrubInterval time.Duration // between two readings of all blobs; 0: none but by Scrub
	ScrubRate     int64         // bytes a second; 32 MiB

	Now     func() time.Time      // nil: time.Now
	Metrics prometheus.Registerer // nil: none
	Log     *slog.Logger          // of requests that were refused, or failed by our fault; nil: none
}

// Registry is an OCI registry.
type Registry struct {
	app     *handlers.App
	options Options
	door    *doorkeeper // nil where everything is allowed to anyone
	shelves *shelves
	uses    *uses
	metrics *measures

	collecting sync.Mutex // one round at a time
	rounds     int
}

// New opens or makes the registry in a folder or a bucket.
func New(o Options) (*Registry, error) {
	if !o.AllowPush && (o.Reviewer == nil || !strings.HasPrefix(o.Manager, accountPrefix)) {
		return nil, fmt.Errorf(
			"registry: expected a Reviewer, and a Manager %snamespace:name, found %q",
			accountPrefix,
			o.Manager,
		)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.MaxBody == 0 {
		o.MaxBody = maxBody
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.ScrubRate == 0 {
		o.ScrubRate = scrubRate
	}
	if o.AllowPush && o.Roots != nil || o.GCInterval > 0 && o.Roots == nil {
		return nil, errors.New("registry: expected Roots where garbage is collected, and a Reviewer with them")
	}
	kind, parameters, err := o.storage()
	if err != nil {
		return nil, err
	}
	// distribution writes every request to the standard logger of logrus, which nobody else here uses.
	logrus.SetOutput(io.Discard)
	r := &Registry{options: o, uses: newUses(o.Now)}
	if !o.AllowPush {
		if r.door, err = newDoorkeeper(&o); err != nil {
			return nil, fmt.Errorf("registry: %w", err)
		}
	}
	if r.metrics, err = newMeasures(o.Metrics); err != nil {
		return nil, fmt.Errorf("registry: %w", err)
	}
	if r.shelves, err = newShelves(context.Background(), kind, parameters); err != nil {
		return nil, err
	}
	if r.app, err = newApp(kind, parameters); err != nil {
		return nil, err
	}
	return r, nil
}

// newApp is distribution's registry; it panics where others return an error.
func newApp(kind string, parameters configuration.Parameters) (app *handlers.App, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("registry: %v", v)
		}
	}()
	config := &configuration.Configuration{
		Storage: configuration.Storage{
			kind:       parameters,
			"delete":   {"enabled": false},
			"redirect": {"disable": true},
			// No cache of blob descriptors: it goes on telling of blobs that are gone.
			"maintenance": {"uploadpurging": map[any]any{
				"enabled": true, "age": "24h", "interval": "6h", "dryrun": false, // what a broken push left
			}},
		},
	}
	config.Middleware = map[string][]configuration.Middleware{"storage": {{Name: hashStates}}}
	config.HTTP.Secret = rand.Text() // signs the state of an upload, which ends with the process
	config.HTTP.RelativeURLs = true  // pods, manager and tests know it by different names
	return handlers.NewApp(context.Background(), config), nil
}

// Serve serves, collects garbage and scrubs until ctx ends, then lets requests under way end for some seconds and
// closes.
func (r *Registry) Serve(ctx context.Context, listener net.Listener) error {
	server := &http.Server{
		Handler:           r,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		// A pod or the manager may be slow, but not for ever.
		ReadTimeout:    time.Hour,
		WriteTimeout:   time.Hour,
		MaxHeaderBytes: 64 << 10,
		ErrorLog:       slog.NewLogLogger(r.options.Log.Handler(), slog.LevelDebug),
	}
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		wait, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
		defer cancel()
		if server.Shutdown(wait) != nil {
			_ = server.Close() // the requests that are left are cut off
		}
	})
	if r.door != nil {
		r.abandonAll(ctx)
	}
	background, end := context.WithCancel(ctx)
	var tasks sync.WaitGroup
	tasks.Go(func() { r.every(background, r.options.GCInterval, r.Collect) })
	tasks.Go(func() { r.every(background, r.options.ScrubInterval, r.Scrub) })
	err := server.Serve(listener)
	end()
	if !stop() { // it was begun, so it is waited for
		<-stopped
	}
	tasks.Wait()
	if closed := r.Close(); !errors.Is(err, http.ErrServerClosed) {
		return err
	} else if closed != nil {
		return closed
	}
	return nil
}

// Close ends what the registry does in the background.
func (r *Registry) Close() error { return r.app.Shutdown() }

// every does something at once and then at each interval.
func (r *Registry) every(ctx context.Context, interval time.Duration, do func(context.Context) error) {
	if interval <= 0 {
		return
	}
	tick := time.NewTicker(interval) //nolint:forbidigo // the task is done by the clock
	defer tick.Stop()
	for {
		if err := do(ctx); err != nil && ctx.Err() == nil {
			r.options.Log.Error("artifact registry failed", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// ServeHTTP answers a request, if it is allowed.
func (r *Registry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if req.URL.Path == HealthPath && (req.Method == http.MethodGet || req.Method == http.MethodHead) {
		w.WriteHeader(http.StatusOK)
		return
	}
	var asked admitted
	switch {
	case r.door != nil:
		var refused *refusal
		if asked, refused = r.door.admit(req); refused != nil {
			refused.answer(w)
			return
		}
	case strings.HasPrefix(req.URL.Path, "/v2/_catalog"):
		refusedPath.answer(w) // it walks the whole folder
		return
	}
	if req.ContentLength > r.options.MaxBody {
		(&refusal{status: http.StatusRequestEntityTooLarge, code: "SIZE_INVALID", message: "too large"}).answer(w)
		return
	}
	req.Body = http.MaxBytesReader(w, req.Body, r.options.MaxBody)
	watched := &watch{ResponseWriter: w}
	if req.Method == http.MethodGet && asked.digest != "" {
		watched.sum = sha256.New()
	}
	if asked.manager {
		r.serveManager(watched, req, asked)
	} else {
		r.app.ServeHTTP(watched, req)
	}
	if watched.status >= http.StatusInternalServerError {
		r.options.Log.Error("artifact registry failed", "method", req.Method, "path", req.URL.Path,
			"status", watched.status, "answer", string(watched.answer))
	}
	if watched.damaged(asked) {
		r.tryHeal(context.WithoutCancel(req.Context()), asked.digest)
	}
}

// serveManager answers the manager, and keeps what it asks about from being collected.
func (r *Registry) serveManager(w *watch, req *http.Request, asked admitted) {
	digests, err := asked.about(req)
	if err != nil {
		(&refusal{status: http.StatusBadRequest, code: "MANIFEST_INVALID", message: "the manifest cannot be read"}).answer(w)
		return
	}
	if asked.write {
		for _, digest := range digests[:min(len(digests), 1)] {
			r.tryHeal(req.Context(), digest) // distribution takes what is there for what it should be
		}
	}
	names := digests
	if asked.repository != "" {
		names = append(names, asked.repository)
	}
	leave, err := r.uses.enter(req.Context(), names...)
	if err != nil {
		return // nobody waits for an answer
	}
	defer leave()
	r.app.ServeHTTP(w, req)
	if asked.upload != "" && req.Method == http.MethodPut && w.status/100 != 2 {
		// Nobody goes on with it, and what is there of it may be what the disk is full of.
		r.abandon(context.WithoutCancel(req.Context()), asked.repository, asked.upload)
	}
}

// abandon removes an upload.
func (r *Registry) abandon(ctx context.Context, repository, upload string) {
	err := r.shelves.remove(ctx, path.Join(repositoriesPath, repository, uploadsPath, upload))
	if err != nil {
		r.options.Log.Warn("upload cannot be removed", "repository", repository, "error", err)
	}
}

// abandonAll removes the uploads of a former process: what signs their state ended with it.
func (r *Registry) abandonAll(ctx context.Context) {
	repositories, err := r.shelves.repositories(ctx)
	for _, repository := range repositories {
		var uploads []string
		if uploads, err = r.shelves.names(ctx, path.Join(repositoriesPath, repository, uploadsPath)); err != nil {
			break
		}
		for _, upload := range uploads {
			r.abandon(ctx, repository, upload)
		}
	}
	if err != nil && ctx.Err() == nil {
		r.options.Log.Warn("uploads cannot be listed", "error", err)
	}
}

// answer says it as the distribution specification has it.
func (r *refusal) answer(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/json")
	switch r.status {
	case http.StatusUnauthorized:
		w.Header().Set("WWW-Authenticate", "Bearer")
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		w.Header().Set("Retry-After", "1")
	}
	w.WriteHeader(r.status)
	fmt.Fprintf(w, `{"errors":[{"code":%q,"message":%q}]}`, r.code, r.message)
}
