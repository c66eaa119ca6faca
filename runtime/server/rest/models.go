package rest

import (
	"net/http"

	"github.com/switchyard-dev/switchyard/runtime/server"
)

// servedModel is a model as both OpenAI's clients and V1's want it.
type servedModel struct {
	ID      string  `json:"id"`
	Object  string  `json:"object"`
	Created int64   `json:"created"` // seconds since 1970: when this server began
	OwnedBy string  `json:"owned_by"`
	Root    string  `json:"root"`   // the digest of what is served
	Parent  *string `json:"parent"` // the base; null is the base's
	Name    string  `json:"name"`
	Ready   bool    `json:"ready"`
}

func (h *handler) describe(name, revision string) servedModel {
	m := servedModel{
		ID: name, Object: "model", Created: h.began.Unix(), OwnedBy: server.Name, Root: revision, Name: name, Ready: true,
	}
	if base := h.server.Base().Name; name != base {
		m.Parent = &base
	}
	return m
}

// listReady answers GET /v1/models: the models that answer now, as OpenAI's list and as V1's.
func (h *handler) listReady(w http.ResponseWriter, _ *http.Request) error {
	list := struct {
		Object string        `json:"object"`
		Data   []servedModel `json:"data"`
		Models []string      `json:"models"`
	}{Object: "list"}
	for _, m := range h.server.Models() {
		if m.State == server.StateReady {
			list.Data, list.Models = append(list.Data, h.describe(m.Name, m.Version)), append(list.Models, m.Name)
		}
	}
	writeJSON(w, http.StatusOK, list)
	return nil
}

// getModel answers GET /v1/models/{model}.
func (h *handler) getModel(w http.ResponseWriter, r *http.Request) error {
	name := r.PathValue("model")
	if err := h.server.ModelReady(name, ""); err != nil {
		return err
	}
	m, err := h.server.Find(name, "")
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, h.describe(m.Name, m.Revision))
	return nil
}

// alive answers GET /, by which V1's clients ask whether the server lives.
func (h *handler) alive(w http.ResponseWriter, _ *http.Request) error {
	writeJSON(w, http.StatusOK, map[string]string{"status": "alive"})
	return nil
}

// health answers GET /health, as text-embeddings-inference and vLLM do.
func (h *handler) health(w http.ResponseWriter, _ *http.Request) error {
	if err := h.server.Ready(); err != nil {
		return err
	}
	w.Header().Set("Content-Length", "0")
	w.WriteHeader(http.StatusOK)
	return nil
}
