package rpc_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"gorgonia.org/tensor"

	"github.com/switchyard-dev/switchyard/api/proto/inference"
	"github.com/switchyard-dev/switchyard/runtime/batcher"
	"github.com/switchyard-dev/switchyard/runtime/engine"
	"github.com/switchyard-dev/switchyard/runtime/server/body"
	"github.com/switchyard-dev/switchyard/runtime/server/rpc"
)

// pipes is a network within a bubble.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	close  sync.Once
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), closed: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case conn := <-p.conns:
		return conn, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.close.Do(func() { close(p.closed) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }

func (p *pipes) dial(ctx context.Context, _ string) (net.Conn, error) {
	near, far := net.Pipe()
	select {
	case p.conns <- far:
		return near, nil
	case <-p.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// held is an engine that waits for the test before each batch.
type held struct {
	batcher.Runner
	open chan struct{}
}

func (h *held) Run(batch engine.Batch) ([]*tensor.Dense, error) {
	<-h.open
	return h.Runner.Run(batch)
}

// bubble is a front over a held engine whose goroutines synctest.Wait waits for.
type bubble struct {
	*front
	engine  *held
	network *pipes
	over    *http.Server
	plain   *http.Client
}

// inBubble runs a test in a bubble: a deadline passes as soon as every goroutine is idle.
func inBubble(t *testing.T, test func(t *testing.T, b *bubble)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := &bubble{engine: &held{open: make(chan struct{})}}
		b.front = newServer(t, func(e batcher.Runner) batcher.Runner {
			b.engine.Runner = e
			return b.engine
		})
		b.handler.Open(b.server)
		b.network = newPipes()
		b.over = &http.Server{Handler: b.handler}
		rpc.Configure(b.over)
		go func() { _ = b.over.Serve(b.network) }()
		b.dial(t, "pipe", grpc.WithContextDialer(b.network.dial))
		transport := plain()
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) { return b.network.dial(ctx, "") }
		b.plain = &http.Client{Transport: transport}
		test(t, b)
		close(b.engine.open)
		transport.CloseIdleConnections()
		_ = b.conn.Close()
		_ = b.over.Close()
	})
}

// What all requests under way hold is bounded; one more is refused at once, and taken when they are answered.
func TestTheMemoryOfRequestsIsBounded(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		const most = 32 // each has an eighth of what a message may be
		padded := with(raw([][]byte{png(t, 0)}), func(r *request) {
			r.RawInputContents[0] = rawBytes(append(png(t, 0), make([]byte, maxMessageBytes/8-2048)...))
		})
		replies := make(chan error, most+1)
		ask := func() {
			_, err := b.client.ModelInfer(t.Context(), padded)
			replies <- err
		}
		for range most {
			go ask()
		}
		synctest.Wait()
		if len(replies) > 0 {
			t.Fatalf("expected %d requests to wait, found %v", most, <-replies)
		}
		go ask()
		synctest.Wait()
		if len(replies) == 0 {
			t.Fatal("expected one more to be refused, found it waiting")
		}
		err := <-replies
		check(t, err, codes.ResourceExhausted, "too many requests in flight")
		checkRetry(t, err)
		for range most/4 + 1 { // batches of four rows, and one that was alone
			b.engine.open <- struct{}{}
		}
		for range most {
			if err := <-replies; err != nil {
				t.Errorf("one that was taken: %v", err)
			}
		}
		go ask()
		b.engine.open <- struct{}{}
		if err := <-replies; err != nil {
			t.Errorf("with room again: %v", err)
		}
	})
}

// A client that sends some of its message, and nothing more, is let go; what it held can be had again.
func TestAClientThatStallsIsLetGo(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		message := frame(0, marshal(t, raw([][]byte{png(t, 0)})))
		for _, c := range []struct {
			sent    []byte
			message string
		}{
			{nil, "expected the message in 5s, found some of it"},
			{message[:3], "expected the message in 5s, found some of it"},
			{message[:15], "bytes of the body in 5s, found 10"},
		} {
			reader, writer := io.Pipe()
			go func() { _, _ = writer.Write(c.sent) }()
			code, told := send(t, b.plain, "pipe", reader)
			_ = writer.Close()
			if code != codes.DeadlineExceeded || !strings.Contains(told, c.message) {
				t.Errorf("%d bytes: expected %s with %q, found %s: %s", len(c.sent), codes.DeadlineExceeded, c.message, code, told)
			}
		}
	})
}

// A client that reads nothing of its answer is let go: of what it held, the next has all.
func TestAClientThatReadsNothing(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		transport := b.plain.Transport.(*http.Transport)
		transport.HTTP2 = &http.HTTP2Config{MaxReceiveBufferPerStream: 1} // that much the server may send unread
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost,
			"http://pipe"+inference.GRPCInferenceService_ModelInfer_FullMethodName,
			bytes.NewReader(frame(0, marshal(t, raw([][]byte{png(t, 0)})))))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/grpc")
		go func() { b.engine.open <- struct{}{} }()
		response, err := b.plain.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = response.Body.Close() }()
		time.Sleep(body.WriteTime + time.Second) //nolint:forbidigo // of the bubble's clock: longer than a client may take
		if answer, err := io.ReadAll(response.Body); err == nil {
			t.Errorf("expected the answer to be cut off, found %d bytes", len(answer))
		}
	})
}

// A client that says nothing of the end of what it sends has its answer once its message is there.
func TestAHalfClosedStream(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		reader, writer := io.Pipe()
		go func() { _, _ = writer.Write(frame(0, marshal(t, raw([][]byte{png(t, 0)})))) }()
		go func() { b.engine.open <- struct{}{} }()
		if code, told := send(t, b.plain, "pipe", reader); code != codes.OK {
			t.Errorf("expected an answer, found %s: %s", code, told)
		}
		_ = writer.Close()
	})
}

// A client that opens a connection and says nothing, or half of what HTTP/2 begins with, is let go.
func TestASilentConnectionIsClosed(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		for _, said := range []string{"", "PRI * HTTP/2.0\r\n"} {
			began := time.Now()
			conn, err := b.network.dial(t.Context(), "")
			if err != nil {
				t.Fatal(err)
			}
			go func() { _, _ = conn.Write([]byte(said)) }()
			if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) || time.Since(began) != body.StepTime {
				t.Errorf("%q: expected its end after %s, found %v after %s", said, body.StepTime, err, time.Since(began))
			}
		}
	})
}

// A message must come within seconds; its answer may take as long as the request lets it.
func TestDeadlines(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		began := time.Now()
		message := bytes.NewReader(frame(0, marshal(t, raw([][]byte{png(t, 0)}))))
		code, told := send(t, b.plain, "pipe", message, "Grpc-Timeout", "60S")
		if code != codes.DeadlineExceeded || !strings.Contains(told, "deadline has passed") ||
			time.Since(began) != time.Minute {
			t.Errorf("expected %s after a minute, found %s after %s: %s", codes.DeadlineExceeded, code, time.Since(began), told)
		}
		_, err := b.client.ModelInfer(t.Context(), with(raw([][]byte{png(t, 0)}), func(r *request) {
			r.Parameters = named("timeout", uint64(90_000_000))
		}))
		check(t, err, codes.DeadlineExceeded, "the request's deadline has passed")
		if waited := time.Since(began); waited != time.Minute+90*time.Second {
			t.Errorf("expected ninety seconds more, found %s", waited)
		}
	})
}

// A client that leaves takes its request with it, and what that held.
func TestAClientThatLeaves(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		ctx, cancel := context.WithCancel(t.Context())
		replies := make(chan error, 1)
		go func() {
			_, err := b.client.ModelInfer(ctx, raw([][]byte{png(t, 0)}))
			replies <- err
		}()
		synctest.Wait()
		cancel()
		check(t, <-replies, codes.Canceled, "")
		synctest.Wait()
		const line = `switchyard_requests_total{code="499",route="grpc ModelInfer"} 1`
		if metrics := b.scrape(t); !strings.Contains(metrics, line+"\n") {
			t.Errorf("expected the line %s in\n%s", line, metrics)
		}
	})
}

// Who watches is told of each change, and let go when the server drains.
func TestWatch(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		health := healthpb.NewHealthClient(b.conn)
		watch := func(service string) healthpb.Health_WatchClient {
			t.Helper()
			stream, err := health.Watch(t.Context(), &healthpb.HealthCheckRequest{Service: service})
			if err != nil {
				t.Fatal(err)
			}
			return stream
		}
		expect := func(stream healthpb.Health_WatchClient, want healthpb.HealthCheckResponse_ServingStatus) {
			t.Helper()
			if told, err := stream.Recv(); err != nil || told.GetStatus() != want {
				t.Errorf("expected %s, found %v, error %v", want, told, err)
			}
		}
		whole, unknown := watch(""), watch("nobody")
		expect(whole, healthpb.HealthCheckResponse_SERVING)
		expect(unknown, healthpb.HealthCheckResponse_SERVICE_UNKNOWN)
		b.set.Expect("late")
		expect(whole, healthpb.HealthCheckResponse_NOT_SERVING)
		b.set.Drop("late")
		expect(whole, healthpb.HealthCheckResponse_SERVING)
		time.Sleep(time.Hour) //nolint:forbidigo // of the bubble's clock: no deadline of ours ends a watch
		b.server.Drain()
		b.handler.Drain()
		expect(whole, healthpb.HealthCheckResponse_NOT_SERVING)
		for _, stream := range []healthpb.Health_WatchClient{whole, unknown} {
			_, err := stream.Recv()
			check(t, err, codes.Unavailable, "the server is stopping")
		}
		gone, leave := context.WithCancel(t.Context())
		late, err := health.Watch(gone, &healthpb.HealthCheckRequest{})
		if err != nil {
			t.Fatal(err)
		}
		expect(late, healthpb.HealthCheckResponse_NOT_SERVING)
		leave()
	})
}

// What was admitted is answered; connections are told to go, and Shutdown waits for no watcher.
func TestDrain(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		replies := make(chan error, 1)
		go func() {
			_, err := b.client.ModelInfer(t.Context(), raw([][]byte{png(t, 0)}))
			replies <- err
		}()
		watch, err := healthpb.NewHealthClient(b.conn).Watch(t.Context(), &healthpb.HealthCheckRequest{})
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		b.server.Drain()
		b.handler.Drain()
		down := make(chan error, 1)
		go func() { down <- b.over.Shutdown(t.Context()) }()
		for err == nil {
			_, err = watch.Recv()
		}
		check(t, err, codes.Unavailable, "stopping")
		if len(down) > 0 || len(replies) > 0 {
			t.Error("expected the server to wait for what was admitted")
		}
		b.engine.open <- struct{}{}
		if err := <-replies; err != nil {
			t.Errorf("what was admitted: %v", err)
		}
		if err := <-down; err != nil {
			t.Errorf("expected a server that is down, found %v", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := b.client.ServerLive(ctx, &inference.ServerLiveRequest{}); status.Code(err) == codes.OK {
			t.Error("expected the connection to be gone")
		}
	})
}
