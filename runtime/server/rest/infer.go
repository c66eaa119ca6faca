package rest

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/switchyard-dev/switchyard/runtime/protocol"
	"github.com/switchyard-dev/switchyard/runtime/quote"
	"github.com/switchyard-dev/switchyard/runtime/server"
)

// jsonLength is the header of the binary tensor extension: how much of a body is JSON.
const jsonLength = "Inference-Header-Content-Length"

// infer answers POST /v2/models/{model}[/versions/{version}]/infer.
func (h *handler) infer(w http.ResponseWriter, r *http.Request) error {
	name, version := r.PathValue("model"), r.PathValue("version")
	call, err := h.server.Begin()
	if err != nil {
		return err
	}
	defer call.End()
	if _, err := h.server.Find(name, version); err != nil { // before the body is read
		return err
	}
	ctx, cancel, err := deadline(r)
	if err != nil {
		return err
	}
	defer cancel()
	if err := checkMediaType(r.Header, binaryType); err != nil {
		return err
	}
	request, err := h.decode(w, r, call)
	if err != nil {
		return err
	}
	if request.Model != "" && request.Model != name {
		return badRequest("model_name: expected %s, as the path has it, found %s",
			quote.Name(name), quote.Name(request.Model))
	}
	if request.Timeout > 0 {
		ctx, cancel = context.WithTimeout(ctx, request.Timeout)
		defer cancel()
	}
	answers, err := call.Answer(ctx, &server.Request{
		Model: h.modelOfPath(r), Version: version, Inputs: request.Inputs, Outputs: request.Names(),
	})
	if err != nil {
		return err
	}
	raw, length, err := request.Encode(answers.Model.Name, answers.Model.Revision, answers.Tensors())
	if err != nil {
		return err
	}
	call.KeepAnswer(int64(len(raw)))
	contentType := jsonType
	if length != protocol.AllJSON {
		w.Header().Set(jsonLength, strconv.Itoa(length))
		contentType = binaryType
	}
	writeRaw(w, http.StatusOK, contentType, raw)
	return nil
}

// decode reads the protocol's request.
func (h *handler) decode(w http.ResponseWriter, r *http.Request, call *server.Call) (*protocol.Request, error) {
	length := protocol.AllJSON
	if said := r.Header.Get(jsonLength); said != "" {
		n, err := strconv.ParseUint(said, 10, 31)
		if err != nil {
			return nil, badRequest("header %s: expected a number of bytes, found %s", jsonLength, quote.Name(said))
		}
		length = int(n)
	}
	raw, err := h.readBody(w, r, call)
	if err != nil {
		return nil, err
	}
	return protocol.Decode(raw, length)
}

// deadline takes the request's own deadline from its header.
func deadline(r *http.Request) (context.Context, context.CancelFunc, error) {
	header := r.Header.Get("Switchyard-Timeout-Ms")
	if header == "" {
		return r.Context(), func() {}, nil
	}
	ms, err := strconv.ParseInt(header, 10, 32)
	if err != nil || ms < 1 {
		return nil, nil, badRequest("header Switchyard-Timeout-Ms: expected a positive number, found %s", quote.Name(header))
	}
	ctx, cancel := context.WithTimeout(r.Context(), time.Duration(ms)*time.Millisecond)
	return ctx, cancel, nil
}

func badRequest(format string, args ...any) error {
	return server.Errorf(http.StatusBadRequest, format, args...)
}
