// Command linter runs kube-api-linter over Go packages that hold an API. The linter ships as a plugin for
// golangci-lint, which would have to be built anew for it: here its analyzers run alone.
//
//	linter -config FILE PACKAGE...
//
// The file enables and configures analyzers as kube-api-linter's documentation says, and lists exceptions: findings
// that are right in general and wrong here, each with its reason. An exception that matches nothing is an error, so
// the list stays true.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"

	"golang.org/x/tools/go/analysis/checker"
	"golang.org/x/tools/go/packages"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/kube-api-linter/pkg/analysis/registry"
	"sigs.k8s.io/kube-api-linter/pkg/config"
	_ "sigs.k8s.io/kube-api-linter/pkg/registration" // fills the registry with the linter's analyzers
	"sigs.k8s.io/kube-api-linter/pkg/validation"
	"sigs.k8s.io/yaml"
)

func main() {
	path := flag.String("config", "", "file of settings and exceptions")
	flag.Parse()
	if err := run(*path, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "linter:", err)
		os.Exit(1)
	}
}

// settings is the file that -config names.
type settings struct {
	Linters       config.Linters       `json:"linters"`
	LintersConfig config.LintersConfig `json:"lintersConfig"`
	Exceptions    []*exception         `json:"exceptions"`
}

// exception lets findings pass.
type exception struct {
	Linter  string `json:"linter"`  // the analyzer's name
	Message string `json:"message"` // a regular expression that the finding's message matches
	Reason  string `json:"reason"`  // why it is right here

	message *regexp.Regexp
	used    bool
}

func run(path string, patterns []string) error {
	s, err := readSettings(path)
	if err != nil {
		return err
	}
	findings, err := analyze(s, patterns)
	if err != nil {
		return err
	}
	for _, e := range s.Exceptions {
		if !e.used {
			findings = append(findings, fmt.Sprintf("%s: exception matches no finding: %s: %s", path, e.Linter, e.Message))
		}
	}
	for _, f := range findings {
		fmt.Println(f)
	}
	if len(findings) > 0 {
		return fmt.Errorf("%d findings", len(findings))
	}
	return nil
}

func readSettings(path string) (*settings, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var s settings
	if err := yaml.UnmarshalStrict(content, &s); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	c := config.GolangCIConfig{Linters: s.Linters, LintersConfig: s.LintersConfig}
	if err := validation.ValidateGolangCIConfig(c, field.NewPath("")); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	for _, e := range s.Exceptions {
		if e.Reason == "" {
			return nil, fmt.Errorf("%s: exception %s %q: expected a reason, found none", path, e.Linter, e.Message)
		}
		if e.message, err = regexp.Compile(e.Message); err != nil {
			return nil, fmt.Errorf("%s: exception %s: %w", path, e.Linter, err)
		}
	}
	return &s, nil
}

// analyze returns what the analyzers find and no exception covers, in the order of the files.
func analyze(s *settings, patterns []string) ([]string, error) {
	analyzers, err := registry.DefaultRegistry().InitializeLinters(s.Linters, s.LintersConfig)
	if err != nil {
		return nil, err
	}
	loaded, err := packages.Load(&packages.Config{Mode: packages.LoadAllSyntax}, patterns...)
	if err != nil {
		return nil, err
	}
	if packages.PrintErrors(loaded) > 0 {
		return nil, errors.New("the packages do not compile")
	}
	graph, err := checker.Analyze(analyzers, loaded, nil)
	if err != nil {
		return nil, err
	}
	here, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	var findings []string
	for _, action := range graph.Roots {
		if action.Err != nil {
			return nil, fmt.Errorf("%s: %w", action.Analyzer.Name, action.Err)
		}
		for _, d := range action.Diagnostics {
			if s.excepted(action.Analyzer.Name, d.Message) {
				continue
			}
			at := action.Package.Fset.Position(d.Pos)
			if name, err := filepath.Rel(here, at.Filename); err == nil {
				at.Filename = name
			}
			findings = append(findings, fmt.Sprintf("%s: %s: %s", at, action.Analyzer.Name, d.Message))
		}
	}
	slices.Sort(findings)
	return findings, nil
}

func (s *settings) excepted(linter, message string) bool {
	found := false
	for _, e := range s.Exceptions {
		if e.Linter == linter && e.message.MatchString(message) {
			e.used, found = true, true
		}
	}
	return found
}
