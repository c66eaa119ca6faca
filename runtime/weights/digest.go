package weights

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strings"
)

// Blob names a file's content.
type Blob struct {
	Name   string
	Size   int64
	SHA256 [32]byte
}

// NewBlob is the blob of a file read into memory.
func NewBlob(name string, data []byte) Blob {
	return Blob{name, int64(len(data)), sha256.Sum256(data)}
}

// ManifestDigest is the identity of a folder, "sha256:…": the digest of its Manifest, and so the one under which any
// registry keeps it.
func ManifestDigest(artifactType string, settings []byte, blobs []Blob) string {
	return ociDigest(sha256.Sum256(Manifest(artifactType, settings, blobs)))
}

// Manifest is the OCI image manifest of a folder: the files as layers, and as its config the settings, which are what
// else changes its answers in canonical JSON ("{}" for none). The same files and settings give the same bytes in
// whatever order they come; names must be unique and UTF-8.
func Manifest(artifactType string, settings []byte, blobs []Blob) []byte {
	m := manifest{
		SchemaVersion: 2,
		MediaType:     "application/vnd.oci.image.manifest.v1+json",
		ArtifactType:  artifactType,
		Config: descriptor{
			MediaType: "application/vnd.switchyard.settings.v1+json",
			Digest:    ociDigest(sha256.Sum256(settings)),
			Size:      int64(len(settings)),
		},
		Layers: make([]descriptor, 0, len(blobs)),
		// Tools that push stamp the time unless it is there, and the same files would differ from day to day.
		Annotations: map[string]string{"org.opencontainers.image.created": "1970-01-01T00:00:00Z"},
	}
	sorted := slices.Clone(blobs)
	slices.SortFunc(sorted, func(a, b Blob) int { return strings.Compare(a.Name, b.Name) })
	for _, b := range sorted {
		m.Layers = append(m.Layers, descriptor{
			MediaType:   "application/octet-stream",
			Digest:      ociDigest(b.SHA256),
			Size:        b.Size,
			Annotations: map[string]string{"org.opencontainers.image.title": b.Name},
		})
	}
	raw, err := json.Marshal(m)
	if err != nil {
		panic(err) // unreachable: strings and integers always marshal
	}
	return raw
}

// manifest has the fields of image-spec's v1.Manifest that we use, in its order. It is written out here, as descriptor
// is, because its bytes are identities, which must not move with the version of a library.
type manifest struct {
	SchemaVersion int               `json:"schemaVersion"`
	MediaType     string            `json:"mediaType"`
	ArtifactType  string            `json:"artifactType,omitempty"`
	Config        descriptor        `json:"config"`
	Layers        []descriptor      `json:"layers"`
	Annotations   map[string]string `json:"annotations"`
}

// descriptor has the fields of image-spec's v1.Descriptor that we use, in its order.
type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int64             `json:"size"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

func ociDigest(sum [32]byte) string { return "sha256:" + hex.EncodeToString(sum[:]) }
