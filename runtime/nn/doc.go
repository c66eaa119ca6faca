// Package nn is the layers of a model, each aware of segments: a batch's rows are sorted by adapter, so that what one
// adapter changes applies to one contiguous run of rows in every layer.
//
// A model asks a Scope for its layers by name and shape; each gets a slot. What an adapter changes is a table by slot
// (Adapter), compiled once when the adapter is loaded, so a layer finds its update by an index. Layers and adapters do
// not change once built and are safe for concurrent use.
package nn
