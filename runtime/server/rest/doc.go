// Package rest answers over HTTP: the Open Inference Protocol v2 in JSON and with binary tensors, health and metadata.
//
// A body is read in steps, and takes memory of what all requests have together as it comes; a client that stalls is let
// go. Every refusal is {"error": "…"}, also those of routes that are not there.
package rest
