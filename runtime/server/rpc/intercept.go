package rpc

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/switchyard-dev/switchyard/runtime/server"
)

// unary answers a call that has one message. The call does not keep it: a client that is slow to read its answer holds
// no more than that.
func (h *Handler) unary(
	ctx context.Context, _ any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler,
) (answer any, err error) {
	err = h.answer(ctx, func(c *call) (err error) {
		message := c.message
		c.message = nil
		answer, err = handle(ctx, message)
		return err
	})
	return answer, err
}

// stream answers a call that has several, or several answers.
func (h *Handler) stream(
	service any, s grpc.ServerStream, _ *grpc.StreamServerInfo, handle grpc.StreamHandler,
) error {
	return h.answer(s.Context(), func(*call) error { return handle(service, s) })
}

// answer answers a call, unless its message could not be read; its error, or a panic, becomes the call's status.
func (h *Handler) answer(ctx context.Context, handle func(*call) error) (err error) {
	c := callOf(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("panic: %v\n%s", v, debug.Stack())
		}
		var told *status.Status
		c.failure = err
		c.code, told = statusOf(err)
		err = told.Err()
	}()
	switch {
	case c.ended:
		return context.Canceled
	case c.err != nil:
		return c.err
	}
	return handle(c)
}

// grpcCodes are gRPC's codes of the HTTP codes that errors have.
var grpcCodes = map[int]codes.Code{
	http.StatusBadRequest:            codes.InvalidArgument,
	http.StatusNotFound:              codes.NotFound,
	http.StatusRequestTimeout:        codes.DeadlineExceeded,
	http.StatusRequestEntityTooLarge: codes.ResourceExhausted, // as grpc-go's own bound has it
	http.StatusUnsupportedMediaType:  codes.Unimplemented,
	http.StatusUnprocessableEntity:   codes.InvalidArgument,
	http.StatusTooManyRequests:       codes.ResourceExhausted,
	server.StatusClientGone:          codes.Canceled,
	http.StatusInternalServerError:   codes.Internal,
	http.StatusNotImplemented:        codes.Unimplemented,
	http.StatusServiceUnavailable:    codes.Unavailable,
	http.StatusGatewayTimeout:        codes.DeadlineExceeded,
}

// httpCodes are the HTTP codes, for the metrics, of what grpc-go itself says of streams.
var httpCodes = map[codes.Code]int{
	codes.Canceled:          server.StatusClientGone,
	codes.ResourceExhausted: http.StatusRequestEntityTooLarge,
	codes.Unavailable:       server.StatusClientGone, // its connection is lost
	codes.DeadlineExceeded:  http.StatusGatewayTimeout,
	codes.Internal:          http.StatusInternalServerError,
}

// statusOf is what a client sees of an error, and its HTTP code for the metrics. What is a status already is grpc-go's
// own, of a stream.
func statusOf(err error) (int, *status.Status) {
	if err == nil {
		return http.StatusOK, nil
	}
	var theirs interface{ GRPCStatus() *status.Status }
	if errors.As(err, &theirs) {
		told := theirs.GRPCStatus()
		return cmp.Or(httpCodes[told.Code()], http.StatusBadRequest), told
	}
	seen := server.StatusOf(err)
	code, ok := grpcCodes[seen.Code]
	if !ok {
		code = codes.Unknown
	}
	told := status.New(code, seen.Error())
	if seen.RetryAfter == 0 {
		return seen.Code, told
	}
	detailed, err := told.WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(seen.RetryAfter)})
	if err != nil { // a detail of a known type is always a message
		panic(err)
	}
	return seen.Code, detailed
}
