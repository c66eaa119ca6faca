package artifact

import (
	"archive/tar"
	"compress/flate"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/switchyard-dev/switchyard/runtime/quote"
)

const (
	// maxPath is what a path in an archive may have, in bytes.
	maxPath = 1024
	// maxNames is how many names a message may choose from.
	maxNames = 16
	// headers is what an archive may have beside its files' bytes: names, attributes, padding.
	headers = 16 << 20
)

// bounds of an archive.
type bounds struct {
	entries int   // those that are skipped too
	bytes   int64 // of all its files
}

// unpack reads a .tar.gz to its end and writes the files that a kind is made of into a folder. They are at the
// archive's root, or in the one folder that holds all of it; what lies deeper is skipped. An archive that has in it
// what could lead out of a folder is refused, wherever that is.
func unpack(
	ctx context.Context, where string, archive io.Reader, kind Kind, limits bounds, root *os.Root,
) error {
	u := &unpacker{
		where: where, format: kind.format(), limits: limits, left: limits.bytes, root: root,
		paths: map[string]bool{}, names: map[string]bool{},
	}
	unzipped, err := gzip.NewReader(archive)
	if err != nil {
		return u.unreadable(ctx, err)
	}
	all := &limited{ctx.Err, unzipped, limits.bytes + headers}
	files := tar.NewReader(all)
	for {
		header, err := files.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return u.unreadable(ctx, err)
		}
		if err := u.entry(header, files); err != nil {
			return u.unreadable(ctx, err)
		}
	}
	// gzip's checksum is behind all of it.
	if _, err := io.Copy(io.Discard, all); err != nil {
		return u.unreadable(ctx, err)
	}
	there := func(name string) bool { return u.names[name] }
	if name := u.format.lacks(there); name != "" {
		return invalid(where, "expected the file %s at the archive's root or in the one folder there, found %s",
			name, missing(u.format, there, u.told))
	}
	return nil
}

// unpacker unpacks one archive.
type unpacker struct {
	where  string
	format format
	limits bounds
	root   *os.Root

	entries int
	left    int64           // of the bytes
	paths   map[string]bool // of files

	// All seen so far is in the folder top, unless flat: then the root is where files count.
	flat  bool
	top   string
	names map[string]bool // of the files that count
	told  []string        // some of them, and of the folders beside them
}

// entry takes up one entry.
func (u *unpacker) entry(h *tar.Header, content io.Reader) error {
	if u.entries++; u.entries > u.limits.entries {
		return invalid(u.where, "expected an archive of at most %d entries, found more", u.limits.entries)
	}
	if h.Typeflag == tar.TypeXGlobalHeader { // a comment, as git archive writes
		return nil
	}
	parts, ok := splitPath(h.Name)
	if !ok {
		return invalid(u.where, "entry %d: expected a path that stays within the archive, found %s",
			u.entries, quote.Name(h.Name))
	}
	path := strings.Join(parts, "/")
	if h.Typeflag != tar.TypeReg && h.Typeflag != tar.TypeDir {
		return invalid(u.where, "%s: expected files and folders only, found %s", quote.Name(path), specialEntry(h.Typeflag))
	}
	if len(parts) == 0 {
		return nil
	}
	isFile := h.Typeflag == tar.TypeReg
	if isFile && u.paths[path] {
		return invalid(u.where, "expected each file once, found %s twice", quote.Name(path))
	}
	if isFile {
		u.paths[path] = true
		if h.Size < 0 || h.Size > u.left {
			return invalid(u.where, "%s: expected at most %d bytes for all files, found more", quote.Name(path), u.limits.bytes)
		}
		u.left -= h.Size
	}
	name, err := u.place(parts, isFile)
	if err != nil || name == "" {
		return err
	}
	u.names[name] = true
	if !u.format.has(name) {
		return nil
	}
	return write(u.root, name, content)
}

// place is the name under which a file counts, "" for one that does not.
func (u *unpacker) place(parts []string, isFile bool) (string, error) {
	if parts[0][0] == '.' || parts[0] == "__MACOSX" { // what file managers leave behind
		return "", nil
	}
	if !u.flat && (isFile && len(parts) == 1 || u.top != "" && parts[0] != u.top) {
		if err := u.flatten(); err != nil {
			return "", err
		}
	}
	if u.top == "" {
		u.top = parts[0]
	}
	if u.flat {
		u.tell(parts[0], isFile && len(parts) == 1)
	} else if len(parts) > 1 {
		u.tell(parts[1], isFile && len(parts) == 2)
		parts = parts[1:]
	}
	if !isFile || len(parts) != 1 {
		return "", nil
	}
	return parts[0], nil
}

// flatten takes back what was written from a folder that turns out not to be the only thing there.
func (u *unpacker) flatten() error {
	for name := range u.names {
		if !u.format.has(name) {
			continue
		}
		if err := u.root.Remove(name); err != nil {
			return local{err}
		}
	}
	clear(u.names)
	u.flat, u.told = true, nil
	if u.top != "" {
		u.tell(u.top, false)
	}
	return nil
}

func (u *unpacker) tell(name string, isFile bool) {
	if !isFile {
		name += "/"
	}
	if len(u.told) < maxNames && !slices.Contains(u.told, name) {
		u.told = append(u.told, name)
	}
}

// splitPath is a path's parts, if it stays where it is.
func splitPath(path string) (parts []string, ok bool) {
	if path == "" || len(path) > maxPath || path[0] == '/' || !utf8.ValidString(path) ||
		strings.ContainsAny(path, "\\\x00") {
		return nil, false
	}
	for part := range strings.SplitSeq(path, "/") {
		switch part {
		case "", ".":
		case "..":
			return nil, false
		default:
			parts = append(parts, part)
		}
	}
	return parts, true
}

// specialEntry names an entry that is neither file nor folder.
func specialEntry(kind byte) string {
	switch kind {
	case tar.TypeSymlink:
		return "a symbolic link"
	case tar.TypeLink:
		return "a hard link"
	case tar.TypeChar, tar.TypeBlock:
		return "a device"
	case tar.TypeFifo:
		return "a pipe"
	case tar.TypeGNUSparse:
		return "a file with holes"
	}
	return "something else"
}

// write writes one file.
func write(root *os.Root, name string, content io.Reader) error {
	file, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return local{err}
	}
	_, err = io.Copy(disk{file}, content)
	if closed := file.Close(); err == nil && closed != nil {
		return local{closed}
	}
	return err
}

// errTooMuch is what an archive's bytes end with if they do not end by themselves.
var errTooMuch = errors.New("too much")

// limited reads so many bytes, while it may.
type limited struct {
	stopped func() error
	from    io.Reader
	left    int64
}

// Read reads, or says that it has been enough.
func (l *limited) Read(p []byte) (int, error) {
	if err := l.stopped(); err != nil {
		return 0, err
	}
	if l.left <= 0 {
		return 0, errTooMuch
	}
	n, err := l.from.Read(p[:min(int64(len(p)), l.left)])
	l.left -= int64(n)
	return n, err
}

// unreadable says what is wrong with an archive that ends in an error.
func (u *unpacker) unreadable(ctx context.Context, err error) error {
	var e *Error
	var path *fs.PathError
	var corrupt flate.CorruptInputError
	switch {
	case errors.As(err, &e):
		return err
	case ctx.Err() != nil, errors.As(err, &local{}):
		return explain(ctx, place{name: u.where}, err)
	case errors.As(err, &path): // of the file that is read
		return explain(ctx, place{name: u.where}, local{err})
	case errors.Is(err, errTooMuch):
		return invalid(u.where, "expected an archive of at most %d bytes unpacked, found more", u.limits.bytes)
	case errors.Is(err, io.ErrUnexpectedEOF):
		return invalid(u.where, "expected a whole .tar.gz, found one that is cut off")
	case errors.Is(err, gzip.ErrChecksum), errors.As(err, &corrupt):
		return invalid(u.where, "expected a .tar.gz, found one that is damaged")
	case errors.Is(err, tar.ErrHeader):
		return invalid(u.where, "expected a .tar.gz, found something else compressed by gzip")
	}
	return invalid(u.where, "expected a .tar.gz, found something else")
}
