package registry

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// artifactOf is one of those that the managers of the race test push.
type artifactOf struct {
	repository string
	blobs      []string
	digest     string
}

// race is a registry whose time passes by steps: never so far that a manager takes longer than the grace from the look
// by which it knows an artifact stored to the moment in which that is a root. All else may take as long as it likes.
type race struct {
	*keeping

	artifacts []*artifactOf
	rooted    map[*artifactOf]int // which time it has become a root
	looking   map[int]time.Time   // since when each manager is between look and root
	times     int
	began     *sync.Cond // rounds of the collector
	rounds    int
}

func newRace(k *keeping, random *rand.Rand) *race {
	r := &race{keeping: k, rooted: map[*artifactOf]int{}, looking: map[int]time.Time{}}
	r.began = sync.NewCond(&k.mu)
	for n := range 48 {
		a := &artifactOf{repository: fmt.Sprint("demo/pool-", n%3), blobs: []string{fmt.Sprint("config ", n%4)}}
		for range 1 + random.IntN(3) {
			a.blobs = append(a.blobs, fmt.Sprint("weights ", random.IntN(24))) // shared by several, in all pools
		}
		_, a.digest = made(a.blobs...)
		r.artifacts = append(r.artifacts, a)
	}
	return r
}

// step lets some time pass, if nobody is in the way.
func (r *race) step() {
	r.mu.Lock()
	defer r.mu.Unlock()
	next := r.now.Add(r.options.GCGrace / 3)
	for _, since := range r.looking {
		if next.Sub(since) >= r.options.GCGrace {
			return
		}
	}
	r.now = next
}

// begin tells of a round, await waits until so many have begun: so that there are some between two looks at the same.
func (r *race) begin() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rounds++
	r.began.Broadcast()
}

func (r *race) await(rounds int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.rounds < rounds {
		r.began.Wait()
	}
}

// want has a manager make an artifact a root: it looks whether all is there, and pushes it if not.
func (r *race) want(manager int, a *artifactOf) {
	for !r.t.Failed() {
		r.mu.Lock()
		r.looking[manager] = r.now
		r.mu.Unlock()
		if r.lost("m", a.repository, a.blobs...) == "" {
			break
		}
		r.mu.Lock()
		delete(r.looking, manager)
		r.mu.Unlock()
		r.push(a.repository, a.blobs...)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.looking, manager)
	r.roots.Add(a.repository, a.digest)
	r.times++
	r.rooted[a] = r.times
}

func (r *race) forget(a *artifactOf) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.rooted, a)
	for other := range r.rooted {
		if other.digest == a.digest && other.repository == a.repository {
			return
		}
	}
	delete(r.roots[a.repository], a.digest)
	if len(r.roots[a.repository]) == 0 {
		delete(r.roots, a.repository) // with the last goes the pool
	}
}

// check wants an artifact whole that was a root all the while.
func (r *race) check(a *artifactOf) {
	when := func() int {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.rooted[a]
	}
	before := when()
	if before == 0 {
		return
	}
	if lost := r.lost(a.repository, a.repository, a.blobs...); lost != "" && when() == before {
		r.t.Errorf("%s %s is a root, and lost is %s", a.repository, a.digest, lost)
	}
}

// Managers push and change their minds, the collector goes round and round, pods read: what a manager knows stored and
// has made a root is always whole.
func TestNothingNeededIsEverCollected(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	everywhere(t, func(k *keeping) {
		rounds := 60
		if k.options.S3 != nil {
			rounds = 15 // each has some hundred requests
		}
		r := newRace(k, rand.New(rand.NewPCG(seed, 0)))
		for _, a := range r.artifacts { // a pod's token is its pool's name
			account := accountPrefix + strings.Replace(a.repository, "/", ":", 1) + podSuffix
			k.reviewer.users[a.repository] = account
		}
		var over atomic.Bool
		var managers, others sync.WaitGroup
		for n := range 6 {
			managers.Go(func() {
				random := rand.New(rand.NewPCG(seed, uint64(n)+1))
				for round := range rounds {
					for range 3 {
						a := r.artifacts[random.IntN(len(r.artifacts))]
						if random.IntN(3) == 0 {
							r.want(n, a)
						} else {
							r.forget(a)
						}
					}
					r.await(round)
				}
			})
		}
		others.Go(func() {
			for !over.Load() {
				r.step()
				r.begin()
				if err := k.registry.Collect(k.t.Context()); err != nil {
					k.t.Error(err)
				}
			}
		})
		for n := range 2 {
			others.Go(func() {
				random := rand.New(rand.NewPCG(seed, uint64(n)+100))
				for !over.Load() {
					r.check(r.artifacts[random.IntN(len(r.artifacts))])
				}
			})
		}
		managers.Wait()
		over.Store(true)
		others.Wait()
		if n := k.metric("switchyard_registry_removed_blobs_total", causeGarbage); n == 0 {
			k.t.Error("expected something collected meanwhile")
		} else {
			k.t.Logf("%v blobs were collected in %d rounds", n, r.rounds)
		}
		for range 5 {
			r.step()
			k.collect(0)
		}
		kept := map[string]bool{}
		for _, a := range r.artifacts {
			r.check(a)
			if r.rooted[a] > 0 {
				manifest, _ := made(a.blobs...)
				for _, blob := range append([]string{manifest}, a.blobs...) {
					kept[blob] = true
				}
			}
		}
		left := 0
		err := k.registry.shelves.eachBlob(k.t.Context(), 0, func(string) error {
			left++
			return nil
		})
		if err != nil || left != len(kept) {
			k.t.Errorf("expected the %d blobs left that are needed, found %d, %v", len(kept), left, err)
		}
	})
}
