package peft

import (
	"fmt"
	"slices"
	"strings"

	"github.com/switchyard-dev/switchyard/runtime/arch"
	"github.com/switchyard-dev/switchyard/runtime/quote"
)

// chooseHead finds which of the architecture's heads answers rows of the adapter: one for its task; where task_type is
// null, that of the class it was trained on, else the base's own, else the only one that can be meant. It has all that
// the file saves, and needs nothing that neither the file nor the base has.
func chooseHead(byModule map[string]*part, c *config, base *arch.Description) (int, error) {
	heads := candidates(c, base)
	if c.task == "" && len(heads) > 1 {
		if fit := saving(byModule, heads, base); len(fit) > 1 {
			return 0, ambiguous(fit, base)
		} else if len(fit) == 1 {
			heads = fit
		}
	}
	var why error
	for _, head := range heads {
		err := complete(head, byModule, base)
		if err == nil {
			return head, nil
		}
		if why == nil {
			why = err
		}
	}
	return 0, why
}

// candidates are the heads that may be meant, the likeliest first.
func candidates(c *config, base *arch.Description) []int {
	if c.task == "" {
		named := slices.IndexFunc(base.Heads, func(h arch.Head) bool { return h.Architecture == c.class })
		switch {
		case named >= 0:
			return []int{named}
		case base.Own >= 0:
			return []int{base.Own}
		}
	}
	var all []int
	for i, h := range base.Heads {
		if c.task == "" || h.Task == c.task {
			all = append(all, i)
		}
	}
	if at := slices.Index(all, base.Own); at >= 0 {
		all = slices.Insert(slices.Delete(all, at, at+1), 0, base.Own)
	}
	return all
}

// saving are those of the heads whose classifier the file saves, and of others nothing.
func saving(byModule map[string]*part, heads []int, base *arch.Description) (fit []int) {
	for _, head := range heads {
		elsewhere := partsOfOtherHeads(base, head)
		foreign := slices.ContainsFunc(base.Modules, func(m arch.Module) bool {
			return byModule[m.Path] != nil && elsewhere[m.Path]
		})
		saved := !slices.ContainsFunc(base.Heads[head].Outputs, func(path string) bool {
			return byModule[path] == nil || len(byModule[path].params) == 0
		})
		if saved && !foreign {
			fit = append(fit, head)
		}
	}
	return fit
}

// ambiguous asks for the task that tells these heads apart.
func ambiguous(heads []int, base *arch.Description) error {
	names := make([]string, len(heads))
	for i, head := range heads {
		names[i] = base.Heads[head].Architecture
	}
	return fmt.Errorf("%s: task_type: expected the task of one of %s, which all fit what the file saves, as the base %s "+
		"has no head of its own, found null", configFile, strings.Join(names, ", "), base.Architecture)
}

// complete tells what a head lacks with this adapter, or has too much of.
func complete(head int, byModule map[string]*part, base *arch.Description) error {
	h := base.Heads[head]
	elsewhere := partsOfOtherHeads(base, head)
	for _, m := range base.Modules {
		if p := byModule[m.Path]; p != nil && elsewhere[m.Path] {
			return misfit(p.first(), "no module %s in %s", quote.Name(p.path), h.Architecture)
		}
	}
	for _, path := range h.Modules {
		if p := byModule[path]; p != nil && len(p.params) > 0 {
			continue
		}
		what := ""
		switch m := base.Lookup(path)[0]; {
		case head != base.Own && slices.Contains(h.Outputs, path):
			what = "is for another task, or has none"
		case !base.Has(m):
			what = "has none"
		default:
			continue
		}
		return &MisfitError{fmt.Errorf("head: %s needs %s, which the adapter does not save, and the base %s %s",
			h.Architecture, quote.Name(path), base.Architecture, what)}
	}
	return nil
}

// partsOfOtherHeads are the modules that belong to heads, and not to this one.
func partsOfOtherHeads(base *arch.Description, head int) map[string]bool {
	others := map[string]bool{}
	for i, h := range base.Heads {
		for _, path := range h.Modules {
			if i != head {
				others[path] = true
			}
		}
	}
	for _, path := range base.Heads[head].Modules {
		delete(others, path)
	}
	return others
}

// outputsOf is the number of outputs of the adapter's head, and whether they are of its own making.
func outputsOf(parts []*part, head arch.Head, base *arch.Description) (outputs int, own bool, err error) {
	outputs = len(base.Classes.Labels)
	from := ""
	for _, p := range parts {
		name, ok := p.params["weight"]
		if !ok || !slices.Contains(head.Outputs, p.module.Path) {
			continue
		}
		if n := p.shapes[name][0]; own && n != outputs {
			return 0, false, refuse(name, "shape: expected %d outputs, as %s has, found %d", outputs, quote.Name(from), n)
		}
		outputs, own, from = p.shapes[name][0], true, name
	}
	if saved := len(head.Outputs); own && saved > 1 {
		for _, path := range head.Outputs {
			if !slices.ContainsFunc(parts, func(p *part) bool { return p.module.Path == path && len(p.params) > 0 }) &&
				outputs != len(base.Classes.Labels) {
				return 0, false, fmt.Errorf("head: %s has %d outputs, and %s, which the adapter does not save, %d",
					strings.TrimPrefix(from, prefix), outputs, quote.Name(path), len(base.Classes.Labels))
			}
		}
	}
	return outputs, own, nil
}
