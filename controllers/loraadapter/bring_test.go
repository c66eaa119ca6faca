package loraadapter

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

// A source that always brings just enough to be waited for keeps an attempt for a quarter of an hour, and no longer.
func TestAnAttemptEnds(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		c := &courier{
			source: &source.Fetcher{Fetcher: artifact.NewFetcher(artifact.FetcherOptions{
				Transport: wrappers.Trickle{Bytes: 4 << 10, Every: time.Second},
			})},
			dir: dir, bases: map[string]artifact.BaseModel{"sha256:base": {}},
		}
		from := source.Spec{Source: v1alpha1.Source{HTTP: &v1alpha1.HTTPSource{URL: "https://models.example/a.tar.gz"}}}
		began := time.Now()
		_, err := c.bring(t.Context(), errand{from: from, base: "sha256:base"})
		if took := time.Since(began); took != 15*time.Minute {
			t.Errorf("expected an end after 15m, found one after %v", took)
		}
		var failure *attempt.Failure
		if !errors.As(err, &failure) || failure.Reason != v1alpha1.ReasonSourceUnreachable || !failure.Retry ||
			!strings.Contains(failure.Message, "no answer in time") {
			t.Errorf("expected %s, to be tried again: no answer in time; found %+v",
				v1alpha1.ReasonSourceUnreachable, err)
		}
	})
}
