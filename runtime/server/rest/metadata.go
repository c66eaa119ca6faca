package rest

import (
	"net/http"

	"github.com/switchyard-dev/switchyard/runtime/server"
)

func (h *handler) serverMetadata(w http.ResponseWriter, _ *http.Request) error {
	writeJSON(w, http.StatusOK, struct {
		Name       string   `json:"name"`
		Version    string   `json:"version"`
		Extensions []string `json:"extensions"`
	}{server.Name, server.Version(), server.Extensions()})
	return nil
}

func (h *handler) live(w http.ResponseWriter, _ *http.Request) error {
	writeJSON(w, http.StatusOK, map[string]bool{"live": true})
	return nil
}

func (h *handler) ready(w http.ResponseWriter, _ *http.Request) error {
	if err := h.server.Ready(); err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, map[string]bool{"ready": true})
	return nil
}

// modelState is one line of the list of models.
type modelState struct {
	Name    string `json:"name"`
	Version string `json:"version,omitempty"`
	State   string `json:"state"`
	Reason  string `json:"reason,omitempty"`
}

func (h *handler) listModels(w http.ResponseWriter, _ *http.Request) error {
	var models []modelState
	for _, m := range h.server.Models() {
		models = append(models, modelState(m))
	}
	writeJSON(w, http.StatusOK, map[string][]modelState{"models": models})
	return nil
}

// tensorMetadata describes an input or output; -1 is a dimension of any size.
type tensorMetadata struct {
	Name       string              `json:"name"`
	Datatype   string              `json:"datatype"`
	Shape      []int               `json:"shape"`
	Parameters *metadataParameters `json:"parameters,omitzero"`
}

// metadataParameters are the extension adapter_fan_out's: a tensor's metadata has one shape, and this one may have two.
type metadataParameters struct {
	FanOut []int `json:"fan_out_shape"`
}

func (h *handler) modelMetadata(w http.ResponseWriter, r *http.Request) error {
	m, err := h.server.Metadata(r.PathValue("model"), r.PathValue("version"))
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, struct {
		Name     string           `json:"name"`
		Versions []string         `json:"versions"`
		Platform string           `json:"platform"`
		Inputs   []tensorMetadata `json:"inputs"`
		Outputs  []tensorMetadata `json:"outputs"`
	}{m.Name, m.Versions, m.Platform, tensors(m.Inputs), tensors(m.Outputs)})
	return nil
}

func tensors(described []server.TensorMetadata) []tensorMetadata {
	tensors := make([]tensorMetadata, len(described))
	for i, d := range described {
		tensors[i] = tensorMetadata{Name: d.Name, Datatype: d.Datatype, Shape: d.Shape}
		if d.FanOut != nil {
			tensors[i].Parameters = &metadataParameters{d.FanOut}
		}
	}
	return tensors
}

func (h *handler) modelReady(w http.ResponseWriter, r *http.Request) error {
	name := r.PathValue("model")
	if err := h.server.ModelReady(name, r.PathValue("version")); err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, struct {
		Name  string `json:"name"`
		Ready bool   `json:"ready"`
	}{name, true})
	return nil
}
