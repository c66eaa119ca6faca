// Package weights reads model folders that nobody vouches for: it opens their files without ever leaving the folder,
// parses safetensors, hands tensors out as finite float32 of the shape asked for, and names content by digest.
//
// Invariants: nothing outside a Folder can be read through it, and no file in it can make a read hang or take more
// memory than the caller allows; a Tensors that Parse returned covers its data exactly, without holes or overlaps, and
// took memory bounded by a small multiple of the file; a tensor handed out never aliases the file; every error names
// the file or tensor, what was expected and what was found, and no input makes the package panic; the same files and
// settings have the same digest, for ever.
package weights
