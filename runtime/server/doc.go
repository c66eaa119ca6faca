// Package server is the front: the Open Inference Protocol v2 over REST, health, metadata and metrics.
//
// A request is decoded and checked whole before a row is queued, so that a bad row fails its own request, with the name
// of the tensor and the row, and never another's. What requests may take is bounded before they are read: memory from
// the first byte of the body to the answer, rows, images decoded at once.
package server
