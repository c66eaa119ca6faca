package artifact

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"os"
	"strings"
	"testing"
)

// fuzzArchive makes an archive of lines: the type of an entry, its path, a space and its content. One byte of it is
// changed before it is compressed, and so many are cut off its end then.
func fuzzArchive(lines string, at, change, cut int) []byte {
	var data, out bytes.Buffer
	files := tar.NewWriter(&data)
	for line := range strings.SplitSeq(lines, "\n") {
		if line == "" {
			continue
		}
		path, content, _ := strings.Cut(line[1:], " ")
		h := tar.Header{Typeflag: line[0], Name: path, Mode: 0o600}
		switch line[0] {
		case tar.TypeReg:
			h.Size = int64(len(content))
		default:
			h.Linkname, content = content, ""
		}
		if files.WriteHeader(&h) == nil { // which takes not everything
			_, _ = files.Write([]byte(content))
		}
	}
	_ = files.Close()
	raw := data.Bytes()
	if len(raw) > 0 && at >= 0 {
		raw[at%len(raw)] ^= byte(change)
	}
	w := gzip.NewWriter(&out)
	_, _ = w.Write(raw)
	_ = w.Close()
	if cut > 0 {
		out.Truncate(max(out.Len()-cut, 0))
	}
	return out.Bytes()
}

// Whatever an archive holds, it is refused as invalid in few words, or its files are in the folder: those that a kind
// is made of, as large as there is room for, and nothing anywhere else.
func FuzzUnpack(f *testing.F) {
	f.Add("0adapter_config.json {}\n0adapter_model.safetensors x", 0, 0, 0)
	f.Fuzz(func(t *testing.T, lines string, at, change, cut int) {
		outside := t.TempDir()
		dir := outside + "/inside"
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		root, err := os.OpenRoot(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = root.Close() }()
		const most = 4096
		archive := bytes.NewReader(fuzzArchive(lines, at, change, cut))
		err = unpack(t.Context(), "source", archive, Adapter, bounds{entries: 16, bytes: most}, root)
		var e *Error
		if err != nil && (!errors.As(err, &e) || e.Reason != Invalid || len(e.Error()) > 2000) {
			t.Fatalf("expected it invalid, found %v", err)
		}
		around, _ := os.ReadDir(outside)
		entries, _ := os.ReadDir(dir)
		var size int64
		found := map[string]bool{}
		for _, entry := range entries {
			info, err := entry.Info()
			if err != nil || !info.Mode().IsRegular() || !Adapter.format().has(entry.Name()) {
				t.Fatalf("expected files of an adapter, found %v, %v", info, err)
			}
			found[entry.Name()] = true
			size += info.Size()
		}
		if size > most || len(around) != 1 {
			t.Fatalf("expected at most %d bytes in one folder, found %d in %v", most, size, around)
		}
		for _, name := range Adapter.format().required {
			if err == nil && !found[name] {
				t.Fatalf("expected %s, found %v", name, found)
			}
		}
	})
}
