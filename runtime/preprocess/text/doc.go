// Package text turns texts into token ids as HuggingFace's tokenizers does: by that library itself, compiled to
// WebAssembly (hack/tokenizer) and run by wazero, without cgo. tokenizer.wasm imports nothing, so what runs in it sees
// no more than the texts that it is given.
//
// Invariants: an instance of the module has one tokenizer and one user at a time; one that trapped, or took too long,
// is thrown away. Texts are bounded before they are copied into an instance, and an instance's memory is.
package text
