// Command reference writes docs/api.md from the generated CRDs: every field with its type, default, bounds and rules.
//
//	reference CRD.yaml... >docs/api.md
package main

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"sigs.k8s.io/yaml"
)

const introduction = `# API reference

Group switchyard.dev, version v1alpha1. Generated from api/v1alpha1 by ` + "`make generate`" + `; do not edit.

In the tables a field that must be given is **bold**. Bounds of strings are in characters.
`

// kubernetes are members whose fields are Kubernetes's own, documented there.
var kubernetes = []string{
	"spec.template.resources", "spec.template.tolerations", "spec.template.affinity",
	"spec.template.topologySpreadConstraints", "spec.template.imagePullSecrets", "status.conditions",
}

func main() {
	out := bufio.NewWriter(os.Stdout)
	err := write(out, os.Args[1:])
	if err := cmp.Or(err, out.Flush()); err != nil {
		fmt.Fprintln(os.Stderr, "reference:", err)
		os.Exit(1)
	}
}

func write(out io.Writer, paths []string) error {
	fmt.Fprint(out, introduction)
	for _, path := range paths {
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		var crd apiextensionsv1.CustomResourceDefinition
		if err := yaml.UnmarshalStrict(content, &crd); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		for _, version := range crd.Spec.Versions {
			writeKind(out, crd.Spec.Names, version)
		}
	}
	return nil
}

func writeKind(out io.Writer, names apiextensionsv1.CustomResourceDefinitionNames,
	version apiextensionsv1.CustomResourceDefinitionVersion,
) {
	root := version.Schema.OpenAPIV3Schema
	fmt.Fprintf(out, "\n## %s\n\n%s\n\n", names.Kind, oneLine(root.Description))
	fmt.Fprintf(out, "`kubectl get %s`", strings.Join(append(names.ShortNames, names.Plural), "`, `kubectl get "))
	fmt.Fprint(out, " or `kubectl get switchyard` prints:\n\n| column | |\n|---|---|\n")
	for _, c := range version.AdditionalPrinterColumns {
		wide := ""
		if c.Priority > 0 {
			wide = " (with `-o wide`)"
		}
		what := cmp.Or(c.Description, "`"+c.JSONPath+"`")
		fmt.Fprintf(out, "| %s | %s%s |\n", strings.ToUpper(c.Name), cell(what), wide)
	}
	if version.Subresources != nil && version.Subresources.Scale != nil {
		fmt.Fprintf(out, "\n`kubectl scale %s/NAME --replicas N` sets %s.\n", names.Singular,
			strings.TrimPrefix(version.Subresources.Scale.SpecReplicasPath, "."))
	}
	if len(root.XValidations) > 0 {
		fmt.Fprint(out, "\nRules:\n\n")
		for _, rule := range root.XValidations {
			fmt.Fprintf(out, "- %s\n", oneLine(rule.Message))
		}
	}
	for _, part := range []string{"spec", "status"} {
		schema := root.Properties[part]
		fmt.Fprintf(out, "\n### %s of %s\n\n%s\n\n", part, names.Kind, oneLine(schema.Description))
		fmt.Fprint(out, "| field | type | |\n|---|---|---|\n")
		writeFields(out, part, &schema)
	}
}

// writeFields writes the members of an object, required ones first, each followed by its own.
func writeFields(out io.Writer, path string, schema *apiextensionsv1.JSONSchemaProps) {
	required := func(name string) bool { return slices.Contains(schema.Required, name) }
	members := slices.SortedFunc(maps.Keys(schema.Properties), func(a, b string) int {
		if required(a) != required(b) {
			if required(a) {
				return -1
			}
			return 1
		}
		return cmp.Compare(a, b)
	})
	for _, name := range members {
		member := schema.Properties[name]
		at := path + "." + name
		_, shown, _ := strings.Cut(at, ".")
		shown = "`" + shown + "`"
		if required(name) {
			shown = "**" + shown + "**"
		}
		fmt.Fprintf(out, "| %s | %s | %s |\n", shown, typeOf(&member), describe(at, &member))
		if slices.Contains(kubernetes, at) {
			continue
		}
		writeFields(out, at, &member)
		if member.Items != nil {
			writeFields(out, at+"[]", member.Items.Schema)
		}
	}
}

func typeOf(schema *apiextensionsv1.JSONSchemaProps) string {
	switch {
	case schema.XIntOrString:
		return "quantity"
	case schema.Type == "array":
		return "list of " + typeOf(schema.Items.Schema)
	case schema.AdditionalProperties != nil:
		return "map of " + typeOf(schema.AdditionalProperties.Schema)
	case schema.Format == "date-time":
		return "time"
	}
	return schema.Type
}

// describe is what there is to say of a field: its comment, its rules, its default and its bounds.
func describe(path string, schema *apiextensionsv1.JSONSchemaProps) string {
	description := schema.Description
	if slices.Contains(kubernetes, path) && path != "status.conditions" {
		description, _, _ = strings.Cut(description, "\n\n")
		description += " As in a pod."
	}
	said := []string{cell(description)}
	for _, rule := range schema.XValidations {
		said = append(said, "Rule: "+cell(rule.Message)+".")
	}
	if schema.Default != nil && string(schema.Default.Raw) != "{}" {
		said = append(said, fmt.Sprintf("Default: `%s`.", schema.Default.Raw))
	}
	for _, b := range bounds(schema) {
		said = append(said, b+".")
	}
	if schema.Items != nil {
		for _, b := range bounds(schema.Items.Schema) {
			said = append(said, "Each: "+b+".")
		}
	}
	return strings.Join(said, " ")
}

func bounds(schema *apiextensionsv1.JSONSchemaProps) []string {
	var all []string
	add := func(low, high *int64, unit string) {
		switch {
		case low != nil && high != nil && *low == *high:
			all = append(all, fmt.Sprintf("%d%s", *low, unit))
		case low != nil && high != nil:
			all = append(all, fmt.Sprintf("%d to %d%s", *low, *high, unit))
		case low != nil:
			all = append(all, fmt.Sprintf("At least %d%s", *low, unit))
		case high != nil:
			all = append(all, fmt.Sprintf("At most %d%s", *high, unit))
		}
	}
	add(whole(schema.Minimum), whole(schema.Maximum), "")
	add(schema.MinLength, schema.MaxLength, " characters")
	add(schema.MinItems, schema.MaxItems, " items")
	add(schema.MinProperties, schema.MaxProperties, " entries")
	if schema.Pattern != "" && !schema.XIntOrString { // a quantity's pattern tells nobody anything
		all = append(all, "Matches `"+cell(schema.Pattern)+"`")
	}
	return all
}

func whole(number *float64) *int64 {
	if number == nil {
		return nil
	}
	n := int64(*number)
	return &n
}

func cell(text string) string {
	return strings.ReplaceAll(oneLine(text), "|", `\|`)
}

func oneLine(text string) string {
	return strings.Join(strings.Fields(text), " ")
}
