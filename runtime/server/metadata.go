package server

import (
	"cmp"
	"errors"
	"net/http"
	"runtime/debug"

	"github.com/switchyard-dev/switchyard/runtime/adapters"
)

// platform names what runs the models, as the protocol's metadata asks.
const platform = "switchyard_peft"

func (s *Server) serverMetadata(w http.ResponseWriter, _ *http.Request) error {
	version := "devel"
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		version = info.Main.Version
	}
	writeJSON(w, http.StatusOK, struct {
		Name       string   `json:"name"`
		Version    string   `json:"version"`
		Extensions []string `json:"extensions"`
	}{"switchyard", version, []string{}})
	return nil
}

func (s *Server) live(w http.ResponseWriter, _ *http.Request) error {
	writeJSON(w, http.StatusOK, map[string]bool{"live": true})
	return nil
}

// ready is true once the server has what it should begin with, until it leaves.
func (s *Server) ready(w http.ResponseWriter, _ *http.Request) error {
	if s.leaving.Load() || s.draining.Load() {
		return tryLater(http.StatusServiceUnavailable, errDraining)
	}
	if err := s.options.Ready(); err != nil {
		return tryLater(http.StatusServiceUnavailable, err)
	}
	writeJSON(w, http.StatusOK, map[string]bool{"ready": true})
	return nil
}

// nothingLoading says which adapter is still loading: a refused one never holds back the rest.
func nothingLoading(set *adapters.Set) error {
	for _, e := range set.List() {
		var loading *adapters.LoadingError
		if errors.As(e.Err, &loading) {
			return loading
		}
	}
	return nil
}

var errDraining = errors.New("the server is stopping")

func (s *Server) admitting() error {
	if s.draining.Load() {
		return tryLater(http.StatusServiceUnavailable, errDraining)
	}
	return nil
}

// modelState is one line of the list of models.
type modelState struct {
	Name    string `json:"name"`
	Version string `json:"version,omitempty"`
	State   string `json:"state"` // as in Triton's repository index: READY, LOADING, UNAVAILABLE
	Reason  string `json:"reason,omitempty"`
}

func (s *Server) listModels(w http.ResponseWriter, _ *http.Request) error {
	models := []modelState{{Name: s.base.name, Version: s.base.revision, State: "READY"}}
	for _, e := range s.adapters.List() {
		if e.Name == s.base.name {
			continue // refused: the name is the base's
		}
		state := modelState{Name: e.Name}
		var loading *adapters.LoadingError
		switch {
		case e.Err == nil:
			state.State, state.Version = "READY", e.Adapter.Digest
		case errors.As(e.Err, &loading):
			state.State = "LOADING"
		default:
			state.State, state.Reason = "UNAVAILABLE", e.Err.Error()
		}
		models = append(models, state)
	}
	writeJSON(w, http.StatusOK, map[string][]modelState{"models": models})
	return nil
}

// tensorMetadata describes an input or output; -1 is a dimension of any size.
type tensorMetadata struct {
	Name     string `json:"name"`
	Datatype string `json:"datatype"`
	Shape    []int  `json:"shape"`
}

func (s *Server) modelMetadata(w http.ResponseWriter, r *http.Request) error {
	m, err := s.lookup(r)
	if err != nil {
		return err
	}
	var inputs []tensorMetadata
	for _, in := range s.inputs {
		for _, name := range append([]string{in.name}, in.beside...) {
			inputs = append(inputs, tensorMetadata{name, in.datatype, in.shape})
		}
	}
	width := len(m.labels)
	if m.adapter == nil { // its rows may be any adapter's
		inputs = append(inputs, tensorMetadata{adapterInput, "BYTES", []int{anySize}})
		width = -1
	}
	writeJSON(w, http.StatusOK, struct {
		Name     string           `json:"name"`
		Versions []string         `json:"versions"`
		Platform string           `json:"platform"`
		Inputs   []tensorMetadata `json:"inputs"`
		Outputs  []tensorMetadata `json:"outputs"`
	}{m.name, []string{m.revision}, platform, inputs, each(outputs, func(o *output) tensorMetadata {
		switch {
		case o.tokens:
			return tensorMetadata{o.name, o.datatype, []int{anySize, anySize, cmp.Or(o.last, width)}}
		case o.wide:
			return tensorMetadata{o.name, o.datatype, []int{anySize, width}}
		}
		return tensorMetadata{o.name, o.datatype, []int{anySize}}
	})})
	return nil
}

func (s *Server) modelReady(w http.ResponseWriter, r *http.Request) error {
	m, err := s.lookup(r)
	if err != nil {
		return err
	}
	if err := s.admitting(); err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, struct {
		Name  string `json:"name"`
		Ready bool   `json:"ready"`
	}{m.name, true})
	return nil
}
