package agent

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"

	"github.com/switchyard-dev/switchyard/api/v1alpha1"
)

// reporter writes the latest status, at once after a change. What changes while one is being written is written
// together.
type reporter struct {
	source  Source
	backoff func(n int) time.Duration
	quiet   *quiet
	wake    chan struct{} // holds one: there is something new

	mu     sync.Mutex
	latest *report
}

type report struct {
	uid    types.UID
	status v1alpha1.AdapterAssignmentStatus
	told   func() // called once it is written; may be nil
}

func (r *report) same(other *report) bool {
	return other != nil && r.uid == other.uid && equality.Semantic.DeepEqual(r.status, other.status)
}

func (r *report) tell() {
	if r.told != nil {
		r.told()
	}
}

func newReporter(source Source, backoff func(n int) time.Duration, q *quiet) *reporter {
	return &reporter{source: source, backoff: backoff, quiet: q, wake: make(chan struct{}, 1)}
}

// set replaces what is to be reported. told, which may be nil, is called once it is written, unless it is replaced
// before.
func (r *reporter) set(uid types.UID, status v1alpha1.AdapterAssignmentStatus, told func()) {
	r.mu.Lock()
	r.latest = &report{uid, status, told}
	r.mu.Unlock()
	r.again()
}

// again has a report that failed tried again now: the API server seems to be there.
func (r *reporter) again() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

const (
	// A long status is not written more often than it is worth: a pause for each entry in it, up to a limit.
	pausePerEntry = time.Millisecond
	longestPause  = 500 * time.Millisecond
)

func (r *reporter) run(ctx context.Context) {
	var written *report
	for {
		select {
		case <-r.wake:
		case <-ctx.Done():
			return
		}
		for n := 0; ; n++ {
			r.mu.Lock()
			latest := r.latest
			r.mu.Unlock()
			if latest == nil {
				break
			}
			if latest.same(written) {
				latest.tell()
				break
			}
			err := r.source.Report(ctx, latest.uid, &latest.status)
			if err == nil {
				written, n = latest, -1
				latest.tell()
				entries := len(latest.status.Pending) + len(latest.status.Failed)
				if !wait(ctx, min(longestPause, time.Duration(entries)*pausePerEntry), nil) {
					return
				}
				continue // what has changed meanwhile
			}
			if ctx.Err() != nil {
				return
			}
			r.quiet.warn("the status cannot be written", err)
			if !wait(ctx, r.backoff(n), r.wake) {
				return
			}
		}
	}
}

// quiet logs each text at most once in a while.
type quiet struct {
	log *slog.Logger
	now func() time.Time

	mu   sync.Mutex
	last map[string]time.Time
}

const (
	quietFor   = time.Minute
	quietTexts = 256 // that are remembered
)

func newQuiet(log *slog.Logger) *quiet {
	return &quiet{log: log, now: time.Now, last: make(map[string]time.Time)}
}

func (q *quiet) warn(message string, err error) {
	key, now := message+": "+err.Error(), q.now()
	q.mu.Lock()
	defer q.mu.Unlock()
	if last, ok := q.last[key]; ok && now.Sub(last) < quietFor {
		return
	}
	if len(q.last) >= quietTexts {
		clear(q.last)
	}
	q.last[key] = now
	q.log.Warn(message, "error", err)
}
