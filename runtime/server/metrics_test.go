package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"testing"

	"github.com/switchyard-dev/switchyard/runtime/adapters"
	"github.com/switchyard-dev/switchyard/runtime/batcher"
)

func TestReasonsOfRefusals(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string
	}{
		{nil, ""},
		{fmt.Errorf("row 1: %w", &batcher.OverloadedError{}), "queue"},
		{TryLater(http.StatusTooManyRequests, errTooManyRows), "rows"},
		{TryLater(http.StatusTooManyRequests, errFull), "memory"},
		{TryLater(http.StatusServiceUnavailable, errDraining), "draining"},
		{batcher.ErrClosed, "draining"},
		{&adapters.UntoldError{Name: "a"}, "loading"},
		{fmt.Errorf("input \"adapter\": row 0: %w", &adapters.LoadingError{Name: "a"}), "loading"},
		{&adapters.RefusedError{Name: "a", Reason: errors.New("a reason")}, "adapter"},
		{context.DeadlineExceeded, "deadline"},
		{context.Canceled, ""},
		{&adapters.UnknownError{Name: "a"}, ""},
		{badRequest("no"), ""},
		{errors.New("a fault"), ""},
	} {
		if found := refusalOf(c.err); found != c.want {
			t.Errorf("%v: expected the reason %q, found %q", c.err, c.want, found)
		}
	}
}
