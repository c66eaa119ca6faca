// Package watching keeps a cache fresh. An informer of client-go that finds the API server away looks again after 0.8
// to 1.6 seconds, and then after twice as long each time, up to a minute: so long it goes on telling what was before,
// and statuses made of it go on saying so. An informer of this package is never more than a second behind an API server
// that has come back.
//
// Invariants:
//   - A watch goes on where it broke off. Where the API server has forgotten that, as one that has begun anew has, all
//     is listed and compared with what the informer was told: no change is passed over.
//   - Once an informer's first watch has begun, it is never told of an error, so it has nothing to back off from.
package watching
