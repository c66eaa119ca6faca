package rest_test

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// binaryBody is a request's JSON, its image's bytes, and how much of it is JSON.
func binaryBody(t *testing.T, parameters string) (body string, header []string) {
	t.Helper()
	image, err := base64.StdEncoding.DecodeString(pngImage(t))
	if err != nil {
		t.Fatal(err)
	}
	element := string(binary.LittleEndian.AppendUint32(nil, uint32(len(image)))) + string(image)
	names := "\x05\x00\x00\x00digit\x06\x00\x00\x00parity"
	text := fmt.Sprintf(`{"id": "7", %s"inputs": [
		{"name": "image", "datatype": "BYTES", "shape": [2], "parameters": {"binary_data_size": %d}},
		{"name": "adapter", "datatype": "BYTES", "shape": [2], "parameters": {"binary_data_size": %d}}
	]}`, parameters, 2*len(element), len(names))
	return text + element + element + names, []string{"Inference-Header-Content-Length", strconv.Itoa(len(text))}
}

// A tensor in binary is the same as in JSON, to the bit, and so is each output.
func TestBinaryTensors(t *testing.T) {
	f := newFront(t)
	var plain struct{ Outputs []outputTensor }
	code, body, header := f.do(t, "POST", "/v2/models/digits/infer", imageRequest(t, 2, "digit", "parity"))
	if err := json.Unmarshal([]byte(body), &plain); err != nil || code != http.StatusOK {
		t.Fatalf("status %d: %s", code, body)
	}
	if length := header.Get("Inference-Header-Content-Length"); length != "" {
		t.Errorf("an answer in JSON: expected no length of its JSON, found %s", length)
	}
	sent, length := binaryBody(t, "")
	code, body, _ = f.do(t, "POST", "/v2/models/digits/infer", sent, length...)
	var same struct{ Outputs []outputTensor }
	if err := json.Unmarshal([]byte(body), &same); err != nil || code != http.StatusOK {
		t.Fatalf("status %d: %s", code, body)
	}
	for i, o := range plain.Outputs {
		if string(same.Outputs[i].Data) != string(o.Data) {
			t.Errorf("output %s: expected %s, found %s", o.Name, o.Data, same.Outputs[i].Data)
		}
	}

	sent, length = binaryBody(t, `"parameters": {"binary_data_output": true}, `)
	code, body, header = f.do(t, "POST", "/v2/models/digits/infer", sent, length...)
	n, err := strconv.Atoi(header.Get("Inference-Header-Content-Length"))
	if err != nil || code != http.StatusOK || header.Get("Content-Type") != "application/octet-stream" {
		t.Fatalf("status %d, header %v: %s", code, header, body)
	}
	var binaries struct {
		Outputs []struct {
			outputTensor
			Parameters struct {
				Size int `json:"binary_data_size"`
			}
		}
	}
	if err := json.Unmarshal([]byte(body[:n]), &binaries); err != nil {
		t.Fatal(err)
	}
	rest := body[n:]
	for i, o := range binaries.Outputs {
		raw := rest[:o.Parameters.Size]
		rest = rest[len(raw):]
		if o.Data != nil {
			t.Errorf("output %s: expected its data in binary alone, found %s", o.Name, o.Data)
		}
		if want := plain.Outputs[i]; !slices.Equal(want.Shape, o.Shape) || asBinary(t, want) != raw {
			t.Errorf("output %s: expected %q, found %q", o.Name, asBinary(t, want), raw)
		}
	}
	if rest != "" {
		t.Errorf("expected nothing behind the outputs, found %d bytes", len(rest))
	}
}

// asBinary is an output of JSON as the binary tensor extension has it.
func asBinary(t *testing.T, o outputTensor) string {
	t.Helper()
	var raw []byte
	switch o.Datatype {
	case "FP32":
		for _, v := range o.floats(t) {
			raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(v))
		}
	case "INT32":
		for _, v := range dataOf[int32](t, o) {
			raw = binary.LittleEndian.AppendUint32(raw, uint32(v))
		}
	case "BYTES":
		for _, v := range dataOf[string](t, o) {
			raw = binary.LittleEndian.AppendUint32(raw, uint32(len(v)))
			raw = append(raw, v...)
		}
	}
	return string(raw)
}

// What is said of an output goes before what is said of all.
func TestEachOutputMayBeBinary(t *testing.T) {
	f := newFront(t)
	body := strings.Replace(imageRequest(t, 1), "{", `{"parameters": {"binary_data_output": true}, "outputs": [
		{"name": "label", "parameters": {"binary_data": false}}, {"name": "score"}], `, 1)
	code, answer, header := f.do(t, "POST", "/v2/models/digit/infer", body)
	n, err := strconv.Atoi(header.Get("Inference-Header-Content-Length"))
	if code != http.StatusOK || err != nil || len(answer) != n+4 {
		t.Fatalf("expected JSON and four bytes, found status %d, header %v: %q", code, header, answer)
	}
	if !strings.Contains(answer[:n], `"data":["six"]`) || !strings.Contains(answer[:n], `{"binary_data_size":4}`) {
		t.Errorf("expected the label in JSON and the score in binary, found %s", answer[:n])
	}
}

// A text that is none is as an image that is none: well-formed, and not to be decoded.
func TestATextNotInUTF8(t *testing.T) {
	f := newPackagesFront(t)
	const data = "\x01\x00\x00\x00a\x04\x00\x00\x00caf\xe9"
	head := fmt.Sprintf(`{"inputs": [
		{"name": "text", "datatype": "BYTES", "shape": [2], "parameters": {"binary_data_size": %d}}]}`, len(data))
	code, body, _ := f.do(t, "POST", "/v2/models/section/infer", head+data,
		"Inference-Header-Content-Length", strconv.Itoa(len(head)))
	if code != http.StatusUnprocessableEntity || !strings.Contains(body, `row 1: expected a text in UTF-8`) {
		t.Errorf("expected 422 for row 1, found %d: %s", code, body)
	}
}
