package rpc_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding/gzip"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/switchyard-dev/switchyard/api/proto/inference"
)

// check expects a status, and words in its message.
func check(t *testing.T, err error, code codes.Code, message string) {
	t.Helper()
	if told := status.Convert(err); told.Code() != code || !strings.Contains(told.Message(), message) {
		t.Errorf("expected %s with %q, found %s: %s", code, message, told.Code(), told.Message())
	}
}

// Every output is as REST answers it, to the bit, in whichever form the request comes.
func TestAnswersAreThoseOfREST(t *testing.T) {
	f := newFront(t)
	images := [][]byte{png(t, 0), png(t, 1), png(t, 2)}
	names := []string{"parity", "", "holes"}
	inBase64 := make([]string, len(images))
	for i, image := range images {
		inBase64[i] = base64.StdEncoding.EncodeToString(image)
	}
	want := f.answerOverHTTP(t, inBase64, names...)
	for name, c := range map[string]struct {
		request *request
		options []grpc.CallOption
	}{
		"raw":        {raw(images, names...), nil},
		"typed":      {typed(images, names...), nil},
		"compressed": {raw(images, names...), []grpc.CallOption{grpc.UseCompressor(gzip.Name)}},
		"with sizes": {with(raw(images, names...), func(r *request) {
			for i, in := range r.Inputs {
				in.Parameters = named("binary_data_size", len(r.RawInputContents[i]))
			}
		}), nil},
		"with a deadline": {with(raw(images, names...), func(r *request) {
			r.Parameters = named("timeout", 60_000_000)
		}), nil},
	} {
		t.Run(name, func(t *testing.T) {
			c.request.Id = "seven"
			answer, err := f.client.ModelInfer(t.Context(), c.request, c.options...)
			if err != nil {
				t.Fatal(err)
			}
			base := f.server.Base()
			if answer.GetId() != "seven" || answer.GetModelName() != "digits" || answer.GetModelVersion() != base.Revision {
				t.Errorf("expected seven of digits %s, found %s of %s %s",
					base.Revision, answer.GetId(), answer.GetModelName(), answer.GetModelVersion())
			}
			if len(answer.GetOutputs()) != len(want) || len(answer.GetRawOutputContents()) != len(want) {
				t.Fatalf("expected %d outputs, found %d with %d contents",
					len(want), len(answer.GetOutputs()), len(answer.GetRawOutputContents()))
			}
			for i, o := range answer.GetOutputs() {
				if o.GetContents() != nil || !bytes.Equal(answer.GetRawOutputContents()[i], want[o.GetName()]) {
					t.Errorf("output %s: expected %x, found %x", o.GetName(), want[o.GetName()], answer.GetRawOutputContents()[i])
				}
			}
		})
	}
}

// Pixels in a list and pixels in binary are the same, and each row is an image of its own.
func TestPixels(t *testing.T) {
	f := newFront(t)
	first, err := f.client.ModelInfer(t.Context(), pixels(0, 1))
	if err != nil {
		t.Fatal(err)
	}
	second, err := f.client.ModelInfer(t.Context(), rawPixels(0, 1))
	if err != nil || !proto.Equal(first, second) {
		t.Errorf("expected %v, found %v, error %v", first, second, err)
	}
	logits := first.GetRawOutputContents()[0]
	if half := len(logits) / 2; bytes.Equal(logits[:half], logits[half:]) {
		t.Error("expected the rows to differ, found them equal")
	}
}

// Outputs are those that are asked for, in that order; an adapter is a model of its own; and the pool is asked of the
// adapter that the metadata names.
func TestWhoIsAsked(t *testing.T) {
	f := newFront(t)
	images := [][]byte{png(t, 0)}
	label := func(r *request, pairs ...string) (string, error) {
		r.Outputs = []*inference.ModelInferRequest_InferRequestedOutputTensor{{Name: "score"}, {Name: "label"}}
		answer, err := f.client.ModelInfer(metadata.AppendToOutgoingContext(t.Context(), pairs...), r)
		if err != nil {
			return "", err
		}
		if len(answer.GetOutputs()) != 2 || answer.GetOutputs()[1].GetName() != "label" {
			return "", fmt.Errorf("expected score and label, found %v", answer.GetOutputs())
		}
		return answer.GetModelName() + " " + string(answer.GetRawOutputContents()[1][4:]), nil
	}
	of := func(model string) *request { return with(raw(images), func(r *request) { r.ModelName = model }) }
	for _, c := range []struct {
		request *request
		pairs   []string
		want    string
	}{
		{of("parity"), nil, "parity even"},
		{of("digits"), []string{"switchyard-adapter", "parity"}, "parity even"},
		{of(""), []string{"switchyard-adapter", "parity"}, "parity even"},
		{of("parity"), []string{"switchyard-adapter", "holes"}, "parity even"},
		{of("digits"), []string{"switchyard-adapter", "__base__"}, "digits 6"},
		{raw(images, "parity"), nil, "digits even"},
	} {
		if got, err := label(c.request, c.pairs...); err != nil || got != c.want {
			t.Errorf("%s, %v: expected %s, found %s, error %v", c.request.GetModelName(), c.pairs, c.want, got, err)
		}
	}
	_, err := label(of("digits"), "switchyard-adapter", "nobody")
	check(t, err, codes.NotFound, `adapter "nobody": unknown`)
	_, err = label(raw(images, "holes"), "switchyard-adapter", "parity")
	check(t, err, codes.InvalidArgument, `input "adapter" is only for the model "digits"`)
}

// Every bad request is refused with its reason, and the next good one works.
func TestBadRequests(t *testing.T) {
	f := newFront(t)
	image := png(t, 0)
	good := func() *request { return raw([][]byte{image}) }
	shaped := func(shape ...int64) *request {
		return with(rawPixels(0), func(r *request) { r.Inputs[0].Shape = shape })
	}
	inputWith := func(name string, value any) *request {
		return with(good(), func(r *request) { r.Inputs[0].Parameters = named(name, value) })
	}
	wanted := func(names ...string) *request {
		return with(good(), func(r *request) {
			for _, name := range names {
				r.Outputs = append(r.Outputs, &inference.ModelInferRequest_InferRequestedOutputTensor{Name: name})
			}
		})
	}
	million := make([]byte, 4<<20)
	for name, c := range map[string]struct {
		request *request
		code    codes.Code
		message string
	}{
		"no model":      {with(good(), func(r *request) { r.ModelName = "" }), codes.NotFound, `adapter "": unknown`},
		"unknown model": {with(good(), func(r *request) { r.ModelName = "nobody" }), codes.NotFound, `"nobody": unknown`},
		"refused model": {
			with(good(), func(r *request) { r.ModelName = "broken" }), codes.Unavailable,
			`"broken": refused`,
		},
		"unknown version": {with(good(), func(r *request) { r.ModelVersion = "1" }), codes.NotFound, "expected sha256:"},
		"unknown adapter": {raw([][]byte{image}, "nobody"), codes.NotFound, `input "adapter": row 0: adapter "nobody"`},
		"an endless id": {
			with(good(), func(r *request) { r.Id = strings.Repeat("x", 257) }), codes.InvalidArgument,
			"id: expected at most 256 bytes, found 257",
		},

		"a parameter": {
			with(good(), func(r *request) { r.Parameters = named("priority", uint64(1)) }), codes.InvalidArgument,
			`the request: parameter "priority" is not supported`,
		},
		"a timeout that is none": {
			with(good(), func(r *request) { r.Parameters = named("timeout", -1) }), codes.InvalidArgument,
			"timeout: expected a number of microseconds, found -1",
		},
		"a timeout without a value": {
			with(good(), func(r *request) { r.Parameters = named("timeout", nil) }), codes.InvalidArgument,
			"timeout: expected a number of microseconds, found null",
		},
		"a parameter that JSON has not": {
			with(good(), func(r *request) { r.Parameters = named("timeout", math.NaN()) }), codes.InvalidArgument,
			`parameter "timeout": `,
		},
		"a timeout that is over": {
			with(good(), func(r *request) { r.Parameters = named("timeout", 1) }), codes.DeadlineExceeded,
			"deadline has passed",
		},
		"a parameter of an input": {
			inputWith("shared_memory_region", "x"), codes.InvalidArgument,
			`input "image": parameter "shared_memory_region" is not supported`,
		},
		"a parameter of an output": {
			with(wanted("label"), func(r *request) { r.Outputs[0].Parameters = named("classification", 3) }),
			codes.InvalidArgument, `output "label": parameter "classification" is not supported`,
		},
		"a wrong size": {
			inputWith("binary_data_size", 7), codes.InvalidArgument,
			`input "image": binary_data_size: expected 7 bytes of raw_input_contents, found`,
		},
		"a negative size": {
			inputWith("binary_data_size", -7), codes.InvalidArgument, "expected a number of bytes, found -7",
		},
		"a size of nothing raw": {
			with(typed([][]byte{image}), func(r *request) { r.Inputs[0].Parameters = named("binary_data_size", 7) }),
			codes.InvalidArgument, "binary_data_size: expected raw_input_contents beside it, found none",
		},
		"an unknown output": {wanted("labels"), codes.InvalidArgument, `output "labels" is not one of [logits`},
		"an output twice":   {wanted("label", "label"), codes.InvalidArgument, "asked for twice"},
		"too many outputs":  {wanted(make([]string, 17)...), codes.InvalidArgument, "outputs: expected at most 16 members"},
		"no inputs":         {&request{ModelName: "digits"}, codes.InvalidArgument, "expected one of the inputs"},
		"an unknown input": {
			with(good(), func(r *request) { r.Inputs[0].Name = "text" }), codes.InvalidArgument,
			`input "text" is not`,
		},
		"an input twice": {with(good(), func(r *request) {
			r.Inputs = append(r.Inputs, r.Inputs[0])
			r.RawInputContents = append(r.RawInputContents, nil)
		}), codes.InvalidArgument, `"image" is given twice`},
		// Their client takes time to write them, under the race detector most, and a message has to come within seconds.
		"thousands of inputs": {with(good(), func(r *request) {
			r.Inputs = make([]*input, 20_000)
			for i := range r.Inputs {
				r.Inputs[i] = &input{}
			}
		}), codes.InvalidArgument, "inputs: expected at most 16 members, found more"},
		"thousands of contents": {
			with(good(), func(r *request) { r.RawInputContents = make([][]byte, 20_000) }), codes.InvalidArgument,
			"raw_input_contents: expected at most 16 members",
		},
		"thousands of dimensions": {
			shaped(make([]int64, 20_000)...), codes.InvalidArgument, "inputs: shape: expected at most 16 members, found more",
		},

		"another datatype": {
			with(rawPixels(0), func(r *request) { r.Inputs[0].Datatype = "FP64" }), codes.InvalidArgument,
			`input "pixel_values": datatype: expected FP32, found "FP64"`,
		},
		"no shape":      {shaped(), codes.InvalidArgument, "shape: expected [B, 3, 32, 32], found []"},
		"no rows":       {shaped(0, 3, 32, 32), codes.InvalidArgument, "found [0, 3, 32, 32]"},
		"negative rows": {shaped(-1, 3, 32, 32), codes.InvalidArgument, "found [-1, 3, 32, 32]"},
		"absurd rows":   {shaped(math.MaxInt64, 3, 32, 32), codes.InvalidArgument, "shape: expected [B, 3"},
		"a million rows": {
			shaped(1_000_000, 3, 32, 32), codes.InvalidArgument,
			"expected at most 8 rows in a request, found 1000000",
		},
		"rows that are not there": {
			shaped(2, 3, 32, 32), codes.InvalidArgument,
			`input "pixel_values": expected [2, 3, 32, 32] numbers of 4 bytes each, found 12288 bytes`,
		},
		"a byte too many": {
			with(rawPixels(0), func(r *request) { r.RawInputContents[0] = append(r.RawInputContents[0], 0) }),
			codes.InvalidArgument, "found 12289 bytes",
		},
		"a number too few": {
			with(pixels(0), func(r *request) { r.Inputs[0].Contents.Fp32Contents = r.Inputs[0].Contents.Fp32Contents[1:] }),
			codes.InvalidArgument, `input "pixel_values": data: expected [1, 3, 32, 32] elements, found 3071`,
		},
		"NaN": {
			rawPixels(0, float32(math.NaN())), codes.InvalidArgument,
			`input "pixel_values": row 1: expected a finite FP32`,
		},
		"infinite in a list": {
			pixels(0, float32(math.Inf(-1))), codes.InvalidArgument,
			`input "pixel_values": row 1: expected a finite FP32`,
		},
		"an element cut off": {
			with(good(), func(r *request) { r.RawInputContents[0] = r.RawInputContents[0][:9] }), codes.InvalidArgument,
			`input "image": row 0: expected`,
		},
		"a lying length": {
			with(good(), func(r *request) { r.RawInputContents[0] = []byte("\xff\xff\xff\xff1234") }), codes.InvalidArgument,
			`input "image": row 0: expected 4294967295 bytes, as its length says, found 4`,
		},
		"bytes behind": {
			with(good(), func(r *request) { r.RawInputContents[0] = append(r.RawInputContents[0], "tail"...) }),
			codes.InvalidArgument, "found 4 bytes behind them",
		},
		"no image": {raw([][]byte{image, []byte("AAAA")}), codes.InvalidArgument, `input "image": row 1: `},
		"base64": {
			raw([][]byte{[]byte(base64.StdEncoding.EncodeToString(image))}), codes.InvalidArgument,
			`input "image": row 0: `,
		},
		"not UTF-8": {
			raw([][]byte{image}, "\xff"), codes.InvalidArgument,
			`input "adapter": row 0: expected a text in UTF-8`,
		},
		"not finite": {
			raw([][]byte{image}, "overflow"), codes.InvalidArgument,
			"row 0: the model's answer to it is not finite",
		},
		"two contents": {
			with(good(), func(r *request) { r.RawInputContents = append(r.RawInputContents, nil) }), codes.InvalidArgument,
			"raw_input_contents: expected one for each of 1 inputs, or none, found 2",
		},
		"both contents": {
			with(good(), func(r *request) { r.Inputs[0].Contents = &contents{BytesContents: [][]byte{image}} }),
			codes.InvalidArgument, `input "image": expected contents or raw_input_contents, found both`,
		},
		"no contents": {
			with(good(), func(r *request) { r.RawInputContents = nil }), codes.InvalidArgument,
			`input "image": data: expected [1] elements, found 0`,
		},
		"another list": {
			with(typed([][]byte{image}), func(r *request) { r.Inputs[0].Contents = &contents{Int64Contents: []int64{1}} }),
			codes.InvalidArgument,
			`input "image": expected contents of the datatype "BYTES" in bytes_contents, found int64_contents`,
		},
		"two lists": {
			with(typed([][]byte{image}), func(r *request) { r.Inputs[0].Contents.UintContents = []uint32{1} }),
			codes.InvalidArgument, "in bytes_contents, found uint_contents",
		},
		"too large": {
			raw([][]byte{million}), codes.ResourceExhausted, "the body is over the limit of 1048576 bytes",
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := f.client.ModelInfer(t.Context(), c.request)
			check(t, err, c.code, c.message)
			if _, err := f.client.ModelInfer(t.Context(), good()); err != nil {
				t.Errorf("the next request: %v", err)
			}
		})
	}
}

func TestMetadataAndReadiness(t *testing.T) {
	f := newFront(t)
	ctx := t.Context()
	if live, err := f.client.ServerLive(ctx, &inference.ServerLiveRequest{}); err != nil || !live.GetLive() {
		t.Errorf("expected a live server, found %v, error %v", live, err)
	}
	about, err := f.client.ServerMetadata(ctx, &inference.ServerMetadataRequest{})
	if err != nil || about.GetName() != "switchyard" ||
		!slices.Equal(about.GetExtensions(), []string{"binary_tensor_data", "adapter_fan_out"}) {
		t.Errorf("expected switchyard with its extensions, found %v, error %v", about, err)
	}
	described, err := f.client.ModelMetadata(ctx, &inference.ModelMetadataRequest{Name: "holes"})
	if err != nil {
		t.Fatal(err)
	}
	if in := described.GetInputs()[0]; in.GetName() != "pixel_values" || in.GetDatatype() != "FP32" ||
		!slices.Equal(in.GetShape(), []int64{-1, 3, 32, 32}) {
		t.Errorf("expected pixel_values FP32 [-1 3 32 32], found %v", in)
	}
	if out := described.GetOutputs()[0]; out.GetName() != "logits" || !slices.Equal(out.GetShape(), []int64{-1, 3}) {
		t.Errorf("expected logits [-1 3], found %v", out)
	}
	for _, c := range []struct {
		name, version string
		ready         bool
		code          codes.Code
	}{
		{"digits", "", true, codes.OK},
		{"holes", described.GetVersions()[0], true, codes.OK},
		{"holes", "1", false, codes.NotFound},
		{"nobody", "", false, codes.NotFound},
		{"broken", "", false, codes.OK},
	} {
		got, err := f.client.ModelReady(ctx, &inference.ModelReadyRequest{Name: c.name, Version: c.version})
		if got.GetReady() != c.ready || status.Code(err) != c.code {
			t.Errorf("%s %s: expected %v and %s, found %v and %v", c.name, c.version, c.ready, c.code, got.GetReady(), err)
		}
	}
	_, err = f.client.ModelMetadata(ctx, &inference.ModelMetadataRequest{Name: "nobody"})
	check(t, err, codes.NotFound, `adapter "nobody": unknown`)
	_, err = f.client.ModelMetadata(ctx, &inference.ModelMetadataRequest{Name: strings.Repeat("x", 64<<10)})
	check(t, err, codes.ResourceExhausted, "the message is over the limit of 65536 bytes")
}

// A server that waits for an adapter, or stops, is not ready; one that stops refuses with a time to try again.
func TestReadinessWaitsForLoadingAndEndsWithDraining(t *testing.T) {
	f := newFront(t)
	health := healthpb.NewHealthClient(f.conn)
	expect := func(ready bool) {
		t.Helper()
		answer, err := f.client.ServerReady(t.Context(), &inference.ServerReadyRequest{})
		if err != nil || answer.GetReady() != ready {
			t.Errorf("expected ready to be %v, found %v, error %v", ready, answer, err)
		}
		want := map[bool]healthpb.HealthCheckResponse_ServingStatus{
			true: healthpb.HealthCheckResponse_SERVING, false: healthpb.HealthCheckResponse_NOT_SERVING,
		}[ready]
		for _, service := range []string{"", "inference.GRPCInferenceService"} {
			told, err := health.Check(t.Context(), &healthpb.HealthCheckRequest{Service: service})
			if err != nil || told.GetStatus() != want {
				t.Errorf("service %q: expected %s, found %v, error %v", service, want, told, err)
			}
		}
		all, err := health.List(t.Context(), &healthpb.HealthListRequest{})
		if err != nil || len(all.GetStatuses()) != 2 || all.GetStatuses()[""].GetStatus() != want {
			t.Errorf("expected two services, %s, found %v, error %v", want, all, err)
		}
	}
	expect(true)
	_, err := health.Check(t.Context(), &healthpb.HealthCheckRequest{Service: "nobody"})
	check(t, err, codes.NotFound, `service "nobody": unknown`)
	f.set.Expect("late")
	expect(false)
	late := with(raw([][]byte{png(t, 0)}), func(r *request) { r.ModelName = "late" })
	_, err = f.client.ModelInfer(t.Context(), late)
	check(t, err, codes.Unavailable, `adapter "late"`)
	checkRetry(t, err)
	f.set.Drop("late")
	expect(true)
	f.server.Drain()
	expect(false)
	_, err = f.client.ModelInfer(t.Context(), raw([][]byte{png(t, 0)}))
	check(t, err, codes.Unavailable, "the server is stopping")
	checkRetry(t, err)
	_, err = f.client.ModelInfer(t.Context(), with(late, func(r *request) { r.ModelName = "broken" }))
	check(t, err, codes.Unavailable, "stopping")
	if model, err := f.client.ModelReady(t.Context(), &inference.ModelReadyRequest{Name: "digits"}); err != nil ||
		model.GetReady() {
		t.Errorf("a model of a server that drains: expected it not to be ready, found %v, error %v", model, err)
	}
}

// checkRetry expects a status to say when to try again.
func checkRetry(t *testing.T, err error) {
	t.Helper()
	for _, detail := range status.Convert(err).Details() {
		if retry, ok := detail.(*errdetails.RetryInfo); ok && retry.GetRetryDelay().AsDuration() == time.Second {
			return
		}
	}
	t.Errorf("expected a RetryInfo of a second, found %v", status.Convert(err).Details())
}

// A refusal that no other try would spare says nothing of one.
func TestARefusedAdapterIsNotTriedAgain(t *testing.T) {
	f := newFront(t)
	_, err := f.client.ModelInfer(t.Context(), with(raw([][]byte{png(t, 0)}), func(r *request) { r.ModelName = "broken" }))
	if details := status.Convert(err).Details(); len(details) > 0 {
		t.Errorf("expected no details, found %v", details)
	}
}

// Before there is a base model the server is alive, and not ready.
func TestBeforeThereIsABaseModel(t *testing.T) {
	f := newServer(t, keep)
	f.dial(t, listen(t, f.handler))
	live, err := f.client.ServerLive(t.Context(), &inference.ServerLiveRequest{})
	if err != nil || !live.GetLive() {
		t.Errorf("expected a live server, found %v, error %v", live, err)
	}
	ready, err := f.client.ServerReady(t.Context(), &inference.ServerReadyRequest{})
	if err != nil || ready.GetReady() {
		t.Errorf("expected a server that is not ready, found %v, error %v", ready, err)
	}
	model, err := f.client.ModelReady(t.Context(), &inference.ModelReadyRequest{Name: "digits"})
	if err != nil || model.GetReady() {
		t.Errorf("expected a model that is not ready, found %v, error %v", model, err)
	}
	told, err := healthpb.NewHealthClient(f.conn).Check(t.Context(), &healthpb.HealthCheckRequest{})
	if err != nil || told.GetStatus() != healthpb.HealthCheckResponse_NOT_SERVING {
		t.Errorf("expected NOT_SERVING, found %v, error %v", told, err)
	}
	_, err = f.client.ModelInfer(t.Context(), raw([][]byte{png(t, 0)}))
	check(t, err, codes.Unavailable, "the base model is not loaded yet")
	checkRetry(t, err)
	_, err = f.client.ModelMetadata(t.Context(), &inference.ModelMetadataRequest{Name: "digits"})
	check(t, err, codes.Unavailable, "the base model is not loaded yet")
	f.handler.Open(f.server)
	if _, err := f.client.ModelInfer(t.Context(), raw([][]byte{png(t, 0)})); err != nil {
		t.Errorf("with a base model: %v", err)
	}
}

// Both versions of reflection are spoken.
func TestReflection(t *testing.T) {
	f := newFront(t)
	const service = "inference.GRPCInferenceService"
	stream, err := reflectionpb.NewServerReflectionClient(f.conn).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ask := func(r *reflectionpb.ServerReflectionRequest) *reflectionpb.ServerReflectionResponse {
		t.Helper()
		if err := stream.Send(r); err != nil {
			t.Fatal(err)
		}
		answer, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		return answer
	}
	var names []string
	for _, s := range ask(&reflectionpb.ServerReflectionRequest{
		MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{},
	}).GetListServicesResponse().GetService() {
		names = append(names, s.GetName())
	}
	want := []string{
		"grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection", service,
	}
	if slices.Sort(names); !slices.Equal(names, want) {
		t.Errorf("expected %v, found %v", want, names)
	}
	symbol := func(name string) *reflectionpb.ServerReflectionRequest {
		return &reflectionpb.ServerReflectionRequest{
			MessageRequest: &reflectionpb.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: name},
		}
	}
	if files := ask(symbol(service)).GetFileDescriptorResponse().GetFileDescriptorProto(); len(files) != 1 ||
		!bytes.Contains(files[0], []byte("raw_input_contents")) {
		t.Errorf("expected the file of %s, found %d", service, len(files))
	}
	if code := ask(symbol("nobody")).GetErrorResponse().GetErrorCode(); codes.Code(code) != codes.NotFound {
		t.Errorf("an unknown symbol: expected NOT_FOUND, found %d", code)
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("expected the stream to end, found %v", err)
	}

	// The older version has the same messages under another name.
	old, err := f.conn.NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true, ClientStreams: true},
		"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
	if err != nil {
		t.Fatal(err)
	}
	if err := old.SendMsg(symbol(service)); err != nil {
		t.Fatal(err)
	}
	var answer reflectionpb.ServerReflectionResponse
	if err := old.RecvMsg(&answer); err != nil || len(answer.GetFileDescriptorResponse().GetFileDescriptorProto()) != 1 {
		t.Errorf("v1alpha: expected the file of %s, found %v, error %v", service, &answer, err)
	}
}

// A stream has its bound, too: grpc-go reads it as fast as it comes.
func TestAStreamOfRequestsIsBounded(t *testing.T) {
	f := newFront(t)
	stream, err := reflectionpb.NewServerReflectionClient(f.conn).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	answers := 0
	for {
		if err = stream.Send(&reflectionpb.ServerReflectionRequest{
			MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{},
		}); err != nil {
			break
		}
		if _, err = stream.Recv(); err != nil {
			break
		}
		answers++
	}
	if answers == 0 || answers > 64 {
		t.Errorf("expected at most 64 answers, found %d and %v", answers, err)
	}
}

// Methods of Triton's that are not the protocol's are not there.
func TestUnknownMethods(t *testing.T) {
	f := newFront(t)
	for _, method := range []string{
		"/inference.GRPCInferenceService/RepositoryIndex", "/inference.GRPCInferenceService/ModelStreamInfer", "/x.Y/Z",
	} {
		err := f.conn.Invoke(t.Context(), method, &inference.ServerLiveRequest{}, &inference.ServerLiveResponse{})
		check(t, err, codes.Unimplemented, "unknown")
	}
}

func TestMetricsCountWhatHappened(t *testing.T) {
	f := newFront(t)
	ctx := t.Context()
	_, _ = f.client.ModelInfer(ctx, raw([][]byte{png(t, 0), png(t, 1)}))
	_, _ = f.client.ModelInfer(ctx, raw([][]byte{png(t, 0)}, "nobody"))
	_, _ = f.client.ModelInfer(ctx, raw([][]byte{make([]byte, 2<<20)}))
	_, _ = f.client.ServerLive(ctx, &inference.ServerLiveRequest{})
	_ = f.conn.Invoke(ctx, "/x.Y/Z", &inference.ServerLiveRequest{}, &inference.ServerLiveResponse{})
	_ = f.conn.Close()
	for _, line := range []string{
		`switchyard_requests_total{code="200",route="grpc ModelInfer"} 1`,
		`switchyard_requests_total{code="404",route="grpc ModelInfer"} 1`,
		`switchyard_requests_total{code="413",route="grpc ModelInfer"} 1`,
		`switchyard_requests_total{code="200",route="grpc ServerLive"} 1`,
		`switchyard_requests_total{code="501",route="none"} 1`,
		`switchyard_rows_total{code="200"} 2`,
	} {
		for n := 0; !strings.Contains(f.scrape(t), line+"\n"); n++ { // a call is counted once its answer is out
			if n == 10000 {
				t.Fatalf("expected the line %s in\n%s", line, f.scrape(t))
			}
		}
	}
}

// What is not gRPC is refused by its HTTP code.
func TestWhatIsNotGRPC(t *testing.T) {
	f := newFront(t)
	client := &http.Client{Transport: plain()}
	for _, c := range []struct {
		method, contentType, timeout string
		code                         int
	}{
		{http.MethodGet, "application/grpc", "", http.StatusMethodNotAllowed},
		{http.MethodPost, "application/json", "", http.StatusUnsupportedMediaType},
		{http.MethodPost, "application/grpc", "soon", http.StatusBadRequest},
	} {
		url := "http://" + f.address + inference.GRPCInferenceService_ServerLive_FullMethodName
		r, err := http.NewRequestWithContext(t.Context(), c.method, url, bytes.NewReader(frame(0, nil)))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", c.contentType)
		if c.timeout != "" {
			r.Header.Set("Grpc-Timeout", c.timeout)
		}
		response, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		if response.StatusCode != c.code {
			t.Errorf("%s %s: expected %d, found %d", c.method, c.contentType, c.code, response.StatusCode)
		}
	}
}
