package artifact

import (
	"fmt"
	"io"
	"slices"

	"github.com/switchyard-dev/switchyard/runtime/peft"
	"github.com/switchyard-dev/switchyard/runtime/weights"
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
	baseConfig          = "config.json"
	basePreprocessor    = "preprocessor_config.json"
	baseTokenizer       = "tokenizer.json"        //nolint:gosec // the name of a file
	baseTokenizerConfig = "tokenizer_config.json" //nolint:gosec // the name of a file
	baseVocabulary      = "vocab.txt"
	baseAddedTokens     = "added_tokens.json"       //nolint:gosec // the name of a file
	baseSpecialTokens   = "special_tokens_map.json" //nolint:gosec // the name of a file
	// baseArtifactType is runtime/model's, which cannot be imported here; a test holds them together.
	baseArtifactType = "application/vnd.switchyard.base.v1"
)

// tokenizers are a base's files that say how texts become tokens; the first that is there counts.
var tokenizers = []struct {
	name string
	read func(io.Reader) (*peft.Tokenizer, error)
}{{baseTokenizer, peft.ReadTokenizer}, {baseVocabulary, peft.ReadVocabulary}}

// format is a kind's files: those that change its answers, and those that are looked at. All others are left where they
// are.
type format struct {
	artifactType string
	required     []string
	sharded      bool // the weights may be shards and their index in place of one file
	optional     []string
	beside       []string // that change no answer, but tell whether the others fit; not packed
	pickle       string   // what people have in place of the weights; never read
}

func (k Kind) format() format {
	switch k {
	case Adapter:
		return format{
			artifactType: peft.ArtifactType,
			required:     []string{"adapter_config.json", "adapter_model.safetensors"},
			optional:     []string{"config.json"},
			beside:       peft.TokenizerFiles(),
			pickle:       "adapter_model.bin",
		}
	case Base:
		return format{
			artifactType: baseArtifactType,
			required:     []string{baseConfig, weights.ModelFile},
			sharded:      true,
			optional: []string{
				basePreprocessor, baseTokenizer, baseTokenizerConfig, baseVocabulary, baseAddedTokens, baseSpecialTokens,
			},
			pickle: "pytorch_model.bin",
		}
	}
	panic(fmt.Sprintf("artifact: kind %q is none of ours", string(k)))
}

// has tells whether a file is one of a kind's.
func (f format) has(name string) bool {
	if slices.Contains(f.required, name) || slices.Contains(f.optional, name) || slices.Contains(f.beside, name) {
		return true
	}
	return f.sharded && (name == weights.IndexFile || weights.IsShard(name))
}

// lacks is a required file that is not there, nor what may stand in its place; "" if there is none.
func (f format) lacks(there func(name string) bool) string {
	for _, name := range f.required {
		if f.sharded && name == weights.ModelFile && there(weights.IndexFile) {
			continue
		}
		if !there(name) {
			return name
		}
	}
	return ""
}
