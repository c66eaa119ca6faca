package artifact

import (
	"fmt"
	"slices"

	"github.com/switchyard-dev/switchyard/runtime/peft"
)

// Kind is what an artifact is.
type Kind string

// The kinds.
const (
	Adapter Kind = "adapter"
	Base    Kind = "base"
)

// The files of a base model that change its answers, as runtime/model reads them.
const (
	baseConfig       = "config.json"
	baseModel        = "model.safetensors"
	basePreprocessor = "preprocessor_config.json"
	// baseArtifactType is runtime/model's, which cannot be imported here; a test holds them together.
	baseArtifactType = "application/vnd.switchyard.base.v1"
)

// format is a kind's files: those that change its answers. All others are left where they are.
type format struct {
	artifactType string
	required     []string
	optional     []string
	pickle       string // what people have in place of the weights; never read
}

func (k Kind) format() format {
	switch k {
	case Adapter:
		return format{
			artifactType: peft.ArtifactType,
			required:     []string{"adapter_config.json", "adapter_model.safetensors"},
			optional:     []string{"config.json"},
			pickle:       "adapter_model.bin",
		}
	case Base:
		return format{
			artifactType: baseArtifactType,
			required:     []string{baseConfig, baseModel},
			optional:     []string{basePreprocessor},
			pickle:       "pytorch_model.bin",
		}
	}
	panic(fmt.Sprintf("artifact: kind %q is none of ours", string(k)))
}

// has tells whether a file is one of a kind's.
func (f format) has(name string) bool {
	return slices.Contains(f.required, name) || slices.Contains(f.optional, name)
}
