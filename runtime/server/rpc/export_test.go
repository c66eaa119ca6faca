package rpc

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/switchyard-dev/switchyard/api/proto/inference"
)

// Native is the same service over grpc-go's own transport, to compare with.
func (h *Handler) Native() *grpc.Server {
	s := grpc.NewServer(grpc.UnaryInterceptor(func(
		ctx context.Context, request any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler,
	) (any, error) {
		own, err := h.server.Load().Begin()
		if err != nil {
			return nil, err
		}
		c := &call{own: own, message: request.(proto.Message)}
		defer c.end()
		return h.unary(context.WithValue(ctx, callKey{}, c), request, info, func(_ context.Context, m any) (any, error) {
			return handle(context.WithValue(ctx, callKey{}, c), m)
		})
	}))
	inference.RegisterGRPCInferenceServiceServer(s, &service{handler: h})
	return s
}
