package rest_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	"gorgonia.org/tensor"

	"github.com/switchyard-dev/switchyard/runtime/batcher"
	"github.com/switchyard-dev/switchyard/runtime/engine"
)

// pipes is a network within a bubble.
type pipes chan net.Conn

func (p pipes) Accept() (net.Conn, error) {
	if conn, ok := <-p; ok {
		return conn, nil
	}
	return nil, net.ErrClosed
}

func (p pipes) Close() error   { close(p); return nil }
func (p pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }

func (p pipes) dial(context.Context, string, string) (net.Conn, error) {
	near, far := net.Pipe()
	p <- far
	return near, nil
}

// inBubble runs a test over a held engine, in a bubble: synctest.Wait waits until every goroutine is idle, and a
// deadline passes as soon as they are.
func inBubble(t *testing.T, test func(t *testing.T, f *front, engine *held, network pipes)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		engine := &held{open: make(chan struct{})}
		f := newServer(t, func(e batcher.Runner) batcher.Runner {
			engine.Runner = e
			return engine
		})
		network := make(pipes)
		over := &http.Server{Handler: f.handler}
		go func() { _ = over.Serve(network) }()
		transport := &http.Transport{DialContext: network.dial}
		f.URL, f.client = "http://pipe", &http.Client{Transport: transport}
		test(t, f, engine, network)
		close(engine.open)
		transport.CloseIdleConnections()
		_ = over.Close()
	})
}

// What all requests under way hold is bounded; one more is refused at once, and taken when they are answered.
func TestTheMemoryOfRequestsIsBounded(t *testing.T) {
	inBubble(t, func(t *testing.T, f *front, engine *held, _ pipes) {
		type reply struct {
			code   int
			body   string
			header http.Header
		}
		const most = 32 // each has an eighth of what a body may be
		replies := make(chan reply, most+1)
		body := imageRequest(t, 1)
		body += strings.Repeat(" ", maxBodyBytes/8-len(body))
		ask := func() {
			code, answer, header := f.do(t, "POST", "/v2/models/digits/infer", body)
			replies <- reply{code, answer, header}
		}
		for range most {
			go ask()
		}
		synctest.Wait()
		if len(replies) > 0 {
			t.Fatalf("expected %d requests to wait, found %+v", most, <-replies)
		}
		go ask()
		synctest.Wait()
		if len(replies) == 0 {
			t.Error("expected one more to be refused, found it waiting")
		} else if got := <-replies; got.code != http.StatusTooManyRequests || got.header.Get("Retry-After") == "" ||
			!strings.Contains(got.body, "too many requests in flight") {
			t.Errorf("expected 429 with Retry-After, found %+v", got)
		}
		for range most / 4 { // batches of four rows, and one that was alone
			engine.open <- struct{}{}
		}
		engine.open <- struct{}{}
		synctest.Wait()
		if len(replies) != most {
			t.Errorf("expected %d answers, found %d", most, len(replies))
		}
		for len(replies) > 0 {
			if got := <-replies; got.code != http.StatusOK {
				t.Errorf("one that was taken: %+v", got)
			}
		}
		go ask()
		engine.open <- struct{}{}
		if got := <-replies; got.code != http.StatusOK {
			t.Errorf("with room again: %+v", got)
		}
	})
}

// A body must come within seconds; its answer may take as long as the request lets it.
func TestARequestMayWaitLongerThanItsBody(t *testing.T) {
	inBubble(t, func(t *testing.T, f *front, _ *held, _ pipes) {
		code, body, _ := f.do(t, "POST", "/v2/models/digits/infer", imageRequest(t, 1), "Switchyard-Timeout-Ms", "60000")
		if code != http.StatusGatewayTimeout || !strings.Contains(body, "deadline has passed") {
			t.Errorf("expected 504, found %d: %s", code, body)
		}
	})
}

func TestAClientThatStallsIsLetGo(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *front, _ *held, network pipes) {
		client, err := network.dial(t.Context(), "", "")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = client.Close() }()
		header := "POST /v2/models/digits/infer HTTP/1.1\r\nHost: pipe\r\nContent-Length: 1000\r\n\r\n"
		if _, err := fmt.Fprint(client, header+`{"inputs":`); err != nil {
			t.Fatal(err)
		}
		response, err := http.ReadResponse(bufio.NewReader(client), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = response.Body.Close() }()
		body, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		const message = `{"error":"expected 1000 bytes of the body in 5s, found 10"}`
		if response.StatusCode != http.StatusRequestTimeout || string(body) != message {
			t.Errorf("expected 408 with %s, found %d with %s", message, response.StatusCode, body)
		}
	})
}

// failing is an engine that fails every batch.
type failing struct{}

func (failing) Run(engine.Batch) ([]*tensor.Dense, error) { return nil, errors.New("a secret") }

func TestAFailedBatchIsCountedAndKeepsItsReason(t *testing.T) {
	f := newFrontOver(t, func(batcher.Runner) batcher.Runner { return failing{} })
	code, body, _ := f.do(t, "POST", "/v2/models/digits/infer", imageRequest(t, 1))
	if code != http.StatusInternalServerError || body != `{"error":"internal error"}` {
		t.Errorf("expected 500 without its reason, found %d: %s", code, body)
	}
	if metrics := f.scrape(); !strings.Contains(metrics, "\nswitchyard_batch_failures_total 1\n") {
		t.Errorf("expected one failed batch in\n%s", metrics)
	}
}
