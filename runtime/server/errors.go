package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/switchyard-dev/switchyard/runtime/adapters"
	"github.com/switchyard-dev/switchyard/runtime/batcher"
)

// statusError is an error with its HTTP status.
type statusError struct {
	code  int
	retry bool // worth another try soon: Retry-After is sent
	err   error
}

func (e *statusError) Error() string { return e.err.Error() }
func (e *statusError) Unwrap() error { return e.err }

func failure(code int, format string, args ...any) error {
	return &statusError{code: code, err: fmt.Errorf(format, args...)}
}

func badRequest(format string, args ...any) error {
	return failure(http.StatusBadRequest, format, args...)
}

func tryLater(code int, err error) error { return &statusError{code: code, retry: true, err: err} }

// statusOf gives every error its status. What is nobody's fault but ours is a 500 without its text.
func statusOf(err error) *statusError {
	var (
		status  *statusError
		unknown *adapters.UnknownError
		untold  *adapters.UntoldError
		loading *adapters.LoadingError
		refused *adapters.RefusedError
	)
	switch {
	case errors.As(err, &status):
		return &statusError{code: status.code, retry: status.retry, err: err}
	case errors.As(err, &unknown):
		return &statusError{code: http.StatusNotFound, err: err}
	case errors.As(err, &untold), errors.As(err, &loading):
		return &statusError{code: http.StatusServiceUnavailable, retry: true, err: err}
	case errors.As(err, &refused):
		return &statusError{code: http.StatusServiceUnavailable, err: err}
	case errors.Is(err, batcher.ErrOverloaded):
		return &statusError{code: http.StatusTooManyRequests, retry: true, err: err}
	case errors.Is(err, batcher.ErrClosed):
		return &statusError{code: http.StatusServiceUnavailable, retry: true, err: err}
	case errors.Is(err, context.DeadlineExceeded):
		return &statusError{code: http.StatusGatewayTimeout, err: errors.New("the request's deadline has passed")}
	case errors.Is(err, context.Canceled):
		return &statusError{code: statusClientGone, err: errors.New("the client has gone")}
	default:
		return &statusError{code: http.StatusInternalServerError, err: errors.New("internal error")}
	}
}

// statusClientGone is nginx's code for a client that closed the connection; only metrics see it.
const statusClientGone = 499

func writeError(w http.ResponseWriter, err *statusError) {
	if err.retry {
		w.Header().Set("Retry-After", "1")
	}
	writeJSON(w, err.code, struct {
		Error string `json:"error"`
	}{err.Error()})
}
