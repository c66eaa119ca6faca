// Package adapters is what a server holds: for each name the revision that answers, that it is still loading, or why it
// was refused. One adapter that cannot be served never hurts another.
//
// A revision is loaded once, by its digest, whatever number of names answer with it. It is held by each of those names
// and by each Lease of it, and freed when the last of them lets go: so a name moves to another revision at once, and
// the rows already under way end with the one they began with.
package adapters

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/switchyard-dev/switchyard/runtime/arch"
	"github.com/switchyard-dev/switchyard/runtime/engine"
	"github.com/switchyard-dev/switchyard/runtime/peft"
	"github.com/switchyard-dev/switchyard/runtime/quote"
	"github.com/switchyard-dev/switchyard/runtime/weights"
)

// UnknownError says that no adapter of that name is known.
type UnknownError struct{ Name string }

func (e *UnknownError) Error() string { return fmt.Sprintf("adapter %s: unknown", quote.Name(e.Name)) }

// UntoldError says that no adapter of that name is known yet: the server has not been told which there are.
type UntoldError struct{ Name string }

func (e *UntoldError) Error() string {
	return fmt.Sprintf("adapter %s: not known yet: this server has not been told its adapters", quote.Name(e.Name))
}

// LoadingError says that the adapter is known and not yet loaded.
type LoadingError struct{ Name string }

func (e *LoadingError) Error() string {
	return fmt.Sprintf("adapter %s: still loading", quote.Name(e.Name))
}

// RefusedError says that the adapter is known and cannot be served.
type RefusedError struct {
	Name   string
	Reason error
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("adapter %s: refused: %v", quote.Name(e.Name), e.Reason)
}
func (e *RefusedError) Unwrap() error { return e.Reason }

// Set is the adapters of one base model. Safe for concurrent use.
type Set struct {
	engine *engine.Engine
	hooks  Hooks
	trial  sync.Mutex // one at a time: what it computes with is memory beside that of batches

	mu        sync.Mutex
	told      bool // which names there are
	byName    map[string]slot
	revisions map[string]*revision // loaded, by digest
}

// slot is what stands under a name: a revision, or an error that says why there is none.
type slot struct {
	revision *revision
	err      error
}

// revision is a loaded adapter. The set's mutex guards it.
type revision struct {
	adapter *engine.Adapter
	names   int // that answer with it
	leases  int // not yet released
}

// Lease holds a revision: it stays loaded at least until Release.
type Lease struct {
	set      *Set
	revision *revision
	released atomic.Bool
}

// Adapter is the revision that is held.
func (l *Lease) Adapter() *engine.Adapter { return l.revision.adapter }

// Release lets go of the revision. Once is enough; more is harmless.
func (l *Lease) Release() {
	if l.released.Swap(true) {
		return
	}
	l.set.mu.Lock()
	defer l.set.mu.Unlock()
	l.revision.leases--
	l.set.free(l.revision)
}

// Entry is one name: an adapter that answers, or an error (LoadingError, RefusedError) that says why it does not.
type Entry struct {
	Name    string
	Adapter *engine.Adapter
	Err     error
}

// Hooks are called as revisions come and go. Both must be quick, and ask the set nothing.
type Hooks struct {
	Opened func(took time.Duration, err error) // one was read, checked and compiled and is in memory now, or was refused
	Freed  func()                              // one that was opened is in memory no more
}

// New is an empty set for the engine's base, of whose names nothing has been told.
func New(e *engine.Engine) *Set {
	return &Set{
		engine: e, byName: make(map[string]slot), revisions: make(map[string]*revision),
		hooks: Hooks{Opened: func(time.Duration, error) {}, Freed: func() {}},
	}
}

// Tell has hooks called from now on. It is called before anything is opened.
func (s *Set) Tell(hooks Hooks) { s.hooks = hooks }

// Base is the base model as its config describes it, and its revision.
func (s *Set) Base() (*arch.Description, string) {
	return s.engine.Description(), s.engine.BaseDigest()
}

// Tokens is how many tokens the base makes of an input, or why the input cannot be computed.
func (s *Set) Tokens(in engine.Input) (int, error) { return s.engine.Tokens(in) }

// Open reads, checks and compiles the adapter in a folder. No name answers with it yet. A revision that is loaded
// already is not kept twice.
func (s *Set) Open(open func() (*weights.Folder, error), settings peft.Settings) (*Lease, error) {
	began := time.Now()
	adapter, err := s.compile(open, settings)
	if err != nil {
		s.hooks.Opened(time.Since(began), err)
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.revisions[adapter.Digest]
	if r == nil {
		r = &revision{adapter: adapter}
		s.revisions[adapter.Digest] = r
		s.hooks.Opened(time.Since(began), nil)
	} else {
		adapter.Free()
	}
	return s.lease(r), nil
}

// compile turns a panic over a hostile adapter into its refusal: nothing else may suffer.
func (s *Set) compile(
	open func() (*weights.Folder, error), settings peft.Settings,
) (adapter *engine.Adapter, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("reading it panicked: %v", v)
		}
	}()
	folder, err := open()
	if err != nil {
		return nil, err
	}
	defer func() { _ = folder.Close() }()
	if err := s.checkTokenizer(folder); err != nil {
		return nil, err
	}
	read, err := peft.Load(folder, s.engine.Description(), settings)
	if err != nil {
		return nil, err
	}
	return s.engine.Compile(read)
}

// checkTokenizer refuses an adapter that brings another tokenizer than the base's, which is read only for those that
// bring one: what the manager has packed has none any more.
func (s *Set) checkTokenizer(folder *weights.Folder) error {
	if !peft.BringsTokenizer(folder) {
		return nil
	}
	base, err := s.engine.Tokenizer()
	if err != nil {
		return fmt.Errorf("the base's %w", err)
	}
	return peft.CheckTokenizer(folder, base)
}

// Try has a revision answer one input of zeros, and refuses it if its logits are not finite.
func (s *Set) Try(l *Lease) error {
	s.trial.Lock()
	defer s.trial.Unlock()
	answer, err := s.engine.Try(l.Adapter())
	if err != nil {
		return err
	}
	for i, v := range answer.Float32s() {
		if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
			return fmt.Errorf("an input of zeros: logit %d: expected a finite number, found %v", i, v)
		}
	}
	return nil
}

// Told says that all names that there are have been made known: from now on any other is unknown.
func (s *Set) Told() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.told = true
}

// Expect makes names known before they are loaded.
func (s *Set) Expect(names ...string) {
	for _, name := range names {
		s.put(name, slot{err: &LoadingError{name}})
	}
}

// Serve has a name answer with a revision from now on.
func (s *Set) Serve(name string, l *Lease) { s.put(name, slot{revision: l.revision}) }

// Refuse makes a name known as one that cannot be served.
func (s *Set) Refuse(name string, reason error) { s.put(name, slot{err: &RefusedError{name, reason}}) }

// Drop makes a name unknown.
func (s *Set) Drop(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leave(name)
	delete(s.byName, name)
}

// Load reads, checks and compiles the adapter in a folder, and serves it under that name or keeps the refusal there.
func (s *Set) Load(name string, open func() (*weights.Folder, error)) Entry {
	lease, err := s.Open(open, peft.Settings{})
	if err != nil {
		s.Refuse(name, err)
		return Entry{Name: name, Err: &RefusedError{name, err}}
	}
	defer lease.Release()
	s.Serve(name, lease)
	return Entry{Name: name, Adapter: lease.Adapter()}
}

// Get finds the adapter that answers to a name, without holding it: what it is may be told, but no row may ask it. Its
// error is an UnknownError, UntoldError, LoadingError or RefusedError.
func (s *Set) Get(name string) (*engine.Adapter, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, err := s.find(name)
	if err != nil {
		return nil, err
	}
	return r.adapter, nil
}

// Acquire is Get that holds what it found.
func (s *Set) Acquire(name string) (*Lease, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, err := s.find(name)
	if err != nil {
		return nil, err
	}
	return s.lease(r), nil
}

// List is every known name, sorted.
func (s *Set) List() []Entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	entries := make([]Entry, 0, len(s.byName))
	for name, in := range s.byName {
		e := Entry{Name: name, Err: in.err}
		if in.revision != nil {
			e.Adapter = in.revision.adapter
		}
		entries = append(entries, e)
	}
	slices.SortFunc(entries, func(a, b Entry) int { return cmp.Compare(a.Name, b.Name) })
	return entries
}

// Revision is one that is loaded.
type Revision struct {
	Digest string
	Bytes  int64
	Names  int // that answer with it; 0 while it drains, or is not served yet
	Leases int // that hold it beside them
}

// Loaded is every revision in memory, in no order.
func (s *Set) Loaded() []Revision {
	s.mu.Lock()
	defer s.mu.Unlock()
	loaded := make([]Revision, 0, len(s.revisions))
	for digest, r := range s.revisions {
		loaded = append(loaded, Revision{digest, r.adapter.Bytes(), r.names, r.leases})
	}
	return loaded
}

func (s *Set) put(name string, next slot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if next.revision != nil {
		next.revision.names++ // before the former is let go: it may be the same
	}
	s.leave(name)
	s.byName[name] = next
}

// leave lets go of the revision under a name. The mutex is held, here and below.
func (s *Set) leave(name string) {
	if r := s.byName[name].revision; r != nil {
		r.names--
		s.free(r)
	}
}

func (s *Set) find(name string) (*revision, error) {
	in, ok := s.byName[name]
	switch {
	case !ok && !s.told:
		return nil, &UntoldError{name}
	case !ok:
		return nil, &UnknownError{name}
	}
	return in.revision, in.err
}

func (s *Set) lease(r *revision) *Lease {
	r.leases++
	return &Lease{set: s, revision: r}
}

// free gives back the memory of a revision that nobody holds.
func (s *Set) free(r *revision) {
	if r.names == 0 && r.leases == 0 {
		delete(s.revisions, r.adapter.Digest)
		r.adapter.Free()
		s.hooks.Freed()
	}
}
