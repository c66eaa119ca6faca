package main

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/rest"
)

// sent is what reached the API server.
type sent struct {
	requests []string
	code     int
}

func (s *sent) RoundTrip(r *http.Request) (*http.Response, error) {
	s.requests = append(s.requests, r.Method+" "+r.URL.Path)
	return &http.Response{StatusCode: s.code, Body: http.NoBody, Header: http.Header{}}, nil
}

// A manager writes while it leads, and nothing once its lease may be another's, however long it takes to notice.
func TestAManagerThatHungWritesNothing(t *testing.T) {
	for _, base := range []string{"", "/k8s/clusters/c-1"} { // as behind a proxy of many clusters
		testFence(t, "https://api"+base)
	}
}

func testFence(t *testing.T, host string) {
	now := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	ending := make(chan struct{})
	f := &fence{within: 4 * time.Second, now: func() time.Time { return now }, ending: ending}
	server := &sent{code: http.StatusOK}
	config := &rest.Config{Host: host, Transport: server}
	if err := f.guard(config); err != nil {
		t.Fatal(err)
	}
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		t.Fatal(err)
	}
	const (
		status = "/apis/switchyard.dev/v1alpha1/namespaces/a/loraadapters/x/status"
		lease  = "/apis/coordination.k8s.io/v1/namespaces/system/leases/manager"
		review = "/apis/authentication.k8s.io/v1/tokenreviews"
	)
	try := func(method, path string, want string) {
		t.Helper()
		before := len(server.requests)
		r, err := http.NewRequestWithContext(t.Context(), method, host+path, io.NopCloser(strings.NewReader("{}")))
		if err != nil {
			t.Fatal(err)
		}
		response, err := client.Do(r)
		if err == nil {
			_ = response.Body.Close()
		}
		switch arrived := len(server.requests) > before; {
		case want == "" && (err != nil || !arrived):
			t.Errorf("%s %s: expected it to be sent, found %v", method, path, err)
		case want != "" && (arrived || err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%s %s: expected %q and nothing sent, found %v, sent %v", method, path, want, err, arrived)
		}
	}
	const never, late = "this manager does not lead", "the lease was renewed 4.001s ago"
	try("GET", status, "")
	try("POST", review, "")
	try("PATCH", status, never)
	for _, path := range []string{ // named as what may be asked for
		"/apis/apps/v1/namespaces/a/deployments/movie-reviews",
		"/apis/switchyard.dev/v1alpha1/namespaces/a/loraadapters/reviews",
	} {
		try("PATCH", path, never)
		try("DELETE", path, never)
	}
	try("GET", lease, "") // of another's
	try("PATCH", status, never)
	server.code = http.StatusConflict
	try("PUT", lease, "") // another was quicker
	server.code = http.StatusOK
	try("PATCH", status, never)
	try("PUT", lease, "")
	try("PATCH", status, "")
	now = now.Add(4 * time.Second)
	for _, method := range []string{"POST", "PUT", "PATCH", "DELETE"} {
		try(method, status, "")
	}
	now = now.Add(time.Millisecond)
	for _, method := range []string{"POST", "PUT", "PATCH", "DELETE"} {
		try(method, status, late)
	}
	try("GET", status, "")
	try("POST", review, "")
	server.code = http.StatusConflict
	try("PUT", lease, "") // what a manager that woke up tries first
	try("PATCH", status, late)
	server.code = http.StatusOK
	try("PUT", lease, "") // nobody had taken it
	try("PATCH", status, "")
	close(ending)
	now = now.Add(4 * time.Second)
	try("PATCH", status, "")
	try("PUT", lease, "") // it is released
	now = now.Add(time.Millisecond)
	try("PATCH", status, late)
}
