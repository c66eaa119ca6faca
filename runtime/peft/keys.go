package peft

import (
	"fmt"
	"maps"
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
	loraA      role = iota // [r, in]; of a Conv2d [r, channels, height, width]
	loraB                  // [out, r]; of a Conv2d [out, r, 1, 1]
	loraBias               // [out]
	embeddingA             // [r, num]
	embeddingB             // [dim, r]
	magnitude              // [out]; of a Conv2d [1, out, 1, 1]
	tokenRows              // [n, dim]
	ownBias                // [out]: a bias that was trained beside the update
	whole                  // a parameter that replaces the base's
)

// ending is what follows a module's path in the key of a tensor of some role.
type ending struct {
	text string
	role role
}

var endings = []ending{
	{".lora_A.weight", loraA},
	{".lora_B.weight", loraB},
	{".lora_B.bias", loraBias},
	{".lora_embedding_A", embeddingA},
	{".lora_embedding_B", embeddingB},
	{".lora_magnitude_vector", magnitude},
	{".lora_magnitude_vector.weight", magnitude}, // as it is in memory; PEFT takes the end off when it saves
	{".token_adapter.trainable_tokens_delta", tokenRows},
	{".base_layer.bias", ownBias},
}

// String is the role as a key has it, without the dot before it.
func (r role) String() string {
	i := slices.IndexFunc(endings, func(e ending) bool { return e.role == r })
	return endings[i].text[1:]
}

// key is one name of the weights file taken apart.
type key struct {
	name  string // as in the file
	path  string // the module's, in the adapter's own naming
	role  role
	param string // of a whole parameter: "weight"
}

// unsupported are the parts of a key that only what is not computed here leaves behind.
var unsupported = map[string]string{
	"base_layer":      "the base's own weights in the adapter are not supported",
	"modules_to_save": "expected the module's plain name",
	"original_module": "expected the module's plain name",
	"token_adapter":   "expected token_adapter.trainable_tokens_delta after the module's path",
}

// parseKey takes a name apart; nil is one that says nothing.
func parseKey(name string, c *config) (*key, error) {
	rest, ok := strings.CutPrefix(name, prefix)
	if !ok {
		return nil, refuse(name, "expected the prefix %s", prefix)
	}
	for _, e := range endings {
		if path, ok := strings.CutSuffix(rest, e.text); ok {
			return &key{name: name, path: path, role: e.role}, nil
		}
	}
	parts := strings.Split(rest, ".")
	for i, part := range parts {
		// With bias "all" PEFT writes the biases of its own wrappers of a saved module, beside the real one.
		if c.bias == "all" && (part == "original_module" || part == "modules_to_save") && parts[len(parts)-1] == "bias" {
			if _, saved := c.saves(strings.Join(parts[:i], ".")); !saved {
				return nil, refuse(name, "expected the wrapper of a module that modules_to_save holds")
			}
			return nil, nil //nolint:nilnil // as said above
		}
		if why, ok := unsupported[part]; ok {
			return nil, refuse(name, "%s", why)
		}
		if strings.HasPrefix(part, "lora_") {
			return nil, refuse(name, "expected lora_A.weight or lora_B.weight after the module's path")
		}
	}
	dot := strings.LastIndexByte(rest, '.')
	if dot < 0 {
		return nil, refuse(name, "expected a module's path and the name of a parameter")
	}
	k := &key{name: name, path: rest[:dot], role: whole, param: rest[dot+1:]}
	if _, saved := c.saves(k.path); !saved && c.bias != "none" && k.param == "bias" {
		k.role = ownBias
	}
	return k, nil
}

// part is what the file holds of one module, by the names of its tensors.
type part struct {
	module *arch.Module
	path   string // in the adapter's own naming
	keys   map[role]string
	params map[string]string // the whole module's parameter → key
	tokens []int             // of tokenRows

	scale  float32
	shapes map[string][]int // key → shape, once checked
}

// fused is where the module's outputs lie in a tensor of the module that the adapter names.
func (p *part) fused() *arch.Fused {
	if f := p.module.Fused; f != nil && f.Path == p.path {
		return f
	}
	return nil
}

// outputs is the first dimension that the file's tensors have for that many of the module's.
func (p *part) outputs(n int) int {
	if f := p.fused(); f != nil {
		return f.Outputs
	}
	return n
}

// contents sorts the keys of a file by module and checks every name and shape against the base; it copies nothing.
// What it returns is complete: both halves of each update, all parameters of each saved module, in the base's order,
// and the head that they are for.
func contents(file *weights.Tensors, c *config, base *arch.Description) (parts []*part, head int, err error) {
	names := file.Names()
	if len(names) == 0 {
		return nil, 0, fmt.Errorf("%s: expected the tensors of an adapter, found none", modelFile)
	}
	byModule := map[string]*part{}
	for _, name := range names {
		k, err := parseKey(name, c)
		if err != nil {
			return nil, 0, err
		}
		if k == nil {
			continue
		}
		if err := place(*k, byModule, c, base); err != nil {
			return nil, 0, err
		}
	}
	if head, err = chooseHead(byModule, c, base); err != nil {
		return nil, 0, err
	}
	elsewhere := partsOfOtherHeads(base, head)
	for i := range base.Modules {
		m := &base.Modules[i]
		p, ok := byModule[m.Path]
		if elsewhere[m.Path] {
			if ok {
				return nil, 0, misfit(p.first(), "no module %s in %s", quote.Name(p.path), base.Heads[head].Architecture)
			}
			continue
		}
		if !ok || len(p.params) == 0 {
			if err := notSaved(m, c); err != nil {
				if trainedOnTheBasesHead(byModule, c, head, base) {
					err = fmt.Errorf("%w: if it was trained with the base's own, as model.add_adapter() does, "+
						"set task_type to null", err)
				}
				return nil, 0, err
			}
		}
		if !ok {
			continue
		}
		if err := p.check(file, c, base, base.Heads[head]); err != nil {
			return nil, 0, err
		}
		parts = append(parts, p)
	}
	for _, name := range slices.Sorted(maps.Keys(c.tokens)) {
		if !slices.ContainsFunc(parts, func(p *part) bool { return p.tokens != nil && strings.HasSuffix(p.path, name) }) {
			return nil, 0, fmt.Errorf("%s: trainable_token_indices: %s: the file has no rows for it",
				configFile, quote.Name(name))
		}
	}
	return parts, head, nil
}

// first is a key of the part, always the same one.
func (p *part) first() string {
	var all []string
	for _, name := range p.keys {
		all = append(all, name)
	}
	for _, name := range p.params {
		all = append(all, name)
	}
	return slices.Min(all)
}

// place puts a key to its module, or to all that it joins.
func place(k key, byModule map[string]*part, c *config, base *arch.Description) error {
	found := base.Lookup(k.path)
	if len(found) == 0 {
		return misfit(k.name, "no module %s in the base %s", quote.Name(k.path), base.Architecture)
	}
	for _, m := range found {
		p, ok := byModule[m.Path]
		if !ok {
			p = &part{
				module: m, path: k.path,
				keys: map[role]string{}, params: map[string]string{}, shapes: map[string][]int{},
			}
			byModule[m.Path] = p
		}
		if p.path != k.path {
			return refuse(k.name, "one module under two names, %s and %s", quote.Name(p.path), quote.Name(k.path))
		}
		if err := p.place(k, c, base); err != nil {
			return err
		}
	}
	return nil
}

func (p *part) place(k key, c *config, base *arch.Description) error {
	m := p.module
	entry, saved := c.saves(k.path)
	switch k.role {
	case whole:
		if !saved {
			return refuse(k.name, "a whole parameter of %s, which modules_to_save does not hold", quote.Name(k.path))
		}
		if _, ok := m.Param(k.param); !ok {
			return misfit(k.name, "no parameter %s of %s in the base %s",
				quote.Name(k.param), quote.Name(k.path), base.Architecture)
		}
		p.params[k.param] = k.name
		return nil
	case ownBias:
		if c.bias == "none" {
			return refuse(k.name, `a trained bias, though bias is "none"`)
		}
		if _, ok := m.Param("bias"); !ok {
			return misfit(k.name, "no parameter bias of %s in the base %s", quote.Name(k.path), base.Architecture)
		}
	case tokenRows:
		ids, ok := c.replaces(k.path)
		if !ok || m.Kind != arch.Embedding {
			return refuse(k.name, "rows of %s, which trainable_token_indices does not name", quote.Name(k.path))
		}
		p.tokens = ids
	case embeddingA, embeddingB:
		if m.Kind != arch.Embedding {
			return refuse(k.name, "expected an Embedding's update, found one of the %s %s", m.Kind, quote.Name(k.path))
		}
	case loraA, loraB, loraBias:
		if m.Kind == arch.Embedding {
			return refuse(k.name, "expected %s and %s after the Embedding %s", embeddingA, embeddingB, quote.Name(k.path))
		}
		if m.Kind != arch.Linear && m.Kind != arch.Conv2d {
			return refuse(k.name, "LoRA on the %s %s is not supported, only on Linear, Conv2d and Embedding",
				m.Kind, quote.Name(k.path))
		}
	case magnitude:
	}
	if saved {
		// PEFT never targets what it saves whole, so it would leave this update out.
		return refuse(k.name, "an update of %s, which modules_to_save holds as %s", quote.Name(k.path), quote.Name(entry))
	}
	if other, ok := p.keys[k.role]; ok {
		return refuse(k.name, "the same as %s", quote.Name(other))
	}
	p.keys[k.role] = k.name
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
	names := m.Aliases
	if m.Fused != nil {
		names = append(slices.Clone(names), m.Fused.Path)
	}
	for _, alias := range names {
		if _, ok := c.saves(alias); !ok {
			return nil
		}
	}
	return refuse(prefix+m.Path+"."+m.Params[0].Name, "missing, though modules_to_save holds %s", quote.Name(entry))
}

// trainedOnTheBasesHead tells whether nothing of the head is saved but by what task_type adds to modules_to_save, and
// the base has a head for that task: transformers' model.add_adapter() adds nothing, though it writes the task_type.
func trainedOnTheBasesHead(byModule map[string]*part, c *config, head int, base *arch.Description) bool {
	return c.task != "" && len(c.listed) == 0 && head == base.Own &&
		!slices.ContainsFunc(base.Heads[head].Modules, func(path string) bool {
			return byModule[path] != nil && len(byModule[path].params) > 0
		})
}

// check checks the shapes of all that the file has of the module.
func (p *part) check(file *weights.Tensors, c *config, base *arch.Description, head arch.Head) error {
	if len(p.params) > 0 {
		return p.checkSaved(file, base, head)
	}
	in := "base " + base.Architecture
	if name, ok := p.keys[ownBias]; ok {
		bias, _ := p.module.Param("bias")
		if err := p.checkTensor(file, name, []int{p.outputs(bias.Shape[0])}, -1, in); err != nil {
			return err
		}
	}
	if name, ok := p.keys[tokenRows]; ok {
		if err := p.checkTokens(file, name, in); err != nil {
			return err
		}
	}
	return p.checkUpdate(file, c, in)
}

func (p *part) checkTokens(file *weights.Tensors, name, in string) error {
	table := p.module.Params[0].Shape // [num, dim]
	for _, id := range p.tokens {
		if id < 0 || id >= table[0] {
			return misfit(name, "trainable_token_indices: expected ids from 0 to %d, found %d (%s)", table[0]-1, id, in)
		}
	}
	if a, ok := p.keys[embeddingA]; ok {
		return refuse(name, "rows of an Embedding that has an update too, %s: PEFT cannot compute the two together",
			quote.Name(a))
	}
	return p.checkTensor(file, name, []int{len(p.tokens), table[1]}, 0,
		fmt.Sprintf("%s, %d ids in trainable_token_indices", in, len(p.tokens)))
}

func (p *part) checkUpdate(file *weights.Tensors, c *config, in string) error {
	a, b := loraA, loraB
	if p.module.Kind == arch.Embedding {
		a, b = embeddingA, embeddingB
	}
	nameA, hasA := p.keys[a]
	nameB, hasB := p.keys[b]
	if !hasA && !hasB {
		for _, r := range []role{loraBias, magnitude} {
			if name, ok := p.keys[r]; ok {
				return refuse(name, "expected %s.%s beside it, found none", prefix+p.path, a)
			}
		}
		return nil
	}
	switch {
	case !hasA:
		return refuse(nameB, "expected %s.%s beside it, found none", prefix+p.path, a)
	case !hasB:
		return refuse(nameA, "expected %s.%s beside it, found none", prefix+p.path, b)
	}
	rank, field, scale, err := c.scaling(p.path)
	if err != nil {
		return fmt.Errorf("%s: %w", configFile, err)
	}
	p.scale = scale
	weight := p.module.Params[0].Shape // [out, in], [out, channels, height, width], [num, dim]
	out := p.outputs(weight[0])
	shapeA, shapeB, shapeM := append([]int{rank}, weight[1:]...), []int{out, rank}, []int{out}
	switch p.module.Kind { //nolint:exhaustive // those that have updates
	case arch.Conv2d:
		shapeB, shapeM = []int{out, rank, 1, 1}, []int{1, out, 1, 1}
	case arch.Embedding:
		shapeA, shapeB, shapeM = []int{rank, weight[0]}, []int{weight[1], rank}, []int{weight[1]}
	}
	why := fmt.Sprintf("%s, rank %d by %s", in, rank, field)
	if err := p.checkTensor(file, nameA, shapeA, 0, why); err != nil {
		return err
	}
	if err := p.checkTensor(file, nameB, shapeB, 1, why); err != nil {
		return err
	}
	biased := c.loraBias && p.module.Kind != arch.Embedding
	if err := p.checkExtra(file, biased, loraBias, "lora_bias", []int{out}, in); err != nil {
		return err
	}
	return p.checkExtra(file, c.dora, magnitude, "use_dora", shapeM, in)
}

// checkExtra checks a tensor that an update has where the config says so, and nowhere else.
func (p *part) checkExtra(file *weights.Tensors, expected bool, r role, field string, shape []int, in string) error {
	name, found := p.keys[r]
	switch {
	case expected && !found:
		return refuse(prefix+p.path+"."+r.String(), "missing, though %s is true", field)
	case found && !expected:
		return refuse(name, "found, though %s is not true", field)
	case !found:
		return nil
	}
	return p.checkTensor(file, name, shape, -1, in)
}

func (p *part) checkSaved(file *weights.Tensors, base *arch.Description, head arch.Head) error {
	for _, param := range p.module.Params {
		if _, ok := p.params[param.Name]; !ok {
			return refuse(prefix+p.path+"."+param.Name, "missing, though %s is saved in the file", quote.Name(p.path))
		}
	}
	outputs := 0 // of a classifier; 0 for any other module
	if slices.Contains(head.Outputs, p.module.Path) {
		name := p.params[p.module.Params[0].Name]
		info, _ := file.Info(name)
		if len(info.Shape) == 0 || info.Shape[0] < 1 || info.Shape[0] > arch.MaxLabels {
			return refuse(name, "shape: expected a head of 1 to %d outputs, found %s", arch.MaxLabels, quote.Shape(info.Shape))
		}
		outputs = info.Shape[0]
	}
	for _, param := range p.module.Params {
		expected, own := slices.Clone(param.Shape), -1
		expected[0] = p.outputs(expected[0])
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
	if !weights.Floats(info.DType) {
		return refuse(name, "dtype: expected F32, F16 or BF16, found %s", info.DType)
	}
	p.shapes[name] = expected
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
