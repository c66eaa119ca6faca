package weights_test

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/switchyard-dev/switchyard/runtime/weights"
)

const leaves = `expected a path inside the folder, found one that leaves it (a symlink, ".." or absolute path)`

func TestReadFile(t *testing.T) {
	path := t.TempDir()
	write(t, filepath.Join(path, "four"), "1234")
	write(t, filepath.Join(path, "none"), "")
	folder := open(t, path)
	for _, c := range []struct {
		name  string
		limit int64
		want  string
		err   string
	}{
		{"four", 100, "1234", ""},
		{"four", 4, "1234", ""},
		{"four", 3, "", `file "four": expected at most 3 bytes, found 4`},
		{"none", 0, "", ""},
		{"missing", 4, "", `file "missing": no such file or directory`},
		{"missing/four", 4, "", `file "missing/four": no such file or directory`},
		{"four/four", 4, "", `file "four/four": not a directory`},
		{"", 4, "", `file "": empty path`},
		{"a\nb", 4, "", `file "a\nb": no such file or directory`},
	} {
		got, err := folder.ReadFile(c.name, c.limit)
		if c.err != "" {
			wantError(t, c.err, err)
			continue
		}
		if err != nil {
			t.Error(err)
		}
		diff(t, c.want, string(got))
	}
	if _, err := folder.ReadFile("missing", 4); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("expected fs.ErrNotExist, found %v", err)
	}
}

func TestMapFile(t *testing.T) {
	path := t.TempDir()
	write(t, filepath.Join(path, "four"), "1234")
	write(t, filepath.Join(path, "none"), "")
	folder := open(t, path)
	for name, want := range map[string]string{"four": "1234", "none": ""} {
		mapping, err := folder.MapFile(name)
		if err != nil {
			t.Fatal(err)
		}
		diff(t, want, string(mapping.Data))
		for range 2 {
			if err := mapping.Close(); err != nil {
				t.Error(err)
			}
		}
	}
	if _, err := folder.MapFile("missing"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("expected fs.ErrNotExist, found %v", err)
	}
}

// None of these may hang: a FIFO that nobody writes to would, if it were opened as a file is.
func TestOnlyRegularFilesAreRead(t *testing.T) {
	path := t.TempDir()
	if err := unix.Mkfifo(filepath.Join(path, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(path, "folder"), 0o700); err != nil {
		t.Fatal(err)
	}
	link(t, "fifo", filepath.Join(path, "link"))
	socket, err := net.Listen("unix", filepath.Join(path, "socket"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = socket.Close() }()

	folder := open(t, path)
	for name, want := range map[string]string{
		"fifo":   "a named pipe",
		"link":   "a named pipe",
		"folder": "a folder",
		"socket": "a socket",
	} {
		want := `file "` + name + `": expected a regular file, found ` + want
		_, err := folder.ReadFile(name, 1)
		wantError(t, want, err)
		_, err = folder.MapFile(name)
		wantError(t, want, err)
	}
	_, err = open(t, "/dev").ReadFile("null", 1)
	wantError(t, `file "null": expected a regular file, found a device`, err)

	for name, why := range map[string]string{
		"fifo": "not a directory", "link": "not a directory", "socket": "not a directory",
		"missing": "no such file or directory", "..": leaves,
	} {
		_, err := folder.Sub(name)
		wantError(t, `folder "`+name+`": `+why, err)
	}
	_, err = folder.Sub("")
	wantError(t, `folder "": expected a name, found none`, err)
	_, err = weights.OpenFolder(filepath.Join(path, "fifo"))
	wantError(t, `folder "`+filepath.Join(path, "fifo")+`": not a directory`, err)
	_, err = weights.OpenFolder("")
	wantError(t, `folder "": expected a path, found none`, err)
	_, err = weights.OpenFolder(filepath.Join(path, "missing"))
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("expected fs.ErrNotExist, found %v", err)
	}
}

func TestNothingOutsideIsRead(t *testing.T) {
	outside, path := t.TempDir(), t.TempDir()
	write(t, filepath.Join(outside, "secret"), "secret")
	write(t, filepath.Join(path, "inside"), "inside")
	if err := os.Mkdir(filepath.Join(path, "sub"), 0o700); err != nil {
		t.Fatal(err)
	}
	link(t, filepath.Join(outside, "secret"), filepath.Join(path, "absolute"))
	link(t, "../"+filepath.Base(outside)+"/secret", filepath.Join(path, "relative"))
	link(t, outside, filepath.Join(path, "folder"))
	link(t, filepath.Join(path, "inside"), filepath.Join(path, "absolute-inside"))
	link(t, "../inside", filepath.Join(path, "sub", "up"))
	link(t, "loop", filepath.Join(path, "loop"))
	folder := open(t, path)

	for _, name := range []string{
		"absolute", "relative", "folder/secret", "absolute-inside", filepath.Join(outside, "secret"),
		"../" + filepath.Base(outside) + "/secret", "..", "sub/../../" + filepath.Base(outside) + "/secret",
	} {
		want := `file "` + name + `": ` + leaves
		_, err := folder.ReadFile(name, 100)
		wantError(t, want, err)
		_, err = folder.MapFile(name)
		wantError(t, want, err)
	}
	_, err := folder.Sub("folder")
	wantError(t, `folder "folder": `+leaves, err)
	if folder.Exists("../" + filepath.Base(outside)) {
		t.Error("something outside was found by Exists")
	}
	_, err = folder.ReadFile("loop", 100)
	wantError(t, `file "loop": too many levels of symbolic links`, err)

	// The same link is inside as seen from the folder, and outside as seen from the sub-folder.
	if _, err := folder.ReadFile("sub/up", 100); err != nil {
		t.Error(err)
	}
	_, err = sub(t, folder, "sub").ReadFile("up", 100)
	wantError(t, `file "up": `+leaves, err)
}

// A Kubernetes volume: each file is a link to ..data, which is a link to the folder of the current version.
func TestAKubernetesVolumeIsRead(t *testing.T) {
	volume := t.TempDir()
	adapter := filepath.Join(volume, "..2026_01_01", "parity")
	if err := os.MkdirAll(adapter, 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(adapter, "adapter_config.json"), "{}")
	link(t, "..2026_01_01", filepath.Join(volume, "..data"))
	link(t, "..data/parity", filepath.Join(volume, "parity"))
	link(t, "..data/gone", filepath.Join(volume, "dangling"))

	folder := open(t, volume)
	parity := sub(t, folder, "parity")
	diff(t, "parity", parity.Name())
	data, err := parity.ReadFile("adapter_config.json", 100)
	if err != nil {
		t.Fatal(err)
	}
	diff(t, "{}", string(data))

	for name, want := range map[string]bool{"parity": true, "dangling": true, "missing": false} {
		if folder.Exists(name) != want {
			t.Errorf("Exists(%q): expected %v", name, want)
		}
	}
	if _, err := folder.ReadFile("dangling", 1); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("expected fs.ErrNotExist, found %v", err)
	}
	entries, err := folder.Entries()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	diff(t, []string{"..2026_01_01", "..data", "dangling", "parity"}, names)
}

func TestAClosedFolderSaysSo(t *testing.T) {
	folder := open(t, t.TempDir())
	if err := folder.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := folder.ReadFile("a", 1); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("expected fs.ErrClosed, found %v", err)
	}
	if _, err := folder.Entries(); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("expected fs.ErrClosed, found %v", err)
	}
}

func TestAFolderIsNamedAfterItsPath(t *testing.T) {
	path := filepath.Join(t.TempDir(), "parity")
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Chdir(path)
	for _, path := range []string{path, path + "/", "."} {
		diff(t, "parity", open(t, path).Name())
	}
}

func open(t *testing.T, path string) *weights.Folder {
	t.Helper()
	folder, err := weights.OpenFolder(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = folder.Close() })
	return folder
}

func sub(t *testing.T, folder *weights.Folder, name string) *weights.Folder {
	t.Helper()
	sub, err := folder.Sub(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sub.Close() })
	return sub
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func link(t *testing.T, to, path string) {
	t.Helper()
	if err := os.Symlink(to, path); err != nil {
		t.Fatal(err)
	}
}
