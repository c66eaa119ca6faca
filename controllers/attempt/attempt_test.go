package attempt_test

import (
	"context"
	"errors"
	"strconv"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/switchyard-dev/switchyard/controllers/attempt"
)

var key = types.NamespacedName{Namespace: "demo", Name: "parity"}

func TestAttempts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		a := attempt.New[string](1, time.Now)
		stopped := make(chan error)
		go func() { stopped <- a.Start(ctx) }()
		work := func(result string, err error) func(context.Context) (string, error) {
			return func(context.Context) (string, error) { return result, err }
		}

		a.Run(ctx, key, "1", work("", errors.New("no")))
		<-a.Ended()
		a.Run(ctx, key, "1", work("", errors.New("no")))
		<-a.Ended()
		if o := a.Outcome(key, "1"); o == nil || o.Failures != 2 {
			t.Errorf("expected two failures in a row, found %+v", o)
		}
		if o := a.Outcome(key, "2"); o != nil {
			t.Errorf("expected no outcome of another input, found %+v", o)
		}

		// Another input gives up what is under way, and so does the end of the object.
		given := make(chan struct{}, 2)
		hang := func(ctx context.Context) (string, error) {
			<-ctx.Done()
			given <- struct{}{}
			return "", ctx.Err()
		}
		a.Run(ctx, key, "2", hang)
		synctest.Wait()
		a.Run(ctx, key, "2", func(context.Context) (string, error) { panic("a second one with the same input") })
		a.Run(ctx, key, "3", work("three", nil))
		<-given
		<-a.Ended()
		if o := a.Outcome(key, "3"); o == nil || o.Result != "three" || o.Err != nil || o.Failures != 0 {
			t.Errorf("expected a success, found %+v", o)
		}
		a.Run(ctx, key, "4", hang)
		synctest.Wait()
		a.Forget(key)
		<-given

		a.Run(ctx, key, "5", func(context.Context) (string, error) { panic("hostile") })
		<-a.Ended()
		if o := a.Outcome(key, "5"); o == nil || o.Err == nil {
			t.Errorf("expected the panic as an error, found %+v", o)
		}
		a.Run(ctx, key, "6", hang)
		synctest.Wait()
		stop()
		if err := <-stopped; err != nil {
			t.Error(err)
		}
		<-given
		a.Run(ctx, key, "7", func(context.Context) (string, error) { panic("after the end") })
	})
}

// A namespace whose sources hang keeps those of another waiting for no longer than it takes to have a slot.
func TestNamespacesShareTheSlots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		a := attempt.New[string](4, time.Now)
		stopped := make(chan error)
		go func() { stopped <- a.Start(ctx) }()
		var running, most atomic.Int32
		for i := range 100 {
			name := types.NamespacedName{Namespace: "hostile", Name: strconv.Itoa(i)}
			a.Run(ctx, name, "1", func(ctx context.Context) (string, error) {
				most.Store(max(most.Load(), running.Add(1)))
				<-ctx.Done()
				running.Add(-1)
				return "", ctx.Err()
			})
		}
		synctest.Wait()
		if n := running.Load(); n != 2 {
			t.Errorf("expected half of the slots taken, found %d", n)
		}
		a.Run(ctx, key, "1", func(context.Context) (string, error) { return "one", nil })
		if e := <-a.Ended(); e.Object.GetNamespace() != key.Namespace {
			t.Errorf("expected that of the other namespace, found %s", e.Object.GetNamespace())
		}
		for i := range 100 { // all of them have their turn
			a.Forget(types.NamespacedName{Namespace: "hostile", Name: strconv.Itoa(i)})
			synctest.Wait()
		}
		if running.Load() != 0 || most.Load() != 2 {
			t.Errorf("expected none left and never more than 2, found %d and %d", running.Load(), most.Load())
		}
		stop()
		if err := <-stopped; err != nil {
			t.Error(err)
		}
	})
}

func TestPolicy(t *testing.T) {
	p := attempt.Policy{Recheck: time.Hour, Least: time.Second, Most: time.Minute}
	for _, c := range []struct {
		failures int
		retry    bool
		want     time.Duration
	}{
		{0, false, time.Hour},
		{3, false, time.Hour},
		{1, true, time.Second},
		{4, true, 8 * time.Second},
		{1000, true, time.Minute},
	} {
		if got := p.Wait(c.failures, c.retry); got < c.want*9/10 || got > c.want*11/10 {
			t.Errorf("%d failures, retry %v: expected about %s, found %s", c.failures, c.retry, c.want, got)
		}
	}
}
