package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/switchyard-dev/switchyard/runtime/adapters"
	"github.com/switchyard-dev/switchyard/runtime/batcher"
	"github.com/switchyard-dev/switchyard/runtime/protocol"
)

// Error is an error as a client may see it.
type Error struct {
	Code       int           // the HTTP status; gRPC's code follows from it
	RetryAfter time.Duration // 0: another try soon is of no use
	err        error
}

func (e *Error) Error() string { return e.err.Error() }
func (e *Error) Unwrap() error { return e.err }

// Errorf makes an Error that no other try would spare.
func Errorf(code int, format string, args ...any) error {
	return &Error{Code: code, err: fmt.Errorf(format, args...)}
}

// soon is when to try again where nobody knows better.
const soon = time.Second

// TryLater makes an Error of one that another try may spare.
func TryLater(code int, err error) error { return &Error{Code: code, RetryAfter: soon, err: err} }

func badRequest(format string, args ...any) error {
	return Errorf(http.StatusBadRequest, format, args...)
}

// StatusOf gives every error its status. What is nobody's fault but ours is a 500 without its text.
func StatusOf(err error) *Error {
	var (
		status    *Error
		malformed *protocol.Error
		unknown   *adapters.UnknownError
		untold    *adapters.UntoldError
		loading   *adapters.LoadingError
		refused   *adapters.RefusedError
		full      *batcher.OverloadedError
	)
	switch {
	case errors.As(err, &status):
		return &Error{Code: status.Code, RetryAfter: status.RetryAfter, err: err}
	case errors.As(err, &malformed) && malformed.Undecodable:
		return &Error{Code: http.StatusUnprocessableEntity, err: err}
	case errors.As(err, &malformed):
		return &Error{Code: http.StatusBadRequest, err: err}
	case errors.As(err, &unknown):
		return &Error{Code: http.StatusNotFound, err: err}
	case errors.As(err, &untold), errors.As(err, &loading):
		return &Error{Code: http.StatusServiceUnavailable, RetryAfter: soon, err: err}
	case errors.As(err, &refused):
		return &Error{Code: http.StatusServiceUnavailable, err: err}
	case errors.As(err, &full):
		return &Error{Code: http.StatusTooManyRequests, RetryAfter: full.RetryAfter, err: err}
	case errors.Is(err, batcher.ErrClosed):
		return &Error{Code: http.StatusServiceUnavailable, RetryAfter: soon, err: err}
	case errors.Is(err, context.DeadlineExceeded):
		return &Error{Code: http.StatusGatewayTimeout, err: errors.New("the request's deadline has passed")}
	case errors.Is(err, context.Canceled):
		return &Error{Code: StatusClientGone, err: errors.New("the client has gone")}
	default:
		return &Error{Code: http.StatusInternalServerError, err: errors.New("internal error")}
	}
}

// StatusClientGone is nginx's code for a client that closed the connection; only metrics see it.
const StatusClientGone = 499
