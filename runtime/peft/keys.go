package peft

import (
	"fmt"
	"slices"
	"strings"

	"github.com/switchyard-dev/switchyard/runtime/arch"
	"github.com/switchyard-dev/switchyard/runtime/quote"
	"github.com/switchyard-dev/switchyard/runtime/weights"
)

// prefix is what PEFT's two wrappers put before a module's path.
const prefix = "base_model.model."

// role is what a tensor of the file is to its module.
type role int

const (
	loraA role = iota // [r, in]
	loraB             // [out, r]
	whole             // a parameter that replaces the base's
)

// key is one name of the weights file taken apart.
type key struct {
	name  string // as in the file
	path  string // the module's, in the adapter's own naming
	role  role
	param string // of a whole parameter: "weight"
}

// unsupported are the parts of a key that only what is not computed here leaves behind.
var unsupported = map[string]string{
	"base_layer":            "the base's own weights in the adapter are not supported",
	"lora_embedding_A":      "LoRA on an Embedding is not supported yet",
	"lora_embedding_B":      "LoRA on an Embedding is not supported yet",
	"lora_magnitude_vector": "DoRA is not supported yet",
	"modules_to_save":       "expected the module's plain name",
	"original_module":       "expected the module's plain name",
	"token_adapter":         "replaced embedding rows are not supported yet",
}

func parseKey(name string) (key, error) {
	rest, ok := strings.CutPrefix(name, prefix)
	if !ok {
		return key{}, refuse(name, "expected the prefix %s", prefix)
	}
	if path, ok := strings.CutSuffix(rest, ".lora_A.weight"); ok {
		return key{name: name, path: path, role: loraA}, nil
	}
	if path, ok := strings.CutSuffix(rest, ".lora_B.weight"); ok {
		return key{name: name, path: path, role: loraB}, nil
	}
	if strings.HasSuffix(rest, ".lora_B.bias") {
		return key{}, refuse(name, "a bias inside the update is not supported yet")
	}
	for part := range strings.SplitSeq(rest, ".") {
		if why, ok := unsupported[part]; ok {
			return key{}, refuse(name, "%s", why)
		}
		if strings.HasPrefix(part, "lora_") {
			return key{}, refuse(name, "expected lora_A.weight or lora_B.weight after the module's path")
		}
	}
	dot := strings.LastIndexByte(rest, '.')
	if dot < 0 {
		return key{}, refuse(name, "expected a module's path and the name of a parameter")
	}
	return key{name: name, path: rest[:dot], role: whole, param: rest[dot+1:]}, nil
}

// part is what the file holds of one module, by the names of its tensors.
type part struct {
	module *arch.Module
	path   string // in the adapter's own naming
	a, b   string
	params map[string]string // the module's parameter → key

	scale float32
	shape map[string][]int // key → shape, once checked
}

// contents sorts the keys of a file by module and checks every name and shape against the base; it copies nothing.
// What it returns is complete: both halves of each update, all parameters of each saved module, in the base's order.
func contents(file *weights.Tensors, c *config, base *arch.Description) ([]*part, error) {
	names := file.Names()
	if len(names) == 0 {
		return nil, fmt.Errorf("%s: expected the tensors of an adapter, found none", modelFile)
	}
	byModule := map[string]*part{}
	for _, name := range names {
		k, err := parseKey(name)
		if err != nil {
			return nil, err
		}
		if err := place(k, byModule, c, base); err != nil {
			return nil, err
		}
	}
	parts := make([]*part, 0, len(byModule))
	for i := range base.Modules {
		m := &base.Modules[i]
		p, ok := byModule[m.Path]
		if !ok || len(p.params) == 0 {
			if err := notSaved(m, c); err != nil {
				return nil, err
			}
		}
		if !ok {
			continue
		}
		check := p.checkUpdate
		if len(p.params) > 0 {
			check = p.checkSaved
		}
		if err := check(file, c, base); err != nil {
			return nil, err
		}
		parts = append(parts, p)
	}
	return parts, nil
}

// place puts a key to its module.
func place(k key, byModule map[string]*part, c *config, base *arch.Description) error {
	m, ok := base.Lookup(k.path)
	if !ok {
		return misfit(k.name, "no module %s in the base %s", quote.Name(k.path), base.Architecture)
	}
	p, ok := byModule[m.Path]
	if !ok {
		p = &part{module: m, path: k.path, params: map[string]string{}, shape: map[string][]int{}}
		byModule[m.Path] = p
	}
	if p.path != k.path {
		return refuse(k.name, "one module under two names, %s and %s", quote.Name(p.path), quote.Name(k.path))
	}
	entry, saved := c.saves(k.path)
	switch {
	case k.role == whole && !saved:
		return refuse(k.name, "a whole parameter of %s, which modules_to_save does not hold", quote.Name(k.path))
	case k.role == whole:
		if _, ok := m.Param(k.param); !ok {
			return misfit(k.name, "no parameter %s of %s in the base %s",
				quote.Name(k.param), quote.Name(k.path), base.Architecture)
		}
		p.params[k.param] = k.name
	case m.Kind != arch.Linear:
		return refuse(k.name, "LoRA on %s %s is not supported yet, only on Linear", m.Kind, quote.Name(k.path))
	case saved:
		// PEFT never targets what it saves whole, so it would leave this update out.
		return refuse(k.name, "an update of %s, which modules_to_save holds as %s", quote.Name(k.path), quote.Name(entry))
	case k.role == loraA:
		p.a = k.name
	default:
		p.b = k.name
	}
	return nil
}

// notSaved refuses a file that lacks a module that its config says it saved: the trained weights are lost. A module
// counts only if modules_to_save holds it under every naming, as nothing in the file tells which one it was.
func notSaved(m *arch.Module, c *config) error {
	if len(c.saved) == 0 {
		return nil
	}
	entry, ok := c.saves(m.Path)
	if !ok {
		return nil
	}
	for _, alias := range m.Aliases {
		if _, ok := c.saves(alias); !ok {
			return nil
		}
	}
	return refuse(prefix+m.Path+"."+m.Params[0].Name, "missing, though modules_to_save holds %s", quote.Name(entry))
}

func (p *part) checkUpdate(file *weights.Tensors, c *config, base *arch.Description) error {
	switch {
	case p.a == "":
		return refuse(p.b, "expected %s.lora_A.weight beside it, found none", prefix+p.path)
	case p.b == "":
		return refuse(p.a, "expected %s.lora_B.weight beside it, found none", prefix+p.path)
	}
	rank, field, scale, err := c.scaling(p.path)
	if err != nil {
		return fmt.Errorf("%s: %w", configFile, err)
	}
	p.scale = scale
	weight := p.module.Params[0].Shape // [out, in]
	why := fmt.Sprintf("base %s, rank %d by %s", base.Architecture, rank, field)
	if err := p.checkTensor(file, p.a, []int{rank, weight[1]}, 0, why); err != nil {
		return err
	}
	return p.checkTensor(file, p.b, []int{weight[0], rank}, 1, why)
}

func (p *part) checkSaved(file *weights.Tensors, _ *config, base *arch.Description) error {
	for _, param := range p.module.Params {
		if _, ok := p.params[param.Name]; !ok {
			return refuse(prefix+p.path+"."+param.Name, "missing, though %s is saved in the file", quote.Name(p.path))
		}
	}
	outputs := 0 // of the head; 0 for any other module
	if p.module.Path == base.Head {
		name := p.params[p.module.Params[0].Name]
		info, _ := file.Info(name)
		if len(info.Shape) == 0 || info.Shape[0] < 1 || info.Shape[0] > arch.MaxLabels {
			return refuse(name, "shape: expected a head of 1 to %d outputs, found %s", arch.MaxLabels, quote.Shape(info.Shape))
		}
		outputs = info.Shape[0]
	}
	for _, param := range p.module.Params {
		expected, own := slices.Clone(param.Shape), -1
		if outputs > 0 {
			expected[0], own = outputs, 0
		}
		if err := p.checkTensor(file, p.params[param.Name], expected, own, "base "+base.Architecture); err != nil {
			return err
		}
	}
	return nil
}

// checkTensor checks shape and type, and keeps the shape. The dimension own, if there is one, is the adapter's to
// choose (a rank, a number of outputs); all others are the base's.
func (p *part) checkTensor(file *weights.Tensors, name string, expected []int, own int, why string) error {
	info, _ := file.Info(name)
	if !slices.Equal(info.Shape, expected) {
		says := refuse
		for i, dim := range expected {
			if i != own && i < len(info.Shape) && info.Shape[i] != dim {
				says = misfit
			}
		}
		return says(name, "shape: expected %s, found %s (%s)", quote.Shape(expected), quote.Shape(info.Shape), why)
	}
	if info.DType != "F32" {
		return refuse(name, "dtype: expected F32, found %s, which is not supported yet", info.DType)
	}
	p.shape[name] = expected
	return nil
}

// refuse is the error of one key of the file.
func refuse(name, format string, args ...any) error {
	return fmt.Errorf("key %s: %s", quote.Name(name), fmt.Sprintf(format, args...))
}

// misfit is the error of one key that may be right for another base.
func misfit(name, format string, args ...any) error {
	return &MisfitError{refuse(name, format, args...)}
}
