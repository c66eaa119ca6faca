package rpc

import (
	"context"
	"log/slog"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/switchyard-dev/switchyard/api/proto/inference"
)

func TestAPanicIsInternalAndTheServerLives(t *testing.T) {
	h := New(Options{Log: slog.New(slog.DiscardHandler)})
	c := &call{}
	ctx := context.WithValue(t.Context(), callKey{}, c)
	info := &grpc.UnaryServerInfo{FullMethod: "/x.Y/Z"}
	for range 2 {
		_, err := h.unary(ctx, nil, info, func(context.Context, any) (any, error) { panic("a secret") })
		if told := status.Convert(err); told.Code() != codes.Internal || told.Message() != "internal error" {
			t.Errorf("expected INTERNAL without its text, found %v", err)
		}
	}
	if c.failure == nil || !strings.HasPrefix(c.failure.Error(), "panic: a secret\n") {
		t.Errorf("expected the reason for the log, found %v", c.failure)
	}
}

// An answer that is slow to be read holds no message: what the answer takes is all that is counted then.
func TestACallThatIsAnsweredKeepsNoMessage(t *testing.T) {
	h := New(Options{Log: slog.New(slog.DiscardHandler)})
	c := &call{message: &inference.ServerLiveRequest{}}
	ctx := context.WithValue(t.Context(), callKey{}, c)
	if _, err := h.unary(ctx, nil, &grpc.UnaryServerInfo{}, func(_ context.Context, m any) (any, error) {
		if _, ok := m.(*inference.ServerLiveRequest); !ok {
			t.Errorf("expected the message, found %v", m)
		}
		return &inference.ServerLiveResponse{}, nil
	}); err != nil || c.message != nil {
		t.Errorf("expected the message to be let go, found %v, error %v", c.message, err)
	}
}

// grpc-go may leave a call before it is answered: whoever comes to answer it then does not.
func TestACallThatHasEndedIsNotAnswered(t *testing.T) {
	h := New(Options{Log: slog.New(slog.DiscardHandler)})
	c := &call{}
	c.end()
	ctx := context.WithValue(t.Context(), callKey{}, c)
	_, err := h.unary(ctx, nil, &grpc.UnaryServerInfo{}, func(context.Context, any) (any, error) {
		t.Error("it was answered")
		return nil, nil
	})
	if status.Code(err) != codes.Canceled {
		t.Errorf("expected CANCELLED, found %v", err)
	}
}
