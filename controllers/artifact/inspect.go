package artifact

import (
	"errors"
	"fmt"
	"strings"

	"github.com/switchyard-dev/switchyard/runtime/arch"
	"github.com/switchyard-dev/switchyard/runtime/peft"
	"github.com/switchyard-dev/switchyard/runtime/preprocess"
	"github.com/switchyard-dev/switchyard/runtime/preprocess/tokenfiles"
	"github.com/switchyard-dev/switchyard/runtime/weights"
)

const (
	// maxConfig is runtime/model's bound of a base's config.json.
	maxConfig = 4 << 20
	// maxNamed is how many faults of a base are told at once.
	maxNamed = 3
)

// AdapterInfo is what a checked adapter is.
type AdapterInfo struct {
	Digest    string // the revision, that of Pack
	Rank      int    // the largest of its updates; 0 without any
	NumLabels int
	Bytes     int64 // in a pod's memory
}

// BaseModel is what adapters are checked against.
type BaseModel struct {
	*arch.Description
	Tokenizer *peft.Tokenizer // nil: its files say nothing of tokens
}

// InspectAdapter checks the adapter in a folder against its base, as a pod would, and the tokenizer that lies beside
// it. The error of one for another base is a *peft.MisfitError.
func InspectAdapter(folder *weights.Folder, base BaseModel, settings peft.Settings) (AdapterInfo, error) {
	if err := peft.CheckTokenizer(folder, base.Tokenizer); err != nil {
		return AdapterInfo{}, err
	}
	a, err := peft.Load(folder, base.Description, settings)
	if err != nil {
		return AdapterInfo{}, err
	}
	return AdapterInfo{a.Digest, a.MaxRank, len(a.Labels), a.Bytes(base.Description)}, nil
}

// InspectBase checks the base model in a folder: its config.json, what its files say of images or texts, and that its
// weights hold every parameter with its shape, as floats and finite. As Pack, it maps the files.
func InspectBase(folder *weights.Folder) (base BaseModel, err error) {
	config, err := folder.ReadFile(baseConfig, maxConfig)
	if err != nil {
		return BaseModel{}, err
	}
	files, err := weights.OpenModel(folder)
	if err != nil {
		return BaseModel{}, err
	}
	defer func() { _ = files.Close() }()
	if base.Description, err = arch.Parse(config, files.Names()); err != nil {
		return BaseModel{}, err
	}
	if base.Tokenizer, err = readTokenizer(folder, base.Description); err != nil {
		return BaseModel{}, err
	}
	if err := checkInputs(folder, base.Description); err != nil {
		return BaseModel{}, err
	}
	if err := checkParameters(files.Tensors, base.Description); err != nil {
		return BaseModel{}, fmt.Errorf("%s: %w", files.Files[0], err)
	}
	return base, nil
}

// readTokenizer reads what the files of a base of texts say of tokens; nil if they say nothing.
func readTokenizer(folder *weights.Folder, base *arch.Description) (*peft.Tokenizer, error) {
	if base.Text == nil {
		return nil, nil //nolint:nilnil // as said above
	}
	for _, f := range tokenizers {
		if !folder.Exists(f.name) {
			continue
		}
		file, err := folder.Open(f.name, peft.MaxTokenizer)
		if err != nil {
			return nil, err
		}
		tokenizer, err := f.read(file)
		if err = errors.Join(err, file.Close()); err != nil || f.name != baseVocabulary {
			return tokenizer, err
		}
		return tokenizer, addTokens(tokenizer, func(name string) ([]byte, error) {
			return folder.ReadOptional(name, maxConfig)
		})
	}
	return nil, nil //nolint:nilnil // as said above
}

// addTokens adds what files of a base say beside a vocab.txt; read gives nil for one that is not there.
func addTokens(vocabulary *peft.Tokenizer, read func(name string) ([]byte, error)) error {
	config, err := read(baseTokenizerConfig)
	if err != nil {
		return err
	}
	added, err := read(baseAddedTokens)
	if err != nil {
		return err
	}
	return vocabulary.Add(config, added)
}

// checkInputs holds what a base's files say of its images or texts to what a pod makes of them, which would end over
// it.
func checkInputs(folder *weights.Folder, base *arch.Description) error {
	if base.Text != nil {
		return checkTexts(folder, base)
	}
	raw, err := folder.ReadOptional(basePreprocessor, maxConfig)
	if in := base.Image; err == nil && raw != nil && in != nil {
		_, err = preprocess.ParseImage(raw, preprocess.Base{
			ModelType: base.ModelType, Channels: in.Channels, Height: in.Height, Width: in.Width, Takes: in.Takes,
		})
	}
	return err
}

func checkTexts(folder *weights.Folder, base *arch.Description) error {
	var files tokenfiles.Files
	for _, f := range []struct {
		name  string
		limit int64
		to    *[]byte
	}{
		{baseTokenizer, peft.MaxTokenizer, &files.Tokenizer},
		{baseTokenizerConfig, maxConfig, &files.Config},
		{baseVocabulary, peft.MaxTokenizer, &files.Vocab},
		{baseAddedTokens, maxConfig, &files.Added},
		{baseSpecialTokens, maxConfig, &files.Specials},
	} {
		var err error
		if *f.to, err = folder.ReadOptional(f.name, f.limit); err != nil {
			return err
		}
	}
	if !files.Any() {
		return nil
	}
	_, err := files.Resolve(base.ModelType, base.Text.MaxTokens)
	return err
}

// checkParameters reads every parameter that a base has once, one at a time, and names the first that misfit.
func checkParameters(tensors *weights.Tensors, base *arch.Description) error {
	var faults []string
	more := 0
	for _, module := range base.Modules {
		for _, param := range module.Params {
			stored, ok := base.Stored(module.Path, param.Name)
			if !ok {
				continue // of a head that adapters bring
			}
			_, err := tensors.Float32Rows(stored.Tensor, stored.Shape, stored.From, stored.To)
			switch {
			case err == nil:
			case len(faults) < maxNamed:
				faults = append(faults, err.Error())
			default:
				more++
			}
		}
	}
	if len(faults) == 0 {
		return nil
	}
	if more > 0 {
		faults = append(faults, fmt.Sprintf("and %d more", more))
	}
	return errors.New(strings.Join(faults, "; "))
}
