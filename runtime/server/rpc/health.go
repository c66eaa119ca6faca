package rpc

import (
	"context"
	"errors"
	"net/http"
	"time"

	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/switchyard-dev/switchyard/api/proto/inference"
	"github.com/switchyard-dev/switchyard/runtime/quote"
	"github.com/switchyard-dev/switchyard/runtime/server"
)

// watchTime is how late a change of readiness may be told to who watches it.
const watchTime = time.Second

var errDraining = errors.New("the server is stopping")

// health is gRPC's own health service. It asks for readiness whenever it is asked, so it cannot drift from it.
type health struct {
	healthpb.UnimplementedHealthServer
	handler *Handler
}

// services are those whose health is told: "" is the whole server's.
var services = []string{"", inference.GRPCInferenceService_ServiceDesc.ServiceName}

func (h *health) status() healthpb.HealthCheckResponse_ServingStatus {
	if h.handler.ready() != nil {
		return healthpb.HealthCheckResponse_NOT_SERVING
	}
	return healthpb.HealthCheckResponse_SERVING
}

func isKnown(service string) bool { return service == services[0] || service == services[1] }

func (h *health) Check(_ context.Context, m *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	if !isKnown(m.GetService()) {
		return nil, server.Errorf(http.StatusNotFound, "service %s: unknown", quote.Name(m.GetService()))
	}
	return &healthpb.HealthCheckResponse{Status: h.status()}, nil
}

func (h *health) List(context.Context, *healthpb.HealthListRequest) (*healthpb.HealthListResponse, error) {
	statuses := make(map[string]*healthpb.HealthCheckResponse)
	for _, service := range services {
		statuses[service] = &healthpb.HealthCheckResponse{Status: h.status()}
	}
	return &healthpb.HealthListResponse{Statuses: statuses}, nil
}

// Watch tells the status at once, and again when it changes, until the server drains.
func (h *health) Watch(m *healthpb.HealthCheckRequest, stream healthpb.Health_WatchServer) error {
	ticker := time.NewTicker(watchTime) //nolint:forbidigo // what readiness depends on tells nobody when it changes
	defer ticker.Stop()
	told := healthpb.HealthCheckResponse_UNKNOWN
	for {
		now := healthpb.HealthCheckResponse_SERVICE_UNKNOWN
		if isKnown(m.GetService()) {
			now = h.status()
		}
		if now != told {
			if err := stream.Send(&healthpb.HealthCheckResponse{Status: now}); err != nil {
				return err
			}
			told = now
		}
		select {
		case <-ticker.C:
		case <-stream.Context().Done():
			return stream.Context().Err()
		case <-h.handler.draining:
			if told == healthpb.HealthCheckResponse_SERVING {
				_ = stream.Send(&healthpb.HealthCheckResponse{Status: healthpb.HealthCheckResponse_NOT_SERVING})
			}
			return server.TryLater(http.StatusServiceUnavailable, errDraining)
		}
	}
}
