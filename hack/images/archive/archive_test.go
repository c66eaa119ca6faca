package archive_test

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/switchyard-dev/switchyard/hack/images/archive"
)

func image(t *testing.T) archive.Image {
	t.Helper()
	dir := t.TempDir()
	for name, mode := range map[string]os.FileMode{"program": 0o750, "data/b/c.txt": 0o600, "data/a.txt": 0o644} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(name), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, time.Now(), time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	return archive.Image{
		Name: "example.com/a/b:c", Entrypoint: []string{"/program"},
		Files: map[string]string{"/program": filepath.Join(dir, "program"), "/srv/data": filepath.Join(dir, "data")},
	}
}

func written(t *testing.T, i archive.Image) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := i.Write(&out); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestTheSameFilesGiveTheSameBytes(t *testing.T) {
	if !bytes.Equal(written(t, image(t)), written(t, image(t))) { // of other folders and times
		t.Error("two archives of the same files differ")
	}
}

func TestAnArchiveIsWhatItsManifestSays(t *testing.T) {
	parts := contents(t, written(t, image(t)))
	var manifest []struct {
		Config           string
		RepoTags, Layers []string
	}
	decode(t, parts["manifest.json"], &manifest)
	if len(manifest) != 1 || len(manifest[0].Layers) != 1 ||
		!reflect.DeepEqual(manifest[0].RepoTags, []string{"example.com/a/b:c"}) {
		t.Fatalf("manifest: %s", parts["manifest.json"])
	}
	var config struct {
		Config struct {
			User       string
			Entrypoint []string
		}
		Rootfs struct {
			DiffIDs []string `json:"diff_ids"`
		}
	}
	raw, layer := parts[manifest[0].Config], parts[manifest[0].Layers[0]]
	decode(t, raw, &config)
	if config.Config.User != "65532:65532" || !reflect.DeepEqual(config.Config.Entrypoint, []string{"/program"}) {
		t.Errorf("expected the program run by 65532, found %s", raw)
	}
	if want := []string{"sha256:" + digest(layer)}; !reflect.DeepEqual(config.Rootfs.DiffIDs, want) {
		t.Errorf("layer: expected %v, found %v", want, config.Rootfs.DiffIDs)
	}
	if want := digest(raw) + ".json"; manifest[0].Config != want {
		t.Errorf("config: expected the name %s, found %s", want, manifest[0].Config)
	}

	var names []string
	for _, h := range headers(t, layer) {
		names = append(names, h.Name)
		if h.Uid != 0 || h.Gid != 0 || !h.ModTime.Equal(time.Unix(0, 0)) {
			t.Errorf("%s: expected root's and of the epoch, found %+v", h.Name, h)
		}
		if runs := h.Mode&0o111 != 0; runs != (h.Name == "program" || h.Typeflag == tar.TypeDir) || h.Mode&0o022 != 0 {
			t.Errorf("%s has the mode %o", h.Name, h.Mode)
		}
	}
	want := []string{"program", "srv/", "srv/data/", "srv/data/a.txt", "srv/data/b/", "srv/data/b/c.txt"}
	if !reflect.DeepEqual(names, want) {
		t.Errorf("expected %v, found %v", want, names)
	}
}

func TestAMissingFileLeavesNothing(t *testing.T) {
	i, dir := image(t), t.TempDir()
	i.Files["/other"] = filepath.Join(dir, "missing")
	if err := i.WriteFile(filepath.Join(dir, "image.tar")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("expected that a file is missing, found %v", err)
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func contents(t *testing.T, archive []byte) map[string][]byte {
	t.Helper()
	parts := map[string][]byte{}
	for reader := tar.NewReader(bytes.NewReader(archive)); ; {
		h, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return parts
		}
		if err != nil {
			t.Fatal(err)
		}
		if parts[h.Name], err = io.ReadAll(reader); err != nil {
			t.Fatal(err)
		}
	}
}

func headers(t *testing.T, archive []byte) (all []*tar.Header) {
	t.Helper()
	for reader := tar.NewReader(bytes.NewReader(archive)); ; {
		h, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, h)
	}
}

func decode(t *testing.T, raw []byte, into any) {
	t.Helper()
	if err := json.Unmarshal(raw, into); err != nil {
		t.Fatalf("%s: %v", raw, err)
	}
}

func digest(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}
