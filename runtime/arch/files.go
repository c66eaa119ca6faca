package arch

import (
	"fmt"
	"slices"
	"strings"

	"github.com/switchyard-dev/switchyard/runtime/quote"
)

// find matches the parameters to the names in the base's files: as the model for a task writes them or, of the trunk,
// without its prefix, as a bare model does; a LayerNorm's also as checkpoints converted from TensorFlow have them. What
// belongs to a head may be missing; what belongs to the trunk may not.
func (d *Description) find(prefix string, tensors []string) error {
	there := make(map[string]bool, len(tensors))
	for _, name := range tensors {
		there[name] = true
	}
	heads := make(map[string]bool)
	for _, h := range d.Heads {
		for _, path := range h.Modules {
			heads[path] = true
		}
	}
	d.files = make(map[string]string, len(tensors))
	var missing []string
	for i := range d.Modules {
		m := &d.Modules[i]
		for _, p := range m.Params {
			name := m.file(p)
			possible := spellings(m.Kind, prefix, name)
			found := slices.IndexFunc(possible, func(s string) bool { return there[s] })
			switch {
			case found >= 0:
				d.files[m.Path+"."+p.Name] = possible[found]
			case !heads[m.Path] && !slices.Contains(missing, name): // modules in one tensor lack it together
				missing = append(missing, name)
			}
		}
	}
	const most = 5 // named: a base of another architecture lacks hundreds
	if n := len(missing); n > 0 {
		names := make([]string, min(n, most))
		for i := range names {
			names[i] = quote.Name(missing[i])
		}
		more := ""
		if n > most {
			more = fmt.Sprintf(" and %d more", n-most)
		}
		return fmt.Errorf("missing: %s%s", strings.Join(names, ", "), more)
	}
	return nil
}

// spellings are the names that a parameter may have in a file, the usual one first.
func spellings(kind Kind, prefix, name string) []string {
	all := []string{name}
	if bare, ok := strings.CutPrefix(name, prefix); ok {
		all = append(all, bare)
	}
	if kind == LayerNorm {
		for _, s := range slices.Clone(all) {
			if short, ok := strings.CutSuffix(s, ".weight"); ok {
				all = append(all, short+".gamma")
			}
			if short, ok := strings.CutSuffix(s, ".bias"); ok {
				all = append(all, short+".beta")
			}
		}
	}
	return all
}

// Unused lists the tensors that no module asks for, in their order.
func (d *Description) Unused(tensors []string) []string {
	used := make(map[string]bool, len(d.files))
	for _, name := range d.files {
		used[name] = true
	}
	return slices.DeleteFunc(slices.Clone(tensors), func(name string) bool { return used[name] })
}
