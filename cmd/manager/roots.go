package main

import (
	"context"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/switchyard-dev/switchyard/api/v1alpha1"
	"github.com/switchyard-dev/switchyard/controllers/artifact"
	"github.com/switchyard-dev/switchyard/controllers/artifact/registry"
)

const (
	// page is how many objects are asked for at once. An assignment may have two thousand entries, and a report on each.
	page           = 500
	assignmentPage = 25
	// rootsTime bounds the reading of them all.
	rootsTime = 2 * time.Minute
)

// roots are all artifacts that somebody needs: bases, what adapters are to be and are, and what pods are told to have,
// also of adapters that are gone. They are asked of the API server each time: a cache may be behind.
type roots struct {
	reader            client.Reader
	page, assignments int64 // read at once
}

func newRoots(config *rest.Config) (*roots, error) {
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		return nil, err
	}
	reader, err := client.New(config, client.Options{Scheme: scheme})
	if err != nil {
		return nil, fmt.Errorf("cluster: %w", err)
	}
	return &roots{reader, page, assignmentPage}, nil
}

// read is all of them or an error. Pools come first: what is of none at that time is of none.
func (r *roots) read(ctx context.Context) (registry.Roots, error) {
	ctx, cancel := context.WithTimeout(ctx, rootsTime)
	defer cancel()
	found := registry.Roots{}
	add := func(namespace, pool string, digests ...string) {
		repository := artifact.Repository(namespace, pool)
		if _, ok := found[repository]; !ok {
			return
		}
		for _, digest := range digests {
			found.Add(repository, digest)
		}
	}
	err := each(ctx, r.reader, r.page, func(pools *v1alpha1.InferencePoolList) {
		for _, p := range pools.Items {
			found.Add(artifact.Repository(p.Namespace, p.Name), p.Status.BaseModel.Digest)
		}
	})
	if err != nil {
		return nil, fmt.Errorf("pools: %w", err)
	}
	err = each(ctx, r.reader, r.page, func(adapters *v1alpha1.LoRAAdapterList) {
		for _, a := range adapters.Items {
			add(a.Namespace, a.Spec.PoolRef.Name, a.Status.ServedRevision)
			if target := a.Status.TargetRevision; target != nil {
				add(a.Namespace, a.Spec.PoolRef.Name, target.Digest)
			}
		}
	})
	if err != nil {
		return nil, fmt.Errorf("adapters: %w", err)
	}
	err = each(ctx, r.reader, r.assignments, func(assignments *v1alpha1.AdapterAssignmentList) {
		for _, a := range assignments.Items {
			for _, e := range a.Spec.Adapters {
				add(a.Namespace, a.Spec.PoolName, e.Digest, e.FallbackDigest)
			}
		}
	})
	if err != nil {
		return nil, fmt.Errorf("assignments: %w", err)
	}
	return found, nil
}

// each reads all objects of a kind, at most so many at a time.
func each[L any, P interface {
	*L
	client.ObjectList
}](ctx context.Context, reader client.Reader, limit int64, do func(P)) error {
	for more := ""; ; {
		list := P(new(L)) // what the next page does not say must not remain of this one
		if err := reader.List(ctx, list, client.Limit(limit), client.Continue(more)); err != nil {
			return err
		}
		do(list)
		if more = list.GetContinue(); more == "" {
			return nil
		}
	}
}
