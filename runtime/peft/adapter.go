package peft

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"gorgonia.org/tensor"

	"github.com/switchyard-dev/switchyard/runtime/arch"
	"github.com/switchyard-dev/switchyard/runtime/quote"
	"github.com/switchyard-dev/switchyard/runtime/weights"
)

// The files of an adapter that change its answers, as PEFT and transformers name them.
const (
	configFile = "adapter_config.json"
	modelFile  = "adapter_model.safetensors"
	labelsFile = "config.json" // of the whole model; only what it says of the classes is read
	pickleFile = "adapter_model.bin"
)

const (
	// maxJSON is some hundred times a real config, and bounds what parsing it may take.
	maxJSON = 1 << 20
	// maxModel is more than any LoRA of the encoders served here. The file's bytes and the tensors copied from them
	// are in memory together while an adapter is loaded, so the peak is twice this.
	maxModel = 1 << 30
)

// ArtifactType names the kind of artifact whose manifest is an adapter's revision.
const ArtifactType = "application/vnd.switchyard.adapter.v1"

// Adapter is a PEFT adapter on disk, read and checked against its base. Modules are named by their canonical paths.
type Adapter struct {
	Digest  string       // its revision: the digest of the manifest over its files and settings
	Head    int          // which of the base's heads answers, as arch.Description.Heads counts them
	Updates []Update     // in the order of the base's modules
	Saved   []Saved      // in the order of the base's modules
	Rows    []Rows       // in the order of the base's modules
	Labels  []string     // names of its classes, as many as its head has outputs
	Problem arch.Problem // what the outputs mean
	MaxRank int          // of its updates; 0 without any
}

// Update is the low-rank update of one module: y += Scale · (B·(A·x) + Bias), with DoRA y = Magnitude/‖W'‖ · (W'·x).
type Update struct {
	Module    string
	A         *tensor.Dense // [r, in]; of a Conv2d [r, channels, height, width], of an Embedding [r, num]
	B         *tensor.Dense // [out, r]; of a Conv2d [out, r, 1, 1]
	Bias      *tensor.Dense // [out], or nil
	Magnitude *tensor.Dense // [out], or nil; of a Conv2d [1, out, 1, 1]
	Scale     float32
}

// Saved is a module that replaces the base's: parameters by name ("weight", "bias"), all of a module that
// modules_to_save holds, the bias alone of one whose bias was trained. All have the shapes of the base's, but for a
// classifier, which may have another number of outputs.
type Saved struct {
	Module string
	Params map[string]*tensor.Dense
}

// Rows replace the rows of an Embedding for some ids (trainable_token_indices).
type Rows struct {
	Module string
	IDs    []int
	Values *tensor.Dense // [ids, dim]
}

// MisfitError says that an adapter, sound as it may be, was made for another base.
type MisfitError struct{ reason error }

func (e *MisfitError) Error() string { return e.reason.Error() }
func (e *MisfitError) Unwrap() error { return e.reason }

// Load reads the adapter in a folder. The folder is not kept. The error of an adapter for another base is a
// MisfitError.
func Load(folder *weights.Folder, base *arch.Description, settings Settings) (*Adapter, error) {
	if err := settings.check(); err != nil {
		return nil, err
	}
	var f files
	var err error
	if f.config, err = folder.ReadFile(configFile, maxJSON); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w%s", err, within(folder))
	} else if err != nil {
		return nil, err
	}
	c, err := parseConfig(f.config, base)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", configFile, err)
	}
	if f.labels, err = folder.ReadOptional(labelsFile, maxJSON); err != nil {
		return nil, err
	}
	// A pickle runs code when it is read, so it is not read.
	if !folder.Exists(modelFile) && folder.Exists(pickleFile) {
		return nil, fmt.Errorf("%s: expected %s, found a pickle: load the adapter with PEFT and save it again "+
			"with save_pretrained(path, safe_serialization=True)", pickleFile, modelFile)
	}
	// Last, as it may be a gigabyte.
	if f.model, err = folder.ReadFile(modelFile, maxModel); err != nil {
		return nil, err
	}
	return parse(f, c, base, settings)
}

// within names the folders in a folder that have a config: PEFT saves each adapter of a model that has several in one.
func within(folder *weights.Folder) string {
	const most = 8
	entries, err := folder.Entries()
	if err != nil {
		return "" // the config is missing all the same
	}
	var found []string
	for _, e := range entries {
		if !e.IsDir() || !folder.Exists(e.Name()+"/"+configFile) {
			continue
		}
		if len(found) == most {
			found = append(found, "and more")
			break
		}
		found = append(found, quote.Name(e.Name()))
	}
	if len(found) == 0 {
		return ""
	}
	return ": expected the folder of one adapter, found adapters in " + strings.Join(found, ", ")
}

// files are an adapter's files as they were read.
type files struct {
	config, model []byte
	labels        []byte // nil if there is no such file
}

// parse makes the adapter of the files' bytes; c is the config among them.
func parse(f files, c *config, base *arch.Description, settings Settings) (*Adapter, error) {
	file, err := weights.Parse(f.model)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", modelFile, err)
	}
	parts, head, err := contents(file, c, base)
	if err != nil {
		return nil, err
	}
	a := &Adapter{Digest: f.digest(settings), Head: head}
	if err := f.classify(a, parts, base, settings); err != nil {
		return nil, err
	}
	for _, p := range parts {
		if err := a.add(file, p); err != nil {
			return nil, err
		}
	}
	return a, nil
}

// digest names files and settings: the same bytes have the same revision here and in a registry.
func (f files) digest(settings Settings) string {
	blobs := []weights.Blob{weights.NewBlob(configFile, f.config), weights.NewBlob(modelFile, f.model)}
	if f.labels != nil {
		blobs = append(blobs, weights.NewBlob(labelsFile, f.labels))
	}
	return weights.ManifestDigest(ArtifactType, settings.JSON(), blobs)
}

// classify names the outputs of the adapter's head and what they mean: by the settings; else by the config.json beside
// the adapter; else a head of its own has classes that nobody has named, and the base's head has the base's.
func (f files) classify(a *Adapter, parts []*part, base *arch.Description, settings Settings) error {
	head := base.Heads[a.Head]
	outputs, own, err := outputsOf(parts, head, base)
	if err != nil {
		return err
	}
	classes, where := base.Classes, "config.json of the base"
	means := where
	if own {
		classes.Labels = arch.DefaultLabels(outputs)
	}
	if f.labels != nil {
		says, err := sameModel(f.labels, base)
		if err != nil {
			return err
		}
		if classes, err = arch.ParseClasses(f.labels); err != nil {
			return err
		}
		where = labelsFile + ": labels"
		if says {
			means = labelsFile
		} else {
			classes.Problem = base.Classes.Problem
		}
	}
	if len(settings.ClassNames) > 0 {
		classes.Labels, where = slices.Clone(settings.ClassNames), "classNames"
	}
	if len(classes.Labels) != outputs {
		whose := "the adapter's head"
		if !own {
			whose = "the base's " + strings.Join(head.Outputs, ", ") + " (the adapter brings none of its own)"
		}
		return fmt.Errorf("%s: expected %d, as many as %s has outputs, found %d", where, outputs, whose, len(classes.Labels))
	}
	a.Labels = classes.Labels
	a.Problem, err = problemOf(head.Task, outputs, classes.Problem, means, settings.ProblemType)
	return err
}

// problemOf is what so many outputs mean: as the settings say, else as a config does, by the name of its file, else as
// transformers would train them.
func problemOf(
	task arch.Task, outputs int, configured arch.Problem, file string, set arch.Problem,
) (arch.Problem, error) {
	problem, where := configured, file+": problem_type"
	if set != "" {
		problem, where = set, "problemType"
	}
	switch {
	case task == arch.Token && set != "" && set != arch.SingleLabel:
		return "", fmt.Errorf("problemType: expected %s for a classifier of tokens, found %s", arch.SingleLabel, set)
	case task == arch.Token:
		return arch.SingleLabel, nil
	case problem == "":
		return arch.DefaultProblem(outputs), nil
	case problem == arch.SingleLabel && outputs == 1:
		// The softmax of one output always says 1.
		return "", fmt.Errorf("%s: expected a head of at least 2 outputs for %s, found 1", where, arch.SingleLabel)
	}
	return problem, nil
}

// sameModel refuses the config.json of another kind of model: the files were mixed up. It tells whether the file says
// what the outputs mean, be it that nobody knows.
func sameModel(raw []byte, base *arch.Description) (saysProblem bool, err error) {
	var model struct {
		Type    *string         `json:"model_type"`
		Problem json.RawMessage `json:"problem_type"`
	}
	if err := json.Unmarshal(raw, &model); err != nil {
		return false, fmt.Errorf("%s: %w", labelsFile, err)
	}
	if model.Type != nil && *model.Type != base.ModelType {
		return false, &MisfitError{fmt.Errorf("%s: model_type: expected the base's %q, found %s",
			labelsFile, base.ModelType, quote.Name(*model.Type))}
	}
	return model.Problem != nil, nil
}

// add copies the tensors of one module.
func (a *Adapter) add(file *weights.Tensors, p *part) error {
	r := copier{file: file, part: p}
	saved := Saved{Module: p.module.Path, Params: make(map[string]*tensor.Dense)}
	for param, name := range p.params {
		saved.Params[param] = r.outputs(name)
	}
	if name, ok := p.keys[ownBias]; ok {
		saved.Params["bias"] = r.outputs(name)
	}
	if len(saved.Params) > 0 {
		a.Saved = append(a.Saved, saved)
	}
	if name, ok := p.keys[tokenRows]; ok {
		a.Rows = append(a.Rows, Rows{Module: p.module.Path, IDs: p.tokens, Values: r.whole(name)})
	}
	if name, ok := p.keys[loraA]; ok {
		a.MaxRank = max(a.MaxRank, p.shapes[name][0])
		a.Updates = append(a.Updates, Update{
			Module: p.module.Path, Scale: p.scale, A: r.whole(name), B: r.outputs(p.keys[loraB]),
			Bias: r.outputs(p.keys[loraBias]), Magnitude: r.outputs(p.keys[magnitude]),
		})
	}
	if name, ok := p.keys[embeddingA]; ok {
		a.MaxRank = max(a.MaxRank, p.shapes[name][0])
		a.Updates = append(a.Updates, Update{
			Module: p.module.Path, Scale: p.scale, A: r.whole(name), B: r.whole(p.keys[embeddingB]),
			Magnitude: r.whole(p.keys[magnitude]),
		})
	}
	return r.err
}

// copier copies tensors of one module and keeps the first error for the end.
type copier struct {
	file *weights.Tensors
	part *part
	err  error
}

// whole copies a tensor; nil for no name.
func (r *copier) whole(name string) *tensor.Dense {
	if name == "" || r.err != nil {
		return nil
	}
	t, err := r.file.Float32(name, r.part.shapes[name]...)
	return r.keep(t, err)
}

// outputs copies a tensor's rows for the module's outputs: all of them, but of a module that joins several.
func (r *copier) outputs(name string) *tensor.Dense {
	f := r.part.fused()
	if f == nil || name == "" || r.err != nil {
		return r.whole(name)
	}
	n := r.part.module.Params[0].Shape[0]
	t, err := r.file.Float32Rows(name, r.part.shapes[name], f.From, f.From+n)
	return r.keep(t, err)
}

func (r *copier) keep(t *tensor.Dense, err error) *tensor.Dense {
	if err != nil {
		r.err = err
		return nil
	}
	return t
}
