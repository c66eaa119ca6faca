package peft

import (
	"encoding/json"
	"fmt"
	"slices"

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
	Digest  string   // its revision: the digest of the manifest over its files and settings
	Updates []Update // in the order of the base's modules
	Saved   []Saved  // in the order of the base's modules
	Labels  []string // names of its classes, as many as its head has outputs
	MaxRank int      // of its updates; 0 without any
	Bytes   int64    // of its tensors
}

// Update is the low-rank update of one Linear: y += Scale · B·(A·x).
type Update struct {
	Module string
	A      *tensor.Dense // [r, in]
	B      *tensor.Dense // [out, r]
	Scale  float32
}

// Saved is a module that replaces the base's, with all its parameters by name ("weight", "bias"). All have the shapes
// of the base's, but for the head, which may have another number of outputs.
type Saved struct {
	Module string
	Params map[string]*tensor.Dense
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
	if f.config, err = folder.ReadFile(configFile, maxJSON); err != nil {
		return nil, err
	}
	c, err := parseConfig(f.config, base)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", configFile, err)
	}
	if folder.Exists(labelsFile) {
		if f.labels, err = folder.ReadFile(labelsFile, maxJSON); err != nil {
			return nil, err
		}
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
	parts, err := contents(file, c, base)
	if err != nil {
		return nil, err
	}
	a := &Adapter{Digest: f.digest(settings)}
	if a.Labels, err = f.classes(parts, base, settings); err != nil {
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

// classes names the outputs of the adapter's head: by the settings; else by the config.json beside the adapter; else a
// head of its own has classes that nobody has named, and the base's head has the base's.
func (f files) classes(parts []*part, base *arch.Description, settings Settings) ([]string, error) {
	outputs, own := len(base.Labels), false
	for _, p := range parts {
		if name, ok := p.params["weight"]; ok && p.module.Path == base.Head {
			outputs, own = p.shape[name][0], true
		}
	}
	if outputs == 1 {
		// transformers takes a single output for a regression's, of which a softmax would always say 1.
		return nil, fmt.Errorf("expected a head of at least 2 outputs, found 1: regression is not supported yet")
	}
	labels, where := base.Labels, "config.json of the base"
	if own {
		labels = arch.DefaultLabels(outputs)
	}
	if f.labels != nil {
		// Read even where the settings name the classes: it may say that the head's outputs are no classes at all.
		if err := sameModel(f.labels, base); err != nil {
			return nil, err
		}
		var err error
		if labels, err = arch.Labels(f.labels); err != nil {
			return nil, err
		}
		where = labelsFile + ": labels"
	}
	if len(settings.ClassNames) > 0 {
		labels, where = slices.Clone(settings.ClassNames), "classNames"
	}
	if len(labels) != outputs {
		whose := "the adapter's head"
		if !own {
			whose = "the base's " + base.Head + " (the adapter brings none of its own)"
		}
		return nil, fmt.Errorf("%s: expected %d, as many as %s has outputs, found %d", where, outputs, whose, len(labels))
	}
	return labels, nil
}

// sameModel refuses the config.json of another kind of model: the files were mixed up.
func sameModel(raw []byte, base *arch.Description) error {
	var model struct {
		Type *string `json:"model_type"`
	}
	if err := json.Unmarshal(raw, &model); err != nil {
		return fmt.Errorf("%s: %w", labelsFile, err)
	}
	if model.Type != nil && *model.Type != base.ModelType {
		return &MisfitError{fmt.Errorf("%s: model_type: expected the base's %q, found %s",
			labelsFile, base.ModelType, quote.Name(*model.Type))}
	}
	return nil
}

// add copies the tensors of one module.
func (a *Adapter) add(file *weights.Tensors, p *part) error {
	if len(p.params) > 0 {
		s := Saved{Module: p.module.Path, Params: make(map[string]*tensor.Dense, len(p.params))}
		for _, param := range p.module.Params {
			t, err := a.take(file, p, p.params[param.Name])
			if err != nil {
				return err
			}
			s.Params[param.Name] = t
		}
		a.Saved = append(a.Saved, s)
		return nil
	}
	u := Update{Module: p.module.Path, Scale: p.scale}
	var err error
	if u.A, err = a.take(file, p, p.a); err != nil {
		return err
	}
	if u.B, err = a.take(file, p, p.b); err != nil {
		return err
	}
	a.MaxRank = max(a.MaxRank, p.shape[p.a][0])
	a.Updates = append(a.Updates, u)
	return nil
}

func (a *Adapter) take(file *weights.Tensors, p *part, name string) (*tensor.Dense, error) {
	t, err := file.Float32(name, p.shape[name]...)
	if err != nil {
		return nil, err
	}
	a.Bytes += int64(t.DataSize()) * 4
	return t, nil
}
