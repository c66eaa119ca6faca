package inferencepool

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/switchyard-dev/switchyard/api/v1alpha1"
	"github.com/switchyard-dev/switchyard/controllers/artifact"
	"github.com/switchyard-dev/switchyard/controllers/attempt"
	"github.com/switchyard-dev/switchyard/controllers/source"
	"github.com/switchyard-dev/switchyard/test/wrappers"
)

// A source that always brings just enough to be waited for keeps an attempt for an hour, and no longer.
func TestAnAttemptEnds(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		c := &courier{
			source: &source.Fetcher{Fetcher: artifact.NewFetcher(artifact.FetcherOptions{
				Transport: wrappers.Trickle{Bytes: 4 << 10, Every: time.Second},
			})},
			dir: dir, bases: map[string]described{},
		}
		from := source.Spec{Source: v1alpha1.Source{HTTP: &v1alpha1.HTTPSource{URL: "https://models.example/b.tar.gz"}}}
		began := time.Now()
		_, err := c.bring(t.Context(), errand{from: from})
		if took := time.Since(began); took != time.Hour {
			t.Errorf("expected an end after 1h, found one after %v", took)
		}
		var failure *attempt.Failure
		if !errors.As(err, &failure) || failure.Reason != v1alpha1.ReasonSourceUnreachable || !failure.Retry ||
			!strings.Contains(failure.Message, "no answer in time") {
			t.Errorf("expected %s, to be tried again: no answer in time; found %+v",
				v1alpha1.ReasonSourceUnreachable, err)
		}
	})
}
