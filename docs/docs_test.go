package docs

import (
	"io/fs"
	"os"
	"regexp"
	"strings"
	"testing"
)

// Every row of docs/faults.md's table of what others get wrong names tests, and they are there.
func TestWhatOthersGetWrongIsTested(t *testing.T) {
	there := map[string]bool{}
	declared := regexp.MustCompile(`(?m)^func (Test\w+)\(t \*testing\.T\)`)
	root := os.DirFS("..")
	err := fs.WalkDir(root, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := fs.ReadFile(root, path)
		for _, match := range declared.FindAllSubmatch(text, -1) {
			there[string(match[1])] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("faults.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, found := strings.Cut(string(page), "| seen | where | here | held by |\n|---|---|---|---|\n")
	rows := 0
	named := regexp.MustCompile("`(Test\\w+)`")
	for line := range strings.Lines(table) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		const columns = 4
		if len(cells) != columns {
			t.Fatalf("expected %d columns, found %q", columns, line)
		}
		rows++
		tests := named.FindAllStringSubmatch(cells[columns-1], -1)
		if len(tests) == 0 {
			t.Errorf("%q: expected the names of tests, found %q", cells[0], cells[columns-1])
		}
		for _, test := range tests {
			if !there[test[1]] {
				t.Errorf("%q: there is no test %s", cells[0], test[1])
			}
		}
	}
	const least = 12
	if !found || rows < least {
		t.Errorf("expected a table of at least %d rows, found %d", least, rows)
	}
}

// Every reason that a status may give is explained in docs/operations.md, and no other.
func TestEveryReasonIsExplained(t *testing.T) {
	source, err := os.ReadFile("../api/v1alpha1/conditions.go")
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("operations.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(page), "## Conditions and reasons\n")
	if !found {
		t.Fatal("operations.md: expected the section of conditions and reasons, found none")
	}
	section, _, _ = strings.Cut(section, "\n## ")
	explained := map[string]bool{}
	for line := range strings.Lines(section) {
		if cell, _, ok := strings.Cut(strings.TrimPrefix(line, "| "), " |"); ok && strings.HasPrefix(line, "| ") {
			for reason := range strings.SplitSeq(cell, ", ") {
				explained[reason] = true
			}
		}
	}
	delete(explained, "reason") // the tables' heads
	known := map[string]bool{}
	declared := regexp.MustCompile(`(?m)^\t(?:Reason|Failure)\w+ += "(\w+)"`)
	for _, match := range declared.FindAllSubmatch(source, -1) {
		known[string(match[1])] = true
	}
	for reason := range known {
		if !explained[reason] {
			t.Errorf("operations.md: expected the reason %s, found none", reason)
		}
	}
	for reason := range explained {
		if !known[reason] {
			t.Errorf("operations.md: %s is no reason of the API", reason)
		}
	}
}
