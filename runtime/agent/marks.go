package agent

import (
	"log/slog"
	"maps"
	"slices"
	"sync"

	"github.com/switchyard-dev/switchyard/runtime/agent/artifacts"
)

// marks has the store remember what is being opened, so that the next process knows what this one ended over. Safe for
// concurrent use.
type marks struct {
	store *artifacts.Store
	log   *slog.Logger

	mu     sync.Mutex
	opened map[string]int // by digest how often it has crashed: what is being opened now
	left   bool           // the process ends as it was told
}

// begin says that a revision is being opened. Without an error it is marked, or the process ends soon anyway.
func (m *marks) begin(digest string, crashes int) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.left {
		return nil
	}
	m.opened[digest] = crashes
	return m.store.MarkLoading(digest, crashes)
}

// end says that a revision has been opened, or refused: it is innocent.
func (m *marks) end(digest string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.opened, digest)
	m.set(digest, 0)
}

// forget drops what is remembered of a revision, unless it is being opened.
func (m *marks) forget(digest string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, opened := m.opened[digest]; !opened {
		m.set(digest, 0)
	}
}

// leave says that the process ends as it was told: whatever is being opened is not to blame.
func (m *marks) leave() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.left = true
	for _, digest := range slices.Sorted(maps.Keys(m.opened)) {
		m.set(digest, m.opened[digest])
	}
}

func (m *marks) set(digest string, crashes int) {
	if err := m.store.MarkLoaded(digest, crashes); err != nil { // it will be loaded with more care than it needs
		m.log.Warn("a mark cannot be removed", "revision", digest, "error", err)
	}
}
