package rest

import (
	"net/http"

	"github.com/switchyard-dev/switchyard/runtime/quote"
	"github.com/switchyard-dev/switchyard/runtime/server"
	"github.com/switchyard-dev/switchyard/runtime/server/body"
)

// readBody reads a bounded body, and takes of the memory that all requests have what it is going to hold.
func (h *handler) readBody(w http.ResponseWriter, r *http.Request, call *server.Call) ([]byte, error) {
	if err := checkContent(r.Header); err != nil {
		return nil, err
	}
	return body.Read(body.Body{
		From: r.Body, Control: http.NewResponseController(w), Length: r.ContentLength, Limit: h.options.MaxBodyBytes,
	}, call)
}

func checkContent(h http.Header) error {
	if encoding := h.Get("Content-Encoding"); encoding != "" && encoding != "identity" {
		return server.Errorf(http.StatusUnsupportedMediaType, "content encoding %s is not supported", quote.Name(encoding))
	}
	return nil
}
