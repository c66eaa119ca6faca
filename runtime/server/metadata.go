package server

import (
	"cmp"
	"errors"
	"net/http"
	"runtime/debug"

	"github.com/switchyard-dev/switchyard/runtime/adapters"
	"github.com/switchyard-dev/switchyard/runtime/protocol"
)

// platform names what runs the models, as the protocol's metadata asks.
const platform = "switchyard_peft"

// Name is the server's, in its metadata.
const Name = "switchyard"

// Extensions are those of the protocol that are spoken here: Triton's binary tensors, and an adapter tensor by which an
// input is asked of several adapters (docs/protocols.md).
func Extensions() []string { return []string{"binary_tensor_data", "adapter_fan_out"} }

// Version is the server's own, as it was built.
func Version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "devel"
}

// Ready is nil once the server has what it should begin with, until it leaves.
func (s *Server) Ready() error {
	if s.leaving.Load() || s.draining.Load() {
		return TryLater(http.StatusServiceUnavailable, errDraining)
	}
	if err := s.options.Ready(); err != nil {
		return TryLater(http.StatusServiceUnavailable, err)
	}
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

// admitting refuses requests while the server drains.
func (s *Server) admitting() error {
	if s.draining.Load() {
		return TryLater(http.StatusServiceUnavailable, errDraining)
	}
	return nil
}

// ModelReady is nil if the model of that name and version would be answered now.
func (s *Server) ModelReady(name, version string) error {
	if _, err := s.Find(name, version); err != nil {
		return err
	}
	return s.admitting()
}

// States of models, as in Triton's repository index.
const (
	StateReady       = "READY"
	StateLoading     = "LOADING"
	StateUnavailable = "UNAVAILABLE"
)

// ModelState is one line of the list of models.
type ModelState struct {
	Name    string
	Version string // "" unless it is ready
	State   string
	Reason  string // why it is unavailable
}

// Models are the base and all adapters that are known, in the order of their names.
func (s *Server) Models() []ModelState {
	models := []ModelState{{Name: s.base.Name, Version: s.base.Revision, State: StateReady}}
	for _, e := range s.adapters.List() {
		if e.Name == s.base.Name {
			continue // refused: the name is the base's
		}
		state := ModelState{Name: e.Name}
		var loading *adapters.LoadingError
		switch {
		case e.Err == nil:
			state.State, state.Version = StateReady, e.Adapter.Digest
		case errors.As(e.Err, &loading):
			state.State = StateLoading
		default:
			state.State, state.Reason = StateUnavailable, e.Err.Error()
		}
		models = append(models, state)
	}
	return models
}

// TensorMetadata describes an input or output; -1 is a dimension of any size.
type TensorMetadata struct {
	Name     string
	Datatype string
	Shape    []int
	// FanOut is the shape that it may have in place of Shape, with which each input is asked several times; nil: none.
	FanOut []int
}

// Metadata is what a model takes and gives.
type Metadata struct {
	Name     string
	Versions []string
	Platform string
	Inputs   []TensorMetadata
	Outputs  []TensorMetadata
}

// Metadata describes the model of that name and version.
func (s *Server) Metadata(name, version string) (*Metadata, error) {
	m, err := s.Find(name, version)
	if err != nil {
		return nil, err
	}
	d := &Metadata{Name: m.Name, Versions: []string{m.Revision}, Platform: platform}
	for _, in := range s.inputs {
		for _, name := range append([]string{in.name}, in.beside...) {
			d.Inputs = append(d.Inputs, TensorMetadata{Name: name, Datatype: in.datatype, Shape: in.shape})
		}
	}
	width := len(m.Labels)
	if m.adapter == nil { // its rows may be any adapter's
		d.Inputs = append(d.Inputs, TensorMetadata{
			Name: adapterInput, Datatype: protocol.BYTES, Shape: []int{protocol.AnySize},
			FanOut: []int{protocol.AnySize, protocol.AnySize},
		})
		width = protocol.AnySize
	}
	d.Outputs = each(outputs, func(o *output) TensorMetadata {
		shape := []int{protocol.AnySize}
		switch {
		case o.tokens:
			shape = append(shape, protocol.AnySize, cmp.Or(o.last, width))
		case o.wide:
			shape = append(shape, width)
		}
		return TensorMetadata{Name: o.name, Datatype: o.datatype, Shape: shape}
	})
	return d, nil
}
