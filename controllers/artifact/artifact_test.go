package artifact_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/switchyard-dev/switchyard/controllers/artifact"
	"github.com/switchyard-dev/switchyard/controllers/artifact/registry"
	"github.com/switchyard-dev/switchyard/runtime/agent/artifacts"
	"github.com/switchyard-dev/switchyard/runtime/arch"
	"github.com/switchyard-dev/switchyard/runtime/model"
	"github.com/switchyard-dev/switchyard/runtime/peft"
	"github.com/switchyard-dev/switchyard/runtime/weights"
	"github.com/switchyard-dev/switchyard/test/digits"
	"github.com/switchyard-dev/switchyard/test/ocisource"
)

const (
	sample = "../../hack/samples/digits"
	token  = "the manager's token"
	// managerName and podsName are the users' names that the artifact registry knows.
	managerName = "system:serviceaccount:switchyard-system:switchyard-manager"
	podsName    = "system:serviceaccount:demo:digits-runtime"
)

// accounts are users' names by token, as an API server knows them.
type accounts map[string]string

func (a accounts) Review(_ context.Context, token string) (string, error) { return a[token], nil }

// keep are the options of an artifact registry that knows the manager and the pods of demo/digits.
func keep(dir string) registry.Options {
	return registry.Options{
		Dir: dir, Manager: managerName, Reviewer: accounts{token: managerName, "a pod's": podsName},
	}
}

// serve runs a registry over a folder and returns its host: with TLS, but for a source.
func serve(t *testing.T, o registry.Options) (host string) {
	t.Helper()
	r, err := registry.New(o)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(r)
	if o.AllowPush {
		server.Start()
	} else {
		server.StartTLS()
	}
	t.Cleanup(func() {
		server.Close()
		_ = r.Close()
	})
	return server.Listener.Addr().String()
}

// testCA is by what httptest's servers with TLS are known.
var testCA = sync.OnceValue(func() []byte {
	server := httptest.NewTLSServer(nil)
	defer server.Close()
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
})

func testRoots() *x509.CertPool {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(testCA())
	return roots
}

// sourceRegistry is a registry that everyone may push to.
func sourceRegistry(t *testing.T) (host string) {
	return serve(t, registry.Options{Dir: t.TempDir(), AllowPush: true})
}

func store(t *testing.T, host, token string) *artifact.Store {
	t.Helper()
	s, err := artifact.NewStore(artifact.StoreOptions{
		Host:  host,
		Token: func() (string, error) { return token, nil },
		Roots: func(context.Context) (*x509.CertPool, error) { return testRoots(), nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// newFetcher is a fetcher that may ask this machine.
func newFetcher(o artifact.FetcherOptions) *artifact.Fetcher {
	o.Allow = append(o.Allow, netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128"))
	return artifact.NewFetcher(o)
}

func oci(ref string) artifact.Origin { return artifact.Origin{Ref: ref} }

func openFolder(t *testing.T, dir string) *weights.Folder {
	t.Helper()
	folder, err := weights.OpenFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = folder.Close() })
	return folder
}

func pack(t *testing.T, kind artifact.Kind, dir string, settings peft.Settings) *artifact.Packed {
	t.Helper()
	p, err := artifact.Pack(kind, openFolder(t, dir), settings)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func parity() string     { return filepath.Join(digits.Adapters(sample), "parity") }
func digitsBase() string { return digits.Base(sample) }

func description(t *testing.T) *arch.Description {
	t.Helper()
	config, err := os.ReadFile(filepath.Join(digitsBase(), "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	names, err := arch.Tensors(config)
	if err != nil {
		t.Fatal(err)
	}
	d, err := arch.Parse(config, names)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// expectError wants an Error of that reason whose message holds a text.
func expectError(t *testing.T, err error, reason artifact.Reason, retry bool, text string) {
	t.Helper()
	var e *artifact.Error
	if !errors.As(err, &e) {
		t.Fatalf("expected an Error, found %T: %v", err, err)
	}
	if e.Reason != reason || e.Retry != retry || !strings.Contains(e.Error(), text) {
		t.Errorf("expected %s, retry %v, %q within, found %s, %v, %v", reason, retry, text, e.Reason, e.Retry, e)
	}
	if strings.Contains(e.Error(), secret) || len(e.Error()) > 1000 {
		t.Errorf("expected our own words only, found %v", e)
	}
}

// One revision has one digest, wherever it is asked for: in a standalone runtime, when it is packed, and when it has
// gone through registries.
func TestTheDigestIsTheSameEverywhere(t *testing.T) {
	base, err := model.Open(openFolder(t, digitsBase()), arch.Float32)
	if err != nil {
		t.Fatal(err)
	}
	if p := pack(t, artifact.Base, digitsBase(), peft.Settings{}); p.Digest != base.Digest {
		t.Errorf("base: expected %s, found %s", base.Digest, p.Digest)
	}
	for _, name := range []string{"parity", "digit", "holes"} {
		dir := filepath.Join(digits.Adapters(sample), name)
		plain, err := peft.Load(openFolder(t, dir), description(t), peft.Settings{})
		if err != nil {
			t.Fatal(err)
		}
		settings := peft.Settings{ClassNames: arch.DefaultLabels(len(plain.Labels))}
		named, err := peft.Load(openFolder(t, dir), description(t), settings)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if p := pack(t, artifact.Adapter, dir, peft.Settings{}); p.Digest != plain.Digest {
				t.Errorf("%s: expected %s, found %s", name, plain.Digest, p.Digest)
			}
		}
		if p := pack(t, artifact.Adapter, dir, settings); p.Digest != named.Digest || p.Digest == plain.Digest {
			t.Errorf("%s with class names: expected %s, found %s", name, named.Digest, p.Digest)
		}
	}
}

// From a source as a user fills it to the artifact registry, and out of it again as a pod pulls.
func TestRoundTrip(t *testing.T) {
	ctx := t.Context()
	sources, kept := sourceRegistry(t), serve(t, keep(t.TempDir()))
	s, fetcher := store(t, kept, token), newFetcher(artifact.FetcherOptions{})
	for _, c := range []struct {
		kind     artifact.Kind
		dir      string
		settings peft.Settings
	}{
		{artifact.Base, digitsBase(), peft.Settings{}},
		{artifact.Adapter, parity(), peft.Settings{ClassNames: []string{"gerade", "ungerade"}}},
	} {
		ref := sources + "/digits:" + string(c.kind)
		pushed, err := ocisource.Push(ctx, ref, c.dir)
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		revision, err := fetcher.Fetch(ctx, c.kind, oci(ref), "", dir)
		if err != nil || revision != pushed {
			t.Fatalf("expected %s, found %s, %v", pushed, revision, err)
		}
		p, want := pack(t, c.kind, dir, c.settings), pack(t, c.kind, c.dir, c.settings)
		if p.Digest != want.Digest {
			t.Errorf("packed: expected %s, found %s", want.Digest, p.Digest)
		}
		repo := artifact.Repository("demo", "digits")
		expectExists(t, s, repo, p.Digest, false)
		for range 2 {
			if err := s.Push(ctx, repo, p); err != nil {
				t.Fatal(err)
			}
			expectExists(t, s, repo, p.Digest, true)
		}
		expectExists(t, s, artifact.Repository("other", "digits"), p.Digest, false)

		pulled, err := pods(t, kept, repo).Fetch(ctx, p.Digest, 1<<30)
		if err != nil {
			t.Fatal(err)
		}
		if again := pack(t, c.kind, pulled.Folder, c.settings); again.Digest != p.Digest {
			t.Errorf("pulled: expected %s, found %s", p.Digest, again.Digest)
		}
	}
}

// pods is what a pod has of a repository.
func pods(t *testing.T, host, repo string) *artifacts.Store {
	t.Helper()
	files := t.TempDir()
	for name, text := range map[string][]byte{"token": []byte("a pod's"), "ca.crt": testCA()} {
		if err := os.WriteFile(filepath.Join(files, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	registry, err := artifacts.NewRegistry(artifacts.RegistryOptions{
		Address: "https://" + host, Repository: repo,
		TokenFile: filepath.Join(files, "token"), CAFile: filepath.Join(files, "ca.crt"),
	})
	if err != nil {
		t.Fatal(err)
	}
	pulled, err := artifacts.NewStore(t.TempDir(), registry)
	if err != nil {
		t.Fatal(err)
	}
	return pulled
}

func expectExists(t *testing.T, s *artifact.Store, repo, revision string, want bool) {
	t.Helper()
	if ok, err := s.Exists(t.Context(), repo, revision); ok != want || err != nil {
		t.Errorf("exists in %s: expected %v, found %v, %v", repo, want, ok, err)
	}
}

// A tag may move after it was fetched: the revision that it stood for can be had again.
func TestATagMoves(t *testing.T) {
	ctx := t.Context()
	ref := sourceRegistry(t) + "/digits/adapter:v1"
	fetcher := newFetcher(artifact.FetcherOptions{})
	push := func(name string) (revision string) {
		if _, err := ocisource.Push(ctx, ref, filepath.Join(digits.Adapters(sample), name)); err != nil {
			t.Fatal(err)
		}
		revision, err := fetcher.Fetch(ctx, artifact.Adapter, oci(ref), "", t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		return revision
	}
	first, second := push("parity"), push("digit")
	if first == second {
		t.Fatalf("expected another revision, found %s twice", first)
	}
	for revision, name := range map[string]string{first: "parity", second: "digit"} {
		dir := t.TempDir()
		if found, err := fetcher.Fetch(ctx, artifact.Adapter, oci(ref), revision, dir); err != nil || found != revision {
			t.Fatalf("expected %s, found %s, %v", revision, found, err)
		}
		want := pack(t, artifact.Adapter, filepath.Join(digits.Adapters(sample), name), peft.Settings{}).Digest
		if got := pack(t, artifact.Adapter, dir, peft.Settings{}).Digest; got != want {
			t.Errorf("%s: expected %s, found %s", name, want, got)
		}
	}
}

func TestSourcesRefused(t *testing.T) {
	ctx := t.Context()
	host := sourceRegistry(t)
	if _, err := ocisource.Push(ctx, host+"/there:v1", parity()); err != nil {
		t.Fatal(err)
	}
	closed := httptest.NewServer(http.NotFoundHandler())
	nobody := strings.TrimPrefix(closed.URL, "http://")
	closed.Close()
	fetcher := newFetcher(artifact.FetcherOptions{})
	for _, c := range []struct {
		ref    string
		reason artifact.Reason
		retry  bool
		text   string
	}{
		{host + "/there:v2", artifact.NotFound, false, "not found"},
		{host + "/elsewhere:v1", artifact.NotFound, false, "not found"},
		{nobody + "/there:v1", artifact.Unreachable, true, "connection refused"},
		{"registry.invalid/there:v1", artifact.Unreachable, true, `source "registry.invalid/there:v1": `},
		{host + "/there", artifact.Invalid, false, "found neither tag nor digest"},
		{host + "/there:", artifact.Invalid, false, "expected host/repository:tag"},
		{"there:v1", artifact.Invalid, false, "expected host/repository:tag"},
		{"https://" + host + "/there:v1", artifact.Invalid, false, "expected host/repository:tag"},
		{"user:password@" + host + "/there:v1", artifact.Invalid, false, "expected host/repository:tag"},
		{host + "/../there:v1", artifact.Invalid, false, "expected host/repository:tag"},
		{host + "/THERE:v1", artifact.Invalid, false, "expected host/repository:tag"},
		{host + "/" + strings.Repeat("x", 2000) + ":v1", artifact.Invalid, false, "bytes"},
		{"", artifact.Invalid, false, "expected host/repository:tag"},
	} {
		_, err := fetcher.Fetch(ctx, artifact.Adapter, oci(c.ref), "", t.TempDir())
		expectError(t, err, c.reason, c.retry, c.text)
	}
	gone := "sha256:" + strings.Repeat("0", 64)
	_, err := fetcher.Fetch(ctx, artifact.Adapter, oci(host+"/there:v1"), gone, t.TempDir())
	expectError(t, err, artifact.NotFound, false, "not found")
	other := "sha256:" + strings.Repeat("1", 64)
	_, err = fetcher.Fetch(ctx, artifact.Adapter, oci(host+"/there@"+gone), other, t.TempDir())
	expectError(t, err, artifact.Invalid, false, "expected its digest as the revision")

	ended, cancel := context.WithCancel(ctx)
	cancel()
	_, err = fetcher.Fetch(ended, artifact.Adapter, oci(host+"/there:v1"), "", t.TempDir())
	expectError(t, err, artifact.Unreachable, true, "given up")
	if !errors.Is(err, context.Canceled) {
		t.Errorf("expected context.Canceled within, found %v", err)
	}
}

// raw is an artifact made by hand, as no tool would.
type raw struct {
	blobs    map[digest.Digest][]byte
	manifest map[string]any
	layers   []ocispec.Descriptor
}

func byHand() *raw {
	r := &raw{blobs: map[digest.Digest][]byte{}}
	config := r.blob([]byte("{}"))
	config.MediaType = ocispec.MediaTypeEmptyJSON
	r.manifest = map[string]any{
		"schemaVersion": 2, "mediaType": ocispec.MediaTypeImageManifest, "config": config,
		"artifactType": "application/vnd.unknown.artifact.v1",
	}
	return r
}

func (r *raw) blob(data []byte) ocispec.Descriptor {
	d := ocispec.Descriptor{MediaType: "application/octet-stream", Digest: digest.FromBytes(data), Size: int64(len(data))}
	r.blobs[d.Digest] = data
	return d
}

// file adds a layer with a title.
func (r *raw) file(title string, data string) *raw {
	d := r.blob([]byte(data))
	d.Annotations = map[string]string{ocispec.AnnotationTitle: title}
	r.layers = append(r.layers, d)
	return r
}

// adapter adds the files of an adapter.
func (r *raw) adapter() *raw {
	return r.file("adapter_config.json", "{}").file("adapter_model.safetensors", "weights")
}

// set sets a field of the manifest.
func (r *raw) set(field string, value any) *raw {
	r.manifest[field] = value
	return r
}

// last changes the last layer.
func (r *raw) last(change func(*ocispec.Descriptor)) *raw {
	change(&r.layers[len(r.layers)-1])
	return r
}

func (r *raw) bytes(t *testing.T) []byte {
	t.Helper()
	r.manifest["layers"] = r.layers
	data, err := json.Marshal(r.manifest)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// secret is what foreign servers say and we never repeat.
const secret = "what-the-server-said"

// lying serves one artifact under any tag and digest, and does not check what it serves. Some of its paths may be
// answered by others first.
func lying(t *testing.T, r *raw, first func(w http.ResponseWriter, req *http.Request) bool) (host, revision string) {
	t.Helper()
	manifest := r.bytes(t)
	revision = digest.FromBytes(manifest).String()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if first != nil && first(w, req) {
			return
		}
		if strings.Contains(req.URL.Path, "/manifests/") {
			w.Header().Set("Content-Type", ocispec.MediaTypeImageManifest)
			w.Header().Set("Docker-Content-Digest", revision)
			http.ServeContent(w, req, "", time.Time{}, bytes.NewReader(manifest))
			return
		}
		data, ok := r.blobs[digest.Digest(filepath.Base(req.URL.Path))]
		if !ok {
			http.Error(w, secret, http.StatusNotFound)
			return
		}
		w.Header().Set("Content-Type", "application/octet-stream")
		_, _ = w.Write(data)
	}))
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://"), revision
}

func TestHostileArtifacts(t *testing.T) {
	image := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: digest.FromString("{}"), Size: 2}
	many := byHand().adapter()
	for i := range 300 {
		many.file(fmt.Sprint("file", i), "")
	}
	for _, c := range []struct {
		name     string
		artifact *raw
		text     string
	}{
		{"a way up", byHand().adapter().file("../evil", "x"), `layer 2: expected a plain file name, found "../evil"`},
		{"the folder above", byHand().adapter().file("..", "x"), "plain file name"},
		{"an absolute path", byHand().adapter().file("/etc/passwd", "x"), "plain file name"},
		{"a path", byHand().file("a/adapter_config.json", "{}"), "plain file name"},
		{"a path of Windows", byHand().file(`a\adapter_config.json`, "{}"), "plain file name"},
		{"a hidden file", byHand().adapter().file(".marker", "x"), "plain file name"},
		{"no name", byHand().adapter().file("", "x"), "plain file name"},
		{"a long name", byHand().adapter().file(strings.Repeat("x", 300), "x"), "plain file name"},
		{
			"a file twice", byHand().adapter().file("adapter_config.json", "[]"),
			`expected each file once, found "adapter_config.json" twice`,
		},
		{"many layers", many, "expected at most 256 layers, found 302"},
		{
			"a file too large", byHand().adapter().last(func(d *ocispec.Descriptor) { d.Size = 1 << 30 }),
			"file \"adapter_model.safetensors\": expected at most 1073741824 bytes for all files, found 1073741824 for this one",
		},
		{"a negative size", byHand().adapter().last(func(d *ocispec.Descriptor) { d.Size = -1 }), "found -1 for this one"},
		{
			"no digest", byHand().adapter().last(func(d *ocispec.Descriptor) { d.Digest = "sha256:../../x" }),
			`expected the digest sha256:…, found "sha256:../../x"`,
		},
		{
			"an unknown digest", byHand().adapter().last(func(d *ocispec.Descriptor) { d.Digest = "md5:00" }),
			"expected the digest",
		},
		{
			"no weights", byHand().file("adapter_config.json", "{}").file("README.md", ""),
			`expected the file adapter_model.safetensors, found "adapter_config.json, README.md"`,
		},
		{
			"a pickle", byHand().file("adapter_config.json", "{}").file("adapter_model.bin", ""),
			"a pickle, which is never read",
		},
		{"a folder pushed whole", byHand().file("adapter", "tar").last(func(d *ocispec.Descriptor) {
			d.Annotations["io.deis.oras.content.unpack"] = "true"
		}), `found the folder "adapter": push the files in it`},
		{"no titles", byHand(), "found no layer with a file's name"},
		{"an image", byHand().adapter().set("config", image).set("artifactType", ""), "found a container image"},
		{"an index", byHand().set("mediaType", ocispec.MediaTypeImageIndex), "found an index of several"},
		{"an index in disguise", byHand().adapter().set("manifests", []string{"x"}), "found an index of several"},
		{
			"another manifest", byHand().set("mediaType", "text/html"),
			`mediaType: expected application/vnd.oci.image.manifest.v1+json, found "text/html"`,
		},
		{
			"a large manifest", byHand().adapter().set("x", strings.Repeat("x", 4<<20)),
			"manifest: expected at most 4194304 bytes",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			host, revision := lying(t, c.artifact, nil)
			dir := filepath.Join(t.TempDir(), "empty")
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			_, err := newFetcher(artifact.FetcherOptions{}).
				Fetch(t.Context(), artifact.Adapter, oci(host+"/a:v1"), revision, dir)
			expectError(t, err, artifact.Invalid, false, c.text)
			expectFiles(t, dir)
			expectFiles(t, filepath.Dir(dir), "empty")
		})
	}
}

func expectFiles(t *testing.T, dir string, names ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, e := range entries {
		found = append(found, e.Name())
	}
	if strings.Join(found, " ") != strings.Join(names, " ") {
		t.Errorf("files: expected %q, found %q", names, found)
	}
}

// A registry that does not serve what it promised, or sends us elsewhere.
func TestLyingRegistries(t *testing.T) {
	ok := func() *raw { return byHand().adapter().file("notes.txt", "not fetched").file("config.json", "{}") }
	blob := func(serve http.HandlerFunc) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.HasSuffix(r.URL.Path, digest.FromString("weights").String()) {
				return false
			}
			serve(w, r)
			return true
		}
	}
	status := func(status int) func(http.ResponseWriter, *http.Request) bool {
		return blob(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(status)
			fmt.Fprintf(w, `{"errors":[{"code":"DENIED","message":%q}]}`, secret)
		})
	}
	for _, c := range []struct {
		name   string
		first  func(http.ResponseWriter, *http.Request) bool
		reason artifact.Reason
		retry  bool
		text   string
	}{
		{
			"other bytes", blob(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "WEIGHTS") }),
			artifact.Invalid, false, "file adapter_model.safetensors: content with another digest",
		},
		{"more bytes", blob(func(w http.ResponseWriter, _ *http.Request) {
			w.(http.Flusher).Flush() // so that the length is not told
			fmt.Fprint(w, "weights and more")
		}), artifact.Invalid, false, "content larger than its descriptor says"},
		{"fewer bytes", blob(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "7")
			fmt.Fprint(w, "wei")
		}), artifact.Unreachable, true, "the connection broke off"},
		{
			"another length", blob(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, secret) }),
			artifact.Invalid, false, "expected the answer of an OCI registry",
		},
		{"401", status(401), artifact.Unauthorized, true, "status 401 (Unauthorized): if it is there, it takes credentials"},
		{"403", status(403), artifact.Unauthorized, true, "status 403 (Forbidden): if it is there, it takes credentials"},
		{"404", status(404), artifact.NotFound, false, "not found"},
		{"418", status(418), artifact.Invalid, false, "status 418"},
		{"429", status(429), artifact.Unreachable, true, "status 429"},
		{"503", status(503), artifact.Unreachable, true, "status 503"},
		{"asks for a password", blob(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("WWW-Authenticate", `Basic realm="`+secret+`"`)
			w.WriteHeader(http.StatusUnauthorized)
		}), artifact.Unauthorized, true, "credentials were asked for: if it is there, it takes credentials"},
		{
			"hangs up", blob(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }),
			artifact.Unreachable, true, "the connection broke off",
		},
		{"redirects to another scheme", blob(func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://"+r.Host+"/x", http.StatusTemporaryRedirect)
		}), artifact.Invalid, false, "a redirect to another scheme"},
		{"redirects to a file", blob(func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "file:///etc/passwd", http.StatusTemporaryRedirect)
		}), artifact.Invalid, false, "a redirect to another scheme"},
		{"redirects off this machine", blob(func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://169.254.169.254/latest", http.StatusTemporaryRedirect)
		}), artifact.Forbidden, false, "it leads to a host that is not spoken to without TLS"},
		{"redirects for ever", blob(func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, r.URL.Path, http.StatusTemporaryRedirect)
		}), artifact.Invalid, false, "more redirects"},
	} {
		t.Run(c.name, func(t *testing.T) {
			host, revision := lying(t, ok(), c.first)
			_, err := newFetcher(artifact.FetcherOptions{}).
				Fetch(t.Context(), artifact.Adapter, oci(host+"/a:v1"), revision, t.TempDir())
			expectError(t, err, c.reason, c.retry, c.text)
		})
	}

	t.Run("an honest one", func(t *testing.T) {
		host, revision := lying(t, ok(), nil)
		dir := t.TempDir()
		fetcher := newFetcher(artifact.FetcherOptions{})
		if _, err := fetcher.Fetch(t.Context(), artifact.Adapter, oci(host+"/a:v1"), revision, dir); err != nil {
			t.Fatal(err)
		}
		expectFiles(t, dir, "adapter_config.json", "adapter_model.safetensors", "config.json")
		_, err := fetcher.Fetch(t.Context(), artifact.Adapter, oci(host+"/a:v1"), revision, dir)
		if err == nil || !strings.Contains(err.Error(), "expected it empty") {
			t.Errorf("a folder that is not empty: expected to be refused, found %v", err)
		}
	})
	t.Run("another manifest", func(t *testing.T) {
		host, _ := lying(t, ok(), nil)
		_, err := newFetcher(artifact.FetcherOptions{}).
			Fetch(t.Context(), artifact.Adapter, oci(host+"/a:v1"), "sha256:"+strings.Repeat("0", 64), t.TempDir())
		expectError(t, err, artifact.Invalid, false, "")
	})
	t.Run("no HEAD", func(t *testing.T) {
		host, revision := lying(t, ok(), func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method == http.MethodHead {
				w.WriteHeader(http.StatusMethodNotAllowed)
			}
			return r.Method == http.MethodHead
		})
		found, err := newFetcher(artifact.FetcherOptions{}).
			Fetch(t.Context(), artifact.Adapter, oci(host+"/a:v1"), "", t.TempDir())
		if err != nil || found != revision {
			t.Errorf("expected %s, found %s, %v", revision, found, err)
		}
	})
	t.Run("a token for everyone", func(t *testing.T) { // as public registries ask for
		host, revision := lying(t, ok(), func(w http.ResponseWriter, r *http.Request) bool {
			switch {
			case r.URL.Path == "/token":
				fmt.Fprint(w, `{"token": "everyone"}`)
			case r.Header.Get("Authorization") != "Bearer everyone":
				w.Header().Set("WWW-Authenticate", `Bearer realm="http://`+r.Host+`/token",service="x"`)
				w.WriteHeader(http.StatusUnauthorized)
			default:
				return false
			}
			return true
		})
		fetcher := newFetcher(artifact.FetcherOptions{})
		found, err := fetcher.Fetch(t.Context(), artifact.Adapter, oci(host+"/a:v1"), "", t.TempDir())
		if err != nil || found != revision {
			t.Errorf("expected %s, found %s, %v", revision, found, err)
		}
	})
	t.Run("too large together", func(t *testing.T) {
		host, revision := lying(t, ok(), nil)
		_, err := newFetcher(artifact.FetcherOptions{AdapterBytes: 8}).
			Fetch(t.Context(), artifact.Adapter, oci(host+"/a:v1"), revision, t.TempDir())
		expectError(t, err, artifact.Invalid, false, "expected at most 8 bytes for all files, found 7 for this one")
	})
}

// Plain HTTP goes to loopback hosts, and to others only if they are named.
func TestPlainHTTP(t *testing.T) {
	var schemes []string
	record := roundTripper(func(r *http.Request) (*http.Response, error) {
		schemes = append(schemes, r.URL.Scheme)
		return nil, errors.New("recorded")
	})
	fetcher := newFetcher(artifact.FetcherOptions{Transport: record, PlainHTTP: []string{"registry.demo:5000"}})
	for ref, want := range map[string]string{
		"localhost/a:v1": "http", "localhost:5000/a:v1": "http", "127.0.0.1:5000/a:v1": "http", "127.8.7.6/a:v1": "http",
		"[::1]:5000/a:v1": "http", "registry.demo:5000/a:v1": "http",
		"registry.demo/a:v1": "https", "localhost.evil.example/a:v1": "https", "127.0.0.1.example/a:v1": "https",
		"10.0.0.1:5000/a:v1": "https", "[fe80::1]:5000/a:v1": "https",
	} {
		schemes = nil
		_, err := fetcher.Fetch(t.Context(), artifact.Adapter, oci(ref), "", t.TempDir())
		expectError(t, err, artifact.Unreachable, true, "no answer")
		if len(schemes) != 1 || schemes[0] != want {
			t.Errorf("%s: expected %s, found %v", ref, want, schemes)
		}
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
