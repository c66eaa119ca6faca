package integration

import (
	"context"
	"fmt"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/switchyard-dev/switchyard/test/warm"
)

// Many adapters at once cost a bounded number of writes each, and little memory; once all are Ready nothing is written.
// `make bench-scale` is the same with a thousand.
func TestManyAtOnceCostFewWrites(t *testing.T) {
	long(t)
	const n, pods = 150, 2
	pool, err := warm.New(t.Context(), place, pods, 2000)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := pool.Close(lasting); err != nil {
			t.Errorf("namespace: %v", err)
		}
	})
	var names []string
	for i := range n {
		names = append(names, fmt.Sprintf("adapter-%03d", i))
	}
	if err := pool.Push(t.Context(), names...); err != nil {
		t.Fatal(err)
	}
	quiet(t)
	before := writes(t)
	if _, err := pool.Apply(t.Context(), names...); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*soon)
	defer cancel()
	if _, err := pool.Ready(ctx, names...); err != nil {
		t.Fatal(err)
	}
	quiet(t)
	found := writes(t).Since(before)
	all, _ := found.Total()
	t.Logf("%.1f writes for each of %d adapters: %v", float64(all)/float64(n), n, found)
	// However slow the machine, each adapter is told of, assigned to, loaded by and reported by each pod once; and half
	// as often again for writes that met a newer object. On one that is not slow most of these are written together.
	for what, most := range map[string]int{
		"PATCH loraadapters/status":       4 * n, // the source is asked; on its first pod; proven; Ready
		"PUT adapterassignments":          pods * n,
		"PATCH adapterassignments/status": 2 * pods * n,
		"PATCH inferencepools/status":     n,
		"POST events":                     3 * n,
	} {
		if found[what] > most+n/2 {
			t.Errorf("%s: expected at most %d, found %d", what, most, found[what])
		}
	}
	const mostMemory = 300 << 20
	manager, err := place.Processes()["manager"].Usage()
	if err != nil {
		t.Fatal(err)
	}
	if manager.PeakMemory > mostMemory {
		t.Errorf("the manager's memory: expected at most %d bytes, found %d", mostMemory, manager.PeakMemory)
	}
}

func writes(t *testing.T) warm.Writes {
	t.Helper()
	found, err := warm.CountWrites(t.Context(), place.Kube)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// quiet waits until nothing but leases was written between two looks.
func quiet(t *testing.T) {
	t.Helper()
	const between = 2 * time.Second
	last := writes(t)
	err := wait.PollUntilContextTimeout(t.Context(), between, soon, false, func(ctx context.Context) (bool, error) {
		now, err := warm.CountWrites(ctx, place.Kube)
		all, _ := now.Since(last).Total()
		last = now
		return all == 0, err
	})
	if err != nil {
		t.Fatalf("the API server is written to without end: %v", err)
	}
}
