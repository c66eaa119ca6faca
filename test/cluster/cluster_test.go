package cluster

import (
	"encoding/json"
	"io/fs"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/util/yaml"
)

// What the machine lacks is said by name, with what cures it.
func TestCheckNamesWhatIsMissing(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	err := check(0)
	if err == nil {
		t.Fatal("nothing is missing where there are no programs")
	}
	for _, part := range append([]string{"apt-get install " + Packages}, programs...) {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("expected %q in %q", part, err)
		}
	}
	if err := check(1000); err == nil || !strings.Contains(err.Error(), "not root") {
		t.Errorf("expected that only root may, found %v", err)
	}
}

// Every file that is embedded can be filled in, and those that are JSON or YAML are.
func TestFiles(t *testing.T) {
	c := &Cluster{names: newNames("/somewhere")}
	entries, err := fs.ReadDir(files, "files")
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		name := entry.Name()
		text, err := c.file(name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		switch _, kind, _ := strings.Cut(name, "."); kind {
		case "conflist":
			err = json.Unmarshal(text, &map[string]any{})
		case "yaml":
			for _, document := range strings.Split(string(text), "\n---\n") {
				object := struct{ APIVersion, Kind string }{}
				if err = yaml.UnmarshalStrict([]byte(document), &map[string]any{}); err != nil {
					break
				}
				if err = yaml.Unmarshal([]byte(document), &object); err != nil || object.Kind == "" || object.APIVersion == "" {
					t.Errorf("%s: expected an apiVersion and a kind, found %+v in:\n%s", name, object, document)
				}
			}
		}
		if err != nil {
			t.Errorf("%s: %v in:\n%s", name, err, text)
		}
	}
}
