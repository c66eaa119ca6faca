package rest_test

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/switchyard-dev/switchyard/runtime/batcher"
	"github.com/switchyard-dev/switchyard/runtime/server/rest"
)

// lines is a log that may be read while it is written.
type lines struct {
	mu      sync.Mutex
	written bytes.Buffer
}

func (l *lines) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.written.Write(line)
}

// take gives the lines since it was last called.
func (l *lines) take(t *testing.T) (text string, found []map[string]any) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	text = l.written.String()
	for line := range strings.Lines(text) {
		var fields map[string]any
		if err := json.Unmarshal([]byte(line), &fields); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		found = append(found, fields)
	}
	l.written.Reset()
	return text, found
}

// newTelling is a front whose log is read, at a level.
func newTelling(t *testing.T, level slog.Level) (*front, *faulty, *lines) {
	t.Helper()
	broken := &faulty{}
	f := newServer(t, func(e batcher.Runner) batcher.Runner {
		broken.Runner = e
		return broken
	})
	log := &lines{}
	f.handler = rest.New(f.server, rest.Options{
		MaxBodyBytes: maxBodyBytes, Log: slog.New(slog.NewJSONHandler(log, &slog.HandlerOptions{Level: level})),
	})
	return f, broken, log
}

// serve answers one request, without a network: its line is written when it returns.
func (f *front) serve(t *testing.T, method, path, body string, header ...string) (code int, h http.Header) {
	t.Helper()
	request := httptest.NewRequestWithContext(t.Context(), method, path, strings.NewReader(body))
	for i := 0; i < len(header); i += 2 {
		request.Header.Set(header[i], header[i+1])
	}
	recorder := httptest.NewRecorder()
	f.handler.ServeHTTP(recorder, request)
	return recorder.Code, recorder.Header()
}

// A request's own id is taken over if it can stand in a header and a log as it is; each answer and each line has one.
func TestRequestsHaveAnID(t *testing.T) {
	f, _, log := newTelling(t, slog.LevelDebug)
	for name, c := range map[string]struct {
		given string
		kept  bool
	}{
		"a sane one":   {"7f3a-11_x.~", true},
		"none":         {"", false},
		"the longest":  {strings.Repeat("x", 128), true},
		"too long":     {strings.Repeat("x", 129), false},
		"two words":    {"two words", false},
		"another line": {"one\nlevel=ERROR", false},
		"not ASCII":    {"ünique", false},
	} {
		for _, path := range []string{"/v2/health/live", "/nowhere", "/v2/models/nobody/infer"} {
			method := "GET"
			if strings.HasSuffix(path, "infer") {
				method = "POST"
			}
			_, header := f.serve(t, method, path, imageRequest(t, 1), "X-Request-Id", c.given)
			id := header.Get("X-Request-Id")
			if (id == c.given) != c.kept || id == "" {
				t.Errorf("%s: %s: given %q, found %q", name, path, c.given, id)
			}
			if _, found := log.take(t); len(found) != 1 || found[0]["request_id"] != id {
				t.Errorf("%s: %s: expected one line of the request %q, found %v", name, path, id, found)
			}
		}
	}
}

// At the usual level there is a line of what failed, with its times, and none of what a client did wrong.
func TestFailuresAreLogged(t *testing.T) {
	f, broken, log := newTelling(t, slog.LevelInfo)
	const path = "/v2/models/digits/infer"
	secrets := []string{"Authorization", "Bearer a-secret", "X-Request-Id", "seven"}
	f.serve(t, "POST", path, imageRequest(t, 1), secrets...)
	f.serve(t, "POST", path, imageRequest(t, 1, "nobody"), secrets...)
	f.serve(t, "POST", path, "no JSON", secrets...)
	if text, _ := log.take(t); text != "" {
		t.Errorf("expected no line, found %s", text)
	}
	broken.fails.Store(true)
	f.serve(t, "POST", path, imageRequest(t, 2), secrets...)
	text, found := log.take(t)
	if len(found) != 1 {
		t.Fatalf("expected one line, found %s", text)
	}
	want := map[string]any{
		"level": "ERROR", "msg": "request failed", "request_id": "seven", "route": inferRoute, "code": 500.0, "rows": 2.0,
		"batches": 1.0, "error": "a fault",
	}
	for key, value := range want {
		if found[0][key] != value {
			t.Errorf("%s: expected %v, found %v", key, value, found[0][key])
		}
	}
	for _, key := range []string{"seconds", "preprocess_seconds", "queue_seconds", "engine_seconds"} {
		if took, ok := found[0][key].(float64); !ok || took < 0 {
			t.Errorf("%s: expected a time, found %v", key, found[0][key])
		}
	}
	if strings.Contains(text, "secret") || strings.Contains(text, pngImage(t)[:40]) {
		t.Errorf("expected neither secrets nor payloads, found %s", text)
	}
	f.serve(t, "POST", "/v2/models/broken/infer", imageRequest(t, 1))
	if text, found = log.take(t); len(found) != 1 || found[0]["level"] != "WARN" || found[0]["code"] != 503.0 {
		t.Errorf("expected a warning, found %s", text)
	}
}

// What strangers bring about does not fill the log.
func TestALogOfFailuresIsBounded(t *testing.T) {
	f, _, log := newTelling(t, slog.LevelInfo)
	for range 1000 {
		f.serve(t, "POST", "/v2/models/broken/infer", "")
	}
	if _, found := log.take(t); len(found) < 100 || len(found) > 200 {
		t.Errorf("expected some hundred lines, found %d", len(found))
	}
}

// At debug each request has a line, and it has neither payloads nor what a client sent otherwise.
func TestEachRequestHasALineAtDebug(t *testing.T) {
	f, _, log := newTelling(t, slog.LevelDebug)
	f.serve(t, "POST", "/v2/models/digits/infer", imageRequest(t, 3, "parity", "holes", ""), "Authorization", "a-secret")
	text, found := log.take(t)
	if len(found) != 1 || found[0]["level"] != "DEBUG" || found[0]["msg"] != "request" || found[0]["code"] != 200.0 ||
		found[0]["rows"] != 3.0 || found[0]["error"] != nil {
		t.Errorf("expected a line of a request that was answered, found %s", text)
	}
	f.serve(t, "POST", "/v2/models/digits/infer", `{"inputs": [{"name": "a-payload"}]}`)
	if text, found = log.take(t); len(found) != 1 || found[0]["code"] != 400.0 || strings.Contains(text, "payload") {
		t.Errorf("expected a line without what was sent, found %s", text)
	}
}
