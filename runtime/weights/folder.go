package weights

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/switchyard-dev/switchyard/runtime/quote"
)

// Folder is an opened model folder, a base's or an adapter's. Nothing outside it can be read through it: symlinks are
// followed while they stay inside (a Kubernetes volume is made of them), and refused once they leave.
type Folder struct {
	root *os.Root
	name string
}

// OpenFolder opens the folder at path, which is trusted and may itself be a symlink.
func OpenFolder(path string) (*Folder, error) {
	absolute, err := filepath.Abs(path)
	if path == "" || err != nil {
		return nil, fmt.Errorf("folder %s: expected a path, found none", quote.Name(path))
	}
	// With "/." only a folder can be opened; opening a FIFO would wait for its writer.
	root, err := os.OpenRoot(absolute + "/.")
	if err != nil {
		return nil, fmt.Errorf("folder %s: %w", quote.Name(path), cause(err))
	}
	return &Folder{root, filepath.Base(absolute)}, nil
}

// Sub opens a folder inside the folder. It is confined to itself, not to its parent.
func (f *Folder) Sub(name string) (*Folder, error) {
	if name == "" {
		return nil, errors.New(`folder "": expected a name, found none`)
	}
	root, err := f.root.OpenRoot(name + "/.") // as in OpenFolder
	if err != nil {
		return nil, fmt.Errorf("folder %s: %w", quote.Name(name), f.explain(err))
	}
	return &Folder{root, filepath.Base(name)}, nil
}

// Name is the folder's own name, the last element of its path.
func (f *Folder) Name() string { return f.name }

// Close closes the folder. Mappings of its files and sub-folders opened through it live on.
func (f *Folder) Close() error { return f.root.Close() }

// Entries lists the folder, sorted by name.
func (f *Folder) Entries() ([]fs.DirEntry, error) {
	entries, err := fs.ReadDir(f.root.FS(), ".")
	if err != nil {
		return nil, fmt.Errorf("folder %s: %w", quote.Name(f.name), cause(err))
	}
	return entries, nil
}

// Exists tells whether something of that name is in the folder, be it only a symlink that leads nowhere.
func (f *Folder) Exists(name string) bool {
	_, err := f.root.Lstat(name)
	return err == nil
}

// ReadFile reads a regular file of at most limit bytes. The error of a missing one is fs.ErrNotExist.
func (f *Folder) ReadFile(name string, limit int64) ([]byte, error) {
	file, size, err := f.open(name)
	if err != nil {
		return nil, fmt.Errorf("file %s: %w", quote.Name(name), err)
	}
	defer func() { _ = file.Close() }() // nothing was written
	if size > limit {
		return nil, fmt.Errorf("file %s: expected at most %d bytes, found %d", quote.Name(name), limit, size)
	}
	data, err := readExactly(file, size)
	if err != nil {
		return nil, fmt.Errorf("file %s: %w", quote.Name(name), err)
	}
	return data, nil
}

// ReadOptional is ReadFile, but nil if there is no such file.
func (f *Folder) ReadOptional(name string, limit int64) ([]byte, error) {
	if !f.Exists(name) {
		return nil, nil
	}
	return f.ReadFile(name, limit)
}

// Open opens a regular file of at most limit bytes, to be read piece by piece. The error of a missing one is
// fs.ErrNotExist.
func (f *Folder) Open(name string, limit int64) (io.ReadCloser, error) {
	file, size, err := f.open(name)
	if err != nil {
		return nil, fmt.Errorf("file %s: %w", quote.Name(name), err)
	}
	if size > limit {
		_ = file.Close() // nothing was written
		return nil, fmt.Errorf("file %s: expected at most %d bytes, found %d", quote.Name(name), limit, size)
	}
	return struct {
		io.Reader
		io.Closer
	}{io.LimitReader(file, size), file}, nil
}

// Mapping is a file's content, mapped read-only.
type Mapping struct{ Data []byte }

// Close unmaps the file: whatever still refers to Data must not be read again. Closing twice is harmless.
func (m *Mapping) Close() error {
	if len(m.Data) == 0 {
		return nil
	}
	data := m.Data
	m.Data = nil
	return unix.Munmap(data)
}

// MapFile maps a regular file. It is for bases only: if someone truncates the file while it is mapped, reading it kills
// the process (SIGBUS), so adapters, which come and go while others are served, are read instead.
func (f *Folder) MapFile(name string) (*Mapping, error) {
	file, size, err := f.open(name)
	if err != nil {
		return nil, fmt.Errorf("file %s: %w", quote.Name(name), err)
	}
	defer func() { _ = file.Close() }() // the mapping outlives it
	if size == 0 {
		return &Mapping{}, nil // the kernel refuses to map nothing
	}
	if int64(int(size)) != size {
		return nil, fmt.Errorf("file %s: expected a size that fits the address space, found %d bytes", quote.Name(name), size)
	}
	data, err := unix.Mmap(int(file.Fd()), 0, int(size), unix.PROT_READ, unix.MAP_PRIVATE)
	if err != nil {
		return nil, fmt.Errorf("file %s: mapping %d bytes: %w", quote.Name(name), size, err)
	}
	return &Mapping{data}, nil
}

// open opens a regular file and tells its size.
func (f *Folder) open(name string) (*os.File, int64, error) {
	// Asked before opening, because to open a device may already do something, and a socket gives an obscure error.
	info, err := f.root.Stat(name)
	if err != nil {
		return nil, 0, f.explain(err)
	}
	if err := checkRegular(info); err != nil {
		return nil, 0, err
	}
	// The name may stand for something else by now; O_NONBLOCK makes even a FIFO open at once.
	file, err := f.root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, 0, f.explain(err)
	}
	if info, err = file.Stat(); err == nil {
		err = checkRegular(info)
	}
	if err != nil {
		_ = file.Close() // nothing was written
		return nil, 0, cause(err)
	}
	return file, info.Size(), nil
}

// explain says in plain words that a path leaves the folder, and strips other errors of os to their cause.
func (f *Folder) explain(err error) error {
	err = cause(err)
	// os does not export the error for this, so it is asked for by a path that surely leaves.
	_, outside := f.root.Lstat("..")
	if errors.Is(err, cause(outside)) && !errors.Is(err, fs.ErrClosed) {
		return errors.New(`expected a path inside the folder, found one that leaves it (a symlink, ".." or absolute path)`)
	}
	return err
}

// cause strips os's own operation and path, which our messages give already.
func cause(err error) error {
	var pathErr *fs.PathError
	if errors.As(err, &pathErr) {
		return pathErr.Err
	}
	return err
}

// checkRegular refuses what is not a plain file, by its name.
func checkRegular(info fs.FileInfo) error {
	kind := "something else"
	switch mode := info.Mode(); {
	case mode.IsRegular():
		return nil
	case mode.IsDir():
		kind = "a folder"
	case mode&fs.ModeNamedPipe != 0:
		kind = "a named pipe"
	case mode&fs.ModeSocket != 0:
		kind = "a socket"
	case mode&fs.ModeDevice != 0:
		kind = "a device"
	}
	return fmt.Errorf("expected a regular file, found %s", kind)
}

// readExactly reads the size bytes a file had when it was opened; one that shrinks or grows meanwhile is being written
// by someone, and whatever was read of it is not to be trusted.
func readExactly(r io.Reader, size int64) ([]byte, error) {
	data := make([]byte, size)
	n, err := io.ReadFull(r, data)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, fmt.Errorf("expected %d bytes, found %d: it shrank while it was read", size, n)
	}
	if err != nil {
		return nil, cause(err)
	}
	switch n, err := io.ReadFull(r, make([]byte, 1)); {
	case n > 0:
		return nil, fmt.Errorf("expected %d bytes, found more: it grew while it was read", size)
	case !errors.Is(err, io.EOF):
		return nil, cause(err)
	}
	return data, nil
}
