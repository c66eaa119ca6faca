package artifact_test

import (
	"context"
	"crypto/tls"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/switchyard-dev/switchyard/controllers/artifact"
	"github.com/switchyard-dev/switchyard/controllers/artifact/registry"
	"github.com/switchyard-dev/switchyard/runtime/peft"
)

const repo = "demo/digits"

// expectUnavailable wants the error of a registry that should be tried again.
func expectUnavailable(t *testing.T, err error, text string) {
	t.Helper()
	expectError(t, err, artifact.Unreachable, true, text)
}

func TestOnlyTheManagerPushes(t *testing.T) {
	dir := t.TempDir()
	host := serve(t, keep(dir))
	p := pack(t, artifact.Adapter, parity(), peft.Settings{})
	for _, wrong := range []string{"", "wrong", token + "x", token[1:]} {
		expectUnavailable(t, store(t, host, wrong).Push(t.Context(), repo, p), "it does not take our token")
	}
	expectUnavailable(t, store(t, host, "a pod's").Push(t.Context(), repo, p), "it does not let our account push")
	if n := len(blobs(t, dir)); n > 0 {
		t.Errorf("expected an empty registry, found %d blobs", n)
	}
	if err := store(t, host, token).Push(t.Context(), repo, p); err != nil {
		t.Fatal(err)
	}
	expectExists(t, store(t, host, "a pod's"), repo, p.Digest, true)
	_, err := store(t, host, "").Exists(t.Context(), repo, p.Digest)
	expectUnavailable(t, err, "it does not take our token")
}

func TestArtifactsOutliveTheRegistry(t *testing.T) {
	options := keep(t.TempDir())
	p := pack(t, artifact.Base, digitsBase(), peft.Settings{})
	if err := store(t, serve(t, options), token).Push(t.Context(), repo, p); err != nil {
		t.Fatal(err)
	}
	expectExists(t, store(t, serve(t, options), token), repo, p.Digest, true)
}

// A registry that lost any part of an artifact has lost it, until it is pushed again.
func TestLostBlobs(t *testing.T) {
	dir := t.TempDir()
	s := store(t, serve(t, keep(dir)), token)
	p := pack(t, artifact.Adapter, parity(), peft.Settings{ClassNames: []string{"even", "odd"}})
	push := func() {
		t.Helper()
		if err := s.Push(t.Context(), repo, p); err != nil {
			t.Fatal(err)
		}
		expectExists(t, s, repo, p.Digest, true)
	}
	push()
	stored := blobs(t, dir)
	if n := len(p.Files) + 2; len(stored) != n {
		t.Fatalf("expected %d blobs, found %q", n, stored)
	}
	for _, blob := range stored {
		if err := os.Remove(blob); err != nil {
			t.Fatal(err)
		}
		expectExists(t, s, repo, p.Digest, false)
		push()
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			t.Fatal(err)
		}
	}
	expectExists(t, s, repo, p.Digest, false)
	push()
}

// A blob that is there in part is not there. distribution takes it for whole by its name; ours looks when it is pushed.
func TestDamagedBlobs(t *testing.T) {
	dir := t.TempDir()
	s := store(t, serve(t, keep(dir)), token)
	p := pack(t, artifact.Adapter, parity(), peft.Settings{})
	manifest := strings.TrimPrefix(p.Digest, "sha256:")
	damage := func(ofManifest bool) {
		t.Helper()
		if err := s.Push(t.Context(), repo, p); err != nil {
			t.Fatal(err)
		}
		for _, blob := range blobs(t, dir) {
			if strings.Contains(blob, manifest) != ofManifest {
				continue
			}
			if err := os.Truncate(blob, 1); err != nil {
				t.Fatal(err)
			}
		}
	}
	damage(false)
	expectExists(t, s, repo, p.Digest, false)
	damage(true) // distribution cannot even say so
	_, err := s.Exists(t.Context(), repo, p.Digest)
	expectUnavailable(t, err, "status 500")
	expectExists(t, s, repo, p.Digest, false) // it has been looked at, and is gone
	damage(true)
	if err := s.Push(t.Context(), repo, p); err != nil {
		t.Fatal(err)
	}
	expectExists(t, s, repo, p.Digest, true)
}

// A registry that collects what was still there when the push looked is given it again.
func TestAPushThatMeetsTheCollector(t *testing.T) {
	for tries, want := range map[int]bool{2: true, 3: false} {
		dir := t.TempDir()
		kept, err := registry.New(keep(dir))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = kept.Close() }()
		server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if tries > 0 && r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/manifests/") {
				tries--
				if err := os.RemoveAll(filepath.Dir(blobs(t, dir)[0])); err != nil {
					t.Error(err)
				}
			}
			kept.ServeHTTP(w, r)
		}))
		defer server.Close()
		s := store(t, server.Listener.Addr().String(), token)
		p := pack(t, artifact.Adapter, parity(), peft.Settings{})
		err = s.Push(t.Context(), repo, p)
		if want && err != nil {
			t.Errorf("expected it pushed, found %v", err)
		}
		if !want {
			expectUnavailable(t, err, "")
		}
		expectExists(t, s, repo, p.Digest, want)
	}
}

// blobs are the files that a registry keeps blobs in.
func blobs(t *testing.T, dir string) (paths []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.Name() == "data" && strings.Contains(path, "/blobs/") {
			paths = append(paths, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

func TestTheRegistryIsDown(t *testing.T) {
	closed := httptest.NewServer(http.NotFoundHandler())
	closed.Close()
	s := store(t, strings.TrimPrefix(closed.URL, "http://"), token)
	p := pack(t, artifact.Adapter, parity(), peft.Settings{})
	_, err := s.Exists(t.Context(), repo, p.Digest)
	expectUnavailable(t, err, "connection refused")
	expectUnavailable(t, s.Push(t.Context(), repo, p), "connection refused")
}

// The token goes to the artifact registry and nowhere else, whatever answers there says.
func TestTheTokenStays(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		t.Error("expected no request elsewhere")
	}))
	defer elsewhere.Close()
	for _, redirect := range []bool{true, false} {
		here := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch {
			case r.Method == http.MethodHead && !redirect:
				w.WriteHeader(http.StatusNotFound)
			case redirect:
				http.Redirect(w, r, elsewhere.URL, http.StatusTemporaryRedirect)
			default:
				w.Header().Set("Location", elsewhere.URL+"/upload")
				w.WriteHeader(http.StatusAccepted)
			}
		}))
		p := pack(t, artifact.Adapter, parity(), peft.Settings{})
		expectUnavailable(t, store(t, here.Listener.Addr().String(), token).Push(t.Context(), repo, p), "")
		here.Close()
	}
}

// Whatever a push is not, the registry refuses: nothing is ever deleted through it, and nobody lists it.
func TestTheRegistryRefuses(t *testing.T) {
	options := keep(t.TempDir())
	options.MaxBody = 1 << 20
	host := serve(t, options)
	p := pack(t, artifact.Adapter, parity(), peft.Settings{})
	s := store(t, host, token)
	if err := s.Push(t.Context(), repo, p); err != nil {
		t.Fatal(err)
	}
	config := digest.FromBytes(p.Settings).String()
	client := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: testRoots()}}
	defer client.CloseIdleConnections()
	for _, c := range []struct {
		method, path string
		status       int
	}{
		{http.MethodGet, "/v2/", http.StatusOK},
		{http.MethodGet, "/v2/_catalog", http.StatusNotFound},
		{http.MethodDelete, "/v2/" + repo + "/manifests/" + p.Digest, http.StatusMethodNotAllowed},
		{http.MethodDelete, "/v2/" + repo + "/blobs/" + config, http.StatusMethodNotAllowed},
		{http.MethodTrace, "/v2/", http.StatusMethodNotAllowed},
		{http.MethodGet, "/v2/" + repo + "/blobs/" + config, http.StatusOK},
		{http.MethodGet, "/v2/" + repo + "/../../blobs", http.StatusNotFound},
	} {
		request, err := http.NewRequestWithContext(t.Context(), c.method, "https://"+host+c.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Authorization", "Bearer "+token)
		response, err := client.RoundTrip(request)
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		if response.StatusCode != c.status && (c.status != http.StatusNotFound || response.StatusCode/100 != 3) {
			t.Errorf("%s %s: expected %d, found %d", c.method, c.path, c.status, response.StatusCode)
		}
	}
	expectExists(t, s, repo, p.Digest, true)

	large := t.TempDir()
	for name, size := range map[string]int{"adapter_config.json": 1, "adapter_model.safetensors": 1<<20 + 1} {
		if err := os.WriteFile(filepath.Join(large, name), make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	expectUnavailable(t, s.Push(t.Context(), repo, pack(t, artifact.Adapter, large, peft.Settings{})), "")
}

func TestServe(t *testing.T) {
	if _, err := registry.New(registry.Options{Dir: t.TempDir()}); err == nil {
		t.Error("expected a registry that knows nobody refused")
	}
	r, err := registry.New(keep(filepath.Join(t.TempDir(), "new", "folder")))
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	// Of which only the certificate is wanted.
	with := httptest.NewTLSServer(nil)
	defer with.Close()
	address := listener.Addr().String()
	listener = tls.NewListener(listener, &tls.Config{Certificates: with.TLS.Certificates})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- r.Serve(ctx, listener) }()
	p := pack(t, artifact.Adapter, parity(), peft.Settings{})
	if err := store(t, address, token).Push(ctx, repo, p); err != nil {
		t.Error(err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("expected an end without error, found %v", err)
	}
}

// An answer may come while the body is still on its way; the file is unmapped then, and nothing may read it any more.
func TestAnAnswerBeforeTheBodyIsRead(t *testing.T) {
	early := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.Method {
		case http.MethodHead:
			w.WriteHeader(http.StatusNotFound)
		case http.MethodPost:
			w.Header().Set("Location", r.URL.Path)
			w.WriteHeader(http.StatusAccepted)
		default:
			if r.ContentLength < 1<<20 {
				w.WriteHeader(http.StatusCreated)
				return
			}
			w.WriteHeader(http.StatusInsufficientStorage)
		}
	}))
	defer early.Close()
	dir := t.TempDir()
	for name, size := range map[string]int{"adapter_config.json": 1, "adapter_model.safetensors": 64 << 20} {
		if err := os.WriteFile(filepath.Join(dir, name), make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s, p := store(t, early.Listener.Addr().String(), token), pack(t, artifact.Adapter, dir, peft.Settings{})
	for range 3 {
		expectUnavailable(t, s.Push(t.Context(), repo, p), "")
	}
}

func TestFile(t *testing.T) {
	s := store(t, serve(t, keep(t.TempDir())), token)
	p := pack(t, artifact.Base, digitsBase(), peft.Settings{})
	if err := s.Push(t.Context(), repo, p); err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(filepath.Join(digitsBase(), "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := s.File(t.Context(), repo, p.Digest, "config.json", 1<<20); err != nil || string(got) != string(want) {
		t.Errorf("expected %s, found %s, %v", want, got, err)
	}
	_, err = s.File(t.Context(), repo, p.Digest, "config.json", 10)
	expectError(t, err, artifact.Invalid, false, `expected the file "config.json" of at most 10 bytes`)
	_, err = s.File(t.Context(), repo, p.Digest, "README.md", 10)
	expectError(t, err, artifact.Invalid, false, `expected the file "README.md"`)
	_, err = s.File(t.Context(), "other/pool", p.Digest, "config.json", 1<<20)
	expectUnavailable(t, err, "not found")
}
