package artifact_test

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/distribution/distribution/v3/configuration"
	_ "github.com/distribution/distribution/v3/registry/auth/htpasswd"
	_ "github.com/distribution/distribution/v3/registry/auth/token"
	"github.com/distribution/distribution/v3/registry/handlers"

	"github.com/switchyard-dev/switchyard/controllers/artifact"
	"github.com/switchyard-dev/switchyard/controllers/artifact/registry"
	"github.com/switchyard-dev/switchyard/test/ocisource"
)

const (
	user     = "robot"
	password = "the-password-of-the-robot"
	// passwordHash is that of the password, as htpasswd -B makes it.
	passwordHash = "$2a$04$mIMPrbkJMFSl17Btji3IdONp2iUaVqhlwg5Qg.gYed9aiK9ux6QCu"
)

// userHeader is what the user's credentials are on the wire.
var userHeader = "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))

// login are the credentials of the user for hosts.
func login(t *testing.T, hosts ...string) *artifact.Credentials {
	t.Helper()
	auths := map[string]any{}
	for _, host := range hosts {
		auths[host] = map[string]string{"username": user, "password": password}
	}
	raw, err := json.Marshal(map[string]any{"auths": auths})
	if err != nil {
		t.Fatal(err)
	}
	c, err := artifact.ParseDockerConfig(raw)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func host(url string) string { return strings.TrimPrefix(url, "http://") }

// locked lets only the user in.
func locked(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != userHeader {
			http.Error(w, secret, http.StatusUnauthorized)
			return
		}
		next(w, r)
	}
}

func redirect(to string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, to, http.StatusTemporaryRedirect) }
}

// Where the credentials for an archive go, and where they do not.
func TestCredentialsOfAnArchive(t *testing.T) {
	data := adapterArchive(t).Bytes()
	expect := func(t *testing.T, w *witness, headers ...string) {
		t.Helper()
		if got := w.sent(); !slices.Equal(got, headers) {
			t.Errorf("expected the headers %q, found %q", headers, got)
		}
	}
	fetch := func(t *testing.T, url string, c *artifact.Credentials) error {
		t.Helper()
		_, err := newFetcher(artifact.FetcherOptions{}).
			Fetch(t.Context(), artifact.Adapter, artifact.Origin{URL: url + "/a", Credentials: c}, "", t.TempDir())
		if err != nil && strings.Contains(err.Error(), password) {
			t.Errorf("expected nothing of the Secret, found %v", err)
		}
		return err
	}

	t.Run("to its host", func(t *testing.T) {
		var w witness
		url := web(t, w.see(locked(gives(data))))
		if err := fetch(t, url, login(t, host(url))); err != nil {
			t.Error(err)
		}
		expect(t, &w, userHeader)
	})
	t.Run("none", func(t *testing.T) {
		url := web(t, locked(gives(data)))
		expectError(t, fetch(t, url, nil), artifact.Unauthorized, true, "it takes credentials, which a secretRef may name")
	})
	t.Run("wrong ones", func(t *testing.T) {
		url := web(t, locked(gives(data)))
		wrong, err := artifact.NewCredentials(host(url), "token", "", "")
		if err != nil {
			t.Fatal(err)
		}
		expectError(t, fetch(t, url, wrong), artifact.Unauthorized, true, "it does not take the Secret's credentials")
	})
	t.Run("for another host", func(t *testing.T) {
		var w witness
		url := web(t, w.see(gives(data)))
		expectError(t, fetch(t, url, login(t, "models.example")), artifact.SecretInvalid, true,
			`the Secret has no credentials for its host "`+host(url)+`"`)
		expect(t, &w)
	})
	t.Run("for another port", func(t *testing.T) {
		var w witness
		url := web(t, w.see(gives(data)))
		expectError(t, fetch(t, url, login(t, "127.0.0.1")), artifact.SecretInvalid, true, "the Secret has no credentials")
		expect(t, &w)
	})
	t.Run("a redirect to another host", func(t *testing.T) {
		var first, second witness
		other := web(t, second.see(gives(data)))
		url := web(t, first.see(locked(redirect(other+"/b"))))
		if err := fetch(t, url, login(t, host(url))); err != nil {
			t.Error(err)
		}
		expect(t, &first, userHeader)
		expect(t, &second, "")
	})
	t.Run("a redirect to another host that the Secret has too", func(t *testing.T) {
		var second witness
		other := web(t, second.see(locked(gives(data))))
		url := web(t, redirect(other+"/b"))
		expectError(t, fetch(t, url, login(t, host(url), host(other))), artifact.Unauthorized, true, "status 401")
		expect(t, &second, "")
	})
	t.Run("a redirect to the same host", func(t *testing.T) {
		var w witness
		url := web(t, w.see(func(rw http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/a" {
				http.Redirect(rw, r, "/b", http.StatusFound)
				return
			}
			_, _ = rw.Write(data)
		}))
		if err := fetch(t, url, login(t, host(url))); err != nil {
			t.Error(err)
		}
		expect(t, &w, userHeader, "")
	})
	t.Run("a redirect to another host and back", func(t *testing.T) {
		var w witness
		var url string
		other := web(t, func(rw http.ResponseWriter, r *http.Request) {
			http.Redirect(rw, r, url+"/everything", http.StatusFound)
		})
		url = web(t, w.see(func(rw http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/a" {
				http.Redirect(rw, r, other, http.StatusFound)
				return
			}
			locked(gives(data))(rw, r)
		}))
		expectError(t, fetch(t, url, login(t, host(url))), artifact.Unauthorized, true, "status 401")
		expect(t, &w, userHeader, "")
	})
	t.Run("without TLS to a host elsewhere", func(t *testing.T) {
		record := roundTripper(func(*http.Request) (*http.Response, error) {
			t.Error("expected no request")
			return nil, errors.New("recorded")
		})
		_, err := newFetcher(artifact.FetcherOptions{Transport: record}).Fetch(t.Context(), artifact.Adapter,
			artifact.Origin{URL: "http://models.example/a", Credentials: login(t, "models.example")}, "", t.TempDir())
		expectError(t, err, artifact.Forbidden, false, "it leads to a host that is not spoken to without TLS")
	})
}

// distributionOver serves a folder of a registry by distribution itself, with a kind of authorization.
func distributionOver(t *testing.T, dir string, auth configuration.Auth, w *witness) (url string) {
	t.Helper()
	config := &configuration.Configuration{
		Auth:    auth,
		Storage: configuration.Storage{"filesystem": {"rootdirectory": dir}, "redirect": {"disable": true}},
	}
	config.HTTP.Secret = "x"
	return web(t, w.see(handlers.NewApp(context.Background(), config).ServeHTTP))
}

// filled is the folder of a registry with an adapter in it, as digits/parity:v1.
func filled(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	r, err := registry.New(registry.Options{Dir: dir, AllowPush: true})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(r)
	defer func() {
		server.Close()
		_ = r.Close()
	}()
	if _, err := ocisource.Push(t.Context(), host(server.URL)+"/digits/parity:v1", parity()); err != nil {
		t.Fatal(err)
	}
	return dir
}

func fetchParity(t *testing.T, registry string, c *artifact.Credentials) error {
	t.Helper()
	dir := t.TempDir()
	_, err := newFetcher(artifact.FetcherOptions{}).Fetch(t.Context(), artifact.Adapter,
		artifact.Origin{Ref: registry + "/digits/parity:v1", Credentials: c}, "", dir)
	if err != nil && strings.Contains(err.Error(), password) {
		t.Errorf("expected nothing of the Secret, found %v", err)
	}
	if err == nil {
		expectFiles(t, dir, "adapter_config.json", "adapter_model.safetensors", "config.json")
	}
	return err
}

func TestARegistryThatAsksForAPassword(t *testing.T) {
	file := filepath.Join(t.TempDir(), "htpasswd")
	if err := os.WriteFile(file, []byte(user+":"+passwordHash+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var w witness
	at := host(distributionOver(t, filled(t), configuration.Auth{"htpasswd": {"realm": secret, "path": file}}, &w))
	if err := fetchParity(t, at, login(t, at)); err != nil {
		t.Error(err)
	}
	before := len(w.sent())
	expectError(t, fetchParity(t, at, login(t, "registry.example")), artifact.SecretInvalid, true,
		"the Secret has no credentials")
	if n := len(w.sent()); n != before {
		t.Errorf("expected no request, found %d", n-before)
	}
	expectError(t, fetchParity(t, at, nil), artifact.Unauthorized, true, "credentials were asked for: if it is there")
	wrong, err := artifact.NewCredentials(at, "", user, "wrong")
	if err != nil {
		t.Fatal(err)
	}
	expectError(t, fetchParity(t, at, wrong), artifact.Unauthorized, true,
		"credentials were asked for: it does not take the Secret's credentials")
}

// tokens gives out those of a registry: real ones, signed.
type tokens struct {
	key     ed25519.PrivateKey
	witness witness
	url     string
}

func newTokens(t *testing.T) (s *tokens, auth configuration.Auth) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	s = &tokens{key: private}
	s.url = web(t, s.witness.see(locked(s.give)))
	keys := filepath.Join(t.TempDir(), "keys.json")
	raw := fmt.Sprintf(`{"keys": [{"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": "k", "x": %q}]}`,
		base64.RawURLEncoding.EncodeToString(public))
	if err := os.WriteFile(keys, []byte(raw), 0o600); err != nil {
		t.Fatal(err)
	}
	return s, configuration.Auth{"token": {
		"realm": s.url + "/token", "issuer": "tokens", "service": "registry", "jwks": keys,
	}}
}

func (s *tokens) give(w http.ResponseWriter, _ *http.Request) {
	part := func(v any) string {
		raw, err := json.Marshal(v)
		if err != nil {
			panic(err)
		}
		return base64.RawURLEncoding.EncodeToString(raw)
	}
	now := time.Now()
	text := part(map[string]string{"alg": "EdDSA", "typ": "JWT", "kid": "k"}) + "." + part(map[string]any{
		"iss": "tokens", "aud": "registry", "sub": user, "jti": "1",
		"nbf": now.Add(-time.Minute).Unix(), "iat": now.Unix(), "exp": now.Add(time.Minute).Unix(),
		"access": []any{map[string]any{"type": "repository", "name": "digits/parity", "actions": []string{"pull"}}},
	})
	signature := base64.RawURLEncoding.EncodeToString(ed25519.Sign(s.key, []byte(text)))
	fmt.Fprintf(w, `{"token": %q}`, text+"."+signature)
}

func TestARegistryThatTakesTokensOfAnotherHost(t *testing.T) {
	realm, auth := newTokens(t)
	var w witness
	at := host(distributionOver(t, filled(t), auth, &w))
	if err := fetchParity(t, at, login(t, at, host(realm.url))); err != nil {
		t.Error(err)
	}
	if sent := realm.witness.sent(); !slices.Equal(sent, []string{userHeader}) {
		t.Errorf("expected the Secret's entry for the realm, found %q", sent)
	}
	if sent := w.sent(); !strings.HasPrefix(sent[len(sent)-1], "Bearer ") {
		t.Errorf("expected the token to be used, found %q", sent)
	}

	// One that has no entry there is not shown to it.
	realm.witness.requests = nil
	expectError(t, fetchParity(t, at, login(t, at)), artifact.Unauthorized, true,
		"its tokens are given out by another host, for which the Secret has no credentials")
	if sent := realm.witness.sent(); !slices.Equal(sent, []string{""}) {
		t.Errorf("expected no credentials of another host, found %q", sent)
	}
	expectError(t, fetchParity(t, at, nil), artifact.Unauthorized, true, "if it is there, it takes credentials")
}

// A token that a registry gave in exchange for credentials is for that registry, and not for where it sends us.
func TestATokenStaysWithItsRegistry(t *testing.T) {
	var blobs, gate witness
	var moved []string
	artifactOf := byHand().adapter()
	elsewhere := web(t, blobs.see(func(w http.ResponseWriter, r *http.Request) {
		for d, data := range artifactOf.blobs {
			if strings.HasSuffix(r.URL.Path, d.String()) {
				_, _ = w.Write(data)
			}
		}
	}))
	at, revision := lying(t, artifactOf, func(w http.ResponseWriter, r *http.Request) bool {
		answered := true
		gate.see(func(w http.ResponseWriter, r *http.Request) {
			switch {
			case strings.HasPrefix(r.URL.Path, "/moved/"): // without its token, on the same host
				moved = append(moved, r.Header.Get("Authorization"))
				http.Redirect(w, r, elsewhere+r.URL.Path, http.StatusTemporaryRedirect)
			case r.URL.Path == "/token":
				fmt.Fprint(w, `{"token": "exchanged"}`)
			case r.Header.Get("Authorization") != "Bearer exchanged":
				w.Header().Set("WWW-Authenticate", `Bearer realm="http://`+r.Host+`/token",service="x"`)
				w.WriteHeader(http.StatusUnauthorized)
			case strings.Contains(r.URL.Path, "/blobs/"):
				http.Redirect(w, r, "/moved"+r.URL.Path, http.StatusTemporaryRedirect)
			default:
				answered = false
			}
		})(w, r)
		return answered
	})
	from := artifact.Origin{Ref: at + "/a:v1", Credentials: login(t, at)}
	found, err := newFetcher(artifact.FetcherOptions{}).Fetch(t.Context(), artifact.Adapter, from, "", t.TempDir())
	if err != nil || found != revision {
		t.Fatalf("expected %s, found %s, %v", revision, found, err)
	}
	if sent := blobs.sent(); !slices.Equal(sent, []string{"", ""}) {
		t.Errorf("expected two blobs without a header, found %q", sent)
	}
	if !slices.Equal(moved, []string{"", ""}) {
		t.Errorf("expected none across a redirect to the same host, found %q", moved)
	}
	if sent := gate.sent(); !slices.Contains(sent, userHeader) || !slices.Contains(sent, "Bearer exchanged") {
		t.Errorf("expected both headers, found %q", sent)
	}
}
