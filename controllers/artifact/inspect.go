package artifact

import (
	"errors"
	"fmt"
	"strings"

	"github.com/switchyard-dev/switchyard/runtime/arch"
	"github.com/switchyard-dev/switchyard/runtime/peft"
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

// InspectAdapter checks the adapter in a folder against its base, as a pod would. The error of one for another base is
// a *peft.MisfitError.
func InspectAdapter(folder *weights.Folder, base *arch.Description, settings peft.Settings) (AdapterInfo, error) {
	a, err := peft.Load(folder, base, settings)
	if err != nil {
		return AdapterInfo{}, err
	}
	return AdapterInfo{a.Digest, a.MaxRank, len(a.Labels), a.Bytes}, nil
}

// InspectBase checks the base model in a folder: its config.json, and that its weights hold every parameter with its
// shape, as floats and finite. It returns the parameters' size in memory. As Pack, it maps the files.
func InspectBase(folder *weights.Folder) (base *arch.Description, size int64, err error) {
	config, err := folder.ReadFile(baseConfig, maxConfig)
	if err != nil {
		return nil, 0, err
	}
	files, err := weights.OpenModel(folder)
	if err != nil {
		return nil, 0, err
	}
	defer func() { _ = files.Close() }()
	if base, err = arch.Parse(config, files.Names()); err != nil {
		return nil, 0, err
	}
	if size, err = parameters(files.Tensors, base); err != nil {
		return nil, 0, fmt.Errorf("%s: %w", files.Files[0], err)
	}
	return base, size, nil
}

// parameters reads every parameter that a base has once, one at a time, and names the first that misfit.
func parameters(tensors *weights.Tensors, base *arch.Description) (size int64, err error) {
	var faults []string
	more := 0
	for _, module := range base.Modules {
		for _, param := range module.Params {
			stored, ok := base.Stored(module.Path, param.Name)
			if !ok {
				continue // of a head that adapters bring
			}
			t, err := tensors.Float32Rows(stored.Tensor, stored.Shape, stored.From, stored.To)
			switch {
			case err == nil:
				size += int64(t.DataSize()) * 4
			case len(faults) < maxNamed:
				faults = append(faults, err.Error())
			default:
				more++
			}
		}
	}
	if len(faults) == 0 {
		return size, nil
	}
	if more > 0 {
		faults = append(faults, fmt.Sprintf("and %d more", more))
	}
	return 0, errors.New(strings.Join(faults, "; "))
}
