// Package server answers requests, whatever carries them: models and what they take, rows, adapters, memory, metrics.
//
// A request is checked whole before a row is queued, so that a bad row fails its own request, with the name of the
// tensor and the row, and never another's. What requests may take is bounded before they are read: memory from
// the first byte of the body to the answer, rows, images decoded at once.
package server
