package artifacts_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/switchyard-dev/switchyard/runtime/agent/artifacts"
	"github.com/switchyard-dev/switchyard/runtime/agent/artifacts/registrytest"
	"github.com/switchyard-dev/switchyard/runtime/peft"
)

const (
	sample  = "../../../hack/samples/digits/"
	limit   = 1 << 30
	oneFile = `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",` +
		`"config":{"mediaType":"application/x","digest":%q,"size":%d},"layers":[%s]}`
)

func newStore(t *testing.T, dir string, r *registrytest.Registry) *artifacts.Store {
	t.Helper()
	registry, err := artifacts.NewRegistry(r.Options())
	if err != nil {
		t.Fatal(err)
	}
	s, err := artifacts.NewStore(dir, registry)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func fetch(t *testing.T, s *artifacts.Store, digest string) *artifacts.Artifact {
	t.Helper()
	a, err := s.Fetch(t.Context(), digest, limit)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// sameFiles checks that an artifact's folder has a sample's files and no others.
func sameFiles(t *testing.T, a *artifacts.Artifact, folder string) {
	t.Helper()
	names := func(dir string) (names []string) {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			names = append(names, e.Name())
		}
		return names
	}
	if got, want := names(a.Folder), names(folder); !slices.Equal(got, want) {
		t.Fatalf("expected the files %v, found %v", want, got)
	}
	for _, name := range names(folder) {
		if read(t, filepath.Join(a.Folder, name)) != read(t, filepath.Join(folder, name)) {
			t.Errorf("%s differs from what was pushed", name)
		}
	}
}

func TestARevisionIsPulledOnceAndThenNeedsNoRegistry(t *testing.T) {
	r, dir := registrytest.New(t), t.TempDir()
	settings := peft.Settings{ClassNames: []string{"even", "odd"}}
	digest := r.Adapter(sample+"adapters/parity", settings)
	a := fetch(t, newStore(t, dir, r), digest)
	sameFiles(t, a, sample+"adapters/parity")
	if a.Type != peft.ArtifactType || string(a.Settings) != string(settings.JSON()) {
		t.Errorf("expected an adapter with its settings, found %q, %s", a.Type, a.Settings)
	}
	r.Away(true)
	asked := r.Asks.Load()
	sameFiles(t, fetch(t, newStore(t, dir, r), digest), sample+"adapters/parity")
	if n := r.Asks.Load() - asked; n != 0 {
		t.Errorf("expected no request, found %d", n)
	}
	var away *artifacts.UnreachableError
	_, err := newStore(t, t.TempDir(), r).Fetch(t.Context(), digest, limit)
	if !errors.As(err, &away) {
		t.Errorf("a new pod without a registry: expected an UnreachableError, found %v", err)
	}
}

// Whatever happened to what lies on disk, what is used is what the digest says.
func TestDamageOnDiskIsPulledAgain(t *testing.T) {
	r := registrytest.New(t)
	digest := r.Adapter(sample+"adapters/parity", peft.Settings{})
	for name, damage := range map[string]func(dir string) error{
		"flipped": func(dir string) error {
			return eachBlob(dir, func(path string, data []byte) error {
				data[len(data)/2] ^= 1
				return os.WriteFile(path, data, 0o600)
			})
		},
		"cut": func(dir string) error {
			return eachBlob(dir, func(path string, _ []byte) error { return os.Truncate(path, 1) })
		},
		"gone": func(dir string) error {
			return eachBlob(dir, func(path string, _ []byte) error { return os.Remove(path) })
		},
		"stray file": func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "revisions", digest[7:], "stray"), nil, 0o600)
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			fetch(t, newStore(t, dir, r), digest)
			if err := damage(dir); err != nil {
				t.Fatal(err)
			}
			sameFiles(t, fetch(t, newStore(t, dir, r), digest), sample+"adapters/parity")
		})
	}
}

func eachBlob(dir string, do func(path string, data []byte) error) error {
	paths, err := filepath.Glob(filepath.Join(dir, "blobs/sha256/*"))
	if err != nil {
		return err
	}
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if err := do(path, data); err != nil {
			return err
		}
	}
	return nil
}

func TestWhatTheRegistryHasWrongIsRefused(t *testing.T) {
	model, err := os.ReadFile(sample + "adapters/parity/adapter_model.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	flipped := slices.Clone(model)
	flipped[len(flipped)/2] ^= 1
	for name, c := range map[string]struct {
		with []byte
		err  string
	}{
		"flipped": {flipped, "expected content of digest sha256:"},
		"longer":  {append(slices.Clone(model), 0), fmt.Sprintf("expected %d bytes, found more", len(model))},
		"lost":    {nil, "expected status 200, found 404"},
	} {
		t.Run(name, func(t *testing.T) {
			r, dir := registrytest.New(t), t.TempDir()
			digest := r.Adapter(sample+"adapters/parity", peft.Settings{})
			r.Damage(model, c.with)
			_, err := newStore(t, dir, r).Fetch(t.Context(), digest, limit)
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Fatalf("expected an error with %q, found %v", c.err, err)
			}
			for _, file := range []string{"incoming/*", "revisions/*"} {
				if left, _ := filepath.Glob(filepath.Join(dir, file)); len(left) > 0 {
					t.Errorf("expected nothing left, found %v", left)
				}
			}
			if c.with == nil {
				r.Adapter(sample+"adapters/parity", peft.Settings{}) // it is there again
				sameFiles(t, fetch(t, newStore(t, dir, r), digest), sample+"adapters/parity")
			}
		})
	}
}

func TestHostileManifestsAreRefused(t *testing.T) {
	r := registrytest.New(t)
	blob := r.Blob([]byte("x"))
	layer := func(size int, title string) string {
		return fmt.Sprintf(`{"mediaType":"application/x","digest":%q,"size":%d,`+
			`"annotations":{"org.opencontainers.image.title":%q}}`, blob, size, title)
	}
	many := strings.TrimSuffix(strings.Repeat(layer(1, "a")+",", 65), ",")
	for name, c := range map[string]struct{ layers, err string }{
		"path":     {layer(1, "../x"), `expected a plain file name that no other has, found "../x"`},
		"absolute": {layer(1, "/etc/passwd"), "expected a plain file name"},
		"hidden":   {layer(1, ".x"), "expected a plain file name"},
		"no name":  {layer(1, ""), "expected a plain file name"},
		"twice":    {layer(1, "a") + "," + layer(1, "a"), "expected a plain file name that no other has"},
		"large":    {layer(limit, "a"), "expected at most"},
		"many":     {many, "layers: expected at most 64, found 65"},
	} {
		t.Run(name, func(t *testing.T) {
			digest := r.Manifest(fmt.Appendf(nil, oneFile, blob, 1, c.layers))
			_, err := newStore(t, t.TempDir(), r).Fetch(t.Context(), digest, limit)
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("expected an error with %q, found %v", c.err, err)
			}
		})
	}
	for _, digest := range []string{"", "sha256:../../x", "sha512:" + strings.Repeat("0", 64), strings.ToUpper(blob)} {
		if _, err := newStore(t, t.TempDir(), r).Fetch(t.Context(), digest, limit); err == nil {
			t.Errorf("%q: expected a refusal", digest)
		}
	}
}

func TestOnlyWhatIsKeptStays(t *testing.T) {
	r, dir := registrytest.New(t), t.TempDir()
	s := newStore(t, dir, r)
	parity := r.Adapter(sample+"adapters/parity", peft.Settings{})
	named := r.Adapter(sample+"adapters/parity", peft.Settings{ClassNames: []string{"a", "b"}}) // shares its files
	holes := r.Adapter(sample+"adapters/holes", peft.Settings{})
	for _, digest := range []string{parity, named, holes} {
		fetch(t, s, digest)
	}
	if err := s.Keep(map[string]bool{named: true, "": true}); err != nil {
		t.Fatal(err)
	}
	r.Away(true)
	sameFiles(t, fetch(t, s, named), sample+"adapters/parity")
	blobs, _ := filepath.Glob(filepath.Join(dir, "blobs/sha256/*"))
	revisions, _ := filepath.Glob(filepath.Join(dir, "revisions/*"))
	if len(blobs) != 5 || len(revisions) != 1 { // the manifest, the settings and three files
		t.Errorf("expected 5 blobs and 1 revision, found %v and %v", blobs, revisions)
	}
}

func TestCancellingEndsAFetch(t *testing.T) {
	r := registrytest.New(t)
	digest := r.Adapter(sample+"adapters/parity", peft.Settings{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := newStore(t, t.TempDir(), r).Fetch(ctx, digest, limit); !errors.Is(err, context.Canceled) {
		t.Errorf("expected the context's error, found %v", err)
	}
}

// Token and certificates are renewed under a running pod, and are read as they are at the time.
func TestRenewedTokensAndCertificates(t *testing.T) {
	r := registrytest.New(t)
	s := newStore(t, t.TempDir(), r)
	refused := func(settings, text string) {
		t.Helper()
		digest := r.Adapter(sample+"adapters/parity", peft.Settings{ClassNames: []string{settings, "x"}})
		if _, err := s.Fetch(t.Context(), digest, limit); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("expected an error with %q, found %v", text, err)
		}
	}
	taken := func(settings string) {
		t.Helper()
		fetch(t, s, r.Adapter(sample+"adapters/parity", peft.Settings{ClassNames: []string{settings, "x"}}))
	}
	taken("a")
	r.Renew("another")
	taken("b")
	if err := os.WriteFile(r.Options().TokenFile, []byte("of another pool"), 0o600); err != nil {
		t.Fatal(err)
	}
	refused("c", "it does not take this pod's token: expected status 200, found 401")
	if err := os.Remove(r.Options().TokenFile); err != nil {
		t.Fatal(err)
	}
	refused("d", "our token for it: open")
	r.Renew("a third")
	taken("d")

	other := httptest.NewUnstartedServer(nil)
	other.TLS = &tls.Config{Certificates: []tls.Certificate{another(t)}}
	other.StartTLS()
	defer other.Close()
	r.Trust(other.Certificate())
	taken("e") // by the connection that there is
	r.CloseConnections()
	refused("f", "certificate signed by unknown authority")
	if err := os.WriteFile(r.Options().CAFile, []byte("none"), 0o600); err != nil {
		t.Fatal(err)
	}
	refused("g", "expected PEM in")
	r.Trust(r.Certificate())
	taken("f")
}

// another is a certificate that comes from nobody.
func another(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func TestWhereFromItIsPulled(t *testing.T) {
	for address, ok := range map[string]bool{
		"https://registry.example:5000": true, "https://127.0.0.1:5000": true, "https://[::1]:5000/": true,
		"http://127.0.0.1:5000": false, "http://localhost:5000": false, "http://registry.example:5000": false,
		"registry.example": false, "ftp://127.0.0.1": false, "https://u:p@registry.example": false,
		"https://registry.example/path": false, "": false,
	} {
		_, err := artifacts.NewRegistry(artifacts.RegistryOptions{Address: address, Repository: "demo/digits"})
		if (err == nil) != ok {
			t.Errorf("%q: expected accepted = %t, found %v", address, ok, err)
		}
	}
	for _, repository := range []string{"", "../x", "Demo/x", "a//b", "/a"} {
		o := artifacts.RegistryOptions{Address: "https://registry.example", Repository: repository}
		if _, err := artifacts.NewRegistry(o); err == nil {
			t.Errorf("repository %q: expected a refusal", repository)
		}
	}
}
