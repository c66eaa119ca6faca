package agent

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/switchyard-dev/switchyard/api/v1alpha1"
)

// written is a Source that keeps when which revision was reported.
type written struct {
	Source

	began time.Time
	what  []string
}

func (w *written) Report(_ context.Context, _ types.UID, s *v1alpha1.AdapterAssignmentStatus) error {
	w.what = append(w.what, fmt.Sprintf("%d at %v", s.ObservedRevision, time.Since(w.began)))
	return nil
}

// News is reported at once, the rest a moment later and with what has become of it; long reports rest between.
func TestReportsAreWrittenTogether(t *testing.T) {
	at := func(revision int64, about int, news bool) report {
		return report{
			uid: "a", about: about, news: news, status: v1alpha1.AdapterAssignmentStatus{ObservedRevision: revision},
		}
	}
	for name, c := range map[string]struct {
		report func(r *reporter)
		want   []string
	}{
		"the first, though it is no news": {func(r *reporter) { r.set(at(1, 0, false)) }, []string{"1 at 0s"}},
		"what is no news comes a moment later": {func(r *reporter) {
			r.set(at(1, 0, true))
			synctest.Wait()
			r.set(at(2, 0, false))
		}, []string{"1 at 0s", "2 at 100ms"}},
		"unless it becomes some": {func(r *reporter) {
			r.set(at(1, 0, true))
			synctest.Wait()
			r.set(at(2, 0, false))
			synctest.Wait()
			r.set(at(3, 0, true))
		}, []string{"1 at 0s", "3 at 0s"}},
		"news that is replaced before it was written is news": {func(r *reporter) {
			r.set(at(1, 0, true))
			synctest.Wait()
			r.set(at(2, 0, true))
			r.set(at(3, 0, false))
		}, []string{"1 at 0s", "3 at 0s"}},
		"the same is not written again": {func(r *reporter) {
			r.set(at(1, 0, true))
			synctest.Wait()
			r.set(at(1, 0, true))
		}, []string{"1 at 0s"}},
		"large ones rest": {func(r *reporter) {
			for i := range 5 {
				r.set(at(int64(i), 2000, true))
				synctest.Wait()
			}
		}, []string{"0 at 0s", "1 at 0s", "2 at 0s", "4 at 1s"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				source := &written{began: time.Now()}
				r := newReporter(source, func(int) time.Duration { return time.Second }, newQuiet(slog.New(slog.DiscardHandler)))
				ctx, stop := context.WithTimeout(t.Context(), 20*time.Second)
				defer stop()
				go r.run(ctx)
				c.report(r)
				<-ctx.Done()
				synctest.Wait()
				if fmt.Sprint(source.what) != fmt.Sprint(c.want) {
					t.Errorf("expected %v, found %v", c.want, source.what)
				}
			})
		})
	}
}
