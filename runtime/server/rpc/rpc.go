package rpc

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/trace"
	rpccode "google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/grpc"
	_ "google.golang.org/grpc/encoding/gzip" // of streams; a message is decompressed here
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"
	"google.golang.org/protobuf/proto"

	"github.com/switchyard-dev/switchyard/api/proto/inference"
	"github.com/switchyard-dev/switchyard/runtime/server"
	"github.com/switchyard-dev/switchyard/runtime/server/body"
	"github.com/switchyard-dev/switchyard/runtime/server/telemetry"
)

// Options are the settings of what is served over gRPC.
type Options struct {
	MaxMessageBytes int64 // of one request, decompressed
	Log             *slog.Logger
	Tracer          trace.Tracer // nil: calls are not traced
}

const (
	// smallBytes bounds a message that holds some names.
	smallBytes = 64 << 10
	// streamsPerConnection bounds the calls that a connection has under way.
	streamsPerConnection = 256
	// receiveBytes is what a connection's calls may have sent that nobody has read.
	receiveBytes = 256 << 10
)

// Handler answers gRPC over HTTP/2. It is there before a server is: until Open it is alive and not ready.
type Handler struct {
	options   Options
	server    atomic.Pointer[server.Server]
	telemetry atomic.Pointer[telemetry.Telemetry] // of the server
	grpc      *grpc.Server
	drain     sync.Once
	draining  chan struct{} // closed: streams end
}

// New serves the protocols that gRPC carries, once there is a server.
func New(options Options) *Handler {
	h := &Handler{options: options, draining: make(chan struct{})}
	h.grpc = grpc.NewServer(
		grpc.UnaryInterceptor(h.unary), grpc.StreamInterceptor(h.stream), grpc.MaxRecvMsgSize(smallBytes),
	)
	inference.RegisterGRPCInferenceServiceServer(h.grpc, &service{handler: h})
	healthpb.RegisterHealthServer(h.grpc, &health{handler: h})
	reflection.Register(h.grpc)
	return h
}

// Configure has an HTTP server speak HTTP/2 without TLS alone, as gRPC's clients do, within the bounds of this package.
func Configure(s *http.Server) {
	s.Protocols = new(http.Protocols)
	s.Protocols.SetUnencryptedHTTP2(true)
	s.ReadTimeout = 0 // a message has its own
	// A connection is none until its client has said that it speaks HTTP/2; net/http lifts this deadline then.
	s.ConnState = func(conn net.Conn, state http.ConnState) {
		if state == http.StateNew {
			_ = conn.SetReadDeadline(time.Now().Add(body.StepTime))
		}
	}
	s.HTTP2 = &http.HTTP2Config{
		MaxConcurrentStreams:          streamsPerConnection,
		WriteByteTimeout:              body.WriteTime,
		MaxReceiveBufferPerConnection: receiveBytes, MaxReceiveBufferPerStream: receiveBytes,
	}
}

// Open has a server answer from now on.
func (h *Handler) Open(s *server.Server) {
	h.telemetry.Store(telemetry.New(s, h.options.Log, h.options.Tracer))
	h.server.Store(s)
}

// Drain ends the streams that would never end by themselves: those that watch the server's health.
func (h *Handler) Drain() { h.drain.Do(func() { close(h.draining) }) }

// ready is nil if the server is.
func (h *Handler) ready() error {
	s, err := h.opened()
	if err != nil {
		return err
	}
	return s.Ready()
}

func (h *Handler) opened() (*server.Server, error) {
	if s := h.server.Load(); s != nil {
		return s, nil
	}
	return nil, server.TryLater(http.StatusServiceUnavailable, errStarting)
}

var errStarting = errors.New("the base model is not loaded yet")

// route is a method that is answered here.
type route struct {
	name    string               // for metrics
	request func() proto.Message // of a call with one message; nil: a stream's are read by grpc-go
	infer   bool                 // its message may be large, and is refused while the server drains
}

var routes = map[string]route{
	inference.GRPCInferenceService_ServerLive_FullMethodName: {
		name: "grpc ServerLive", request: func() proto.Message { return new(inference.ServerLiveRequest) },
	},
	inference.GRPCInferenceService_ServerReady_FullMethodName: {
		name: "grpc ServerReady", request: func() proto.Message { return new(inference.ServerReadyRequest) },
	},
	inference.GRPCInferenceService_ModelReady_FullMethodName: {
		name: "grpc ModelReady", request: func() proto.Message { return new(inference.ModelReadyRequest) },
	},
	inference.GRPCInferenceService_ServerMetadata_FullMethodName: {
		name: "grpc ServerMetadata", request: func() proto.Message { return new(inference.ServerMetadataRequest) },
	},
	inference.GRPCInferenceService_ModelMetadata_FullMethodName: {
		name: "grpc ModelMetadata", request: func() proto.Message { return new(inference.ModelMetadataRequest) },
	},
	inference.GRPCInferenceService_ModelInfer_FullMethodName: {
		name: "grpc ModelInfer", request: func() proto.Message { return new(inference.ModelInferRequest) }, infer: true,
	},
	healthpb.Health_Check_FullMethodName: {
		name: "grpc Health", request: func() proto.Message { return new(healthpb.HealthCheckRequest) },
	},
	healthpb.Health_List_FullMethodName: {
		name: "grpc Health", request: func() proto.Message { return new(healthpb.HealthListRequest) },
	},
	healthpb.Health_Watch_FullMethodName:                             {name: "grpc Watch"},
	"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo":      {name: "grpc Reflection"},
	"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": {name: "grpc Reflection"},
}

// call is one call, from its header to the end of its answer.
type call struct {
	mu      sync.Mutex // held while it is answered
	ended   bool       // nobody waits for its answer any more
	own     *server.Call
	message proto.Message // read, until it is answered; nil of a stream
	err     error         // why it could not be read
	code    int           // of its answer, as HTTP has it; 0 while there is none
	failure error         // that it was answered with
}

type callKey struct{}

func callOf(ctx context.Context) *call { return ctx.Value(callKey{}).(*call) }

// ServeHTTP implements http.Handler: where a call begins and ends. What grpc-go is given has no message, or only some:
// what is read here is put in its place by the interceptor.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s := h.server.Load()
	route, known := routes[r.URL.Path]
	out := newWriter(w, known && route.request == nil)
	defer out.end()
	out.Header().Set("Grpc-Accept-Encoding", gzipEncoding)
	ctx, end := r.Context(), func(int, error) {} // before there is a server, nobody tells
	if telling := h.telemetry.Load(); telling != nil {
		told, request := telling.Begin(ctx, route.telling(r.URL.Path), r.Header.Get)
		out.Header().Set(telemetry.RequestID, request.ID())
		ctx, end = told, func(code int, err error) { request.End(told, code, err) }
	}
	if !known {
		r.Body = http.NoBody
		h.grpc.ServeHTTP(out, r)
		end(http.StatusNotImplemented, nil)
		return
	}
	c := &call{}
	h.serve(out, r.WithContext(ctx), route, s, c)
	switch {
	case c.code != 0:
	case r.Context().Err() != nil:
		c.code = server.StatusClientGone
	default: // grpc-go has refused its header
		c.code = http.StatusBadRequest
	}
	end(c.code, c.failure)
}

// serve has a call answered, and gives back what it holds.
func (h *Handler) serve(w *writer, r *http.Request, route route, s *server.Server, c *call) {
	defer c.end()
	r = r.WithContext(context.WithValue(r.Context(), callKey{}, c))
	if route.request == nil {
		r.Body = newStream(r.Body)
	} else {
		c.message, c.err = h.read(r, route, s, c)
		r.Body = emptied(r.Body)
	}
	h.grpc.ServeHTTP(w, r)
}

// telling is the route as it is told of. Of a method that nobody knows, a stranger has chosen the name.
func (r route) telling(method string) telemetry.Route {
	if r.name == "" {
		return telemetry.GRPC("none", "_OTHER", false, codeName)
	}
	return telemetry.GRPC(r.name, method, r.infer, codeName)
}

// codeName is how the protocol writes gRPC's code of an HTTP code.
func codeName(code int) string {
	if code == http.StatusOK {
		return rpccode.Code_OK.String()
	}
	if found, ok := grpcCodes[code]; ok {
		return rpccode.Code(found).String() //nolint:gosec // there are seventeen codes
	}
	return rpccode.Code_UNKNOWN.String()
}

// end waits for whoever answers the call, and gives back its memory. grpc-go leaves a call whose client has gone.
func (c *call) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = true
	if c.own != nil {
		c.own.End()
	}
}
