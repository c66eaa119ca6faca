package rest_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/pb33f/libopenapi"
	validator "github.com/pb33f/libopenapi-validator"
	v3 "github.com/pb33f/libopenapi/datamodel/high/v3"
)

// described is a front whose every request and answer is held to its own OpenAPI document.
type described struct {
	*front
	document validator.Validator
	paths    *v3.Paths
	answered map[string]bool // by method and path as the document has it
}

func describe(t *testing.T, f *front) *described {
	t.Helper()
	_, raw, _ := f.do(t, "GET", "/openapi.json", "")
	document, err := libopenapi.NewDocument([]byte(raw))
	if err != nil {
		t.Fatal(err)
	}
	v, errs := validator.NewValidator(document)
	if len(errs) > 0 {
		t.Fatal(errors.Join(errs...))
	}
	t.Cleanup(v.Release)
	model, err := document.BuildV3Model()
	if err != nil {
		t.Fatal(err)
	}
	return &described{f, v, model.Model.Paths, make(map[string]bool)}
}

// ask sends a request of an operation and holds the answer to the document; the request, too, if it is to be answered.
func (d *described) ask(t *testing.T, method, template, path, body string, code int, header ...string) {
	t.Helper()
	send := func() *http.Request {
		request, err := http.NewRequestWithContext(t.Context(), method, d.URL+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i < len(header); i += 2 {
			request.Header.Set(header[i], header[i+1])
		}
		return request
	}
	response, err := d.client.Do(send())
	if err != nil {
		t.Fatal(err)
	}
	raw, err := io.ReadAll(response.Body)
	if err := errors.Join(err, response.Body.Close()); err != nil {
		t.Fatal(err)
	}
	if response.StatusCode != code {
		t.Errorf("%s %s: expected %d, found %d: %s", method, path, code, response.StatusCode, raw)
	}
	item := d.paths.PathItems.GetOrZero(template)
	if item == nil || item.GetOperations().GetOrZero(strings.ToLower(method)) == nil {
		t.Fatalf("%s %s: the document does not have it", method, template)
	}
	response.Body = io.NopCloser(bytes.NewReader(raw))
	answers := d.document.GetResponseBodyValidator()
	if ok, found := answers.ValidateResponseBodyWithPathItem(send(), response, item, template); !ok {
		for _, e := range found {
			t.Errorf("%s %s: the answer %.300s: %v: %v", method, path, raw, e, e.SchemaValidationErrors)
		}
	}
	if code != http.StatusOK {
		return
	}
	d.answered[method+" "+template] = true
	if ok, found := d.document.ValidateHttpRequestSyncWithPathItem(send(), item, template); !ok {
		for _, e := range found {
			t.Errorf("%s %s: the request %.300s: %v: %v", method, path, body, e, e.SchemaValidationErrors)
		}
	}
}

// all fails unless each operation of the document has been answered.
func (d *described) all(t *testing.T) {
	t.Helper()
	for path, item := range d.paths.PathItems.FromOldest() {
		for method := range item.GetOperations().FromOldest() {
			if operation := strings.ToUpper(method) + " " + path; !d.answered[operation] {
				t.Errorf("%s: expected it to be answered once", operation)
			}
		}
	}
}

// The document is valid, and each operation takes and gives what it says.
func TestTheOpenAPIDocumentIsTrue(t *testing.T) {
	d := describe(t, newFront(t))
	if ok, found := d.document.ValidateDocument(); !ok {
		for _, e := range found {
			t.Errorf("%v: %v", e, e.SchemaValidationErrors)
		}
	}
	for template, path := range map[string]string{
		"/": "/", "/v2": "/v2", "/v2/health/live": "/v2/health/live", "/v2/health/ready": "/v2/health/ready",
		"/v2/models": "/v2/models", "/v1/models": "/v1/models", "/health": "/health", "/info": "/info",
		"/v2/models/{model}": "/v2/models/digits", "/v2/models/{model}/ready": "/v2/models/holes/ready",
		"/v1/models/{model}": "/v1/models/parity", "/openapi.json": "/openapi.json",
	} {
		d.ask(t, "GET", template, path, "", 200)
	}
	version := d.versionOf(t, "holes")
	d.ask(t, "GET", "/v2/models/{model}/versions/{version}", "/v2/models/holes/versions/"+version, "", 200)
	d.ask(t, "GET", "/v2/models/{model}/versions/{version}/ready", "/v2/models/holes/versions/"+version+"/ready", "", 200)
	d.ask(t, "GET", "/v2/models/{model}", "/v2/models/nobody", "", 404)
	d.ask(t, "GET", "/v1/models/{model}", "/v1/models/broken", "", 503)
	d.ask(t, "GET", "/info", "/info", "", 404, "Switchyard-Adapter", "nobody")

	const infer, inferVersion = "/v2/models/{model}/infer", "/v2/models/{model}/versions/{version}/infer"
	isJSON := []string{"Content-Type", "application/json"}
	isBinary := []string{"Content-Type", "application/octet-stream"}
	d.ask(t, "POST", infer, "/v2/models/digits/infer", imageRequest(t, 2, "digit", "parity"), 200, isJSON...)
	d.ask(t, "POST", inferVersion, "/v2/models/holes/versions/"+version+"/infer", imageRequest(t, 1), 200,
		append(isJSON, "Switchyard-Timeout-Ms", "60000")...)
	body, length := binaryBody(t, `"parameters": {"binary_data_output": true}, `)
	d.ask(t, "POST", infer, "/v2/models/digits/infer", body, 200, append(isBinary, length...)...)
	d.ask(t, "POST", infer, "/v2/models/digits/infer", `{"inputs": []}`, 400, isJSON...)
	d.ask(t, "POST", infer, "/v2/models/digits/infer", strings.Repeat(" ", maxBodyBytes+1), 413, isJSON...)
	d.ask(t, "POST", infer, "/v2/models/digits/infer", "x", 415, "Content-Type", "text/plain")

	encoded := pngImage(t)
	image := `{"image": {"b64": "` + encoded + `"}, "adapter": ["digit", "holes"]}`
	const predict = "/v1/models/{model}:predict"
	d.ask(t, "POST", predict, "/v1/models/digits:predict", `{"instances": [`+image+`]}`, 200, isJSON...)
	d.ask(t, "POST", predict, "/v1/models/digits:predict", `{"instances": [{"image": {"b64": "AQI="}}]}`, 422, isJSON...)
	isDigit := []string{"Content-Type", "application/json", "Switchyard-Adapter", "digit"}
	d.ask(t, "POST", "/", "/", `{"inputs": "`+encoded+`", "parameters": {"top_k": 3}}`, 200, isDigit...)
	d.ask(t, "POST", "/", "/", string(fromBase64(t, encoded)), 200, "Content-Type", "image/png")
	d.ask(t, "POST", "/", "/", `{"inputs": ["`+encoded+`"]}`, 200, isDigit...)
	for _, path := range []string{"/classify", "/v1/classify"} {
		d.ask(t, "POST", path, path, `{"inputs": "`+encoded+`", "model": "digit"}`, 200, isJSON...)
		d.ask(t, "POST", path, path, `{"model": "nobody", "input": ["`+encoded+`"]}`, 404, isJSON...)
		d.ask(t, "POST", path, path, `{"model": "parity", "input": ["`+encoded+`"]}`, 200, isJSON...)
	}
	d.ask(t, "POST", "/predict", "/predict", `{"inputs": ["a", "b"]}`, 400, isJSON...)
	d.answered["POST /predict"] = true // of texts alone: TestTheOpenAPIDocumentIsTrueOfTexts
	d.all(t)
}

func TestTheOpenAPIDocumentIsTrueOfTexts(t *testing.T) {
	d := describe(t, newPackagesFront(t))
	isJSON := []string{"Content-Type", "application/json"}
	for _, c := range []struct{ template, path, body, adapter string }{
		{"/predict", "/predict", `{"inputs": "a", "truncate": true}`, "section"},
		{"/predict", "/predict", `{"inputs": ["a", "b"], "raw_scores": true}`, "section"},
		{"/predict", "/predict", `{"inputs": [["a"], ["b", "c"]], "more": 1}`, "section"},
		{"/", "/", `{"inputs": "a", "parameters": {"function_to_apply": "none"}}`, "section"},
		{"/", "/", `{"inputs": ["a", {"text": "b", "text_pair": "c"}], "model": "language"}`, "section"},
		{"/", "/", `{"inputs": "GNU C library 2.36", "parameters": {"ignore_labels": ["O"]}}`, "versions"},
		{"/", "/", `{"inputs": ["GNU C library 2.36", "Perl 5"]}`, "versions"},
		{"/classify", "/classify", `{"inputs": ["a", "b"]}`, "section"},
		{"/classify", "/classify", `{"input": [[2, 17, 3], [2, 3]], "user": "me"}`, "section"},
		{"/v1/models/{model}:predict", "/v1/models/packages:predict", `{"instances": [
			{"text": "GNU C library 2.36", "adapter": "versions"}, {"text": "a", "text_pair": "b", "adapter": "section"}
		]}`, ""},
		{"/v1/models/{model}:predict", "/v1/models/section:predict", `{"instances": [
			{"input_ids": [2, 17, 3]}, {"input_ids": [2, 3], "attention_mask": [1, 0], "token_type_ids": [0, 1]}
		]}`, ""},
		{"/v2/models/{model}/infer", "/v2/models/versions/infer", `{"id": "1", "inputs": [
			{"name": "text", "datatype": "BYTES", "shape": [1], "data": ["GNU C library 2.36"]}
		], "outputs": [{"name": "entities"}, {"name": "token_logits", "parameters": {"binary_data": false}}]}`, ""},
	} {
		header := isJSON
		if c.adapter != "" {
			header = append(header, "Switchyard-Adapter", c.adapter)
		}
		d.ask(t, "POST", c.template, c.path, c.body, 200, header...)
	}
	d.ask(t, "GET", "/v2/models/{model}", "/v2/models/packages", "", 200)
	d.ask(t, "GET", "/info", "/info", "", 200)
}

func (f *front) versionOf(t *testing.T, name string) string {
	t.Helper()
	_, body, _ := f.do(t, "GET", "/v2/models/"+name, "")
	var model struct{ Versions []string }
	if err := json.Unmarshal([]byte(body), &model); err != nil || len(model.Versions) != 1 {
		t.Fatalf("%v: %s", err, body)
	}
	return model.Versions[0]
}
