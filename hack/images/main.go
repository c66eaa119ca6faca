// Command images builds images and writes each as a docker-archive into a folder: `make images` those of the manager
// and of the runtime. Docker is not needed, nor a registry, nor a base image: the programs are static. The others are
// for tests: e2e is test/e2e's own, pause and coredns those of hack/cluster.
//
//	go run ./hack/images              manager and runtime
//	go run ./hack/images e2e          others, by name
//	ctr -n k8s.io images import bin/images/manager.tar
//	kind load image-archive bin/images/manager.tar
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/switchyard-dev/switchyard/hack/images/archive"
)

const (
	repository = "ghcr.io/switchyard-dev/" // as config/ names the images
	// certificates are those of the public authorities, by which the manager knows https sources: the build machine's.
	certificates = "/etc/ssl/certs/ca-certificates.crt"
)

// programs are the images by name: the package of each one's program, the folder of its module, and what else it holds.
var programs = map[string]struct {
	pkg, module string
	files       map[string]string
}{
	"manager": {"./cmd/manager", ".", map[string]string{certificates: certificates}},
	"runtime": {"./cmd/runtime", ".", nil},
	"e2e": {"./test/e2e/pod", ".", map[string]string{
		"/samples/digits": "hack/samples/digits", "/samples/packages": "hack/samples/packages",
	}},
	"pause":   {"./hack/images/pause", ".", nil},
	"coredns": {".", "hack/coredns", nil},
}

func main() {
	root := flag.String("repository", ".", "`folder` of this repository")
	out := flag.String("out", "bin/images", "`folder` to write to")
	tag := flag.String("tag", "dev", "`tag` of the images")
	flag.Parse()
	names := flag.Args()
	if len(names) == 0 {
		names = []string{"manager", "runtime"}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := write(ctx, *root, *out, *tag, names)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "images:", err)
		os.Exit(1)
	}
}

func write(ctx context.Context, root, out, tag string, names []string) (err error) {
	dir, err := os.MkdirTemp("", "switchyard-images-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	for _, name := range names {
		program, known := programs[name]
		if !known {
			return fmt.Errorf("expected names of %v, found %q", slices.Sorted(maps.Keys(programs)), name)
		}
		binary := filepath.Join(dir, name)
		if err := build(ctx, filepath.Join(root, program.module), program.pkg, binary); err != nil {
			return err
		}
		image := archive.Image{
			Name: repository + name + ":" + tag, Entrypoint: []string{"/" + name},
			Files: map[string]string{"/" + name: binary},
		}
		for to, from := range program.files {
			if !filepath.IsAbs(from) {
				from = filepath.Join(root, from)
			}
			if _, err := os.Stat(from); errors.Is(err, fs.ErrNotExist) && from == certificates {
				fmt.Fprintf(os.Stderr, "images: %s is not here: this image of %s knows no https source\n", from, name)
				continue
			}
			image.Files[to] = from
		}
		path := filepath.Join(out, name+".tar")
		if err := image.WriteFile(path); err != nil {
			return err
		}
		fmt.Println(path, image.Name)
	}
	return nil
}

// build makes a static program that is the same wherever it is built.
func build(ctx context.Context, module, pkg, to string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", to, pkg)
	cmd.Dir, cmd.Env = module, append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build %s: %w\n%s", pkg, err, strings.TrimSpace(string(text)))
	}
	return nil
}
