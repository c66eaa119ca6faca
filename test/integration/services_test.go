package integration

import (
	"bytes"
	"encoding/json"
	"net/http"
	"reflect"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/switchyard-dev/switchyard/api/proto/inference"
	"github.com/switchyard-dev/switchyard/test/oip"
	"github.com/switchyard-dev/switchyard/test/wrappers"
)

// An adapter with a Service of its own is asked there as at its pool's, and its pods answer the same. The Service goes
// with the adapter, and the pool's answers on.
func TestAnAdapterAtAnAddressOfItsOwn(t *testing.T) {
	t.Parallel()
	s := newSite(t, 2, "holes")
	adapter := wrappers.LoRAAdapter(s.ns, "parity").Pool(poolName).Source(place.Ref("parity", "v1")).Service().Obj()
	s.apply(adapter)
	s.awaitServed("parity", 2)
	ask := func(service string) []oip.Answer {
		t.Helper()
		at, err := place.Endpoint(t.Context(), s.ns, service)
		if err != nil {
			t.Fatal(err)
		}
		answers, err := oip.Infer(t.Context(), at.HTTP, "parity", oip.Request{Inputs: []oip.Tensor{oip.Images(image)}})
		if err != nil {
			t.Fatalf("%s at %s: %v", service, at.HTTP, err)
		}
		return answers
	}
	want := ask(poolName)
	at, err := place.Endpoint(t.Context(), s.ns, "parity")
	if err != nil {
		t.Fatal(err)
	}
	for range 4 { // each pod twice
		if found := ask("parity"); !reflect.DeepEqual(found, want) {
			t.Errorf("expected %+v, found %+v", want, found)
		}
		if label := firstLabel(t, at.HTTP, "parity."+s.ns+".svc:8080"); label != want[0].Label {
			t.Errorf("a client of one model: expected the label %s, found %s", want[0].Label, label)
		}
		if label := labelOverGRPC(t, at.GRPC, "parity"); label != want[0].Label {
			t.Errorf("over gRPC: expected the label %s, found %s", want[0].Label, label)
		}
	}
	s.kubectl("delete", "lora", "parity")
	s.awaitGone(&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: s.ns, Name: "parity"}})
	s.awaitServed("holes", 2)
}

// firstLabel asks as a client that knows of no models does, HuggingFace's, at an address of that name.
func firstLabel(t *testing.T, url, host string) string {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+"/", bytes.NewReader(image))
	if err != nil {
		t.Fatal(err)
	}
	request.Host = host
	request.Header.Set("Content-Type", "image/png")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	var labels []struct{ Label string }
	if err := json.NewDecoder(response.Body).Decode(&labels); err != nil || len(labels) == 0 {
		t.Fatalf("status %d, labels %v, error %v", response.StatusCode, labels, err)
	}
	return labels[0].Label
}

// labelOverGRPC asks the adapter of a pod, which another may be the next time.
func labelOverGRPC(t *testing.T, address, adapter string) string {
	t.Helper()
	connection, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = connection.Close() }()
	client := inference.NewGRPCInferenceServiceClient(connection)
	answer, err := client.ModelInfer(t.Context(), &inference.ModelInferRequest{
		ModelName: adapter,
		Inputs: []*inference.ModelInferRequest_InferInputTensor{{
			Name: "image", Datatype: "BYTES", Shape: []int64{1},
			Contents: &inference.InferTensorContents{BytesContents: [][]byte{image}},
		}},
		Outputs: []*inference.ModelInferRequest_InferRequestedOutputTensor{{Name: "label"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	const length = 4 // bytes before the element
	return string(answer.GetRawOutputContents()[0][length:])
}
