// Package server is the front: the Open Inference Protocol v2 over REST, health, metadata and metrics.
//
// A request is decoded and checked whole before a row is queued, so that a bad row fails its own request, with the name
// of the tensor and the row, and never another's. What a request may cost is bounded before it is read: bytes of bodies
// in flight, rows, images decoded at once.
package server
