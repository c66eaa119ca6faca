package registry

import (
	"context"
	"net"
	"net/http"
	"strings"
	"testing"
)

// What a broken push left is nobody's: at once where it is noticed, and when the process begins.
func TestBrokenUploadsAreRemoved(t *testing.T) {
	everywhere(t, func(k *keeping) {
		start := func() string {
			return k.ask("POST", "/v2/"+digits+"/blobs/uploads/", "Bearer m", "").Header().Get("Location")
		}
		at := start()
		if found := k.files(); len(found) == 0 {
			k.t.Error("expected an upload under way")
		}
		if got := k.ask("PUT", at+"&digest="+digestOf([]byte("x")), "Bearer m", "y"); got.Code != http.StatusBadRequest {
			k.t.Errorf("expected other bytes refused, found %d: %s", got.Code, got.Body)
		}
		k.expectFiles("refused", 0)

		start()
		k.open()
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			k.t.Fatal(err)
		}
		ctx, stop := context.WithCancel(k.t.Context())
		ended := make(chan error)
		go func() { ended <- k.registry.Serve(ctx, listener) }()
		answer, err := http.Get("http://" + listener.Addr().String() + HealthPath)
		if err != nil {
			k.t.Fatal(err)
		}
		_ = answer.Body.Close()
		stop()
		if err := <-ended; err != nil {
			k.t.Error(err)
		}
		k.expectFiles("begun anew", 0)
	})
}

// In a bucket what is large is written in parts. That it is also moved in parts above 32 MiB the server here cannot do.
func TestLargeBlobs(t *testing.T) {
	k := newKeeping(t, Options{S3: bucket(t)})
	large := strings.Repeat("0123456789abcdef", 25<<20/16)
	k.push(digits, "config", large)
	k.expectWhole("large", digits, "config", large)
	if err := k.registry.Scrub(t.Context()); err != nil {
		t.Error(err)
	}
}
