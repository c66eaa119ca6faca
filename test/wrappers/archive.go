package wrappers

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"os"
	"path/filepath"
	"testing"
)

// ArchiveBuilder is a .tar.gz in the making. Nothing is checked, so that tests can build wrong ones.
type ArchiveBuilder struct {
	t    testing.TB
	data bytes.Buffer
	tar  *tar.Writer
}

// Archive begins an archive without entries.
func Archive(t testing.TB) *ArchiveBuilder {
	b := &ArchiveBuilder{t: t}
	b.tar = tar.NewWriter(&b.data)
	return b
}

// File adds a file.
func (b *ArchiveBuilder) File(path, content string) *ArchiveBuilder {
	return b.Entry(tar.Header{Typeflag: tar.TypeReg, Name: path, Mode: 0o600, Size: int64(len(content))}, content)
}

// Link adds a link of a type to somewhere.
func (b *ArchiveBuilder) Link(kind byte, path, target string) *ArchiveBuilder {
	return b.Entry(tar.Header{Typeflag: kind, Name: path, Linkname: target}, "")
}

// Entry adds anything.
func (b *ArchiveBuilder) Entry(h tar.Header, content string) *ArchiveBuilder {
	if err := b.tar.WriteHeader(&h); err != nil {
		b.t.Fatal(err)
	}
	if _, err := b.tar.Write([]byte(content)); err != nil {
		b.t.Fatal(err)
	}
	return b
}

// Folder adds the files of a folder, each with a prefix before its name.
func (b *ArchiveBuilder) Folder(prefix, dir string) *ArchiveBuilder {
	entries, err := os.ReadDir(dir)
	if err != nil {
		b.t.Fatal(err)
	}
	for _, e := range entries {
		content, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			b.t.Fatal(err)
		}
		b.File(prefix+e.Name(), string(content))
	}
	return b
}

// Tar is the archive before it is compressed.
func (b *ArchiveBuilder) Tar() []byte {
	if err := b.tar.Close(); err != nil {
		b.t.Fatal(err)
	}
	return b.data.Bytes()
}

// Bytes is the archive.
func (b *ArchiveBuilder) Bytes() []byte { return Gzip(b.t, b.Tar()) }

// Gzip compresses.
func Gzip(t testing.TB, data []byte) []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}
