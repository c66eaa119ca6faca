// Package arch knows, for each architecture and from its config.json alone, every module of the model: its path in each
// naming, its kind and the shapes of its parameters. It does no arithmetic and reads no weights, so that an adapter can
// be checked against a base without the base's weights at hand.
//
// Invariants: a Description is immutable once parsed; Modules are in the model's order with unique paths; a canonical
// path is the one under which HuggingFace writes the base to disk, whatever the version of transformers.
package arch

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/switchyard-dev/switchyard/runtime/quote"
)

// Kind is what a module computes, and so which updates it can carry.
type Kind string

// The kinds of modules. Parameters holds bare tensors (a class token, position embeddings) that belong to no layer.
const (
	Linear     Kind = "Linear"
	LayerNorm  Kind = "LayerNorm"
	Conv2d     Kind = "Conv2d"
	Parameters Kind = "Parameters"
)

// Param is one tensor of a module: its name under the module's path ("weight") and its shape.
type Param struct {
	Name  string
	Shape []int
}

// Module is one leaf of the model.
type Module struct {
	Path    string   // canonical, e.g. "vit.encoder.layer.0.attention.attention.query"
	Aliases []string // the same module in other namings, e.g. "vit.layers.0.attention.q_proj"
	Kind    Kind
	Params  []Param // a Linear's weight is [out, in]; the weight stands first
}

// Param returns the module's parameter of that name.
func (m *Module) Param(name string) (Param, bool) {
	i := slices.IndexFunc(m.Params, func(p Param) bool { return p.Name == name })
	if i < 0 {
		return Param{}, false
	}
	return m.Params[i], true
}

// ImageInput is the shape of pixel_values without its batch dimension.
type ImageInput struct{ Channels, Height, Width int }

// Description is one base model as its config.json describes it.
type Description struct {
	ModelType    string // "vit"
	Architecture string // "ViTForImageClassification"
	Config       any    // the architecture's own config, e.g. ViT
	Modules      []Module
	Head         string // canonical path of the classifier: a Linear whose saved copy may have any number of outputs
	Labels       []string
	Image        ImageInput

	work   func(rank int) work // of one row, with updates of at most that rank
	byPath map[string]int      // every path in every naming → index in Modules
}

// parsers maps config.json's model_type to its parser. A new architecture is one line here.
var parsers = map[string]func(raw []byte, labels int) (*Description, error){
	"vit": parseViT,
}

// Parse reads a base's config.json. Its errors name the field, what was expected and what was found.
func Parse(raw []byte) (*Description, error) {
	var head struct {
		ModelType     string   `json:"model_type"`
		Architectures []string `json:"architectures"`

		// What changes the numbers of any architecture and is computed for none.
		Quantization jsontext.Value `json:"quantization_config"`
		PrunedHeads  jsontext.Value `json:"pruned_heads"`
	}
	if err := decode(raw, &head); err != nil {
		return nil, fmt.Errorf("config.json: %w", err)
	}
	parse, ok := parsers[head.ModelType]
	if !ok {
		return nil, fmt.Errorf("config.json: model_type: expected one of %s, found %s",
			strings.Join(slices.Sorted(maps.Keys(parsers)), ", "), quote.Name(head.ModelType))
	}
	if !isEmpty(head.Quantization) {
		return nil, fmt.Errorf("config.json: quantization_config: quantized bases are not supported, found %s",
			quote.Text(string(head.Quantization)))
	}
	if !isEmpty(head.PrunedHeads) {
		return nil, fmt.Errorf("config.json: pruned_heads: pruned attention heads are not supported, found %s",
			quote.Text(string(head.PrunedHeads)))
	}
	labels, err := Labels(raw)
	if err != nil {
		return nil, err
	}
	d, err := parse(raw, len(labels))
	if err != nil {
		return nil, fmt.Errorf("config.json: %w", err)
	}
	if len(head.Architectures) > 0 && !slices.Contains(head.Architectures, d.Architecture) {
		return nil, fmt.Errorf("config.json: architectures: expected %s, found %s",
			d.Architecture, quote.Name(strings.Join(head.Architectures, ", ")))
	}
	d.ModelType, d.Labels = head.ModelType, labels
	d.index()
	return d, nil
}

// Lookup finds a module by its path in any naming.
func (d *Description) Lookup(path string) (*Module, bool) {
	i, ok := d.byPath[path]
	if !ok {
		return nil, false
	}
	return &d.Modules[i], true
}

func (d *Description) index() {
	d.byPath = make(map[string]int, 2*len(d.Modules))
	for i, m := range d.Modules {
		d.byPath[m.Path] = i
		for _, alias := range m.Aliases {
			d.byPath[alias] = i
		}
	}
}

// linear is a Linear [out, in], with or without a bias.
func linear(path string, aliases []string, out, in int, bias bool) Module {
	m := Module{Path: path, Aliases: aliases, Kind: Linear, Params: []Param{{"weight", []int{out, in}}}}
	if bias {
		m.Params = append(m.Params, Param{"bias", []int{out}})
	}
	return m
}

// layerNorm is a LayerNorm over the last width values.
func layerNorm(path string, aliases []string, width int) Module {
	return Module{
		Path: path, Aliases: aliases, Kind: LayerNorm,
		Params: []Param{{"weight", []int{width}}, {"bias", []int{width}}},
	}
}
