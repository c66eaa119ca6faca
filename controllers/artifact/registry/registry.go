// Package registry is the artifact registry: an OCI registry over a folder, from which pods pull what the manager
// pushed. The registry is distribution's; what is ours stands before it: who may what, and bounds.
//
// Invariants, unless everyone may push, as in a source registry of tests:
//   - Nothing is answered but to the bearer of a service account's token that the Reviewer knows; nobody is taken for
//     who he was for more than a minute.
//   - Only the manager's account changes anything. The account <pool>-runtime of a namespace reads <namespace>/<pool>.
//   - Everything goes by digest: there are no tags, what is there is never replaced by other bytes, and nothing is
//     deleted through it.
//
// And always: what it says of a blob it has just asked of the disk (no cache), so a lost blob is noticed; a request
// costs bounded memory and time, and so do all of a stranger's together.
package registry

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry/handlers"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/filesystem" // the storage below
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
)

// Options say where a registry keeps its artifacts and who may what.
type Options struct {
	Dir       string   // made if it is not there
	Reviewer  Reviewer // tells whose token a request bears
	Manager   string   // the user's name that may pull and push everywhere: system:serviceaccount:namespace:name
	AllowPush bool     // everything to anyone, without a token: for source registries of tests and samples
	MaxBody   int64    // of one request; 16 GiB

	Now     func() time.Time      // nil: time.Now
	Metrics prometheus.Registerer // nil: none
	Log     *slog.Logger          // of requests that were refused, or failed by our fault; nil: none
}

// Registry is an OCI registry.
type Registry struct {
	app     *handlers.App
	options Options
	door    *doorkeeper // nil where everything is allowed to anyone
}

// New opens or makes the registry in a folder.
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
	if o.Dir == "" {
		return nil, errors.New("registry: expected a folder, found none")
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("registry: %w", err)
	}
	// distribution writes every request to the standard logger of logrus, which nobody else here uses.
	logrus.SetOutput(io.Discard)
	r := &Registry{options: o}
	var err error
	if !o.AllowPush {
		if r.door, err = newDoorkeeper(&o); err != nil {
			return nil, fmt.Errorf("registry: %w", err)
		}
	}
	if r.app, err = newApp(o.Dir); err != nil {
		return nil, err
	}
	return r, nil
}

// newApp is distribution's registry; it panics where others return an error.
func newApp(dir string) (app *handlers.App, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("registry: %v", v)
		}
	}()
	config := &configuration.Configuration{
		Storage: configuration.Storage{
			"filesystem": {"rootdirectory": dir},
			"delete":     {"enabled": false},
			"redirect":   {"disable": true},
			// No cache of blob descriptors: it goes on telling of blobs that are gone.
			"maintenance": {"uploadpurging": map[any]any{
				"enabled": true, "age": "24h", "interval": "6h", "dryrun": false, // what a broken push left
			}},
		},
	}
	config.HTTP.Secret = rand.Text() // signs the state of an upload, which ends with the process
	config.HTTP.RelativeURLs = true  // pods, manager and tests know it by different names
	return handlers.NewApp(context.Background(), config), nil
}

// Serve serves until ctx ends, then lets requests under way end for some seconds and closes.
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
	err := server.Serve(listener)
	if !stop() { // it was begun, so it is waited for
		<-stopped
	}
	if closed := r.Close(); !errors.Is(err, http.ErrServerClosed) {
		return err
	} else if closed != nil {
		return closed
	}
	return nil
}

// Close ends what the registry does in the background.
func (r *Registry) Close() error { return r.app.Shutdown() }

// ServeHTTP answers a request, if it is allowed.
func (r *Registry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if req.URL.Path == HealthPath && (req.Method == http.MethodGet || req.Method == http.MethodHead) {
		w.WriteHeader(http.StatusOK)
		return
	}
	if refused := r.check(req); refused != nil {
		refused.answer(w)
		return
	}
	if req.ContentLength > r.options.MaxBody {
		(&refusal{status: http.StatusRequestEntityTooLarge, code: "SIZE_INVALID", message: "too large"}).answer(w)
		return
	}
	req.Body = http.MaxBytesReader(w, req.Body, r.options.MaxBody)
	watched := &failures{ResponseWriter: w}
	r.app.ServeHTTP(watched, req)
	if watched.status >= http.StatusInternalServerError {
		r.options.Log.Error("artifact registry failed", "method", req.Method, "path", req.URL.Path,
			"status", watched.status, "answer", string(watched.answer))
	}
}

// check says why a request is not answered, if it is not.
func (r *Registry) check(req *http.Request) *refusal {
	switch {
	case r.door != nil:
		user, refused, cause := r.door.admit(req)
		if refused != nil {
			r.door.tell(req, user, refused, cause)
		}
		return refused
	case strings.HasPrefix(req.URL.Path, "/v2/_catalog"):
		return refusedPath // it walks the whole folder
	}
	return nil
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

// failures keeps the status, and the beginning of an answer that says what of ours failed (a full disk).
type failures struct {
	http.ResponseWriter
	status int
	answer []byte
}

// WriteHeader keeps the status.
func (f *failures) WriteHeader(status int) {
	f.status = status
	f.ResponseWriter.WriteHeader(status)
}

// Write keeps the beginning of a failure.
func (f *failures) Write(p []byte) (int, error) {
	if room := 512 - len(f.answer); f.status >= http.StatusInternalServerError && room > 0 {
		f.answer = append(f.answer, p[:min(room, len(p))]...)
	}
	return f.ResponseWriter.Write(p)
}
