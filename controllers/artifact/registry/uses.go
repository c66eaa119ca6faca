package registry

import (
	"context"
	"sync"
	"time"
)

// maxMarks bounds what is remembered of garbage; what is more waits for its turn.
const maxMarks = 1 << 17

// uses knows what requests are about at this time, and since when what is thought to be garbage. To name a digest is to
// use it: who asks whether something is there is about to rely on it.
//
// A name is a digest or a repository. While one is swept, whoever would use it waits; while it is used, it is not
// swept. So a push is never held up by more than the removal of what it is about, and however long it takes it holds up
// nobody.
type uses struct {
	now func() time.Time

	mu    sync.Mutex
	using map[string]int
	alone map[string]chan struct{} // closed when it is over
	marks map[string]map[string]mark
	count int // of all marks
}

// mark says that a digest's link in a repository, or its bytes for "", was found to be garbage.
type mark struct {
	since time.Time // nobody has used it since
	first int       // the round that found it first
	last  int       // and last
}

func newUses(now func() time.Time) *uses {
	return &uses{
		now: now, using: map[string]int{}, alone: map[string]chan struct{}{}, marks: map[string]map[string]mark{},
	}
}

// enter begins to use names, once none of them is swept.
func (u *uses) enter(ctx context.Context, names ...string) (leave func(), err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for busy := u.busy(names); busy != nil; busy = u.busy(names) {
		u.mu.Unlock()
		select {
		case <-busy:
		case <-ctx.Done():
			err = ctx.Err()
		}
		u.mu.Lock()
		if err != nil {
			return nil, err
		}
	}
	for _, name := range names {
		u.using[name]++
		u.clear(name)
	}
	return func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		for _, name := range names {
			if u.using[name]--; u.using[name] == 0 {
				delete(u.using, name)
			}
			u.clear(name) // what was found meanwhile
		}
	}, nil
}

// busy is one of the names' that are swept.
func (u *uses) busy(names []string) chan struct{} {
	for _, name := range names {
		if busy := u.alone[name]; busy != nil {
			return busy
		}
	}
	return nil
}

func (u *uses) clear(digest string) {
	u.count -= len(u.marks[digest])
	delete(u.marks, digest)
}

// only does something with a name while nobody uses it; false if somebody does.
func (u *uses) only(name string, do func() error) (bool, error) {
	return u.exclude(name, func() bool { return true }, do)
}

// sweep does something with a digest whose mark in a repository is due, while nobody uses it; false if it is not, or if
// somebody does.
func (u *uses) sweep(digest, repository string, d due, do func() error) (bool, error) {
	return u.exclude(digest, func() bool {
		m, marked := u.marks[digest][repository]
		return marked && d.of(m, u.now())
	}, do)
}

func (u *uses) exclude(name string, may func() bool, do func() error) (bool, error) {
	u.mu.Lock()
	if u.using[name] > 0 || u.alone[name] != nil || !may() {
		u.mu.Unlock()
		return false, nil
	}
	over := make(chan struct{})
	u.alone[name] = over
	u.mu.Unlock()
	defer func() {
		u.mu.Lock()
		delete(u.alone, name)
		u.mu.Unlock()
		close(over)
	}()
	return true, do()
}

// due is when a mark has come true: found by a former round than this one, and unused for all of the grace.
type due struct {
	round int
	grace time.Duration
}

func (d due) of(m mark, now time.Time) bool {
	return m.first < d.round && now.Sub(m.since) >= d.grace
}

// found marks a digest as garbage in a repository, and tells whether the mark is due.
func (u *uses) found(digest, repository string, d due) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.using[digest] > 0 {
		return false
	}
	m, marked := u.marks[digest][repository]
	if !marked {
		m = mark{since: u.now(), first: d.round}
	}
	m.last = d.round
	u.set(digest, repository, m)
	return d.of(m, u.now())
}

func (u *uses) set(digest, repository string, m mark) {
	if _, marked := u.marks[digest][repository]; !marked {
		if u.count >= maxMarks {
			return
		}
		u.count++
	}
	if u.marks[digest] == nil {
		u.marks[digest] = map[string]mark{}
	}
	u.marks[digest][repository] = m
}

// pass gives the bytes of a digest the age of its link, which has been removed: nobody used either.
func (u *uses) pass(digest, repository string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	m, marked := u.marks[digest][repository]
	if bytes, other := u.marks[digest][""]; marked && (!other || m.since.Before(bytes.since)) {
		u.set(digest, "", m)
	}
	u.drop(digest, repository)
}

// needed takes a mark away.
func (u *uses) needed(digest, repository string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.drop(digest, repository)
}

func (u *uses) drop(digest, repository string) {
	if _, marked := u.marks[digest][repository]; !marked {
		return
	}
	u.count--
	if delete(u.marks[digest], repository); len(u.marks[digest]) == 0 {
		delete(u.marks, digest)
	}
}

// forget drops what a whole round has not found again.
func (u *uses) forget(round int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for digest, by := range u.marks {
		for repository, m := range by {
			if m.last < round {
				u.drop(digest, repository)
			}
		}
	}
}
