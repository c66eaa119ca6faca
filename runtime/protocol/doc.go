// Package protocol is the Open Inference Protocol's requests and answers as they travel: tensors in JSON, in binary
// beside it, or in lists. It knows what a tensor is and nothing of models.
//
// Invariants: whatever comes, reading it returns, and takes no more memory than a few times the bytes that are there: a
// shape is a stranger's word. An Error names the tensor, the row where there is one, what was expected and what came.
package protocol
