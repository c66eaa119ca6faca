package rpc

import (
	"context"
	"net/http"

	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/switchyard-dev/switchyard/api/proto/inference"
	"github.com/switchyard-dev/switchyard/runtime/server"
)

// adapterKey in a call's metadata names the adapter where the model is the pool, as the header of that name does over
// HTTP.
const adapterKey = "switchyard-adapter"

// service is the protocol's own.
type service struct {
	inference.UnimplementedGRPCInferenceServiceServer
	handler *Handler
}

func (s *service) ServerLive(
	context.Context, *inference.ServerLiveRequest,
) (*inference.ServerLiveResponse, error) {
	return &inference.ServerLiveResponse{Live: true}, nil
}

func (s *service) ServerReady(
	context.Context, *inference.ServerReadyRequest,
) (*inference.ServerReadyResponse, error) {
	return &inference.ServerReadyResponse{Ready: s.handler.ready() == nil}, nil
}

// ModelReady answers false of a model that is known and not served.
func (s *service) ModelReady(
	_ context.Context, m *inference.ModelReadyRequest,
) (*inference.ModelReadyResponse, error) {
	from, err := s.handler.opened()
	if err == nil {
		err = from.ModelReady(m.GetName(), m.GetVersion())
	}
	if err != nil && server.StatusOf(err).Code != http.StatusServiceUnavailable {
		return nil, err
	}
	return &inference.ModelReadyResponse{Ready: err == nil}, nil
}

func (s *service) ServerMetadata(
	context.Context, *inference.ServerMetadataRequest,
) (*inference.ServerMetadataResponse, error) {
	return &inference.ServerMetadataResponse{
		Name: server.Name, Version: server.Version(), Extensions: server.Extensions(),
	}, nil
}

func (s *service) ModelMetadata(
	_ context.Context, m *inference.ModelMetadataRequest,
) (*inference.ModelMetadataResponse, error) {
	from, err := s.handler.opened()
	if err != nil {
		return nil, err
	}
	d, err := from.Metadata(m.GetName(), m.GetVersion())
	if err != nil {
		return nil, err
	}
	return &inference.ModelMetadataResponse{
		Name: d.Name, Versions: d.Versions, Platform: d.Platform, Inputs: tensors(d.Inputs), Outputs: tensors(d.Outputs),
	}, nil
}

func tensors(described []server.TensorMetadata) []*inference.ModelMetadataResponse_TensorMetadata {
	tensors := make([]*inference.ModelMetadataResponse_TensorMetadata, len(described))
	for i, d := range described {
		tensors[i] = &inference.ModelMetadataResponse_TensorMetadata{
			Name: d.Name, Datatype: d.Datatype, Shape: shapeOf(d.Shape),
		}
	}
	return tensors
}

func shapeOf(shape []int) []int64 {
	sizes := make([]int64, len(shape))
	for i, d := range shape {
		sizes[i] = int64(d)
	}
	return sizes
}

func (s *service) ModelInfer(
	ctx context.Context, m *inference.ModelInferRequest,
) (*inference.ModelInferResponse, error) {
	request, err := requestOf(m)
	if err != nil {
		return nil, err
	}
	from, err := s.handler.opened()
	if err != nil {
		return nil, err
	}
	if request.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, request.Timeout)
		defer cancel()
	}
	own := callOf(ctx).own
	answers, err := own.Answer(ctx, &server.Request{
		Model: from.Asked(request.Model, adapterOf(ctx)), Version: m.GetModelVersion(),
		Inputs: request.Inputs, Outputs: request.Names(),
	})
	if err != nil {
		return nil, err
	}
	response := responseOf(request.ID, answers)
	const copies = 2 // the message, and what is sent of it
	own.KeepAnswer(copies * int64(proto.Size(response)))
	return response, nil
}

// adapterOf is the adapter that the call's metadata names; "" if none.
func adapterOf(ctx context.Context) string {
	if named := metadata.ValueFromIncomingContext(ctx, adapterKey); len(named) > 0 {
		return named[0]
	}
	return ""
}

func responseOf(id string, answers *server.Answers) *inference.ModelInferResponse {
	r := &inference.ModelInferResponse{
		ModelName: answers.Model.Name, ModelVersion: answers.Model.Revision, Id: id,
	}
	for _, t := range answers.Tensors() {
		r.Outputs = append(r.Outputs, &inference.ModelInferResponse_InferOutputTensor{
			Name: t.Name, Datatype: t.Datatype, Shape: shapeOf(t.Shape),
		})
		r.RawOutputContents = append(r.RawOutputContents, t.Raw())
	}
	return r
}
