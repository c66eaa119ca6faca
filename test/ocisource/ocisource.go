// Package ocisource puts folders into a source registry as a user does with oras push: each file is a layer titled by
// its name. For tests, samples and the demo.
package ocisource

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content/file"
	"oras.land/oras-go/v2/registry/remote"
)

// PushSample pushes the base and the adapters of one of the samples, as config/samples names them: samples/NAME-base:v1
// and samples/NAME-ADAPTER:v1 of the sample in the folder NAME.
func PushSample(ctx context.Context, registry, sample string) error {
	adapters := filepath.Join(sample, "adapters")
	entries, err := os.ReadDir(adapters)
	if err != nil {
		return err
	}
	folders := map[string]string{"base": filepath.Join(sample, "base")}
	for _, e := range entries {
		folders[e.Name()] = filepath.Join(adapters, e.Name())
	}
	for name, folder := range folders {
		ref := registry + "/samples/" + filepath.Base(sample) + "-" + name + ":v1"
		if _, err := Push(ctx, ref, folder); err != nil {
			return fmt.Errorf("%s: %w", ref, err)
		}
	}
	return nil
}

// Push pushes the files of a folder to a reference, host/repository:tag, over plain HTTP, and returns the digest of the
// manifest. As with oras push, the manifest names the time, so each push of the same files has another.
func Push(ctx context.Context, ref, dir string) (digest string, err error) {
	repo, err := remote.NewRepository(ref)
	if err != nil {
		return "", err
	}
	repo.PlainHTTP = true
	store, err := file.New(dir)
	if err != nil {
		return "", err
	}
	defer func() { _ = store.Close() }()
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	var layers []ocispec.Descriptor
	for _, e := range entries {
		layer, err := store.Add(ctx, e.Name(), "application/octet-stream", "")
		if err != nil {
			return "", fmt.Errorf("%s: %w", e.Name(), err)
		}
		layers = append(layers, layer)
	}
	manifest, err := oras.PackManifest(ctx, store, oras.PackManifestVersion1_1, "application/vnd.unknown.artifact.v1",
		oras.PackManifestOptions{
			Layers:              layers,
			ManifestAnnotations: map[string]string{ocispec.AnnotationCreated: time.Now().Format(time.RFC3339Nano)},
		})
	if err != nil {
		return "", err
	}
	if err := store.Tag(ctx, manifest, repo.Reference.Reference); err != nil {
		return "", err
	}
	_, err = oras.Copy(ctx, store, repo.Reference.Reference, repo, repo.Reference.Reference, oras.DefaultCopyOptions)
	return manifest.Digest.String(), err
}
