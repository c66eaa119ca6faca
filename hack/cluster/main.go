// Command cluster keeps a real Kubernetes cluster of one node running on this machine, as root and without Docker
// (test/cluster).
//
//	hack/cluster/run up     brings it up in the background, with the images of this tree; .cluster/data/env says where
//	hack/cluster/run down   ends it and leaves nothing
//
// Each may be said twice. `check` says what this machine lacks for it, `packages` names Debian's that it takes.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/switchyard-dev/switchyard/test/background"
	"github.com/switchyard-dev/switchyard/test/cluster"
)

// place is where a running cluster keeps its files, and what it is made of.
type place struct{ dir, node, images string }

func (p place) data() string                { return filepath.Join(p.dir, "data") }
func (p place) env() string                 { return filepath.Join(p.data(), "env") }
func (p place) program() background.Program { return background.Program{Dir: p.dir} }

func main() {
	var p place
	flag.StringVar(&p.dir, "dir", ".cluster", "`folder` for everything that is written")
	flag.StringVar(&p.node, "node", "", "`folder` of kubelet, kube-proxy and kube-scheduler")
	flag.StringVar(&p.images, "images", "bin/images", "`folder` of the archives of images")
	flag.Parse()
	code, err := p.do(flag.Arg(0))
	if err != nil {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		code = 1
	}
	os.Exit(code)
}

func (p place) do(what string) (code int, err error) {
	for _, path := range []*string{&p.dir, &p.node, &p.images} {
		if *path, err = filepath.Abs(*path); err != nil {
			return 0, err
		}
	}
	switch what {
	case "check":
		return 0, cluster.Check()
	case "packages":
		fmt.Println(cluster.Packages)
		return 0, nil
	case "up":
		return 0, p.up()
	case "down":
		return 0, p.down()
	case "init":
		return p.init()
	case "run":
		return 0, p.run()
	}
	return 0, fmt.Errorf("expected check, packages, up or down, found %q", what)
}

func (p place) args(what string) []string {
	return []string{"-dir", p.dir, "-node", p.node, "-images", p.images, what}
}

func (p place) up() error {
	if err := cluster.Check(); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	ctx := context.Background()
	if _, runs := p.program().Running(); !runs { // one that was killed left something
		if err := cluster.Clean(ctx, p.data()); err != nil {
			return err
		}
	}
	fresh, err := p.program().Start(cluster.Command(self, p.args("init")...), func(pid int) error {
		return cluster.Link(ctx, pid)
	})
	if err != nil {
		return err
	}
	return background.Tell(fresh, p.env())
}

func (p place) down() error {
	stopped, err := p.program().Stop()
	if err != nil {
		return err
	}
	if err := cluster.Clean(context.Background(), p.data()); err != nil {
		return err
	}
	if err := p.program().Remove(); err != nil {
		return err
	}
	fmt.Println(map[bool]string{true: "down", false: "nothing is running"}[stopped])
	return nil
}

// init is the first process of the namespaces.
func (p place) init() (code int, err error) {
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	return cluster.Init(self, p.args("run"), background.Files()...)
}

// run brings the cluster up, within the namespaces, and keeps it until it is told to end.
func (p place) run() error {
	background.Hold()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := os.RemoveAll(p.data()); err != nil { // each up begins anew
		return err
	}
	images, err := filepath.Glob(filepath.Join(p.images, "*.tar"))
	if err != nil {
		return err
	}
	running, err := cluster.Start(ctx, cluster.Options{
		Dir: p.data(), NodePrograms: p.node, Images: images, Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
	if err != nil {
		return err
	}
	env := fmt.Sprintf("KUBECONFIG=%s\nKUBECTL=%s\n", running.Plane.KubeconfigPath, running.Plane.Kubectl)
	if err := os.WriteFile(p.env(), []byte(env), 0o600); err != nil {
		return err
	}
	if err := background.Up(); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return nil
	case err := <-running.Ended():
		return errors.Join(err, os.Remove(p.env()))
	}
}
