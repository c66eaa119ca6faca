package artifact

import "context"

// File reads one small file of an artifact, checked against its digest.
func (s *Store) File(ctx context.Context, repo, revision, name string, limit int64) ([]byte, error) {
	a, err := s.artifact(ctx, repo, revision)
	if err != nil {
		return nil, err
	}
	return a.read(ctx, name, limit)
}
