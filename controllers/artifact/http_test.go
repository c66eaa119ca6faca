package artifact_test

import (
	"archive/tar"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/switchyard-dev/switchyard/controllers/artifact"
	"github.com/switchyard-dev/switchyard/runtime/peft"
	"github.com/switchyard-dev/switchyard/test/wrappers"
)

// secretQuery is what gives access to a URL that is signed.
const secretQuery = "signature=" + secret

// web serves one answer under any path.
func web(t *testing.T, handler http.HandlerFunc) (url string) {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return server.URL
}

func gives(data []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(data) }
}

func hexSum(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// Whatever way an archive was made, what comes out is the folder.
func TestArchives(t *testing.T) {
	want := pack(t, artifact.Adapter, parity(), peft.Settings{}).Digest
	for name, archive := range map[string]*wrappers.ArchiveBuilder{
		"the files": wrappers.Archive(t).Folder("", parity()),
		"the files after ./": wrappers.Archive(t).Entry(tar.Header{Typeflag: tar.TypeDir, Name: "./"}, "").
			Folder("./", parity()),
		"a folder": wrappers.Archive(t).Entry(tar.Header{Typeflag: tar.TypeDir, Name: "parity/"}, "").
			Folder("parity/", parity()),
		"a folder after ./":   wrappers.Archive(t).Folder("./parity/", parity()),
		"a folder, unspoken":  wrappers.Archive(t).Folder("parity/", parity()),
		"a checkpoint behind": wrappers.Archive(t).Folder("", parity()).File("checkpoint-1/adapter_config.json", "{}"),
		"a checkpoint before": wrappers.Archive(t).File("checkpoint-1/adapter_config.json", "{}").Folder("", parity()),
		"a checkpoint within": wrappers.Archive(t).File("p/checkpoint-1/adapter_config.json", "{}").Folder("p/", parity()),
		"of a Mac": wrappers.Archive(t).File("._parity", "x").File(".DS_Store", "x").
			File("__MACOSX/adapter_config.json", "x").Folder("parity/", parity()).File("parity/._adapter_config.json", "x"),
		"of git": wrappers.Archive(t).Entry(tar.Header{
			Typeflag: tar.TypeXGlobalHeader, Name: "pax_global_header", PAXRecords: map[string]string{"comment": "x"},
		}, "").Folder("parity-1/", parity()),
	} {
		t.Run(name, func(t *testing.T) {
			data, dir := archive.Bytes(), t.TempDir()
			url := web(t, gives(data)) + "/parity.tar.gz?" + secretQuery
			fetcher := newFetcher(artifact.FetcherOptions{})
			from := artifact.Origin{URL: url, SHA256: hexSum(data)}
			found, err := fetcher.Fetch(t.Context(), artifact.Adapter, from, "", dir)
			if err != nil || found != "sha256:"+hexSum(data) {
				t.Fatalf("expected sha256:%s, found %s, %v", hexSum(data), found, err)
			}
			if got := pack(t, artifact.Adapter, dir, peft.Settings{}).Digest; got != want {
				t.Errorf("expected %s, found %s", want, got)
			}
			expectOnly(t, dir, "adapter_config.json", "adapter_model.safetensors", "config.json")

			// The same again by its revision, and no other.
			from.SHA256 = ""
			if _, err := fetcher.Fetch(t.Context(), artifact.Adapter, from, found, t.TempDir()); err != nil {
				t.Error(err)
			}
			other := "sha256:" + strings.Repeat("0", 64)
			_, err = fetcher.Fetch(t.Context(), artifact.Adapter, from, other, t.TempDir())
			expectError(t, err, artifact.Invalid, false,
				`its archive is another than it was: expected "`+other+`", found `+found)
		})
	}
}

// expectOnly wants no files but these, of which some may be missing.
func expectOnly(t *testing.T, dir string, names ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !strings.Contains(" "+strings.Join(names, " ")+" ", " "+e.Name()+" ") {
			t.Errorf("expected none but %v, found %s", names, e.Name())
		}
	}
}

func adapterArchive(t *testing.T) *wrappers.ArchiveBuilder {
	return wrappers.Archive(t).File("adapter_config.json", "{}").File("adapter_model.safetensors", "weights")
}

func TestHostileArchives(t *testing.T) {
	good := adapterArchive(t).File("README.md", strings.Repeat("read me ", 100)).Bytes()
	damaged := append([]byte{}, good...)
	damaged[len(damaged)-5] ^= 1
	many := adapterArchive(t)
	for i := range 64 {
		many.File(fmt.Sprint("deep/er/", i), "")
	}
	noise := make([]byte, 2<<20)
	_, _ = rand.Read(noise)
	for _, c := range []struct {
		name string
		data []byte
		text string
	}{
		{"nothing", nil, "expected a .tar.gz, found something else"},
		{"a page", []byte("<html>" + secret + "</html>"), "expected a .tar.gz, found something else"},
		{"not compressed", adapterArchive(t).Tar(), "expected a .tar.gz, found something else"},
		{"compressed text", wrappers.Gzip(t, []byte(strings.Repeat(secret, 100))), "something else compressed by gzip"},
		{"compressed nothing", wrappers.Gzip(t, nil), "expected the file adapter_config.json"},
		{"cut off", good[:len(good)/2], "found one that is cut off"},
		{"cut off at the end", good[:len(good)-4], "found one that is cut off"},
		{"damaged", damaged, "found one that is damaged"},
		{"too large", noise, "expected an archive of at most 1048576 bytes, found more"},
		{
			"a bomb", adapterArchive(t).File("README.md", strings.Repeat("\x00", 8<<20)).Bytes(),
			`"README.md": expected at most 1048576 bytes for all files, found more`,
		},
		{
			"a bomb of many", adapterArchive(t).File("a", strings.Repeat("\x00", 1<<19)).
				File("b", strings.Repeat("\x00", 1<<19)).Bytes(), `"b": expected at most 1048576 bytes for all files`,
		},
		{
			"a bomb behind the end", wrappers.Gzip(t, append(adapterArchive(t).Tar(), make([]byte, 20<<20)...)),
			"expected an archive of at most 1048576 bytes unpacked, found more",
		},
		{"many entries", many.Bytes(), "expected an archive of at most 64 entries, found more"},
		{
			"an absolute path", adapterArchive(t).File("/etc/passwd", "x").Bytes(),
			`entry 3: expected a path that stays within the archive, found "/etc/passwd"`,
		},
		{"a way up", adapterArchive(t).File("../evil", "x").Bytes(), `found "../evil"`},
		{"a way up from below", adapterArchive(t).File("a/../../evil", "x").Bytes(), `found "a/../../evil"`},
		{"a way up and back", adapterArchive(t).File("a/../config.json", "x").Bytes(), `found "a/../config.json"`},
		{"a path of Windows", adapterArchive(t).File(`..\evil`, "x").Bytes(), `found "..\\evil"`},
		{"a long path", adapterArchive(t).File(strings.Repeat("x/", 600)+"x", "").Bytes(), "expected a path that stays"},
		{
			"a symbolic link", adapterArchive(t).Link(tar.TypeSymlink, "config.json", "/etc/passwd").Bytes(),
			`"config.json": expected files and folders only, found a symbolic link`,
		},
		{
			"a folder that is a link", wrappers.Archive(t).Link(tar.TypeSymlink, "a", "/tmp").
				File("a/adapter_config.json", "{}").Bytes(), `"a": expected files and folders only, found a symbolic link`,
		},
		{"a hard link", adapterArchive(t).Link(tar.TypeLink, "config.json", "adapter_config.json").Bytes(), "a hard link"},
		{"a device", adapterArchive(t).Link(tar.TypeBlock, "config.json", "").Bytes(), "a device"},
		{"a pipe", adapterArchive(t).Link(tar.TypeFifo, "x/y/z", "").Bytes(), "a pipe"},
		{
			"a file twice", adapterArchive(t).File("./adapter_config.json", "[]").Bytes(),
			`expected each file once, found "adapter_config.json" twice`,
		},
		{
			"no weights", wrappers.Archive(t).File("adapter_config.json", "{}").File("README.md", "").Bytes(),
			"expected the file adapter_model.safetensors at the archive's root or in the one folder there, " +
				`found "adapter_config.json, README.md"`,
		},
		{
			"a pickle", wrappers.Archive(t).File("a/adapter_config.json", "{}").File("a/adapter_model.bin", "").Bytes(),
			"found adapter_model.bin, a pickle, which is never read: save it as safetensors",
		},
		{
			"two folders", wrappers.Archive(t).File("a/adapter_config.json", "{}").
				File("b/adapter_model.safetensors", "").Bytes(), `found "a/, b/"`,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "empty")
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			fetcher := newFetcher(artifact.FetcherOptions{AdapterBytes: 1 << 20, Entries: 64})
			from := artifact.Origin{URL: web(t, gives(c.data)) + "/a.tar.gz?" + secretQuery}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := fetcher.Fetch(t.Context(), artifact.Adapter, from, "", dir)
			runtime.ReadMemStats(&after)
			// It is unpacked through buffers of a fixed size, by a server in this process.
			if found, most := after.TotalAlloc-before.TotalAlloc, uint64(2<<20+2*len(c.data)); found > most {
				t.Errorf("expected at most %d bytes allocated for %d, found %d", most, len(c.data), found)
			}
			expectError(t, err, artifact.Invalid, false, c.text)
			where := `source "` + strings.TrimSuffix(from.URL, "?"+secretQuery) + `": `
			if !strings.HasPrefix(err.Error(), where) {
				t.Errorf("expected %s first, found %v", where, err)
			}
			expectOnly(t, dir, "adapter_config.json", "adapter_model.safetensors", "config.json")
			expectFiles(t, filepath.Dir(dir), "empty")
		})
	}
	t.Run("another sha256", func(t *testing.T) {
		dir := t.TempDir()
		from := artifact.Origin{URL: web(t, gives(good)) + "/a", SHA256: strings.Repeat("0", 64)}
		_, err := newFetcher(artifact.FetcherOptions{}).Fetch(t.Context(), artifact.Adapter, from, "", dir)
		expectError(t, err, artifact.Invalid, false, "expected an archive whose sha256 is \""+from.SHA256+"\", found")
		expectFiles(t, dir) // nothing of it was unpacked
	})
}

func TestURLsRefused(t *testing.T) {
	for _, url := range []string{
		"ftp://host/a", "file:///etc/passwd", "https:///a", "https://user:" + secret + "@host/a", "host/a", "://",
		"https://%zz/a",
		"https://host/" + strings.Repeat("x", 2048),
	} {
		_, err := newFetcher(artifact.FetcherOptions{}).
			Fetch(t.Context(), artifact.Adapter, artifact.Origin{URL: url + "?" + secretQuery}, "", t.TempDir())
		expectError(t, err, artifact.Invalid, false, "expected https://host/path")
	}
}

// A web server that does not give what was asked for, or not in time.
func TestLyingWebServers(t *testing.T) {
	status := func(status int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { http.Error(w, secret, status) }
	}
	hang := func(w http.ResponseWriter, r *http.Request) {
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}
	const slow = "its answer comes too slowly"
	for _, c := range []struct {
		name   string
		answer http.HandlerFunc
		reason artifact.Reason
		retry  bool
		text   string
	}{
		{"204", status(204), artifact.Invalid, false, "expected the answer of a web server, found status 204 (No Content)"},
		{"401", status(401), artifact.Unauthorized, true, "status 401 (Unauthorized): if it is there, it takes credentials"},
		{"403", status(403), artifact.Unauthorized, true, "status 403 (Forbidden): if it is there, it takes credentials"},
		{"404", status(404), artifact.NotFound, false, "not found: status 404 (Not Found)"},
		{"410", status(410), artifact.NotFound, false, "not found: status 410 (Gone)"},
		{"418", status(418), artifact.Invalid, false, "status 418"},
		{"429", status(429), artifact.Unreachable, true, "status 429"},
		{"503", status(503), artifact.Unreachable, true, "status 503"},
		{"is silent", hang, artifact.Unreachable, true, slow},
		{"drips", func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				_, _ = w.Write([]byte{0})
				w.(http.Flusher).Flush()
				moment, stop := context.WithTimeout(r.Context(), 10*time.Millisecond)
				<-moment.Done()
				stop()
			}
		}, artifact.Unreachable, true, slow},
		{"is endless", func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				_, _ = w.Write(make([]byte, 64<<10))
			}
		}, artifact.Invalid, false, "expected an archive of at most 1048576 bytes, found more"},
		{"hangs up", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			_, _ = w.Write([]byte(secret))
		}, artifact.Unreachable, true, "the connection broke off"},
		{"makes no sense", func(w http.ResponseWriter, _ *http.Request) {
			connection, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				panic(err)
			}
			_, _ = fmt.Fprintf(connection, "%s\r\n\r\n", secret)
			_ = connection.Close()
		}, artifact.Unreachable, true, "no answer"},
		{"redirects to another scheme", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://"+r.Host+"/"+secret, http.StatusFound)
		}, artifact.Invalid, false, "a redirect to another scheme"},
		{"redirects to a file", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "file:///etc/passwd", http.StatusFound)
		}, artifact.Invalid, false, "a redirect to another scheme"},
		{"redirects for ever", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, r.URL.Path, http.StatusFound)
		}, artifact.Invalid, false, "more redirects"},
	} {
		t.Run(c.name, func(t *testing.T) {
			options := artifact.FetcherOptions{AdapterBytes: 1 << 20}
			if c.text == slow {
				options.Patience = 100 * time.Millisecond
			}
			fetcher := newFetcher(options)
			from := artifact.Origin{URL: web(t, c.answer) + "/a?" + secretQuery}
			_, err := fetcher.Fetch(t.Context(), artifact.Adapter, from, "", t.TempDir())
			expectError(t, err, c.reason, c.retry, c.text)
		})
	}
	t.Run("takes longer than there is", func(t *testing.T) {
		ctx, stop := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer stop()
		_, err := newFetcher(artifact.FetcherOptions{}).
			Fetch(ctx, artifact.Adapter, artifact.Origin{URL: web(t, hang) + "/a"}, "", t.TempDir())
		expectError(t, err, artifact.Unreachable, true, "no answer in time")
	})
	t.Run("a slow layer of an artifact", func(t *testing.T) {
		artifactOf := byHand().adapter()
		host, revision := lying(t, artifactOf, func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.Contains(r.URL.Path, "/blobs/") {
				return false
			}
			hang(w, r)
			return true
		})
		_, err := newFetcher(artifact.FetcherOptions{Patience: 500 * time.Millisecond}). // enough for a manifest
													Fetch(t.Context(), artifact.Adapter, oci(host+"/a:v1"), revision, t.TempDir())
		expectError(t, err, artifact.Unreachable, true, slow)
	})
}

// at serves on an address of this machine, and counts connections.
func at(t *testing.T, address string, handler http.HandlerFunc) (url string, connections *atomic.Int32) {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", address+":0")
	if err != nil {
		t.Fatal(err)
	}
	connections = &atomic.Int32{}
	server := &httptest.Server{Listener: listener, Config: &http.Server{
		Handler: handler, ReadHeaderTimeout: time.Minute,
		ConnState: func(_ net.Conn, state http.ConnState) {
			if state == http.StateNew {
				connections.Add(1)
			}
		},
	}}
	server.Start()
	t.Cleanup(server.Close)
	return server.URL, connections
}

// Where a connection may not go, none is made: whatever name, redirect or realm leads there.
func TestAddressesThatAreNotAsked(t *testing.T) {
	inside, connections := at(t, "127.0.0.2", gives([]byte(secret)))
	host := strings.TrimPrefix(inside, "http://")
	redirects, _ := at(t, "127.0.0.1", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, inside+"/x", http.StatusTemporaryRedirect)
	})
	realm, _ := at(t, "127.0.0.1", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("WWW-Authenticate", `Bearer realm="`+inside+`/token",service="x"`)
		w.WriteHeader(http.StatusUnauthorized)
	})
	metadata := []string{"169.254.169.254"}
	for _, c := range []struct {
		name  string
		from  artifact.Origin
		plain []string
		text  string
	}{
		{name: "an address", from: artifact.Origin{URL: inside + "/x"}, text: "it leads to a loopback address"},
		{name: "a registry's", from: oci(host + "/a:v1"), text: "it leads to a loopback address"},
		{name: "a redirect", from: artifact.Origin{URL: redirects + "/x"}, text: "it leads to a loopback address"},
		{
			name: "a registry's redirect", from: oci(strings.TrimPrefix(redirects, "http://") + "/a:v1"),
			text: "it leads to a loopback address",
		},
		{name: "a realm", from: oci(strings.TrimPrefix(realm, "http://") + "/a:v1"), text: "it leads to a loopback address"},
		{
			name: "the metadata service of a cloud", from: artifact.Origin{URL: "http://169.254.169.254/latest/meta-data/"},
			plain: metadata, text: "it leads to a link-local address",
		},
		{
			name: "the metadata service over TLS", from: artifact.Origin{URL: "https://169.254.169.254/latest/meta-data/"},
			text: "it leads to a link-local address",
		},
		{
			name: "the metadata service as a registry", from: oci("169.254.169.254/latest:v1"),
			text: "it leads to a link-local address",
		},
		{
			name: "the metadata service, mapped", from: artifact.Origin{URL: "https://[::ffff:169.254.169.254]/latest"},
			text: "it leads to a link-local address",
		},
		{name: "the metadata service in plain", from: artifact.Origin{URL: "http://169.254.169.254/"}, text: "without TLS"},
	} {
		t.Run(c.name, func(t *testing.T) {
			// 127.0.0.1 stands for the world outside.
			fetcher := artifact.NewFetcher(artifact.FetcherOptions{
				Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}, PlainHTTP: c.plain,
			})
			_, err := fetcher.Fetch(t.Context(), artifact.Adapter, c.from, "", t.TempDir())
			expectError(t, err, artifact.Forbidden, false, c.text)
		})
	}
	t.Run("a name", func(t *testing.T) {
		_, port, _ := net.SplitHostPort(host)
		from := artifact.Origin{URL: "http://localhost:" + port + "/x"}
		_, err := artifact.NewFetcher(artifact.FetcherOptions{}).
			Fetch(t.Context(), artifact.Adapter, from, "", t.TempDir())
		expectError(t, err, artifact.Forbidden, false, "it leads to a loopback address")
	})
	if n := connections.Load(); n != 0 {
		t.Errorf("expected no connection, found %d", n)
	}
}

// request is what a server was sent.
type request struct{ path, authorization, referer string }

// witness keeps what a server was sent.
type witness struct {
	mu       sync.Mutex
	requests []request
}

func (w *witness) see(next http.HandlerFunc) http.HandlerFunc {
	return func(rw http.ResponseWriter, r *http.Request) {
		w.mu.Lock()
		w.requests = append(w.requests, request{r.URL.Path, r.Header.Get("Authorization"), r.Header.Get("Referer")})
		w.mu.Unlock()
		next(rw, r)
	}
}

// sent are the headers that came, in the order of their requests.
func (w *witness) sent() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var headers []string
	for _, r := range w.requests {
		headers = append(headers, r.authorization)
	}
	return headers
}

// A URL that gives access by its query is not told to where it redirects.
func TestAURLIsNotToldToOthers(t *testing.T) {
	data := adapterArchive(t).Bytes()
	var second witness
	other := web(t, second.see(gives(data)))
	first := web(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, other+"/a", http.StatusFound) })
	from := artifact.Origin{URL: first + "/a?" + secretQuery}
	_, err := newFetcher(artifact.FetcherOptions{}).Fetch(t.Context(), artifact.Adapter, from, "", t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if len(second.requests) != 1 || second.requests[0].referer != "" {
		t.Errorf("expected one request without a Referer, found %+v", second.requests)
	}
}

// A folder that is not there is this machine's failure, not the source's.
func TestAFolderThatIsNotThere(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "gone")
	_, err := newFetcher(artifact.FetcherOptions{}).Fetch(t.Context(), artifact.Adapter,
		artifact.Origin{URL: web(t, gives(adapterArchive(t).Bytes())) + "/a"}, "", dir)
	var e *artifact.Error
	if err == nil || errors.As(err, &e) {
		t.Errorf("expected an error of this machine's, found %v", err)
	}
}
