// Package model opens a base model's folder and builds its forward pass. Each architecture is a package of its own
// beside this file, one readable file with HuggingFace's names; adding one is a folder and a line here and in arch.
package model

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/switchyard-dev/switchyard/runtime/arch"
	"github.com/switchyard-dev/switchyard/runtime/model/vit"
	"github.com/switchyard-dev/switchyard/runtime/nn"
	"github.com/switchyard-dev/switchyard/runtime/quote"
	"github.com/switchyard-dev/switchyard/runtime/weights"
)

// Model is an architecture's forward pass. It does not change and is safe for concurrent use.
type Model interface {
	// Tokens is how many tokens the model makes of an input.
	Tokens(in nn.Input) int
	// NumLabels is the number of outputs of a row of that adapter; nil is the base.
	NumLabels(a *nn.Adapter) int
	// Forward writes each row's NumLabels logits to the front of its place in logits [rows, width].
	Forward(b *nn.Batch, logits []float32, width int)
}

// architectures maps config.json's model_type to the forward pass.
var architectures = map[string]func(d *arch.Description, s nn.Scope) (Model, error){
	"vit": func(d *arch.Description, s nn.Scope) (Model, error) { return vit.New(d, s) },
}

// Base is an opened base model.
type Base struct {
	Model       Model
	Description *arch.Description
	Layers      *nn.Layers
	Digest      string   // revision of the folder's files that change an answer
	Unused      []string // tensors in the file that no layer asks for

	// Preprocessor is preprocessor_config.json, or nil where there is none.
	Preprocessor []byte
}

const (
	// ArtifactType names a base model's manifest.
	ArtifactType = "application/vnd.switchyard.base.v1"
	// maxConfig is far above any real config (a thousand labels take 60 KiB).
	maxConfig = 4 << 20
)

// Open reads a base from a HuggingFace folder: config.json, model.safetensors (float32) and, if there is one,
// preprocessor_config.json. The weights are mapped only while they are packed.
func Open(folder *weights.Folder) (*Base, error) {
	config, err := folder.ReadFile("config.json", maxConfig)
	if err != nil {
		return nil, err
	}
	description, err := arch.Parse(config)
	if err != nil {
		return nil, err
	}
	blobs := []weights.Blob{weights.NewBlob("config.json", config)}
	base := &Base{Description: description}
	if folder.Exists("preprocessor_config.json") {
		if base.Preprocessor, err = folder.ReadFile("preprocessor_config.json", maxConfig); err != nil {
			return nil, err
		}
		blobs = append(blobs, weights.NewBlob("preprocessor_config.json", base.Preprocessor))
	}
	mapping, err := folder.MapFile("model.safetensors")
	if err != nil {
		return nil, err
	}
	defer func() { _ = mapping.Close() }()
	if err := base.build(mapping.Data); err != nil {
		return nil, err
	}
	blobs = append(blobs, weights.NewBlob("model.safetensors", mapping.Data))
	base.Digest = weights.ManifestDigest(ArtifactType, []byte("{}"), blobs)
	return base, nil
}

// build makes the forward pass and its layers from the bytes of a safetensors file.
func (base *Base) build(safetensors []byte) error {
	newModel, ok := architectures[base.Description.ModelType]
	if !ok {
		return fmt.Errorf("config.json: model_type: expected one of %s, found %s",
			strings.Join(slices.Sorted(maps.Keys(architectures)), ", "), quote.Name(base.Description.ModelType))
	}
	tensors, err := weights.Parse(safetensors)
	if err != nil {
		return fmt.Errorf("model.safetensors: %w", err)
	}
	scope := nn.NewScope(tensors)
	if base.Model, err = newModel(base.Description, scope); err != nil {
		return fmt.Errorf("config.json: %w", err)
	}
	if base.Layers, base.Unused, err = scope.Layers(); err != nil {
		return fmt.Errorf("model.safetensors: %w", err)
	}
	return nil
}
