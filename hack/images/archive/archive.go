// Package archive writes container images without Docker: a few files in one layer, as a docker-archive tar, which
// `ctr images import`, `kind load image-archive` and `docker load` take.
//
// Invariants:
//   - The same files give the same bytes: times are the epoch, owners root, entries sorted.
//   - An image runs as a user of no rights and holds what it was given, so no shell and no package.
package archive

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

// User is the one that images run as, by number so that Kubernetes can tell that it is not root.
const User = "65532:65532"

// Image is what to write.
type Image struct {
	Name       string // registry/repository:tag
	Entrypoint []string
	Files      map[string]string // path in the image → file or folder here
}

// WriteFile writes the image to a file, whole or not at all.
func (i Image) WriteFile(name string) (err error) {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	file, err := os.CreateTemp(filepath.Dir(name), ".image-")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(file.Name()) }() // gone already where all went well
	if err := errors.Join(i.Write(file), file.Chmod(0o644), file.Close()); err != nil {
		return fmt.Errorf("image %s: %w", i.Name, err)
	}
	return os.Rename(file.Name(), name)
}

// Write writes the image.
func (i Image) Write(w io.Writer) (err error) {
	layer, err := os.CreateTemp("", "switchyard-layer-") // its digest and size come before it
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, layer.Close(), os.Remove(layer.Name())) }()
	digest := sha256.New()
	if err := i.writeLayer(io.MultiWriter(layer, digest)); err != nil {
		return err
	}
	size, err := layer.Seek(0, io.SeekCurrent)
	if err != nil {
		return err
	}
	if _, err := layer.Seek(0, io.SeekStart); err != nil {
		return err
	}
	config, err := i.config(digest)
	if err != nil {
		return err
	}
	configName, layerName := sum(config)+".json", hex.EncodeToString(digest.Sum(nil))+"/layer.tar"
	manifest, err := json.Marshal([]any{map[string]any{
		"Config": configName, "RepoTags": []string{i.Name}, "Layers": []string{layerName},
	}})
	if err != nil {
		return err
	}
	out := tar.NewWriter(w)
	for _, part := range []struct {
		name string
		size int64
		from io.Reader
	}{
		{configName, int64(len(config)), strings.NewReader(string(config))},
		{layerName, size, layer},
		{"manifest.json", int64(len(manifest)), strings.NewReader(string(manifest))},
	} {
		if err := write(out, part.name, 0o644, part.size, part.from); err != nil {
			return err
		}
	}
	return out.Close()
}

func (i Image) config(layer hash.Hash) ([]byte, error) {
	return json.Marshal(map[string]any{
		"architecture": runtime.GOARCH,
		"os":           "linux",
		"created":      time.Unix(0, 0).UTC().Format(time.RFC3339),
		"config":       map[string]any{"User": User, "Entrypoint": i.Entrypoint, "WorkingDir": "/"},
		"rootfs": map[string]any{
			"type":     "layers",
			"diff_ids": []string{"sha256:" + hex.EncodeToString(layer.Sum(nil))},
		},
	})
}

func (i Image) writeLayer(w io.Writer) error {
	files := map[string]string{} // path in the image → file here
	for to, from := range i.Files {
		err := filepath.WalkDir(from, func(name string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() {
				return err
			}
			within, err := filepath.Rel(from, name)
			files[path.Join(strings.TrimPrefix(to, "/"), filepath.ToSlash(within))] = name
			return err
		})
		if err != nil {
			return err
		}
	}
	var names []string
	for name := range files {
		names = append(names, name)
		for folder := path.Dir(name); folder != "."; folder = path.Dir(folder) {
			names = append(names, folder+"/")
		}
	}
	slices.Sort(names) // a folder comes before what is in it
	out := tar.NewWriter(w)
	for _, name := range slices.Compact(names) {
		if err := writeFile(out, name, files[name]); err != nil {
			return err
		}
	}
	return out.Close()
}

// writeFile writes a file of here, or a folder if its name ends so.
func writeFile(out *tar.Writer, name, from string) error {
	if strings.HasSuffix(name, "/") {
		return write(out, name, 0o755, 0, strings.NewReader(""))
	}
	file, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	mode := int64(0o644)
	if info.Mode()&0o111 != 0 {
		mode = 0o755
	}
	return write(out, name, mode, info.Size(), file)
}

func write(out *tar.Writer, name string, mode, size int64, from io.Reader) error {
	header := &tar.Header{Name: name, Mode: mode, Size: size, ModTime: time.Unix(0, 0), Typeflag: tar.TypeReg}
	if strings.HasSuffix(name, "/") {
		header.Typeflag = tar.TypeDir
	}
	if err := out.WriteHeader(header); err != nil {
		return err
	}
	_, err := io.Copy(out, from)
	return err
}

func sum(text []byte) string {
	digest := sha256.Sum256(text)
	return hex.EncodeToString(digest[:])
}
