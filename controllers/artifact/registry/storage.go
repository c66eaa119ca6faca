package registry

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"regexp"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry/storage/driver"
	"github.com/distribution/distribution/v3/registry/storage/driver/factory"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/filesystem" // Options.Dir
	_ "github.com/distribution/distribution/v3/registry/storage/driver/s3-aws"     // Options.S3
)

// S3 is a bucket. Who we are there is found as the AWS SDK finds it: in the environment, in files, by web identity.
type S3 struct {
	Bucket    string
	Region    string // us-east-1 where there is an endpoint
	Endpoint  string // of another than AWS: https://host:port
	Prefix    string // before every key
	PathStyle bool   // the bucket's name in the path rather than in the host's name
}

// storage is where artifacts are kept, in distribution's terms.
func (o *Options) storage() (kind string, parameters configuration.Parameters, err error) {
	switch {
	case (o.Dir == "") == (o.S3 == nil):
		return "", nil, errors.New("registry: expected either a folder or a bucket")
	case o.S3 == nil:
		if err := os.MkdirAll(o.Dir, 0o700); err != nil {
			return "", nil, fmt.Errorf("registry: %w", err)
		}
		return "filesystem", configuration.Parameters{"rootdirectory": o.Dir}, nil
	case o.S3.Bucket == "" || o.S3.Region == "" && o.S3.Endpoint == "":
		return "", nil, errors.New("registry: expected a bucket and its region or endpoint")
	}
	return "s3", configuration.Parameters{
		"bucket": o.S3.Bucket, "region": cmp.Or(o.S3.Region, "us-east-1"), "regionendpoint": o.S3.Endpoint,
		"rootdirectory": o.S3.Prefix, "forcepathstyle": o.S3.PathStyle,
	}, nil
}

// Where distribution keeps what, by its layout's version 2.
const (
	repositoriesPath = "/docker/registry/v2/repositories"
	blobsPath        = "/docker/registry/v2/blobs/sha256"
	revisionsPath    = "_manifests/revisions/sha256"
	layersPath       = "_layers/sha256"
	uploadsPath      = "_uploads"
)

// maxManifest is the largest that distribution takes.
const maxManifest = 4 << 20

var (
	hexDigest      = regexp.MustCompile(`^[a-f0-9]{64}$`)
	repositoryPart = regexp.MustCompile(`^[a-z0-9-]{1,63}$`)
)

// shelves are what distribution keeps, past its registry: for what that does not do.
type shelves struct{ driver driver.StorageDriver }

func newShelves(ctx context.Context, kind string, parameters configuration.Parameters) (*shelves, error) {
	d, err := factory.Create(ctx, kind, parameters)
	if err != nil {
		return nil, fmt.Errorf("registry: %w", err)
	}
	return &shelves{d}, nil
}

func blobPath(digest string) string {
	hex := digest[len("sha256:"):]
	return path.Join(blobsPath, hex[:2], hex)
}

func dataPath(digest string) string { return path.Join(blobPath(digest), "data") }

func linkPath(repository, kind, digest string) string {
	return path.Join(repositoriesPath, repository, kind, digest[len("sha256:"):])
}

// names are those in a folder, none where there is no folder.
func (s *shelves) names(ctx context.Context, folder string) ([]string, error) {
	found, err := s.driver.List(ctx, folder)
	if missing(err) {
		return nil, nil
	}
	for i := range found {
		found[i] = path.Base(found[i])
	}
	return found, err
}

// repositories are all, as namespace/pool.
func (s *shelves) repositories(ctx context.Context) (all []string, err error) {
	namespaces, err := s.names(ctx, repositoriesPath)
	if err != nil {
		return nil, err
	}
	for _, namespace := range namespaces {
		pools, err := s.names(ctx, path.Join(repositoriesPath, namespace))
		if err != nil {
			return nil, err
		}
		for _, pool := range pools {
			if repositoryPart.MatchString(namespace) && repositoryPart.MatchString(pool) { // else not ours
				all = append(all, namespace+"/"+pool)
			}
		}
	}
	return all, nil
}

// links are the digests that a repository has of a kind.
func (s *shelves) links(ctx context.Context, repository, kind string) ([]string, error) {
	return s.digests(ctx, path.Join(repositoriesPath, repository, kind))
}

// digests are those that a folder has by their hexadecimal digits.
func (s *shelves) digests(ctx context.Context, folder string) ([]string, error) {
	names, err := s.names(ctx, folder)
	found := names[:0]
	for _, name := range names {
		if hexDigest.MatchString(name) {
			found = append(found, "sha256:"+name)
		}
	}
	return found, err
}

// remove removes a folder with all in it, if it is there.
func (s *shelves) remove(ctx context.Context, folder string) error {
	if err := s.driver.Delete(ctx, folder); err != nil && !missing(err) {
		return err
	}
	return nil
}

// size is that of a blob, 0 where there is none.
func (s *shelves) size(ctx context.Context, digest string) (int64, error) {
	info, err := s.driver.Stat(ctx, dataPath(digest))
	switch {
	case missing(err):
		return 0, nil
	case err != nil:
		return 0, err
	}
	return info.Size(), nil
}

// manifest reads one; nil if it is not there, or is not what its digest says.
func (s *shelves) manifest(ctx context.Context, digest string) ([]byte, error) {
	from, err := s.driver.Reader(ctx, dataPath(digest), 0)
	switch {
	case missing(err):
		return nil, nil
	case err != nil:
		return nil, err
	}
	defer func() { _ = from.Close() }() // only read
	raw, err := io.ReadAll(io.LimitReader(from, maxManifest+1))
	if err != nil || digestOf(raw) != digest {
		return nil, err
	}
	return raw, nil
}

// whole tells whether the bytes that are kept under a digest are its own; also if there are none. each is called with
// the length of every piece before the next is read.
func (s *shelves) whole(ctx context.Context, digest string, each func(n int) error) (ok bool, size int64, err error) {
	from, err := s.driver.Reader(ctx, dataPath(digest), 0)
	switch {
	case missing(err):
		return true, 0, nil
	case err != nil:
		return false, 0, err
	}
	defer func() { _ = from.Close() }() // only read
	hash, piece := sha256.New(), make([]byte, pieceSize)
	for {
		n, err := from.Read(piece)
		_, _ = hash.Write(piece[:n]) // never fails
		size += int64(n)
		if errors.Is(err, io.EOF) {
			return "sha256:"+hex.EncodeToString(hash.Sum(nil)) == digest, size, nil
		}
		if err == nil {
			err = each(n)
		}
		if err != nil {
			return false, size, err
		}
	}
}

// pieceSize is how much of a blob is read at once.
const pieceSize = 256 << 10

func missing(err error) bool {
	var none driver.PathNotFoundError
	return errors.As(err, &none)
}

// sum is a digest in few bytes.
type sum [sha256.Size]byte

func sumOf(digest string) (s sum) {
	_, _ = hex.Decode(s[:], []byte(digest[len("sha256:"):])) // it was looked at
	return s
}

func digestOf(raw []byte) string {
	made := sha256.Sum256(raw)
	return "sha256:" + hex.EncodeToString(made[:])
}

// references are the blobs that a manifest names.
func references(raw []byte) (digests []string) {
	type descriptor struct{ Digest string }
	var m struct {
		Config descriptor
		Layers []descriptor
	}
	if json.Unmarshal(raw, &m) != nil {
		return nil // nothing that is taken for a manifest
	}
	for _, blob := range append(m.Layers, m.Config) {
		if byDigest.MatchString(blob.Digest) {
			digests = append(digests, blob.Digest)
		}
	}
	return digests
}
