//go:build !amd64

package kernels

// variants are those that this processor has, the best last.
func variants() []variant { return []variant{portable{}} }

// arguments is nothing: Go takes its own.
type arguments struct{}
