// Package rpc answers over gRPC: the Open Inference Protocol v2, its health and metadata, reflection, and gRPC's own
// health service.
//
// A call goes through net/http. Its message is read and checked before grpc-go sees the call: in steps that take memory
// of what all requests have together, decompressed within the same bound, and measured before it is decoded, as a byte
// on the wire may be a hundred in memory. An interceptor puts the message in its place, and is the one way out: there
// an error, or a panic, becomes the call's status. Answers are always in raw_output_contents, and never compressed.
package rpc
