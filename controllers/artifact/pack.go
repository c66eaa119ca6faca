package artifact

import (
	"crypto/sha256"
	"slices"

	"github.com/switchyard-dev/switchyard/runtime/peft"
	"github.com/switchyard-dev/switchyard/runtime/weights"
)

// Packed is a folder as it goes into the artifact registry: its manifest, and the blobs that it names. It reads the
// folder again when it is pushed, so the folder must stay open till then.
type Packed struct {
	Digest   string // the revision
	Manifest []byte
	Settings []byte // the config blob
	Files    []weights.Blob
	Size     int64 // of the files

	folder *weights.Folder
}

// Pack packs those files of a folder that change the answers of a base or an adapter. Settings are an adapter's. The
// folder must be ours alone: its files are mapped, and nobody may truncate them meanwhile.
func Pack(kind Kind, folder *weights.Folder, settings peft.Settings) (*Packed, error) {
	format := kind.format()
	names := slices.Clone(format.required)
	if kind == Base {
		files, _, err := weights.ModelFiles(folder)
		if err != nil {
			return nil, err
		}
		names = append([]string{baseConfig}, files...)
	}
	for _, name := range format.optional {
		if folder.Exists(name) {
			names = append(names, name)
		}
	}
	p := &Packed{Settings: settings.JSON(), folder: folder}
	for _, name := range names {
		blob, err := hash(folder, name)
		if err != nil {
			return nil, err
		}
		p.Files = append(p.Files, blob)
		p.Size += blob.Size
	}
	p.Manifest = weights.Manifest(format.artifactType, p.Settings, p.Files)
	p.Digest = sha256Digest(p.Manifest)
	return p, nil
}

func hash(folder *weights.Folder, name string) (weights.Blob, error) {
	mapping, err := folder.MapFile(name)
	if err != nil {
		return weights.Blob{}, err
	}
	defer func() { _ = mapping.Close() }()
	return weights.Blob{Name: name, Size: int64(len(mapping.Data)), SHA256: sha256.Sum256(mapping.Data)}, nil
}
