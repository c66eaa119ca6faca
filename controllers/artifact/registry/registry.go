// Package registry is the artifact registry: an OCI registry over a folder, from which pods pull what the manager
// pushed. The registry is distribution's; what is ours stands before it: who may push, and bounds.
//
// Invariants: without the push token nothing in the folder changes (unless everyone may push, as in a source registry
// of tests); nothing is ever deleted through it; what it says of a blob it has just asked of the disk (no cache), so a
// lost blob is noticed; a request costs bounded memory and time.
package registry

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
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
	"github.com/sirupsen/logrus"
)

const (
	// maxBody is the largest base that a source may hold, which is one blob.
	maxBody = 16 << 30
	// maxToken is far more than any token.
	maxToken = 4 << 10
	// patience is how long requests under way may take to end when the registry is stopped.
	patience = 5 * time.Second
)

// Options say where a registry keeps its artifacts and who may push.
type Options struct {
	Dir       string // made if it is not there
	PushToken string
	AllowPush bool  // by anyone, without a token: for source registries of tests and samples
	MaxBody   int64 // of one request; 16 GiB

	Log *slog.Logger // of requests that failed by our fault; nil: none
}

// Registry is an OCI registry.
type Registry struct {
	app     *handlers.App
	options Options
	token   [sha256.Size]byte
}

// New opens or makes the registry in a folder.
func New(o Options) (*Registry, error) {
	if o.PushToken == "" && !o.AllowPush {
		return nil, errors.New("registry: expected a push token, found none")
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
	app, err := newApp(o.Dir)
	if err != nil {
		return nil, err
	}
	return &Registry{app, o, sha256.Sum256([]byte(o.PushToken))}, nil
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

// ReadToken reads a push token from a file, as a Secret is mounted.
func ReadToken(path string) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("push token: %w", err)
	}
	defer func() { _ = file.Close() }()
	raw, err := io.ReadAll(io.LimitReader(file, maxToken+1))
	if err != nil {
		return "", fmt.Errorf("push token: %w", err)
	}
	token := strings.TrimSpace(string(raw))
	if token == "" || len(raw) > maxToken {
		return "", fmt.Errorf("push token: expected 1 to %d bytes in %s, found %d", maxToken, path, len(raw))
	}
	return token, nil
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
	switch req.Method {
	case http.MethodGet, http.MethodHead:
	case http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete:
		if !r.mayPush(req) {
			refuse(w, http.StatusForbidden, "DENIED", "only the manager may push")
			return
		}
	default:
		refuse(w, http.StatusMethodNotAllowed, "UNSUPPORTED", "no such method")
		return
	}
	if strings.HasPrefix(req.URL.Path, "/v2/_catalog") {
		// It walks the whole folder, and tells the names of all namespaces.
		refuse(w, http.StatusNotFound, "UNSUPPORTED", "no catalog")
		return
	}
	if req.ContentLength > r.options.MaxBody {
		refuse(w, http.StatusRequestEntityTooLarge, "SIZE_INVALID", "too large")
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

// mayPush compares digests, so that neither the token's bytes nor its length can be found out by the time it takes.
func (r *Registry) mayPush(req *http.Request) bool {
	if r.options.AllowPush {
		return true
	}
	token, ok := strings.CutPrefix(req.Header.Get("Authorization"), "Bearer ")
	given := sha256.Sum256([]byte(token))
	return subtle.ConstantTimeCompare(given[:], r.token[:]) == 1 && ok
}

// refuse answers as the distribution specification has it; the words need no escaping.
func refuse(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	fmt.Fprintf(w, `{"errors":[{"code":%q,"message":%q}]}`, code, message)
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
