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
	Conv1d     Kind = "Conv1d"
	Conv2d     Kind = "Conv2d"
	Embedding  Kind = "Embedding"
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

	// Fused is a module that holds this one beside others, in another naming; nil for most.
	Fused *Fused
}

// Fused is where a module lies in one that joins several: its outputs are those from From on.
type Fused struct {
	Path    string // e.g. "dinov2.encoder.layer.0.mlp.weights_in"
	From    int
	Outputs int // of the whole
}

// Param returns the module's parameter of that name.
func (m *Module) Param(name string) (Param, bool) {
	i := slices.IndexFunc(m.Params, func(p Param) bool { return p.Name == name })
	if i < 0 {
		return Param{}, false
	}
	return m.Params[i], true
}

// Task is what a head answers.
type Task string

// The tasks. An image has one answer, so its head's task is Sequence too.
const (
	Sequence Task = "sequence" // one answer for a row
	Token    Task = "token"    // one for each of its tokens
)

// Head is one way to classify what the trunk has made of an input: a class of transformers.
type Head struct {
	Architecture string // "BertForTokenClassification"
	Task         Task
	Modules      []string // canonical paths of what the head has beside the trunk
	Outputs      []string // those of them with as many outputs as there are classes
}

// ImageInput is the shape of pixel_values without its batch dimension.
type ImageInput struct {
	Channels, Height, Width int
	// Patch is set where the model takes images of other sizes too: multiples of it.
	Patch [2]int
}

// Takes tells whether an image of that size can be computed.
func (i *ImageInput) Takes(height, width int) bool {
	if i.Patch[0] == 0 {
		return height == i.Height && width == i.Width
	}
	return height%i.Patch[0] == 0 && width%i.Patch[1] == 0 &&
		height > 0 && width > 0 && height <= maxImage && width <= maxImage
}

// TextInput is what input_ids and token_type_ids may be.
type TextInput struct {
	Vocabulary int // ids are below it
	Types      int // token types are below it; 0: the model has none
	MaxTokens  int // of one row, special tokens included
}

// Description is one base model as its config.json and the names of its tensors describe it.
type Description struct {
	ModelType    string // "vit"
	Architecture string // of the base on disk: "ViTForImageClassification", "BertModel"
	Config       any    // the architecture's own config, e.g. *ViT
	Modules      []Module
	Heads        []Head // that the architecture knows
	Own          int    // which of them the base on disk has, complete; -1: none
	Classes      Classes
	Image        *ImageInput // one of them is nil
	Text         *TextInput

	work   func(rank int) work // of one token, with updates of at most that rank
	byPath map[string][]int    // every path in every naming → indices in Modules: several for a fused module
	files  map[string]string   // a parameter's canonical name → its name in the base's files
}

// architecture is what parsing one kind of config.json comes to.
type architecture struct {
	config  any
	prefix  string // of the trunk's modules, which a bare model's file leaves out: "bert."
	modules []Module
	heads   []Head
	image   *ImageInput
	text    *TextInput
	work    func(rank int) work
}

// parsers maps config.json's model_type to its parser. A new architecture is one line here.
var parsers = map[string]func(raw []byte, labels int) (*architecture, error){
	"bert":        parseBERT,
	"deberta-v2":  parseDeBERTa,
	"deit":        parseDeiT,
	"dinov2":      parseDINOv2,
	"distilbert":  parseDistilBERT,
	"modernbert":  parseModernBERT,
	"roberta":     parseRoBERTa,
	"vit":         parseViT,
	"xlm-roberta": parseXLMRoBERTa,
}

// ModelTypes lists the model types that there are parsers for, sorted.
func ModelTypes() []string { return slices.Sorted(maps.Keys(parsers)) }

// Parse reads a base's config.json; tensors are the names of what its files hold. Its errors name the field, what was
// expected and what was found.
func Parse(raw []byte, tensors []string) (*Description, error) {
	d, prefix, architectures, err := parse(raw)
	if err != nil {
		return nil, err
	}
	if err := d.find(prefix, tensors); err != nil {
		return nil, fmt.Errorf("its weights: %w", err)
	}
	d.own(architectures)
	return d, nil
}

// Tensors lists the names, as the files have them, of all that a base with this config.json may hold: every head's too.
func Tensors(raw []byte) ([]string, error) {
	d, _, _, err := parse(raw)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, m := range d.Modules {
		for _, p := range m.Params {
			names = append(names, m.file(p))
		}
	}
	return slices.Compact(slices.Sorted(slices.Values(names))), nil
}

// parse reads all that config.json says by itself.
func parse(raw []byte) (d *Description, prefix string, architectures []string, err error) {
	var head struct {
		ModelType     string   `json:"model_type"`
		Architectures []string `json:"architectures"`

		// What changes the numbers of any architecture and is computed for none.
		Quantization jsontext.Value `json:"quantization_config"`
		PrunedHeads  jsontext.Value `json:"pruned_heads"`
	}
	if err := decode(raw, &head); err != nil {
		return nil, "", nil, fmt.Errorf("config.json: %w", err)
	}
	parser, ok := parsers[head.ModelType]
	switch {
	case !ok:
		err = fmt.Errorf("model_type: expected one of %s, found %s",
			strings.Join(ModelTypes(), ", "), quote.Name(head.ModelType))
	case !isEmpty(head.Quantization):
		err = fmt.Errorf("quantization_config: quantized bases are not supported, found %s",
			quote.Text(string(head.Quantization)))
	case !isEmpty(head.PrunedHeads):
		err = fmt.Errorf("pruned_heads: pruned attention heads are not supported, found %s",
			quote.Text(string(head.PrunedHeads)))
	}
	if err != nil {
		return nil, "", nil, fmt.Errorf("config.json: %w", err)
	}
	classes, err := ParseClasses(raw)
	if err != nil {
		return nil, "", nil, err
	}
	a, err := parser(raw, len(classes.Labels))
	if err != nil {
		return nil, "", nil, fmt.Errorf("config.json: %w", err)
	}
	d = &Description{
		ModelType: head.ModelType, Config: a.config, Modules: a.modules, Heads: a.heads, Classes: classes,
		Image: a.image, Text: a.text, work: a.work,
	}
	d.index()
	return d, a.prefix, head.Architectures, nil
}

// Lookup finds the modules that a path means in any naming: one, or several that it joins, or none.
func (d *Description) Lookup(path string) []*Module {
	indices := d.byPath[path]
	found := make([]*Module, len(indices))
	for i, n := range indices {
		found[i] = &d.Modules[n]
	}
	return found
}

func (d *Description) index() {
	d.byPath = make(map[string][]int, 2*len(d.Modules))
	for i, m := range d.Modules {
		for _, path := range append([]string{m.Path}, m.Aliases...) {
			d.byPath[path] = []int{i}
		}
		if m.Fused != nil {
			d.byPath[m.Fused.Path] = append(d.byPath[m.Fused.Path], i)
		}
	}
}

// own finds the head that the base brings: that of its first known architecture, if it is all there.
func (d *Description) own(architectures []string) {
	d.Own, d.Architecture = -1, d.ModelType // which is as much as is known of a bare base that names none
	if len(architectures) > 0 {
		d.Architecture = architectures[0]
	}
	for i, h := range d.Heads {
		if len(architectures) > 0 && h.Architecture != d.Architecture || len(d.Lacks(h)) > 0 {
			continue
		}
		d.Own, d.Architecture = i, h.Architecture
		return
	}
}

// Lacks lists what a head has and the base does not.
func (d *Description) Lacks(h Head) []string {
	var missing []string
	for _, path := range h.Modules {
		for _, m := range d.Lookup(path) {
			if !d.Has(m) {
				missing = append(missing, path)
			}
		}
	}
	return missing
}

// Has tells whether the base's files have all parameters of a module.
func (d *Description) Has(m *Module) bool {
	return !slices.ContainsFunc(m.Params, func(p Param) bool { return d.files[m.Path+"."+p.Name] == "" })
}

// Stored is where the base's files hold a parameter: the rows From to To of a tensor of that shape.
type Stored struct {
	Tensor   string
	Shape    []int
	From, To int
}

// Stored tells where a parameter of the module at path is, by the model's own names; false for what the base has not.
func (d *Description) Stored(path, param string) (Stored, bool) {
	name, ok := d.files[path+"."+param]
	if !ok {
		return Stored{}, false
	}
	m := &d.Modules[d.byPath[path][0]]
	p, _ := m.Param(param)
	s := Stored{Tensor: name, Shape: slices.Clone(p.Shape), To: p.Shape[0]}
	if f := m.Fused; f != nil {
		s.Shape[0], s.From, s.To = f.Outputs, f.From, f.From+p.Shape[0]
	}
	return s, true
}

// file is the usual name of a parameter in the base's files, where a fused module's is the whole's.
func (m *Module) file(p Param) string {
	if m.Fused != nil {
		return m.Fused.Path + "." + p.Name
	}
	return m.Path + "." + p.Name
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

// embedding is an Embedding [num, dim].
func embedding(path string, num, dim int) Module {
	return Module{Path: path, Kind: Embedding, Params: []Param{{"weight", []int{num, dim}}}}
}
