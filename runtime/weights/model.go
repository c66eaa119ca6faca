package weights

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/switchyard-dev/switchyard/runtime/quote"
)

// The files that a base's weights are in, as transformers writes them: one, or shards and an index.
const (
	ModelFile = "model.safetensors"
	IndexFile = "model.safetensors.index.json"
)

const (
	// MaxIndex is some ten times that of the largest models.
	MaxIndex = 16 << 20
	// maxShards bounds the files of one base. The largest of models have some two hundred.
	maxShards = 1 << 10
)

// Model is a base's weights, mapped until Close.
type Model struct {
	*Tensors
	Files    []string // the index first, if there is one
	mappings []*Mapping
	index    []byte
}

// OpenModel maps the weights in a base's folder: model.safetensors, or the shards that an index lists.
func OpenModel(folder *Folder) (*Model, error) {
	files, index, err := ModelFiles(folder)
	if err != nil {
		return nil, err
	}
	m := &Model{Files: files, Tensors: &Tensors{}, index: index}
	listed := map[string]string{}
	shards := files
	if index != nil {
		if listed, err = parseIndex(index); err != nil {
			return nil, fmt.Errorf("%s: %w", IndexFile, err)
		}
		shards = files[1:]
	}
	for _, name := range shards {
		if err := m.add(folder, name, listed); err != nil {
			return nil, errors.Join(err, m.Close())
		}
	}
	slices.SortFunc(m.byName, func(a, b entry) int { return strings.Compare(a.name, b.name) })
	for _, tensor := range slices.Sorted(maps.Keys(listed)) { // so that of several the same one is named
		if _, ok := m.find(tensor); !ok {
			err := fmt.Errorf("%s: tensor %s: expected it in %s, found none",
				IndexFile, quote.Name(tensor), quote.Name(listed[tensor]))
			return nil, errors.Join(err, m.Close())
		}
	}
	return m, nil
}

// add maps one file and joins its tensors to the others.
func (m *Model) add(folder *Folder, name string, listed map[string]string) error {
	mapping, err := folder.MapFile(name)
	if err != nil {
		return err
	}
	m.mappings = append(m.mappings, mapping)
	tensors, err := Parse(mapping.Data)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	for _, e := range tensors.byName {
		if len(listed) == 0 || listed[e.name] == name {
			continue
		}
		where := "does not list it"
		if other := listed[e.name]; other != "" {
			where = "lists it for " + quote.Name(other)
		}
		return fmt.Errorf("%s: tensor %s: %s %s", name, quote.Name(e.name), IndexFile, where)
	}
	m.byName = append(m.byName, tensors.byName...)
	return nil
}

// Blobs are the files' contents.
func (m *Model) Blobs() []Blob {
	var blobs []Blob
	shards := m.Files
	if m.index != nil {
		blobs = append(blobs, NewBlob(IndexFile, m.index))
		shards = m.Files[1:]
	}
	for i, name := range shards {
		blobs = append(blobs, NewBlob(name, m.mappings[i].Data))
	}
	return blobs
}

// Close unmaps the files. What was copied out of them lives on.
func (m *Model) Close() error {
	var all error
	for _, mapping := range m.mappings {
		all = errors.Join(all, mapping.Close())
	}
	m.Tensors, m.mappings = nil, nil
	return all
}

// ModelFiles lists the files that hold a base's weights: model.safetensors, else the index and the shards that it
// lists; index is the index's content.
func ModelFiles(folder *Folder) (files []string, index []byte, err error) {
	if folder.Exists(ModelFile) || !folder.Exists(IndexFile) {
		if !folder.Exists(ModelFile) &&
			(folder.Exists("pytorch_model.bin") || folder.Exists("pytorch_model.bin.index.json")) {
			return nil, nil, fmt.Errorf("pytorch_model.bin: expected %s, found a pickle: load the model with transformers "+
				"and save it again with save_pretrained(path)", ModelFile)
		}
		return []string{ModelFile}, nil, nil
	}
	if index, err = folder.ReadFile(IndexFile, MaxIndex); err != nil {
		return nil, nil, err
	}
	if files, err = IndexedFiles(index); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", IndexFile, err)
	}
	return append([]string{IndexFile}, files...), index, nil
}

var shard = regexp.MustCompile(`^model-[0-9]{5}-of-[0-9]{5}\.safetensors$`)

// IsShard tells whether a file has the name of a shard, as transformers writes it.
func IsShard(name string) bool { return shard.MatchString(name) }

// IndexedFiles lists the shards of an index, sorted.
func IndexedFiles(index []byte) ([]string, error) {
	listed, err := parseIndex(index)
	if err != nil {
		return nil, err
	}
	files := slices.Compact(slices.Sorted(maps.Values(listed)))
	if len(files) > maxShards {
		return nil, fmt.Errorf("weight_map: expected at most %d files, found %d", maxShards, len(files))
	}
	for _, name := range files {
		if !IsShard(name) {
			return nil, fmt.Errorf("weight_map: expected names as model-00001-of-00002.safetensors, found %s", quote.Name(name))
		}
	}
	return files, nil
}

// IndexedNames lists the tensors of an index, sorted.
func IndexedNames(index []byte) ([]string, error) {
	listed, err := parseIndex(index)
	return slices.Sorted(maps.Keys(listed)), err
}

// parseIndex reads which file each tensor is in.
func parseIndex(raw []byte) (map[string]string, error) {
	var index struct {
		WeightMap map[string]*string `json:"weight_map"` // pointers, as null would be ""
	}
	if err := json.Unmarshal(raw, &index); err != nil {
		return nil, fmt.Errorf("expected a JSON object with a weight_map: %s", quote.Text(err.Error()))
	}
	if len(index.WeightMap) == 0 {
		return nil, errors.New("weight_map: expected the file of each tensor, found none")
	}
	listed := make(map[string]string, len(index.WeightMap))
	for _, name := range slices.Sorted(maps.Keys(index.WeightMap)) {
		file := index.WeightMap[name]
		if file == nil {
			return nil, fmt.Errorf("weight_map: tensor %s: expected the name of a file, found null", quote.Name(name))
		}
		listed[name] = *file
	}
	return listed, nil
}
