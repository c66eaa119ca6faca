package registry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
	"github.com/prometheus/client_golang/prometheus"
)

// keeping is a registry with a time and roots of its own, over one kind of storage.
type keeping struct {
	*keeper

	options Options
	mu      sync.Mutex
	roots   Roots
	away    error
	asked   int // for roots
	during  func()
}

// everywhere runs a test over a folder and over a bucket.
func everywhere(t *testing.T, test func(k *keeping)) {
	t.Helper()
	t.Run("folder", func(t *testing.T) { test(newKeeping(t, Options{Dir: t.TempDir()})) })
	t.Run("S3", func(t *testing.T) { test(newKeeping(t, Options{S3: bucket(t)})) })
}

// bucket is one of a real server that speaks S3.
func bucket(t *testing.T) *S3 {
	t.Helper()
	t.Setenv("AWS_ACCESS_KEY_ID", "key")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	backend := s3mem.New()
	if err := backend.CreateBucket("artifacts"); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(gofakes3.New(backend).Server())
	t.Cleanup(server.Close)
	return &S3{Bucket: "artifacts", Endpoint: server.URL, Prefix: "here", PathStyle: true}
}

func newKeeping(t *testing.T, o Options) *keeping {
	t.Helper()
	k := &keeping{
		keeper: &keeper{
			t: t, now: time.Unix(1e9, 0), reviewer: &reviewer{users: map[string]string{"m": manager, "p": pods}},
		},
		roots: Roots{},
	}
	o.Manager, o.Reviewer, o.GCGrace, o.Roots = manager, k.reviewer, time.Hour, k.root
	o.Now = func() time.Time {
		k.mu.Lock()
		defer k.mu.Unlock()
		return k.now
	}
	o.Log = slog.New(slog.NewTextHandler(&lines{keeping: k}, nil))
	k.options = o
	k.open()
	return k
}

// lines is the log of requests at the same time.
type lines struct{ *keeping }

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.log.Write(p)
}

// open opens the registry, anew if it was open.
func (k *keeping) open() {
	k.t.Helper()
	if k.registry != nil {
		_ = k.registry.Close()
	}
	k.metrics = prometheus.NewRegistry()
	k.options.Metrics = k.metrics
	var err error
	if k.registry, err = New(k.options); err != nil {
		k.t.Fatal(err)
	}
	kept := k.registry
	k.t.Cleanup(func() { _ = kept.Close() })
}

func (k *keeping) root(context.Context) (Roots, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.asked++
	if k.during != nil {
		k.during()
	}
	roots := Roots{}
	for repository, digests := range k.roots {
		roots.Add(repository, "")
		for digest := range digests {
			roots.Add(repository, digest)
		}
	}
	return roots, k.away
}

// collect is a round after some time has passed.
func (k *keeping) collect(after time.Duration) {
	k.t.Helper()
	k.pass(after)
	if err := k.registry.Collect(k.t.Context()); err != nil {
		k.t.Fatal(err)
	}
}

func (k *keeping) pass(after time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.now = k.now.Add(after)
}

// made is a manifest over blobs.
func made(blobs ...string) (manifest string, digest string) {
	var layers []string
	for _, blob := range blobs {
		layers = append(layers, fmt.Sprintf(`{"mediaType":"application/x","digest":%q,"size":%d}`,
			digestOf([]byte(blob)), len(blob)))
	}
	manifest = fmt.Sprintf(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",`+
		`"config":%s,"layers":[%s]}`, layers[0], strings.Join(layers[1:], ","))
	return manifest, digestOf([]byte(manifest))
}

// push pushes an artifact as the manager does, and wants it taken.
func (k *keeping) push(repository string, blobs ...string) (digest string) {
	k.t.Helper()
	manifest, digest := made(blobs...)
	for {
		for _, blob := range blobs {
			if !k.pushBlob(repository, blob) {
				return digest
			}
		}
		got := k.ask("PUT", "/v2/"+repository+"/manifests/"+digest, "Bearer m", manifest)
		if got.Code == http.StatusCreated {
			return digest
		}
		if !strings.Contains(got.Body.String(), "MANIFEST_BLOB_UNKNOWN") {
			k.t.Errorf("manifest of %s: found %d: %s", repository, got.Code, got.Body)
			return digest
		}
	}
}

func (k *keeping) pushBlob(repository, blob string) (ok bool) {
	k.t.Helper()
	digest := digestOf([]byte(blob))
	head := k.ask("HEAD", "/v2/"+repository+"/blobs/"+digest, "Bearer m", "")
	if head.Code == http.StatusOK && head.Header().Get("Content-Length") == strconv.Itoa(len(blob)) {
		return true
	}
	started := k.ask("POST", "/v2/"+repository+"/blobs/uploads/", "Bearer m", "")
	got := k.ask("PUT", started.Header().Get("Location")+"&digest="+digest, "Bearer m", blob)
	if got.Code != http.StatusCreated {
		k.t.Errorf("blob: found %d: %s", got.Code, got.Body)
	}
	return got.Code == http.StatusCreated
}

// lost is what of an artifact is not there, as somebody sees it.
func (k *keeping) lost(token, repository string, blobs ...string) string {
	_, digest := made(blobs...)
	got := k.ask("GET", "/v2/"+repository+"/manifests/"+digest, "Bearer "+token, "")
	if got.Code != http.StatusOK || digestOf(got.Body.Bytes()) != digest {
		return fmt.Sprintf("the manifest: %d", got.Code)
	}
	for _, blob := range blobs {
		got := k.ask("GET", "/v2/"+repository+"/blobs/"+digestOf([]byte(blob)), "Bearer "+token, "")
		if got.Code != http.StatusOK || got.Body.String() != blob {
			return fmt.Sprintf("blob %q: %d", blob, got.Code)
		}
	}
	return ""
}

func (k *keeping) expectWhole(when, repository string, blobs ...string) {
	k.t.Helper()
	if lost := k.lost("p", repository, blobs...); lost != "" {
		k.t.Errorf("%s: expected all of it, lost is %s", when, lost)
	}
}

// files are all that the storage holds but what distribution leaves of folders.
func (k *keeping) files() (found []string) {
	k.t.Helper()
	var walk func(folder string)
	walk = func(folder string) {
		names, err := k.registry.shelves.names(k.t.Context(), folder)
		if err != nil {
			k.t.Fatal(err)
		}
		for _, name := range names {
			at := filepath.Join(folder, name)
			info, err := k.registry.shelves.driver.Stat(k.t.Context(), at)
			if err != nil {
				k.t.Fatal(err)
			}
			if !info.IsDir() {
				found = append(found, at)
				continue
			}
			walk(at)
		}
	}
	walk(repositoriesPath)
	walk(blobsPath)
	slices.Sort(found)
	return found
}

func (k *keeping) expectFiles(when string, n int) {
	k.t.Helper()
	if found := k.files(); len(found) != n {
		k.t.Errorf("%s: expected %d files, found %d:\n%s", when, n, len(found), strings.Join(found, "\n"))
	}
}

const digits = "demo/digits"

// Garbage goes after two rounds a grace apart, with all that is its alone and nothing that another needs.
func TestGarbageIsCollected(t *testing.T) {
	everywhere(t, func(k *keeping) {
		kept := k.push(digits, "config", "shared", "kept")
		garbage := k.push(digits, "config of garbage", "shared", "garbage")
		k.push("demo/gone", "config", "shared", "of a pool that is gone")
		k.roots.Add(digits, kept)
		k.expectFiles("at first", 11+9) // links and blobs

		k.collect(2 * time.Hour)
		k.expectFiles("marked once", 20)
		k.collect(time.Hour - time.Second)
		k.expectFiles("within the grace", 20)
		k.collect(time.Second)
		k.expectWhole("when the grace is over", digits, "config", "shared", "kept")
		if got := k.ask("GET", "/v2/"+digits+"/manifests/"+garbage, "Bearer p", ""); got.Code != http.StatusNotFound {
			t := k.t
			t.Errorf("expected the garbage gone, found %d", got.Code)
		}
		k.expectFiles("when the grace is over", 4+4)
		if repositories, err := k.registry.shelves.repositories(k.t.Context()); err != nil || len(repositories) != 1 {
			k.t.Errorf("expected one repository, found %q, %v", repositories, err)
		}
		bytes := len("config of garbage") + len("garbage") + len("of a pool that is gone")
		for _, m := range [][]string{
			{"config of garbage", "shared", "garbage"}, {"config", "shared", "of a pool that is gone"},
		} {
			manifest, _ := made(m...)
			bytes += len(manifest)
		}
		if n := k.metric("switchyard_registry_removed_blobs_total", causeGarbage); n != 5 {
			k.t.Errorf("expected 5 blobs counted, found %v", n)
		}
		if n := k.metric("switchyard_registry_removed_bytes_total", causeGarbage); n != float64(bytes) {
			k.t.Errorf("expected %d bytes counted, found %v", bytes, n)
		}
		if n := k.metric("switchyard_registry_last_collection_timestamp_seconds", ""); n != 1e9+3*3600 {
			k.t.Errorf("expected the time of the last round, found %v", n)
		}
		if n := k.registry.uses.count; n != 0 || len(k.registry.uses.marks) != 0 || len(k.registry.uses.using) != 0 {
			k.t.Errorf("expected nothing remembered, found %d marks", n)
		}
		k.open()
		k.expectWhole("opened anew", digits, "config", "shared", "kept")
		k.push(digits, "config of garbage", "shared", "garbage")
		k.expectWhole("pushed again", digits, "config of garbage", "shared", "garbage")
	})
}

// metric is what a metric says, of a label's value where there is one.
func (k *keeping) metric(name, label string) float64 {
	k.t.Helper()
	families, err := k.metrics.Gather()
	if err != nil {
		k.t.Fatal(err)
	}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			if family.GetName() == name && (label == "" || m.GetLabel()[0].GetValue() == label) {
				return m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	k.t.Errorf("expected the metric %s %s", name, label)
	return 0
}

// Whatever the manager asks about, or pushes, is not garbage for a grace; what pods ask for may be.
func TestWhatIsAskedForIsKept(t *testing.T) {
	blobs := []string{"config", "weights"}
	manifest, digest := made(blobs...)
	blob := "/v2/" + digits + "/blobs/"
	for name, touch := range map[string]func(k *keeping){
		"the manager's Exists": func(k *keeping) {
			k.ask("GET", "/v2/"+digits+"/manifests/"+digest, "Bearer m", "")
			for _, b := range blobs {
				k.ask("HEAD", blob+digestOf([]byte(b)), "Bearer m", "")
			}
		},
		"a push": func(k *keeping) { k.push(digits, blobs...) },
		// A manifest is about what it names, too.
		"a push of the manifest": func(k *keeping) {
			k.ask("PUT", "/v2/"+digits+"/manifests/"+digest, "Bearer m", manifest)
		},
	} {
		t.Run(name, func(t *testing.T) {
			k := newKeeping(t, Options{Dir: t.TempDir()})
			k.push(digits, blobs...)
			k.roots.Add(digits, "")
			k.collect(0)
			k.pass(59 * time.Minute)
			touch(k)
			k.collect(time.Minute)
			k.collect(59 * time.Minute)
			k.expectWhole("within a grace of it", digits, blobs...)
			k.collect(time.Minute)
			k.expectFiles("after it", 0)
		})
	}
	t.Run("a mount", func(t *testing.T) {
		k := newKeeping(t, Options{Dir: t.TempDir()})
		k.push(digits, blobs...)
		k.collect(0)
		k.pass(time.Hour)
		mount := "/v2/demo/other/blobs/uploads/?from=" + digits + "&mount=" + digestOf([]byte("weights"))
		if got := k.ask("POST", mount, "Bearer m", ""); got.Code != http.StatusCreated {
			t.Fatalf("found %d: %s", got.Code, got.Body)
		}
		k.collect(0)
		if got := k.ask("GET", blob+digestOf([]byte("weights")), "Bearer p", ""); got.Code != http.StatusOK {
			t.Errorf("expected what was mounted kept, found %d", got.Code)
		}
		if got := k.ask("GET", blob+digestOf([]byte("config")), "Bearer p", ""); got.Code != http.StatusNotFound {
			t.Errorf("expected the rest gone, found %d", got.Code)
		}
	})
	t.Run("a pod", func(t *testing.T) {
		k := newKeeping(t, Options{Dir: t.TempDir()})
		k.push(digits, blobs...)
		k.collect(0)
		k.pass(time.Hour)
		k.expectWhole("before", digits, blobs...)
		k.collect(0)
		k.expectFiles("a pod keeps nothing", 0)
	})
}

// Without all of the roots nothing goes; roots that change before the removal count.
func TestRootsAreReadBeforeAnythingGoes(t *testing.T) {
	everywhere(t, func(k *keeping) {
		digest := k.push(digits, "config", "weights")
		k.collect(0)
		k.away = errors.New("the API server is away")
		k.pass(2 * time.Hour)
		if err := k.registry.Collect(k.t.Context()); !errors.Is(err, k.away) {
			k.t.Errorf("expected %v, found %v", k.away, err)
		}
		k.expectWhole("the API server is away", digits, "config", "weights")
		k.away = nil
		k.asked = 0
		k.during = func() {
			if k.asked == 2 { // the second time in the round
				k.roots.Add(digits, digest)
			}
		}
		k.collect(0)
		k.expectWhole("it has become a root", digits, "config", "weights")
		k.during = func() {
			if k.asked%2 == 0 {
				k.away = errors.New("the API server is away")
			}
		}
		delete(k.roots, digits)
		k.asked = 0
		k.collect(0) // nothing is due
		k.asked = 0
		k.pass(time.Hour)
		if err := k.registry.Collect(k.t.Context()); !errors.Is(err, k.away) {
			k.t.Errorf("expected %v, found %v", k.away, err)
		}
		k.expectWhole("the API server went away", digits, "config", "weights")

		k.away, k.during = nil, nil
		k.roots.Add(digits, "sha256:../../x")
		if err := k.registry.Collect(k.t.Context()); err == nil || !strings.Contains(err.Error(), "expected the digest") {
			k.t.Errorf("expected roots that make no sense refused, found %v", err)
		}
		k.expectWhole("roots make no sense", digits, "config", "weights")
	})
}

// A push that is under way is nobody's garbage, however long it takes between its blobs and its manifest; and if it
// takes longer than the grace, the manifest is not taken, so what is missing is pushed again.
func TestALongPush(t *testing.T) {
	everywhere(t, func(k *keeping) {
		k.roots.Add(digits, "")
		manifest, digest := made("config", "weights")
		k.pushBlob(digits, "config")
		k.pushBlob(digits, "weights")
		k.collect(0)
		k.collect(59 * time.Minute)
		put := func() *httptest.ResponseRecorder {
			return k.ask("PUT", "/v2/"+digits+"/manifests/"+digest, "Bearer m", manifest)
		}
		if got := put(); got.Code != http.StatusCreated {
			k.t.Fatalf("within the grace: expected it taken, found %d: %s", got.Code, got.Body)
		}
		k.collect(time.Hour)
		k.collect(time.Hour)
		k.expectFiles("pushed and never wanted", 0)

		k.pushBlob(digits, "config")
		k.collect(0)
		k.pushBlob(digits, "weights")
		k.collect(time.Hour)
		if got := put(); got.Code != http.StatusBadRequest || !strings.Contains(got.Body.String(), "MANIFEST_BLOB_UNKNOWN") {
			k.t.Fatalf("after it: expected the blob missed, found %d: %s", got.Code, got.Body)
		}
		k.push(digits, "config", "weights")
		k.expectWhole("pushed again", digits, "config", "weights")

		// An upload that has begun is in a repository that is not empty, whatever is said of its pool.
		delete(k.roots, digits)
		started := k.ask("POST", "/v2/demo/new/blobs/uploads/", "Bearer m", "")
		k.collect(time.Hour)
		k.collect(time.Hour)
		got := k.ask("PUT", started.Header().Get("Location")+"&digest="+digestOf([]byte("x")), "Bearer m", "x")
		if got.Code != http.StatusCreated {
			k.t.Errorf("expected the upload still there, found %d: %s", got.Code, got.Body)
		}
	})
}

// What is swept is waited for; what is used is not swept; and neither holds up anything else.
func TestUsesAndSweepsExcludeEachOther(t *testing.T) {
	u := newUses(func() time.Time { return time.Unix(0, 0) })
	d := due{round: 2}
	u.found("a", "r", due{round: 1})
	u.found("b", "r", due{round: 1})
	entered := make(chan func())
	swept, err := u.sweep("a", "r", d, func() error {
		go func() {
			leave, err := u.enter(t.Context(), "c", "a")
			if err != nil {
				t.Error(err)
			}
			entered <- leave
		}()
		leave, err := u.enter(t.Context(), "c")
		if err != nil {
			t.Error(err)
		}
		leave()
		given, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := u.enter(given, "a"); !errors.Is(err, context.Canceled) {
			t.Errorf("expected the context's error, found %v", err)
		}
		select {
		case <-entered:
			t.Error("expected it waited for")
		default:
		}
		return errors.New("a full disk")
	})
	if !swept || err == nil {
		t.Errorf("expected it swept, found %v, %v", swept, err)
	}
	leave := <-entered
	u.found("b", "r", due{round: 1})
	never := func() error { t.Error("expected it left alone"); return nil }
	if done, _ := u.only("a", never); done {
		t.Error("expected it used")
	}
	leave()
	if done, _ := u.sweep("a", "r", d, never); done {
		t.Error("expected its use to have cleared the mark")
	}
	if done, _ := u.only("a", func() error { return nil }); !done {
		t.Error("expected it free")
	}
	for n := range 2 * maxMarks {
		u.found(strconv.Itoa(n), "r", d)
	}
	if u.count != maxMarks {
		t.Errorf("expected %d marks at most, found %d", maxMarks, u.count)
	}
	if u.forget(3); u.count != 0 || len(u.marks) != 0 {
		t.Errorf("expected none after a round without them, found %d", u.count)
	}
}

// Either a folder or a bucket.
func TestStorageIsOneOfTwo(t *testing.T) {
	for _, o := range []Options{
		{AllowPush: true},
		{AllowPush: true, Dir: t.TempDir(), S3: &S3{Bucket: "b", Region: "eu-central-1"}},
		{AllowPush: true, S3: &S3{Region: "eu-central-1"}},
		{AllowPush: true, S3: &S3{Bucket: "b"}},
		{AllowPush: true, S3: &S3{Bucket: "b", Region: "nowhere"}},
		{AllowPush: true, Dir: filepath.Join(os.DevNull, "x")},
		{AllowPush: true, Dir: t.TempDir(), GCInterval: time.Minute},
		{AllowPush: true, Dir: t.TempDir(), Roots: func(context.Context) (Roots, error) { return nil, nil }},
	} {
		if _, err := New(o); err == nil || !strings.HasPrefix(err.Error(), "registry: ") {
			t.Errorf("%+v: expected a refusal, found %v", o, err)
		}
	}
}
