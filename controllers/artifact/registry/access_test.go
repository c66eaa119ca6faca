package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/prometheus/client_golang/prometheus"
)

const (
	manager = "system:serviceaccount:switchyard-system:switchyard-manager"
	pods    = "system:serviceaccount:demo:digits-runtime"
)

func TestWhoMayWhat(t *testing.T) {
	blob := "sha256:" + strings.Repeat("0a", 32)
	const own = "/v2/demo/digits/"
	for _, c := range []struct {
		user, method, path string
		want               string // the reason of a refusal
	}{
		{manager, "GET", "/v2/", ""},
		{manager, "HEAD", own + "manifests/" + blob, ""},
		{manager, "PUT", own + "manifests/" + blob, ""},
		{manager, "PUT", "/v2/other/pool/manifests/" + blob, ""},
		{manager, "POST", own + "blobs/uploads/", ""},
		{manager, "PATCH", own + "blobs/uploads/6a2e7ab1-ee5c-4d3f-9d5b-b1e2a3c4d5e6", ""},
		{manager, "PUT", own + "blobs/uploads/6a2e7ab1-ee5c-4d3f-9d5b-b1e2a3c4d5e6", ""},
		{manager, "GET", own + "blobs/uploads/6a2e7ab1-ee5c-4d3f-9d5b-b1e2a3c4d5e6", ""},

		{pods, "GET", "/v2/", ""},
		{pods, "GET", own + "manifests/" + blob, ""},
		{pods, "HEAD", own + "manifests/" + blob, ""},
		{pods, "GET", own + "blobs/" + blob, ""},
		{pods, "GET", "/v2/demo/other/manifests/" + blob, "repository"},
		{pods, "GET", "/v2/other/digits/blobs/" + blob, "repository"},
		{pods, "GET", "/v2/demo/digit/blobs/" + blob, "repository"},
		{pods, "PUT", own + "manifests/" + blob, "push"},
		{pods, "POST", own + "blobs/uploads/", "push"},
		{pods, "GET", own + "blobs/uploads/6a2e7ab1", "push"}, // what is being pushed is nobody's to see

		// What nobody may: tags, lists, deletions, other names for the same.
		{manager, "PUT", own + "manifests/v1", "request"},
		{manager, "GET", own + "manifests/latest", "request"},
		{manager, "GET", own + "manifests/" + blob[:len(blob)-1], "request"},
		{manager, "GET", own + "manifests/sha512:" + strings.Repeat("0", 128), "request"},
		{manager, "GET", own + "tags/list", "request"},
		{manager, "GET", "/v2/_catalog", "request"},
		{manager, "DELETE", own + "manifests/" + blob, "request"},
		{manager, "DELETE", own + "blobs/" + blob, "request"},
		{manager, "DELETE", own + "blobs/uploads/6a2e7ab1", "request"},
		{manager, "PUT", own + "blobs/" + blob, "request"},
		{manager, "POST", "/v2/", "request"},
		{manager, "TRACE", "/v2/", "request"},
		{manager, "GET", "/v2/digits/blobs/" + blob, "request"},
		{manager, "GET", "/v2/a/b/c/blobs/" + blob, "request"},
		{manager, "GET", "/v2/demo//digits/blobs/" + blob, "request"},
		{manager, "GET", "/v2/demo/digits/../other/blobs/" + blob, "request"},
		{manager, "GET", "/v2/demo%2fdigits/x/blobs/" + blob, "request"},
		{pods, "GET", "/v2/demo/%64igits/blobs/" + blob, "request"},
		{pods, "GET", "/v2/demo/digits/blobs/" + strings.Replace(blob, ":", "%3A", 1), "request"},
		{manager, "GET", "/debug/pprof/", "request"},
		{manager, "GET", "/", "request"},

		// Who nobody is.
		{"system:serviceaccount:demo:digits", "GET", own + "blobs/" + blob, "account"},
		{"system:serviceaccount:demo:default", "GET", "/v2/", "account"},
		{"system:serviceaccount:demo:switchyard-manager", "PUT", own + "manifests/" + blob, "account"},
		{"demo:digits-runtime", "GET", own + "blobs/" + blob, "account"},
		{"system:admin", "GET", own + "blobs/" + blob, "account"},
		{"system:serviceaccount:demo:-runtime", "GET", own + "blobs/" + blob, "repository"},
		{"system:serviceaccount::demo/digits-runtime", "GET", own + "blobs/" + blob, "repository"},
	} {
		asked, refused := parse(httptest.NewRequest(c.method, c.path, nil))
		if refused == nil {
			refused = asked.allowed(c.user, manager)
		}
		got := ""
		if refused != nil {
			got = refused.reason
		}
		if got != c.want {
			t.Errorf("%s %s by %s: expected %q, found %q", c.method, c.path, c.user, c.want, got)
		}
	}
}

// reviewer knows tokens, until it is told otherwise.
type reviewer struct {
	mu      sync.Mutex
	users   map[string]string
	away    error
	asked   atomic.Int64
	waiting chan struct{} // where there is one, it answers when that is closed
}

func (r *reviewer) Review(ctx context.Context, token string) (string, error) {
	r.mu.Lock()
	r.asked.Add(1)
	waiting := r.waiting
	r.mu.Unlock()
	if waiting != nil {
		select {
		case <-waiting:
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.users[token], r.away
}

// keeper is a registry with a time of its own.
type keeper struct {
	t        *testing.T
	registry *Registry
	reviewer *reviewer
	metrics  *prometheus.Registry
	log      strings.Builder
	now      time.Time
}

func newKeeper(t *testing.T) *keeper {
	t.Helper()
	k := &keeper{
		t: t, metrics: prometheus.NewRegistry(), now: time.Unix(1e9, 0),
		reviewer: &reviewer{users: map[string]string{"m": manager, "p": pods}},
	}
	var err error
	k.registry, err = New(Options{
		Dir: t.TempDir(), Manager: manager, Reviewer: k.reviewer, Metrics: k.metrics,
		Now: func() time.Time { return k.now }, Log: slog.New(slog.NewTextHandler(&k.log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = k.registry.Close() })
	return k
}

func (k *keeper) ask(method, path, authorization, body string) *httptest.ResponseRecorder {
	header := http.Header{}
	if authorization != "" {
		header.Set("Authorization", authorization)
	}
	return k.askWith(method, path, header, body)
}

func (k *keeper) askWith(method, path string, header http.Header, body string) *httptest.ResponseRecorder {
	request := httptest.NewRequest(method, path, strings.NewReader(body))
	request.Header = header
	const manifest = "application/vnd.oci.image.manifest.v1+json"
	if method == http.MethodPut {
		request.Header.Set("Content-Type", manifest)
	}
	request.Header.Set("Accept", manifest)
	answer := httptest.NewRecorder()
	k.registry.ServeHTTP(answer, request)
	return answer
}

// expect asks for the root and wants a status.
func (k *keeper) expect(what, token string, status, reviews int) {
	k.t.Helper()
	if got := k.ask("GET", "/v2/", "Bearer "+token, ""); got.Code != status {
		k.t.Errorf("%s: expected status %d, found %d: %s", what, status, got.Code, got.Body)
	}
	if k.reviewer.asked.Load() != int64(reviews) {
		k.t.Errorf("%s: expected %d reviews so far, found %d", what, reviews, k.reviewer.asked.Load())
	}
}

// A token is known for a minute, and no longer; a refusal for ten seconds; that it could not be asked, not at all.
func TestWhatIsKnownOfATokenAndForHowLong(t *testing.T) {
	k := newKeeper(t)
	k.expect("at first", "p", 200, 1)
	k.now = k.now.Add(59 * time.Second)
	k.expect("within the minute", "p", 200, 1)
	delete(k.reviewer.users, "p") // its pod is gone
	k.expect("its pod is gone", "p", 200, 1)
	k.now = k.now.Add(time.Second)
	k.expect("after the minute", "p", 401, 2)
	k.now = k.now.Add(9 * time.Second)
	k.expect("still refused", "p", 401, 2)
	k.reviewer.users["p"] = pods
	k.now = k.now.Add(time.Second)
	k.expect("known again", "p", 200, 3)

	k.reviewer.away = errors.New("connection refused")
	k.expect("known while nobody can be asked", "p", 200, 3)
	k.now = k.now.Add(time.Minute)
	k.expect("nobody can be asked", "p", 503, 4)
	k.expect("nobody can be asked", "p", 503, 5)
	k.reviewer.away = nil
	k.expect("at once when somebody can", "p", 200, 6)
}

func TestHowItRefuses(t *testing.T) {
	k := newKeeper(t)
	for _, c := range []struct {
		authorization, reason string
		status                int
	}{
		{"", "no_token", 401},
		{"Bearer", "no_token", 401},
		{"Bearer ", "no_token", 401},
		{"Basic bTpt", "no_token", 401},
		{"Bearer garbage", "bad_token", 401},
		{"Bearer " + strings.Repeat("m", maxTokenLength+1), "bad_token", 401},
	} {
		got := k.ask("GET", "/v2/", c.authorization, "")
		var answer struct {
			Errors []struct{ Code, Message string }
		}
		if err := json.Unmarshal(got.Body.Bytes(), &answer); err != nil || len(answer.Errors) != 1 ||
			got.Code != c.status || answer.Errors[0].Code != "UNAUTHORIZED" || got.Header().Get("WWW-Authenticate") != "Bearer" {
			t.Errorf(
				"%.20q: expected %d in the words of the specification, found %d: %s",
				c.authorization,
				c.status,
				got.Code,
				got.Body,
			)
		}
	}
	if k.reviewer.asked.Load() != 1 {
		t.Errorf("expected only what may be a token reviewed, found %d", k.reviewer.asked.Load())
	}
	if got := k.ask("GET", "/v2/", "bearer p", ""); got.Code != 200 {
		t.Errorf("a scheme has no case, found %d", got.Code)
	}
	if got := k.ask("GET", HealthPath, "", ""); got.Code != 200 {
		t.Errorf("probes have no token, found %d", got.Code)
	}
	if got := k.ask("PUT", HealthPath, "", ""); got.Code != 401 {
		t.Errorf("expected 401, found %d", got.Code)
	}
	for range 100 {
		k.ask("GET", "/v2/other/pool/blobs/sha256:"+strings.Repeat("0", 64), "Bearer p", "")
	}
	if n := strings.Count(k.log.String(), "reason=repository"); n < 1 || n > 10 {
		t.Errorf("expected some of 100 refusals logged, found %d", n)
	}
	if log := k.log.String(); !strings.Contains(log, "account="+pods) || strings.Contains(log, "garbage") {
		t.Errorf("expected the account and never the token, found\n%s", log)
	}
	if n := k.refusals("repository"); n != 100 {
		t.Errorf("expected 100 refusals counted, found %v", n)
	}
}

func (k *keeper) refusals(reason string) (n float64) {
	families, err := k.metrics.Gather()
	if err != nil {
		k.t.Fatal(err)
	}
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			if family.GetName() == "switchyard_registry_refusals_total" && metric.GetLabel()[0].GetValue() == reason {
				n += metric.GetCounter().GetValue()
			}
		}
	}
	return n
}

// What is there is never replaced by other bytes, and pushing it again changes nothing.
func TestContentIsNeverReplaced(t *testing.T) {
	k := newKeeper(t)
	const config = "{}"
	blob := digest.FromString(config).String()
	started := k.ask("POST", "/v2/demo/digits/blobs/uploads/", "Bearer m", "")
	if started.Code != http.StatusAccepted {
		t.Fatalf("found %d: %s", started.Code, started.Body)
	}
	done := k.ask("PUT", started.Header().Get("Location")+"&digest="+blob, "Bearer m", config)
	if done.Code != http.StatusCreated {
		t.Fatalf("found %d: %s", done.Code, done.Body)
	}
	manifest := fmt.Sprintf(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",`+
		`"config":{"mediaType":"application/x","digest":%q,"size":%d},"layers":[]}`, blob, len(config))
	path := "/v2/demo/digits/manifests/" + digest.FromString(manifest).String()
	for _, c := range []struct {
		body   string
		status int
	}{{manifest, 201}, {manifest, 201}, {manifest + " ", 400}, {strings.Replace(manifest, "2", "3", 1), 400}, {"", 400}} {
		if got := k.ask("PUT", path, "Bearer m", c.body); got.Code != c.status {
			t.Errorf("%s: expected %d, found %d: %s", c.body, c.status, got.Code, got.Body)
		}
		if got := k.ask("GET", path, "Bearer p", ""); got.Code != 200 || got.Body.String() != manifest {
			t.Errorf("expected what was pushed first, found %d: %s", got.Code, got.Body)
		}
	}
	// A blob is to be had by the repository that it is in, however well its digest is known.
	k.reviewer.users["o"] = "system:serviceaccount:other:pool-runtime"
	if got := k.ask("GET", "/v2/other/pool/blobs/"+blob, "Bearer o", ""); got.Code != 404 {
		t.Errorf("expected 404, found %d: %s", got.Code, got.Body)
	}
	mount := "/v2/other/pool/blobs/uploads/?from=demo/digits&mount=" + blob
	if got := k.ask("POST", mount, "Bearer o", ""); got.Code != 403 {
		t.Errorf("expected 403, found %d: %s", got.Code, got.Body)
	}
}

// Requests with one token share a review, though the one who asked first has gone.
func TestRequestsShareAReview(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &reviewer{users: map[string]string{"p": pods}, waiting: make(chan struct{})}
		i := newIdentities(r, time.Now)
		ctx, cancel := context.WithCancel(t.Context())
		gone := make(chan error, 1)
		go func() {
			_, err := i.of(ctx, "p", "a")
			gone <- err
		}()
		synctest.Wait()
		var asking sync.WaitGroup
		for range 50 {
			asking.Go(func() {
				if user, err := i.of(t.Context(), "p", "b"); user != pods || err != nil {
					t.Errorf("expected %s, found %q, %v", pods, user, err)
				}
			})
		}
		synctest.Wait()
		cancel()
		if err := <-gone; !errors.Is(err, context.Canceled) {
			t.Errorf("expected the context's error, found %v", err)
		}
		close(r.waiting)
		asking.Wait()
		if r.asked.Load() != 1 {
			t.Errorf("expected 1 review, found %d", r.asked.Load())
		}
	})
}

// An API server that does not answer holds up a bounded number of reviews, each for a bounded time.
func TestReviewsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &reviewer{waiting: make(chan struct{})}
		i := newIdentities(r, time.Now)
		began := time.Now()
		var asking sync.WaitGroup
		for n := range 3 * mostReviews {
			asking.Go(func() {
				if _, err := i.of(t.Context(), fmt.Sprint("token", n), "a"); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("expected it given up, found %v", err)
				}
			})
		}
		synctest.Wait()
		if r.asked.Load() != mostReviews {
			t.Errorf("expected %d reviews at once, found %d", mostReviews, r.asked.Load())
		}
		asking.Wait()
		if took := time.Since(began); took > reviewTime {
			t.Errorf("expected an end after %v, found %v", reviewTime, took)
		}
	})
}

// Whoever sends garbage pays for it alone, and what is remembered stays bounded.
func TestGarbageHurtsNobodyElse(t *testing.T) {
	now := time.Unix(1e9, 0)
	r := &reviewer{users: map[string]string{"p": pods}}
	i := newIdentities(r, func() time.Time { return now })
	ask := func(token, address string) error {
		_, err := i.of(t.Context(), token, address)
		return err
	}
	for n := range reviewBurst {
		if err := ask(fmt.Sprint("garbage", n), "10.0.0.1"); err != nil {
			t.Fatal(err)
		}
	}
	if err := ask("p", "10.0.0.1"); !errors.Is(err, errTooMany) {
		t.Errorf("expected no more for that address, found %v", err)
	}
	if err := ask("p", "10.0.0.2"); err != nil {
		t.Errorf("another address: %v", err)
	}
	if err := ask("p", "10.0.0.1"); err != nil {
		t.Errorf("what is known needs no review: %v", err)
	}
	now = now.Add(time.Second)
	for n := range reviewRate {
		if err := ask(fmt.Sprint("more", n), "10.0.0.1"); err != nil {
			t.Fatalf("after a second, %d: %v", n, err)
		}
	}
	for n := range mostTokens + mostReviewers {
		if err := ask(fmt.Sprint("new", n), fmt.Sprint("10.1.", n)); err != nil {
			t.Fatal(err)
		}
	}
	if len(i.unknown) > mostTokens || len(i.asked) > mostReviewers || len(i.known) != 1 {
		t.Errorf("expected bounds of %d and %d kept and who is known stay, found %d, %d and %d known",
			mostTokens, mostReviewers, len(i.unknown), len(i.asked), len(i.known))
	}
}
