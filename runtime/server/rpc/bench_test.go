package rpc_test

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"

	"github.com/switchyard-dev/switchyard/api/proto/inference"
)

// What carries a request costs: one row, and a batch of eight, over net/http, over grpc-go's own transport, and over
// HTTP in binary.
func BenchmarkTransport(b *testing.B) {
	for _, rows := range []int{1, maxRows} {
		values := make([]float32, rows)
		for i := range values {
			values[i] = float32(i)
		}
		asked := rawPixels(values...)
		infer := func(client inference.GRPCInferenceServiceClient) func(b *testing.B) {
			return func(b *testing.B) {
				for b.Loop() {
					if _, err := client.ModelInfer(b.Context(), asked); err != nil {
						b.Fatal(err)
					}
				}
			}
		}
		f := newFront(b)
		b.Run(fmt.Sprintf("rows=%d/nethttp", rows), infer(f.client))

		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		native := f.handler.Native()
		go func() { _ = native.Serve(listener) }()
		b.Cleanup(native.Stop)
		f.dial(b, listener.Addr().String())
		b.Run(fmt.Sprintf("rows=%d/native", rows), infer(f.client))

		over := httptest.NewServer(f.rest)
		b.Cleanup(over.Close)
		b.Run(fmt.Sprintf("rows=%d/rest", rows), func(b *testing.B) {
			text := fmt.Sprintf(`{"parameters": {"binary_data_output": true}, "inputs": [{"name": "pixel_values",
				"datatype": "FP32", "shape": [%d,3,32,32], "parameters": {"binary_data_size": %d}}]}`,
				rows, len(asked.RawInputContents[0]))
			body := append([]byte(text), asked.RawInputContents[0]...)
			for b.Loop() {
				url := over.URL + "/v2/models/digits/infer"
				r, err := http.NewRequestWithContext(b.Context(), http.MethodPost, url, bytes.NewReader(body))
				if err != nil {
					b.Fatal(err)
				}
				r.Header.Set("Inference-Header-Content-Length", strconv.Itoa(len(text)))
				response, err := over.Client().Do(r)
				if err != nil {
					b.Fatal(err)
				}
				_, err = bytes.NewBuffer(nil).ReadFrom(response.Body)
				_ = response.Body.Close()
				if err != nil || response.StatusCode != http.StatusOK {
					b.Fatal(response.Status, err)
				}
			}
		})
	}
}
