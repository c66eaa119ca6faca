package artifact_test

import (
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/switchyard-dev/switchyard/controllers/artifact"
	"github.com/switchyard-dev/switchyard/runtime/peft"
	"github.com/switchyard-dev/switchyard/test/disk"
	"github.com/switchyard-dev/switchyard/test/ocisource"
	"github.com/switchyard-dev/switchyard/test/wrappers"
)

// noise is an artifact of so many bytes that are like no other's.
func noise(t *testing.T, size int) *artifact.Packed {
	t.Helper()
	return pack(t, artifact.Adapter, wrappers.Noise(t, size), peft.Settings{})
}

// A full disk refuses what has no room, and keeps and takes the rest; what was refused leaves nothing behind, so that
// it is taken when there is room again.
func TestAFullDisk(t *testing.T) {
	dir := disk.Small(t, "8m")
	s := store(t, serve(t, keep(dir)), token)
	first, large, small := noise(t, 2<<20), noise(t, 10<<20), noise(t, 1<<20)
	if err := s.Push(t.Context(), repo, first); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		expectUnavailable(t, s.Push(t.Context(), repo, large), "it is not able to answer: status 500")
	}
	expectExists(t, s, repo, first.Digest, true)
	expectExists(t, s, repo, large.Digest, false)
	if err := s.Push(t.Context(), repo, small); err != nil {
		t.Errorf("what has room: %v", err)
	}
	disk.Resize(t, dir, "32m")
	if err := s.Push(t.Context(), repo, large); err != nil {
		t.Errorf("when there is room: %v", err)
	}
	for _, p := range []*artifact.Packed{first, large, small} {
		expectExists(t, s, repo, p.Digest, true)
	}
}

// Where the manager's own disk is full it is not the artifact that is wrong: what is fetched then is fetched again, and
// comes once there is room. An archive fills it as it comes, or as it is unpacked.
func TestAFullDiskToFetchTo(t *testing.T) {
	large, zeros := make([]byte, 6<<20), strings.Repeat("\x00", 6<<20)
	_, _ = rand.Read(large) // never fails
	host := sourceRegistry(t)
	revision, err := ocisource.Push(t.Context(), host+"/a:v1", wrappers.Noise(t, 6<<20))
	if err != nil {
		t.Fatal(err)
	}
	for name, from := range map[string]artifact.Origin{
		"an archive":            {URL: web(t, gives(adapterArchive(t).File("config.json", string(large)).Bytes())) + "/a"},
		"what is in an archive": {URL: web(t, gives(adapterArchive(t).File("config.json", zeros).Bytes())) + "/a"},
		"an artifact":           oci(host + "/a@" + revision),
	} {
		t.Run(name, func(t *testing.T) {
			on := disk.Small(t, "4m")
			fetch := func(name string) (string, error) {
				dir := filepath.Join(on, name)
				if err := os.Mkdir(dir, 0o700); err != nil {
					t.Fatal(err)
				}
				_, err := newFetcher(artifact.FetcherOptions{}).Fetch(t.Context(), artifact.Adapter, from, "", dir)
				return dir, err
			}
			dir, err := fetch("first")
			var e *artifact.Error // what is the source's fault
			if !errors.Is(err, syscall.ENOSPC) || errors.As(err, &e) {
				t.Fatalf("expected no space left, found %v", err)
			}
			if err := os.RemoveAll(dir); err != nil { // as who fetches does
				t.Fatal(err)
			}
			disk.Resize(t, on, "32m")
			if _, err = fetch("again"); err != nil {
				t.Errorf("when there is room: %v", err)
			}
		})
	}
}
