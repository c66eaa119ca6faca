package telemetry

import (
	"net/http"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
)

// Route is what is asked, of which there are only so many.
type Route struct {
	name    string // in the series and the log
	span    string // name of the span
	infers  bool   // rows are asked
	isProbe bool   // the server's health is asked, all the time: no spans, no warnings
	asked   []attribute.KeyValue
	outcome func(code int) attribute.KeyValue
}

// HTTP is the route of a path as OpenAPI has it, with its method. What is posted asks rows.
func HTTP(pattern string) Route {
	method, path, _ := strings.Cut(pattern, " ")
	isProbe := method == http.MethodGet && (path == "/" || path == "/health") || strings.HasPrefix(path, "/v2/health/")
	return Route{
		name: pattern, span: pattern, infers: method == http.MethodPost, isProbe: isProbe,
		outcome: semconv.HTTPResponseStatusCode,
		asked:   []attribute.KeyValue{methodOf(method), semconv.HTTPRoute(path)},
	}
}

// Unrouted is the route of a request over HTTP that no route takes.
func Unrouted(method string) Route {
	asked := methodOf(method)
	span := asked.Value.AsString()
	if asked == semconv.HTTPRequestMethodOther {
		span = "HTTP"
	}
	return Route{name: "none", span: span, outcome: semconv.HTTPResponseStatusCode, asked: []attribute.KeyValue{asked}}
}

// GRPC is the route of a method as gRPC names it, /package.Service/Method, under a name for series and the log. status
// is gRPC's code of an HTTP code, as the protocol writes it: DEADLINE_EXCEEDED. A method that a stranger made up has no
// route.
func GRPC(name, method string, infers bool, status func(code int) string) Route {
	method = strings.TrimPrefix(method, "/")
	return Route{
		name: name, span: method, infers: infers, isProbe: strings.HasPrefix(method, "grpc.health."),
		asked:   []attribute.KeyValue{semconv.RPCSystemNameGRPC, semconv.RPCMethod(method)},
		outcome: func(code int) attribute.KeyValue { return semconv.RPCResponseStatusCode(status(code)) },
	}
}

// methodOf is a method as spans have it: those that HTTP knows, and one for all others.
func methodOf(method string) attribute.KeyValue {
	switch method {
	case http.MethodConnect, http.MethodDelete, http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodPatch,
		http.MethodPost, http.MethodPut, http.MethodTrace:
		return semconv.HTTPRequestMethodKey.String(method)
	}
	return semconv.HTTPRequestMethodOther
}
