package serve

import (
	encoding "encoding/binary"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/switchyard-dev/switchyard/api/proto/inference"
	"github.com/switchyard-dev/switchyard/test/digits"
	"github.com/switchyard-dev/switchyard/test/oip"
)

// imagesOverGRPC asks about encoded images, of an adapter each if any are named.
func imagesOverGRPC(model string, images [][]byte, adapters ...string) *inference.ModelInferRequest {
	r := &inference.ModelInferRequest{ModelName: model}
	add := func(name string, elements [][]byte) {
		var raw []byte
		for _, e := range elements {
			raw = append(encoding.LittleEndian.AppendUint32(raw, uint32(len(e))), e...)
		}
		r.Inputs = append(r.Inputs, &inference.ModelInferRequest_InferInputTensor{
			Name: name, Datatype: "BYTES", Shape: []int64{int64(len(elements))},
		})
		r.RawInputContents = append(r.RawInputContents, raw)
	}
	add("image", images)
	if len(adapters) > 0 {
		names := make([][]byte, len(adapters))
		for i, name := range adapters {
			names[i] = []byte(name)
		}
		add("adapter", names)
	}
	return r
}

// Over gRPC a mixed batch is answered as over HTTP, to the bit; on SIGTERM whoever watches is told, and what was
// admitted is answered.
func TestGRPC(t *testing.T) {
	s := start(t, digits.Adapters(sample))
	images, adapters := heldOut(t)
	conn, err := grpc.NewClient(s.GRPC, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	client := inference.NewGRPCInferenceServiceClient(conn)
	var pngs [][]byte
	var names []string
	for i, image := range images[:24] {
		pngs, names = append(pngs, image.PNG), append(names, adapters[i%len(adapters)])
	}
	want, err := oip.Infer(t.Context(), s.URL, pool, oip.Request{
		Inputs: []oip.Tensor{oip.Images(pngs...), oip.Adapters(names...)},
	})
	if err != nil {
		t.Fatal(err)
	}
	got, err := client.ModelInfer(t.Context(), imagesOverGRPC(pool, pngs, names...))
	if err != nil {
		t.Fatal(err)
	}
	logits, width := got.GetRawOutputContents()[0], int(got.GetOutputs()[0].GetShape()[1])
	for i, answer := range want {
		row := make([]float32, len(answer.Logits))
		for j := range row {
			row[j] = math.Float32frombits(encoding.LittleEndian.Uint32(logits[4*(i*width+j):]))
		}
		if !slices.Equal(row, answer.Logits) {
			t.Errorf("row %d: over HTTP %v, over gRPC %v", i, answer.Logits, row)
		}
	}

	watch, err := healthpb.NewHealthClient(conn).Watch(t.Context(), &healthpb.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	expect := func(want healthpb.HealthCheckResponse_ServingStatus) {
		t.Helper()
		if told, err := watch.Recv(); err != nil || told.GetStatus() != want {
			t.Errorf("expected %s, found %v, error %v", want, told, err)
		}
	}
	expect(healthpb.HealthCheckResponse_SERVING)
	many := make([][]byte, 256)
	for i := range many {
		many[i] = images[i%len(images)].PNG // one image in all rows would be computed once
	}
	answered := make(chan error, 1)
	go func() {
		answer, err := client.ModelInfer(t.Context(), imagesOverGRPC("parity", many))
		if err == nil && answer.GetOutputs()[0].GetShape()[0] != int64(len(many)) {
			err = errors.New("rows are missing")
		}
		answered <- err
	}()
	for !running(t, s) { // until rows wait behind those in the engine
		select {
		case err := <-answered:
			t.Fatalf("the request was answered before the server could be stopped: %v", err)
		default:
		}
	}
	if err := s.Stop(); err != nil {
		t.Errorf("expected the process to end with 0: %v", err)
	}
	if err := <-answered; err != nil {
		t.Errorf("the request under way: %v", err)
	}
	expect(healthpb.HealthCheckResponse_NOT_SERVING)
	if !strings.Contains(s.Log(), "msg=drained") {
		t.Error("the log does not say that the server drained")
	}
}
