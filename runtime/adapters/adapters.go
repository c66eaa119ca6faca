// Package adapters is what a server holds: for each name the revision that answers, that it is still loading, or why it
// was refused. One adapter that cannot be served never hurts another.
package adapters

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/switchyard-dev/switchyard/runtime/arch"
	"github.com/switchyard-dev/switchyard/runtime/engine"
	"github.com/switchyard-dev/switchyard/runtime/peft"
	"github.com/switchyard-dev/switchyard/runtime/quote"
	"github.com/switchyard-dev/switchyard/runtime/weights"
)

// UnknownError says that no adapter of that name is known.
type UnknownError struct{ Name string }

func (e *UnknownError) Error() string { return fmt.Sprintf("adapter %s: unknown", quote.Name(e.Name)) }

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

	mu     sync.RWMutex
	byName map[string]Entry
}

// Entry is one name: an adapter that answers, or an error (LoadingError, RefusedError) that says why it does not.
type Entry struct {
	Name    string
	Adapter *engine.Adapter
	Err     error
}

// New is an empty set for the engine's base.
func New(e *engine.Engine) *Set { return &Set{engine: e, byName: make(map[string]Entry)} }

// Base is the base model as its config describes it, and its revision.
func (s *Set) Base() (*arch.Description, string) {
	return s.engine.Description(), s.engine.BaseDigest()
}

// Expect makes names known before they are loaded.
func (s *Set) Expect(names ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range names {
		s.byName[name] = Entry{Name: name, Err: &LoadingError{name}}
	}
}

// Load reads, checks and compiles the adapter in a folder, and serves it under that name or keeps the refusal there.
func (s *Set) Load(name string, open func() (*weights.Folder, error)) Entry {
	entry := Entry{Name: name}
	adapter, err := s.compile(open)
	if err != nil {
		entry.Err = &RefusedError{name, err}
	} else {
		entry.Adapter = adapter
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.byName[name] = entry
	return entry
}

// compile turns a panic over a hostile adapter into its refusal: nothing else may suffer.
func (s *Set) compile(open func() (*weights.Folder, error)) (adapter *engine.Adapter, err error) {
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
	read, err := peft.Load(folder, s.engine.Description())
	if err != nil {
		return nil, err
	}
	return s.engine.Compile(read)
}

// Get finds the adapter that answers to a name; its error is an UnknownError, LoadingError or RefusedError.
func (s *Set) Get(name string) (*engine.Adapter, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	entry, ok := s.byName[name]
	if !ok {
		return nil, &UnknownError{name}
	}
	return entry.Adapter, entry.Err
}

// List is every known name, sorted.
func (s *Set) List() []Entry {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return slices.SortedFunc(maps.Values(s.byName), func(a, b Entry) int { return cmp.Compare(a.Name, b.Name) })
}
