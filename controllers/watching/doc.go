// Package watching keeps a cache fresh. An informer of client-go that finds the API server away looks again after 0.8
// to 1.6 seconds, and then after twice as long each time, up to a minute: so long it goes on telling what was before,
// and statuses made of it go on saying so. An informer of this package is never more than a second behind an API server
// that has come back.
//
// Invariants:
//   - A watch goes on where it broke off, so nothing is listed anew and no change is passed over.
//   - What only a new list can cure (the API server has forgotten where it broke off) is told to the informer.
package watching
