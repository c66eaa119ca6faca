package artifacts

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// marksDir holds a mark for each revision that is being loaded, or that ended a former process while it was. All that a
// mark says is in its name, <hex of the digest>-<crashes>[-loading]: it is never half written, changing it is one
// rename, and it fits a disk that is full.
const marksDir = "marks"

const loadingSuffix = "-loading"

// maxCrashes is as far as is counted.
const maxCrashes = 9

var markGrammar = regexp.MustCompile(`^([0-9a-f]{64})-([0-9])(` + loadingSuffix + `)?$`)

func markName(digest string, crashes int, suffix string) string {
	return hexOf(digest) + "-" + strconv.Itoa(min(crashes, maxCrashes)) + suffix
}

// Crashes tells how many former processes ended while they loaded a revision, by digest, and counts those whose marks
// still say that they do. It is for the start of a process, once. Files that are no marks are removed.
func (s *Store) Crashes() (map[string]int, error) {
	entries, err := os.ReadDir(s.path(marksDir))
	if err != nil {
		return nil, fmt.Errorf("marks: %w", err)
	}
	counts, errs := map[string]int{}, []error(nil)
	for _, e := range entries {
		parts := markGrammar.FindStringSubmatch(e.Name())
		if parts == nil {
			errs = append(errs, os.RemoveAll(s.markPath(e.Name())))
			continue
		}
		digest, crashes := "sha256:"+parts[1], int(parts[2][0]-'0')
		if parts[3] != "" {
			crashes = min(crashes+1, maxCrashes)
		}
		counts[digest] = max(counts[digest], crashes)
	}
	for digest, crashes := range counts {
		errs = append(errs, s.mark(digest, crashes, ""))
	}
	return counts, errors.Join(errs...)
}

// MarkLoading says that a revision that has crashed so often is being loaded from now on, and that it will have once
// more if nothing else is said. It outlives the machine.
func (s *Store) MarkLoading(digest string, crashes int) error {
	return s.mark(digest, crashes, loadingSuffix)
}

// MarkLoaded says that a revision is no longer being loaded, and has crashed so often; not at all is no mark.
func (s *Store) MarkLoaded(digest string, crashes int) error {
	if crashes > 0 {
		return s.mark(digest, crashes, "")
	}
	return s.unmark(digest, "")
}

// mark makes a revision's mark that one.
func (s *Store) mark(digest string, crashes int, suffix string) error {
	name := markName(digest, crashes, suffix)
	former, err := s.marks(digest)
	switch {
	case err != nil:
	case len(former) > 0:
		err = os.Rename(s.markPath(former[0]), s.markPath(name))
	default:
		err = os.WriteFile(s.markPath(name), nil, 0o600)
	}
	if err == nil {
		err = s.unmark(digest, name)
	}
	if err == nil {
		err = syncDir(s.path(marksDir))
	}
	if err != nil {
		return fmt.Errorf("mark of %s: %w", digest, err)
	}
	return nil
}

// unmark removes the marks of a revision but the one of that name.
func (s *Store) unmark(digest, but string) error {
	marks, err := s.marks(digest)
	errs := []error{err}
	for _, name := range marks {
		if name != but {
			errs = append(errs, os.Remove(s.markPath(name)))
		}
	}
	return errors.Join(errs...)
}

// marks are the names of a revision's marks: one, unless somebody else writes there. There are few of all.
func (s *Store) marks(digest string) (names []string, err error) {
	entries, err := os.ReadDir(s.path(marksDir))
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), hexOf(digest)+"-") {
			names = append(names, e.Name())
		}
	}
	return names, err
}

func (s *Store) markPath(name string) string { return filepath.Join(s.path(marksDir), name) }

// syncDir has a folder's entries written to the disk.
func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
