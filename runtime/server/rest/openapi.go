package rest

import (
	_ "embed" // for the components
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/switchyard-dev/switchyard/runtime/server"
)

// components are what the document's operations refer to: schemas, parameters, headers.
//
//go:embed components.json
var components []byte

// operation is what the document says of a route.
type operation struct {
	id, summary string
	takes       []content // bodies; none: no body
	gives       []content // with 200; none: an empty body
	headers     []string  // of the request: parameters of the components
	refusals    []int     // beside those that any request may have
}

// content is a media type, and the schema of what it has by name.
type content struct{ mediaType, schema string }

// Refusals of operations that have a model in their path, or compute.
var (
	ofModels    = []int{http.StatusNotFound, http.StatusServiceUnavailable}
	ofInference = []int{
		http.StatusBadRequest, http.StatusNotFound, http.StatusRequestTimeout, http.StatusRequestEntityTooLarge,
		http.StatusUnsupportedMediaType, http.StatusUnprocessableEntity, http.StatusTooManyRequests,
		http.StatusServiceUnavailable, http.StatusGatewayTimeout,
	}
)

// refusals say when which code is answered.
var refusals = map[int]string{
	http.StatusBadRequest:            "Malformed: which member, tensor or row, what was expected and what came",
	http.StatusNotFound:              "No such adapter or version",
	http.StatusRequestTimeout:        "The body came too slowly",
	http.StatusRequestEntityTooLarge: "More than a request may be",
	http.StatusUnsupportedMediaType:  "A body of another media type or encoding",
	http.StatusUnprocessableEntity:   "An image or a text that cannot be decoded: which row",
	http.StatusTooManyRequests:       "No room now: for its memory, its rows, or in the queue",
	http.StatusServiceUnavailable:    "Loading or stopping, with Retry-After; or an adapter that was refused",
	http.StatusGatewayTimeout:        "Past its deadline",
}

// tells is an operation that has no body and answers with JSON.
func tells(id, summary, schema string) operation {
	return operation{id: id, summary: summary, gives: []content{{jsonType, schema}}, refusals: ofModels}
}

// byAdapter is an operation about the adapter that a header may name.
func byAdapter(o operation) operation {
	o.headers = append(o.headers, "Adapter")
	return o
}

// classifies is an operation that computes, of JSON to JSON.
func classifies(id, summary, takes, gives string) operation {
	return operation{
		id: id, summary: summary, takes: []content{{jsonType, takes}}, gives: []content{{jsonType, gives}},
		headers: []string{"Adapter", "Timeout"}, refusals: ofInference,
	}
}

// pipelines is one that takes images as they are, too.
func pipelines(id, summary string) operation {
	o := classifies(id, summary, "PipelineRequest", "PipelineAnswer")
	for _, mediaType := range []string{"image/png", "image/jpeg", "image/webp", "image/gif", "image/bmp", binaryType} {
		o.takes = append(o.takes, content{mediaType, "Image"})
	}
	return o
}

// infers is one that takes and gives tensors, in binary, too.
func infers(id, summary string) operation {
	o := classifies(id, summary, "InferRequest", "InferResponse")
	o.takes = append(o.takes, content{binaryType, "BinaryTensors"})
	o.gives = append(o.gives, content{binaryType, "BinaryTensors"})
	o.headers = append(o.headers, "JSONLength")
	return o
}

// object is a JSON object of the document.
type object = map[string]any

// document makes the OpenAPI document of the routes.
func document(routes []route) ([]byte, error) {
	paths := make(map[string]object)
	for _, r := range routes {
		if paths[r.path] == nil {
			paths[r.path] = object{}
		}
		paths[r.path][strings.ToLower(r.method)] = r.describe()
	}
	return json.Marshal(object{
		"openapi": "3.1.1",
		"info": object{
			"title": "Switchyard", "version": server.Version(),
			"description": "Classifiers that share a base model, in the forms of requests that others' clients send.",
			"license":     object{"name": "Apache License 2.0", "identifier": "Apache-2.0"},
		},
		"servers":    []object{{"url": "/"}},
		"paths":      paths,
		"components": jsontext.Value(components),
	}, json.Deterministic(true))
}

var wildcard = regexp.MustCompile(`\{(\w+)\}`)

func (r *route) describe() object {
	o := &r.operation
	described := object{"operationId": o.id, "summary": o.summary, "responses": o.responses()}
	var parameters []object
	for _, found := range wildcard.FindAllStringSubmatch(r.path, -1) {
		parameters = append(parameters, object{"$ref": "#/components/parameters/" + found[1]})
	}
	for _, header := range o.headers {
		parameters = append(parameters, object{"$ref": "#/components/parameters/" + header})
	}
	if parameters != nil {
		described["parameters"] = parameters
	}
	if o.takes != nil {
		described["requestBody"] = object{"required": true, "content": contents(o.takes)}
	}
	return described
}

func (o *operation) responses() object {
	answered := object{"description": "Answered"}
	if o.gives != nil {
		answered["content"] = contents(o.gives)
	}
	if slices.ContainsFunc(o.gives, func(c content) bool { return c.mediaType == binaryType }) {
		answered["headers"] = object{jsonLength: object{"$ref": "#/components/headers/JSONLength"}}
	}
	responses := object{"200": answered, "default": object{"$ref": "#/components/responses/Error"}}
	for _, code := range o.refusals {
		refused := object{"description": refusals[code], "content": contents([]content{{jsonType, "Error"}})}
		if code == http.StatusTooManyRequests || code == http.StatusServiceUnavailable {
			refused["headers"] = object{"Retry-After": object{"$ref": "#/components/headers/Retry-After"}}
		}
		responses[strconv.Itoa(code)] = refused
	}
	return responses
}

func contents(list []content) object {
	contents := object{}
	for _, c := range list {
		contents[c.mediaType] = object{"schema": object{"$ref": "#/components/schemas/" + c.schema}}
	}
	return contents
}

// openapi answers GET /openapi.json.
func (h *handler) openapi(w http.ResponseWriter, _ *http.Request) error {
	raw, err := document(h.routes())
	if err != nil {
		return err
	}
	writeRaw(w, http.StatusOK, jsonType, raw)
	return nil
}
