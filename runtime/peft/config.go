package peft

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/switchyard-dev/switchyard/runtime/arch"
	"github.com/switchyard-dev/switchyard/runtime/quote"
)

const (
	// maxRank is far beyond any rank in use (256 is rare), and small enough that ranks add up without overflow.
	maxRank = 1 << 14
	// maxSaved bounds modules_to_save, each of which is compared with every module: real lists hold a handful.
	maxSaved = 1 << 10

	// PEFT's own defaults, for a config that leaves them out.
	defaultRank  = 8
	defaultAlpha = 8
)

// config is what adapter_config.json says of the adapter's arithmetic.
type config struct {
	task     arch.Task // "" where task_type is null
	class    string    // of transformers, that the adapter was trained on; PEFT says it where task_type is null
	rank     int
	alpha    float64
	rsLoRA   bool
	dora     bool
	loraBias bool
	bias     string            // none, all or lora_only
	ranks    patterns[int]     // rank_pattern, in the file's order
	alphas   patterns[float64] // alpha_pattern, in the file's order
	saved    []string          // modules_to_save, with what task_type adds
	listed   []string          // modules_to_save alone
	tokens   map[string][]int  // trainable_token_indices, by the end of the embedding's name
}

// harmless are the fields whose value, whatever it is, leaves the numbers of a trained adapter as they are: what
// describes the file, what chose the targets (the keys tell), and what only says how training began or went.
var harmless = []string{
	"base_model_name_or_path", "inference_mode", "peft_version", "revision",
	"exclude_modules", "layers_pattern", "layers_to_transform", "target_modules",
	"fan_in_fan_out", // of GPT-2's layers only: PEFT itself takes it for false at a Linear
	"lora_dropout",
	// init_lora_weights decides whether the base was changed at the start; these only give its details, and PEFT
	// leaves them in the config of an adapter that it has converted back.
	"corda_config", "eva_config", "lora_ga_config",
	// PEFT too ignores one found in a file: it says where to compute, not what.
	"runtime_config",
	"megatron_core", "qalora_group_size", // defaults that only speak when megatron_config or use_qalora is set
}

// refused are the known fields that change the numbers in a way that is not computed here. A field of a variant that
// PEFT turns on by a mere {} refuses that too.
var refused = map[string]struct {
	why     string
	byEmpty bool
}{
	"alora_invocation_tokens": {why: "activated LoRA is not supported", byEmpty: true},
	"arrow_config":            {why: "Arrow routing is not supported", byEmpty: true},
	"ensure_weight_tying":     {why: "tied adapters are not supported"},
	"kasa_config":             {why: "KaSA is not supported", byEmpty: true},
	"layer_replication":       {why: "replicated layers cannot share a base"},
	"loftq_config":            {why: "LoftQ changes the base's own weights, which adapters share"},
	"megatron_config":         {why: "Megatron layers are not supported"},
	"monteclora_config":       {why: "MonteCLoRA is not supported", byEmpty: true},
	"target_parameters":       {why: "updates of bare parameters are not supported"},
	"use_bdlora":              {why: "BD-LoRA is not supported", byEmpty: true},
	"use_qalora":              {why: "QA-LoRA is not supported"},
	"velora_config":           {why: "VeLoRA is not supported", byEmpty: true},
}

// starts are the values of init_lora_weights after which the base is what it was. All others (pissa, olora, loftq,
// corda, lora_ga) take the adapter's start out of the base's weights, so such an adapter needs a base of its own.
var starts = []string{"eva", "gaussian", "mica", "orthogonal"}

// parseConfig reads adapter_config.json for a base. Its errors lead with the field.
func parseConfig(raw []byte, base *arch.Description) (*config, error) {
	if !utf8.Valid(raw) {
		return nil, errors.New("expected UTF-8")
	}
	// Not a struct: Go would take "R" for "r" too, which PEFT does not.
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(raw, &fields); err != nil {
		return nil, fmt.Errorf("expected a JSON object: %w", err)
	}
	if fields == nil {
		return nil, errors.New("expected a JSON object, found null")
	}

	c := &config{rank: defaultRank, alpha: defaultAlpha, bias: "none"}
	// The first decides what all the others mean, so it stands apart.
	if kind, ok := fields["peft_type"]; !ok || string(kind) != `"LORA"` {
		return nil, mismatch("peft_type", `"LORA"`, kind)
	}
	readers := map[string]func(field string, value json.RawMessage) error{
		"peft_type":         func(string, json.RawMessage) error { return nil },
		"task_type":         func(_ string, value json.RawMessage) error { return c.readTask(value, base) },
		"auto_mapping":      into(&c.class, readClass),
		"r":                 into(&c.rank, readRank),
		"lora_alpha":        into(&c.alpha, readAlpha),
		"use_rslora":        into(&c.rsLoRA, readBool),
		"rank_pattern":      into(&c.ranks, patternsOf(readRank)),
		"alpha_pattern":     into(&c.alphas, patternsOf(readAlpha)),
		"modules_to_save":   c.readSaved,
		"bias":              into(&c.bias, readBias),
		"init_lora_weights": readStart,
		"use_dora":          into(&c.dora, readBool),
		"lora_bias":         into(&c.loraBias, readBool),

		"trainable_token_indices": func(field string, value json.RawMessage) error {
			return c.readTokens(field, value, base)
		},
	}
	// Sorted, so that a config with several faults always names the same one.
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		value := fields[name]
		if read, ok := readers[name]; ok {
			if err := read(name, value); err != nil {
				return nil, err
			}
			continue
		}
		if slices.Contains(harmless, name) {
			continue
		}
		if no, ok := refused[name]; ok {
			if isSet(value) || no.byEmpty && !isOff(value) {
				return nil, fmt.Errorf("%s: %s, found %s", name, no.why, found(value))
			}
			continue
		}
		if isSet(value) {
			return nil, fmt.Errorf("%s: unknown field: expected null, false or empty, found %s",
				quote.Name(name), found(value))
		}
	}
	if c.dora && c.loraBias {
		return nil, errors.New("use_dora: expected false with lora_bias, found true: PEFT refuses the two together")
	}
	return c, nil
}

// scaling is the rank that the config gives a module, by the module's path in the adapter's own naming, the field that
// gives it, and the factor of the module's update.
func (c *config) scaling(path string) (rank int, field string, scale float32, err error) {
	rank, field = c.rank, "r"
	if p, ok := c.ranks.find(path); ok {
		rank, field = p.value, "rank_pattern "+quote.Name(p.key)
	}
	alpha, by := c.alpha, "lora_alpha"
	if p, ok := c.alphas.find(path); ok {
		alpha, by = p.value, "alpha_pattern "+quote.Name(p.key)
	}
	// As Python does it: in float64, and rounded once when it meets the tensors.
	wide := alpha / float64(rank)
	if c.rsLoRA {
		wide = alpha / math.Sqrt(float64(rank))
	}
	scale = float32(wide)
	if math.IsInf(float64(scale), 0) {
		return 0, "", 0, fmt.Errorf("%s: expected a scaling that float32 can hold, found %g over rank %d",
			by, alpha, rank)
	}
	return rank, field, scale, nil
}

// saves tells which entry of modules_to_save holds the module of this path: one that the path, or the path of a module
// around it, ends with. Not by whole names: PEFT saves pre_classifier under "classifier" too.
func (c *config) saves(path string) (entry string, ok bool) {
	for end := len(path); end > 0; end = strings.LastIndexByte(path[:end], '.') {
		for _, entry := range c.saved {
			if strings.HasSuffix(path[:end], entry) {
				return entry, true
			}
		}
	}
	return "", false
}

// reader reads the value of a field.
type reader[V any] func(field string, value json.RawMessage) (V, error)

// into is a reader with a place for what it reads.
func into[V any](to *V, read reader[V]) func(field string, value json.RawMessage) error {
	return func(field string, value json.RawMessage) (err error) {
		*to, err = read(field, value)
		return err
	}
}

// readTask reads which head answers, and adds what PEFT adds to modules_to_save for it. An image classifier has no task
// type of its own in PEFT: null is the usual one, and SEQ_CLS works as well.
func (c *config) readTask(value json.RawMessage, base *arch.Description) error {
	known := map[string]arch.Task{`"SEQ_CLS"`: arch.Sequence, `"TOKEN_CLS"`: arch.Token}
	if string(value) == "null" {
		return nil
	}
	task, ok := known[string(value)]
	if !ok || !slices.ContainsFunc(base.Heads, func(h arch.Head) bool { return h.Task == task }) {
		expected := `null or "SEQ_CLS"`
		if base.Text != nil {
			expected = `null, "SEQ_CLS" or "TOKEN_CLS"`
		}
		return mismatch("task_type", expected+" for a base of the type "+base.ModelType, value)
	}
	c.task = task
	c.saved = append(c.saved, "classifier", "score")
	return nil
}

// readClass reads the class of the model that the adapter was trained on: null, or an object that names it.
func readClass(field string, value json.RawMessage) (string, error) {
	const expected = "null, or an object with the base_model_class"
	var mapping map[string]json.RawMessage
	if err := json.Unmarshal(value, &mapping); err != nil {
		return "", mismatch(field, expected, value)
	}
	var class *string
	if raw, ok := mapping["base_model_class"]; ok {
		if err := json.Unmarshal(raw, &class); err != nil {
			return "", mismatch(field, expected, value)
		}
	}
	if class == nil {
		return "", nil
	}
	return *class, nil
}

// maxReplaced bounds trainable_token_indices: a vocabulary.
const maxReplaced = 1 << 20

// readTokens reads the ids whose rows are replaced: a list for the input's embedding, or lists by module.
func (c *config) readTokens(field string, value json.RawMessage, base *arch.Description) error {
	const expected = "null, a list of ids, or an object of such lists by module"
	if !isSet(value) {
		return nil
	}
	var list []*int // pointers, as null would be the id 0
	var lists map[string][]*int
	if json.Unmarshal(value, &list) == nil {
		i := slices.IndexFunc(base.Modules, func(m arch.Module) bool { return m.Kind == arch.Embedding })
		if i < 0 {
			return fmt.Errorf("%s: the base %s has no embedding of tokens", field, base.Architecture)
		}
		lists = map[string][]*int{base.Modules[i].Path: list}
	} else if json.Unmarshal(value, &lists) != nil {
		return mismatch(field, expected, value)
	}
	c.tokens = make(map[string][]int, len(lists))
	for name, list := range lists {
		ids := make([]int, 0, len(list))
		for _, id := range list {
			if id == nil {
				return mismatch(field, expected, value)
			}
			ids = append(ids, *id)
		}
		c.tokens[name] = ids
	}
	for _, name := range slices.Sorted(maps.Keys(c.tokens)) {
		ids := c.tokens[name]
		if name == "" || len(ids) == 0 || len(ids) > maxReplaced {
			return fmt.Errorf("%s: %s: expected 1 to %d ids, found %d", field, quote.Name(name), maxReplaced, len(ids))
		}
		sorted := slices.Sorted(slices.Values(ids))
		if len(slices.Compact(sorted)) != len(ids) {
			return fmt.Errorf("%s: %s: expected every id once, found one twice", field, quote.Name(name))
		}
	}
	return nil
}

// replaces tells which ids' rows of the embedding at that path are replaced.
func (c *config) replaces(path string) (ids []int, ok bool) {
	for _, name := range slices.Sorted(maps.Keys(c.tokens)) {
		if strings.HasSuffix(path, name) {
			return c.tokens[name], true
		}
	}
	return nil, false
}

func (c *config) readSaved(field string, value json.RawMessage) error {
	const expected = "null or a list of module names"
	var names []*string
	if err := json.Unmarshal(value, &names); err != nil {
		return mismatch(field, expected, value)
	}
	if len(names) > maxSaved {
		return fmt.Errorf("%s: expected at most %d names, found %d", field, maxSaved, len(names))
	}
	for _, name := range names {
		// Every path ends with "", so an empty name would save the whole model.
		if name == nil || *name == "" {
			return mismatch(field, expected, value)
		}
		c.listed = append(c.listed, *name)
	}
	c.saved = append(c.saved, c.listed...)
	return nil
}

func readRank(field string, value json.RawMessage) (int, error) {
	r, err := strconv.Atoi(string(value))
	if err != nil || r < 1 || r > maxRank {
		return 0, mismatch(field, fmt.Sprintf("an integer from 1 to %d", maxRank), value)
	}
	return r, nil
}

func readAlpha(field string, value json.RawMessage) (float64, error) {
	var alpha *float64 // a pointer, as null would leave a number at 0
	if err := json.Unmarshal(value, &alpha); err != nil || alpha == nil {
		return 0, mismatch(field, "a finite number", value)
	}
	return *alpha, nil
}

func readBool(field string, value json.RawMessage) (bool, error) {
	switch string(value) {
	case "true":
		return true, nil
	case "false", "null":
		return false, nil
	}
	return false, mismatch(field, "true or false", value)
}

func readBias(field string, value json.RawMessage) (string, error) {
	switch s := string(value); s {
	case "null":
		return "none", nil
	case `"none"`, `"all"`, `"lora_only"`:
		return strings.Trim(s, `"`), nil
	}
	return "", mismatch(field, `"none", "all" or "lora_only"`, value)
}

func readStart(field string, value json.RawMessage) error {
	var start string
	switch s := string(value); {
	case s == "true" || s == "false" || s == "null":
		return nil
	case json.Unmarshal(value, &start) != nil:
		return mismatch(field, "true, false or a name", value)
	case slices.Contains(starts, strings.ToLower(start)):
		return nil
	}
	return fmt.Errorf("%s: expected true, false, %s, found %s: other starts change the base's own weights, which "+
		"adapters share; save the adapter converted (path_initial_model_for_weight_conversion)",
		field, strings.Join(starts, ", "), found(value))
}

// isOff tells whether a value is null or false.
func isOff(value json.RawMessage) bool {
	return string(value) == "null" || string(value) == "false"
}

// isSet tells whether a value is anything but null, false or empty.
func isSet(value json.RawMessage) bool {
	switch compact(value) { // "[ ]" is empty too
	case "null", "false", "[]", "{}", `""`:
		return false
	}
	return true
}

// mismatch is the error of a field whose value is not what it has to be; value is nil where the field is missing.
func mismatch(field, expected string, value json.RawMessage) error {
	return fmt.Errorf("%s: expected %s, found %s", field, expected, found(value))
}

func found(value json.RawMessage) string {
	if value == nil {
		return "nothing"
	}
	return quote.Text(compact(value))
}

// compact is a value without the spaces between its parts. Whatever json.Unmarshal let through is valid.
func compact(value json.RawMessage) string {
	var b bytes.Buffer
	if err := json.Compact(&b, value); err != nil {
		return string(value)
	}
	return b.String()
}
