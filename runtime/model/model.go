// Package model opens a base model's folder and builds its forward pass. Each architecture is a package of its own
// beside this file, one readable file with HuggingFace's names; adding one is a folder and a line here and in arch.
package model

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/switchyard-dev/switchyard/runtime/arch"
	"github.com/switchyard-dev/switchyard/runtime/kernels"
	"github.com/switchyard-dev/switchyard/runtime/model/bert"
	"github.com/switchyard-dev/switchyard/runtime/model/deberta"
	"github.com/switchyard-dev/switchyard/runtime/model/deit"
	"github.com/switchyard-dev/switchyard/runtime/model/dinov2"
	"github.com/switchyard-dev/switchyard/runtime/model/distilbert"
	"github.com/switchyard-dev/switchyard/runtime/model/modernbert"
	"github.com/switchyard-dev/switchyard/runtime/model/roberta"
	"github.com/switchyard-dev/switchyard/runtime/model/vit"
	"github.com/switchyard-dev/switchyard/runtime/nn"
	"github.com/switchyard-dev/switchyard/runtime/quote"
	"github.com/switchyard-dev/switchyard/runtime/weights"
)

// Model is an architecture's forward pass. It does not change and is safe for concurrent use.
type Model interface {
	// Tokens is how many tokens the model makes of an input.
	Tokens(in nn.Input) int
	// Forward answers each row by the head of its adapter.
	Forward(b *nn.Batch) nn.Answers
}

// architectures maps config.json's model_type to the forward pass.
var architectures = map[string]builder{
	"bert":        building(bert.New),
	"deberta-v2":  building(deberta.New),
	"deit":        building(deit.New),
	"dinov2":      building(dinov2.New),
	"distilbert":  building(distilbert.New),
	"modernbert":  building(modernbert.New),
	"roberta":     building(roberta.New),
	"vit":         building(vit.New),
	"xlm-roberta": building(roberta.New),
}

// dtypes maps the types to those of the kernels.
var dtypes = map[arch.DType]kernels.DType{arch.Float32: kernels.Float32, arch.BFloat16: kernels.BFloat16}

// builder makes a forward pass of a description and a base's weights.
type builder func(d *arch.Description, s nn.Scope) (Model, error)

func building[M Model](build func(*arch.Description, nn.Scope) (M, error)) builder {
	return func(d *arch.Description, s nn.Scope) (Model, error) { return build(d, s) }
}

// Base is an opened base model.
type Base struct {
	Model       Model
	Description *arch.Description
	Layers      *nn.Layers
	DType       arch.DType // of its weights in memory
	Digest      string     // revision of the folder's files that change an answer
	Unused      []string   // tensors in the files that no layer asks for

	// The files that say how images and texts become inputs; nil where there is none.
	Preprocessor    []byte // preprocessor_config.json
	Tokenizer       []byte // tokenizer.json
	TokenizerConfig []byte // tokenizer_config.json
	Vocab           []byte // vocab.txt
	AddedTokens     []byte // added_tokens.json
	SpecialTokens   []byte // special_tokens_map.json
}

const (
	// ArtifactType names a base model's manifest.
	ArtifactType = "application/vnd.switchyard.base.v1"
	// maxConfig is far above any real config (a thousand labels take 60 KiB).
	maxConfig = 4 << 20
	// maxTokenizer is twice that of a vocabulary of 256k words.
	maxTokenizer = 64 << 20
)

// Open reads a base from a HuggingFace folder: config.json, the weights (weights.OpenModel) and, where they are,
// preprocessor_config.json, tokenizer.json, tokenizer_config.json, vocab.txt, added_tokens.json and
// special_tokens_map.json. The weights are mapped only while they are packed, as dtype; that is no part of the digest.
func Open(folder *weights.Folder, dtype arch.DType) (*Base, error) {
	if _, err := arch.ParseDType(string(dtype)); err != nil {
		return nil, fmt.Errorf("dtype: %w", err)
	}
	config, err := folder.ReadFile("config.json", maxConfig)
	if err != nil {
		return nil, err
	}
	blobs := []weights.Blob{weights.NewBlob("config.json", config)}
	base := &Base{DType: dtype}
	for _, f := range []struct {
		name string
		most int64
		to   *[]byte
	}{
		{"preprocessor_config.json", maxConfig, &base.Preprocessor},
		{"tokenizer.json", maxTokenizer, &base.Tokenizer},
		{"tokenizer_config.json", maxConfig, &base.TokenizerConfig},
		{"vocab.txt", maxTokenizer, &base.Vocab},
		{"added_tokens.json", maxConfig, &base.AddedTokens},
		{"special_tokens_map.json", maxConfig, &base.SpecialTokens},
	} {
		if *f.to, err = folder.ReadOptional(f.name, f.most); err != nil {
			return nil, err
		}
		if *f.to != nil {
			blobs = append(blobs, weights.NewBlob(f.name, *f.to))
		}
	}
	files, err := weights.OpenModel(folder)
	if err != nil {
		return nil, err
	}
	defer func() { _ = files.Close() }()
	var group errgroup.Group
	group.Go(func() error {
		blobs = append(blobs, files.Blobs()...)
		return nil
	})
	group.Go(func() error { return base.build(config, files) })
	if err := group.Wait(); err != nil {
		return nil, err
	}
	base.Digest = weights.ManifestDigest(ArtifactType, []byte("{}"), blobs)
	return base, nil
}

// Close gives the weights' memory back. No engine of the base may run any more, and none of its adapters.
func (base *Base) Close() { base.Layers.Free() }

// build makes the forward pass and its layers.
func (base *Base) build(config []byte, files *weights.Model) error {
	names := files.Names()
	var err error
	if base.Description, err = arch.Parse(config, names); err != nil {
		return err
	}
	newModel, ok := architectures[base.Description.ModelType]
	if !ok {
		return fmt.Errorf("config.json: model_type: expected one of %s, found %s",
			strings.Join(slices.Sorted(maps.Keys(architectures)), ", "), quote.Name(base.Description.ModelType))
	}
	scope := nn.NewScope(source{base.Description, files.Tensors}, dtypes[base.DType])
	if base.Model, err = newModel(base.Description, scope); err != nil {
		return fmt.Errorf("config.json: %w", err)
	}
	if base.Layers, err = scope.Layers(); err != nil {
		return fmt.Errorf("%s: %w", files.Files[0], err)
	}
	base.Unused = base.Description.Unused(names)
	return nil
}

// source reads a base's files by the model's own names.
type source struct {
	description *arch.Description
	tensors     *weights.Tensors
}

func (s source) Rows(dst []float32, path, param string, from int, shape ...int) (bool, error) {
	stored, ok := s.description.Stored(path, param)
	if !ok {
		return false, nil
	}
	if listed := append([]int{stored.To - stored.From}, stored.Shape[1:]...); !slices.Equal(listed, shape) {
		return false, fmt.Errorf("module %s: the model asks for %s of shape %s, and arch lists %s",
			quote.Name(path), param, quote.Shape(shape), quote.Shape(listed))
	}
	return true, s.tensors.CopyRows(dst, stored.Tensor, stored.Shape, stored.From+from)
}
