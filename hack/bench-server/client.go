package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"strconv"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/switchyard-dev/switchyard/api/proto/inference"
)

// asker sends rows to a server, by one protocol.
type asker interface {
	// ask returns the logits of each row, as wide as the widest of them, or a refusal.
	ask(ctx context.Context, rows []row) (*reply, error)
}

// reply is what a server said. Where it refused, there are no logits.
type reply struct {
	code   int // of HTTP
	retry  bool
	width  int
	logits []float32
}

// overHTTP speaks the binary tensor extension.
type overHTTP struct {
	world  *world
	url    string
	client *http.Client
}

func newOverHTTP(w *world, url string, connections int) *overHTTP {
	return &overHTTP{w, url, &http.Client{
		Transport: &http.Transport{MaxIdleConnsPerHost: connections, MaxConnsPerHost: connections},
		Timeout:   time.Minute,
	}}
}

func (c *overHTTP) ask(ctx context.Context, rows []row) (*reply, error) {
	ids, names := c.world.tensors(rows)
	header := fmt.Sprintf(`{"inputs":[`+
		`{"name":"input_ids","datatype":"INT64","shape":[%d,%d],"parameters":{"binary_data_size":%d}},`+
		`{"name":"adapter","datatype":"BYTES","shape":[%d],"parameters":{"binary_data_size":%d}}],`+
		`"outputs":[{"name":"logits","parameters":{"binary_data":true}}]}`,
		len(rows), len(ids)/8/len(rows), len(ids), len(rows), len(names))
	body := append(append([]byte(header), ids...), names...)
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url+"/v2/models/base/infer", bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Inference-Header-Content-Length", strconv.Itoa(len(header)))
	response, err := c.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }()
	raw, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, err
	}
	r := &reply{code: response.StatusCode, retry: response.Header.Get("Retry-After") != ""}
	if r.code != http.StatusOK {
		return r, nil
	}
	n, err := strconv.Atoi(response.Header.Get("Inference-Header-Content-Length"))
	if err != nil {
		return nil, fmt.Errorf("an answer without its length: %w", err)
	}
	var answer struct{ Outputs []struct{ Shape []int } }
	if err := json.Unmarshal(raw[:n], &answer); err != nil {
		return nil, err
	}
	r.width, r.logits = answer.Outputs[0].Shape[1], floats(raw[n:])
	return r, nil
}

// overGRPC speaks the protocol's service.
type overGRPC struct {
	world  *world
	client inference.GRPCInferenceServiceClient
}

// newOverGRPC is of one connection, which end closes.
func newOverGRPC(w *world, address string) (a *overGRPC, end func() error, err error) {
	connection, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, nil, err
	}
	return &overGRPC{w, inference.NewGRPCInferenceServiceClient(connection)}, connection.Close, nil
}

func (c *overGRPC) ask(ctx context.Context, rows []row) (*reply, error) {
	ids, names := c.world.tensors(rows)
	n := int64(len(rows))
	answer, err := c.client.ModelInfer(ctx, &inference.ModelInferRequest{
		ModelName: "base",
		Inputs: []*inference.ModelInferRequest_InferInputTensor{
			{Name: "input_ids", Datatype: "INT64", Shape: []int64{n, int64(len(ids)/8) / n}},
			{Name: "adapter", Datatype: "BYTES", Shape: []int64{n}},
		},
		Outputs:          []*inference.ModelInferRequest_InferRequestedOutputTensor{{Name: "logits"}},
		RawInputContents: [][]byte{ids, names},
	})
	if err != nil {
		return nil, err
	}
	width := answer.GetOutputs()[0].GetShape()[1]
	return &reply{code: http.StatusOK, width: int(width), logits: floats(answer.GetRawOutputContents()[0])}, nil
}

// tensors are rows' ids and adapters in binary.
func (w *world) tensors(rows []row) (ids, names []byte) {
	for _, r := range rows {
		for _, id := range w.inputs[r.text].IDs {
			ids = binary.LittleEndian.AppendUint64(ids, uint64(id))
		}
		name := w.names[r.adapter]
		names = binary.LittleEndian.AppendUint32(names, uint32(len(name)))
		names = append(names, name...)
	}
	return ids, names
}

func floats(raw []byte) []float32 {
	values := make([]float32, len(raw)/4)
	for i := range values {
		values[i] = math.Float32frombits(binary.LittleEndian.Uint32(raw[4*i:]))
	}
	return values
}

// check holds a reply to what the engine answers, to the bit.
func (w *world) check(rows []row, r *reply) error {
	if len(r.logits) != len(rows)*r.width {
		return fmt.Errorf("expected %d rows of %d logits, found %d", len(rows), r.width, len(r.logits))
	}
	for i, asked := range rows {
		found := r.logits[i*r.width:]
		for j, want := range w.expected[asked.adapter][asked.text] {
			if math.Float32bits(found[j]) != math.Float32bits(want) {
				return fmt.Errorf("row %d, %s: logit %d: expected %v, found %v", i, w.names[asked.adapter], j, want, found[j])
			}
		}
	}
	return nil
}
