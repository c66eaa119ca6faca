// Package registrytest runs a real artifact registry on loopback for tests, and pushes folders to it.
package registrytest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry/handlers"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/filesystem" // where the blobs lie
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/sirupsen/logrus"
	"oras.land/oras-go/v2/registry/remote"

	"github.com/switchyard-dev/switchyard/runtime/agent/artifacts"
	"github.com/switchyard-dev/switchyard/runtime/model"
	"github.com/switchyard-dev/switchyard/runtime/peft"
	"github.com/switchyard-dev/switchyard/runtime/weights"
)

// Repository is where everything is pushed.
const Repository = "demo/digits"

// Registry is distribution's own over a folder, with TLS, for who bears its token. It may be away for a while.
type Registry struct {
	Dir  string
	Asks atomic.Int64 // requests it has seen

	t      testing.TB
	server *httptest.Server
	files  string // folder of token and ca.crt
	token  atomic.Pointer[string]
	away   atomic.Bool
}

// New starts a registry that lives as long as the test.
func New(t testing.TB) *Registry {
	t.Helper()
	logrus.SetOutput(io.Discard)
	r := &Registry{Dir: t.TempDir(), t: t, files: t.TempDir()}
	app := handlers.NewApp(context.Background(), &configuration.Configuration{
		Version: "0.1",
		Storage: configuration.Storage{
			"filesystem": {"rootdirectory": r.Dir},
			"delete":     {"enabled": true},
		},
		Catalog: configuration.Catalog{MaxEntries: 1},
	})
	r.server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		r.Asks.Add(1)
		if r.away.Load() {
			panic(http.ErrAbortHandler) // the connection breaks
		}
		if request.Header.Get("Authorization") != "Bearer "+*r.token.Load() {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		app.ServeHTTP(w, request)
	}))
	t.Cleanup(r.server.Close)
	r.Renew(Pull)
	r.Trust(r.server.Certificate())
	return r
}

// Pull is the token that a registry takes at first.
const Pull = "a pod's token"

// Renew has the registry take another token, and writes it into the pod's file.
func (r *Registry) Renew(token string) {
	r.t.Helper()
	r.token.Store(&token)
	r.write("token", []byte(token+"\n"))
}

// Trust has the pod's file of certificates hold this one and no other.
func (r *Registry) Trust(certificate *x509.Certificate) {
	r.t.Helper()
	r.write("ca.crt", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate.Raw}))
}

// Certificate is the one that the registry has.
func (r *Registry) Certificate() *x509.Certificate { return r.server.Certificate() }

// CloseConnections has the pod make new ones, and the test's own pushes too, which may not have seen yet that theirs is
// gone.
func (r *Registry) CloseConnections() {
	r.server.CloseClientConnections()
	r.server.Client().CloseIdleConnections()
}

func (r *Registry) write(name string, data []byte) {
	r.t.Helper()
	if err := os.WriteFile(filepath.Join(r.files, name), data, 0o600); err != nil {
		r.t.Fatal(err)
	}
}

// Options are a pod's.
func (r *Registry) Options() artifacts.RegistryOptions {
	return artifacts.RegistryOptions{
		Address: r.server.URL, Repository: Repository,
		TokenFile: filepath.Join(r.files, "token"), CAFile: filepath.Join(r.files, "ca.crt"),
	}
}

// Away has the registry answer nobody, or be back.
func (r *Registry) Away(away bool) { r.away.Store(away) }

// Adapter pushes an adapter's folder and returns its digest.
func (r *Registry) Adapter(folder string, settings peft.Settings) string {
	r.t.Helper()
	return r.push(peft.ArtifactType, folder, settings.JSON(),
		"adapter_config.json", "adapter_model.safetensors", "config.json")
}

// Base pushes a base's folder and returns its digest.
func (r *Registry) Base(folder string) string {
	r.t.Helper()
	opened, err := weights.OpenFolder(folder)
	if err != nil {
		r.t.Fatal(err)
	}
	defer func() { _ = opened.Close() }()
	files, _, err := weights.ModelFiles(opened)
	if err != nil {
		r.t.Fatal(err)
	}
	return r.push(model.ArtifactType, folder, []byte("{}"), append(files, "config.json",
		"preprocessor_config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt", "added_tokens.json",
		"special_tokens_map.json")...)
}

func (r *Registry) push(artifactType, folder string, settings []byte, names ...string) string {
	r.t.Helper()
	var blobs []weights.Blob
	for _, name := range names {
		data, err := os.ReadFile(filepath.Join(folder, name))
		if os.IsNotExist(err) {
			continue
		}
		if err != nil {
			r.t.Fatal(err)
		}
		r.Blob(data)
		blobs = append(blobs, weights.NewBlob(name, data))
	}
	r.Blob(settings)
	return r.Manifest(weights.Manifest(artifactType, settings, blobs))
}

// Blob pushes a blob.
func (r *Registry) Blob(data []byte) string {
	return r.put(ocispec.Descriptor{MediaType: "application/octet-stream"}, data)
}

// Manifest pushes a manifest as it is.
func (r *Registry) Manifest(raw []byte) string {
	r.t.Helper()
	if !json.Valid(raw) {
		r.t.Fatalf("not JSON: %s", raw)
	}
	return r.put(ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest}, raw)
}

func (r *Registry) put(d ocispec.Descriptor, data []byte) string {
	r.t.Helper()
	repository, err := remote.NewRepository(r.server.Listener.Addr().String() + "/" + Repository)
	if err != nil {
		r.t.Fatal(err)
	}
	repository.Client = bearer{r}
	d.Digest, d.Size = digest.FromBytes(data), int64(len(data))
	if err := repository.Push(context.Background(), d, bytes.NewReader(data)); err != nil {
		r.t.Fatal(err)
	}
	return d.Digest.String()
}

// bearer sends requests with the registry's token.
type bearer struct{ r *Registry }

// Do sends one.
func (b bearer) Do(request *http.Request) (*http.Response, error) {
	request.Header.Set("Authorization", "Bearer "+*b.r.token.Load())
	return b.r.server.Client().Do(request) //nolint:gosec // to the server of this test alone
}

// Damage replaces a blob's content behind the registry's back; nil loses it.
func (r *Registry) Damage(data, with []byte) {
	r.t.Helper()
	sum := sha256.Sum256(data)
	name := hex.EncodeToString(sum[:])
	path := filepath.Join(r.Dir, "docker/registry/v2/blobs/sha256", name[:2], name, "data")
	err := os.Remove(path)
	if err == nil && with != nil {
		err = os.WriteFile(path, with, 0o600)
	}
	if err != nil {
		r.t.Fatal(err)
	}
}
