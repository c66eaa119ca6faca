// Command local keeps Switchyard running on this machine: `make up` and `make down`.
//
//	local up     brings it up in the background, applies config/samples, waits until all is Ready; .local/env says where
//	local down   ends it
//	local run    is what up leaves in the background
//
// Each may be said twice.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/switchyard-dev/switchyard/test/background"
	"github.com/switchyard-dev/switchyard/test/local"
)

const (
	namespace = "demo"
	// sourceAddress is the source registry's, by which config/samples names it.
	sourceAddress = "127.0.0.1:5001"
)

// place is where a running Switchyard keeps its files.
type place struct{ repository, bin, dir string }

func (p place) env() string  { return filepath.Join(p.dir, "env") }
func (p place) data() string { return filepath.Join(p.dir, "data") }

func (p place) program() background.Program { return background.Program{Dir: p.dir} }

func main() {
	repository := flag.String("repository", ".", "`folder` of this repository")
	bin := flag.String("bin", "bin", "`folder` of the binaries")
	dir := flag.String("dir", ".local", "`folder` for everything that is written")
	flag.Parse()
	p, err := absolute(*repository, *bin, *dir)
	if err == nil {
		switch flag.Arg(0) {
		case "up":
			err = p.up()
		case "down":
			err = p.down()
		case "run":
			err = p.run()
		default:
			err = fmt.Errorf("expected up, down or run, found %q", flag.Arg(0))
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "local:", err)
		os.Exit(1)
	}
}

func absolute(repository, bin, dir string) (place, error) {
	var p place
	var errs [3]error
	p.repository, errs[0] = filepath.Abs(repository)
	p.bin, errs[1] = filepath.Abs(bin)
	p.dir, errs[2] = filepath.Abs(dir)
	return p, errors.Join(errs[:]...)
}

// up starts run in the background and waits until it is up.
func (p place) up() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	//nolint:noctx // it goes on when this process ends
	cmd := exec.Command(self, "-repository", p.repository, "-bin", p.bin, "-dir", p.dir, "run")
	fresh, err := p.program().Start(cmd, nil)
	if err != nil {
		return err
	}
	return background.Tell(fresh, p.env())
}

// down ends what runs, and waits until it has.
func (p place) down() error {
	stopped, err := p.program().Stop()
	if err == nil {
		fmt.Println(map[bool]string{true: "down", false: "nothing is running"}[stopped])
	}
	return err
}

// run brings everything up and keeps it up until it is told to end.
func (p place) run() (err error) {
	background.Hold()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := os.RemoveAll(p.data()); err != nil { // each up begins anew
		return err
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	here, err := local.Start(ctx, local.Options{
		Dir: p.data(), Repository: p.repository, SourceAddress: sourceAddress, Log: log,
		Manager: filepath.Join(p.bin, "manager"), Runtime: filepath.Join(p.bin, "runtime"),
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(p.env()), here.Close()) }()
	if err := p.samples(ctx, here); err != nil {
		return err
	}
	if err := background.Up(); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

// samples applies config/samples, waits until it serves, and writes down where.
func (p place) samples(ctx context.Context, here *local.Place) error {
	for _, args := range [][]string{
		{"apply", "-f", "config/samples/"},
		{"wait", "-n", namespace, "--for=condition=Ready", "lorapool,lora", "--all", "--timeout=120s"},
	} {
		if out, err := here.Kubectl(ctx, args...); err != nil {
			return fmt.Errorf("%w:\n%s\n%s", err, out, here.ManagerLog())
		}
	}
	env := fmt.Appendf(nil, "KUBECONFIG=%s\nKUBECTL=%s\n", here.Plane.KubeconfigPath, here.Plane.Kubectl)
	for _, of := range []struct{ prefix, pool string }{{"", "digits"}, {"PACKAGES_", "packages"}} {
		endpoint, err := here.Endpoint(ctx, namespace, of.pool)
		if err != nil {
			return err
		}
		env = fmt.Appendf(env, "%sENDPOINT=%s\n%sGRPC_ENDPOINT=%s\n", of.prefix, endpoint.HTTP, of.prefix, endpoint.GRPC)
	}
	return os.WriteFile(p.env(), env, 0o600)
}
