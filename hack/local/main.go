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
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/switchyard-dev/switchyard/test/local"
)

const (
	namespace = "demo"
	pool      = "digits"
	// sourceAddress is the source registry's, by which config/samples names it.
	sourceAddress = "127.0.0.1:5001"

	// upFile is the descriptor by which run tells up that it is up: exec gives the first extra file this number.
	upFile = 3
)

// place is where a running Switchyard keeps its files.
type place struct{ repository, bin, dir string }

func (p place) env() string  { return filepath.Join(p.dir, "env") }
func (p place) pid() string  { return filepath.Join(p.dir, "pid") }
func (p place) log() string  { return filepath.Join(p.dir, "log") }
func (p place) data() string { return filepath.Join(p.dir, "data") }

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
	if err := os.MkdirAll(p.dir, 0o700); err != nil {
		return err
	}
	if pid, ok := p.running(); ok {
		fmt.Printf("already up (process %d)\n", pid)
		return p.printEnv()
	}
	log, err := os.Create(p.log())
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	told, tell, err := os.Pipe() // run closes its end once it is up, or by ending
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	//nolint:noctx // it goes on when this process ends
	cmd := exec.Command(self, "-repository", p.repository, "-bin", p.bin, "-dir", p.dir, "run")
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = log, log, []*os.File{tell}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // it stays when this terminal goes
	if err := cmd.Start(); err != nil {
		return err
	}
	_ = tell.Close() // the child has its own
	_, _ = told.Read(make([]byte, 1))
	if _, err := os.Stat(p.env()); err != nil {
		text, _ := os.ReadFile(p.log()) // said below, if it can be read
		return fmt.Errorf("it did not come up; %s says:\n%s", p.log(), text)
	}
	return p.printEnv()
}

func (p place) printEnv() error {
	text, err := os.ReadFile(p.env())
	if err != nil {
		return err
	}
	fmt.Printf("%s\n%s", p.env(), text)
	return nil
}

// down ends what runs, and waits until it has.
func (p place) down() error {
	pid, ok := p.running()
	if !ok {
		fmt.Println("nothing is running")
		return nil
	}
	// A descriptor of the process rather than its number, which might be another's by now.
	process, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return fmt.Errorf("process %d: %w", pid, err)
	}
	defer func() { _ = unix.Close(process) }()
	if err := unix.PidfdSendSignal(process, unix.SIGTERM, nil, 0); err != nil {
		return fmt.Errorf("process %d: %w", pid, err)
	}
	for {
		_, err := unix.Poll([]unix.PollFd{{Fd: int32(process), Events: unix.POLLIN}}, -1) // until it has ended
		if !errors.Is(err, unix.EINTR) {
			fmt.Println("down")
			return err
		}
	}
}

// running tells whether run is running here: it holds a lock on its file for as long as it lives.
func (p place) running() (pid int, ok bool) {
	file, err := os.Open(p.pid())
	if err != nil {
		return 0, false
	}
	defer func() { _ = file.Close() }()
	if err := unix.Flock(int(file.Fd()), unix.LOCK_SH|unix.LOCK_NB); err == nil {
		return 0, false // nobody holds it
	}
	text, err := os.ReadFile(p.pid())
	if err != nil {
		return 0, false
	}
	pid, err = strconv.Atoi(strings.TrimSpace(string(text)))
	return pid, err == nil
}

// run brings everything up and keeps it up until it is told to end.
func (p place) run() (err error) {
	unix.CloseOnExec(upFile) // else everything started here would hold it, and up wait for them all
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	lock, err := p.lock()
	if err != nil {
		return err
	}
	defer func() { _ = lock.Close() }()
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
	if up := os.NewFile(upFile, "up"); up != nil {
		_ = up.Close() // tells `local up`
	}
	<-ctx.Done()
	return nil
}

// lock makes this the one that runs here.
func (p place) lock() (*os.File, error) {
	file, err := os.OpenFile(p.pid(), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: another one is running: %w", p.pid(), err), file.Close())
	}
	if err := file.Truncate(0); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	_, err = fmt.Fprintln(file, os.Getpid())
	return file, err
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
	endpoint, err := here.Endpoint(ctx, namespace, pool)
	if err != nil {
		return err
	}
	env := fmt.Sprintf("KUBECONFIG=%s\nKUBECTL=%s\nENDPOINT=%s\n", here.Plane.KubeconfigPath, here.Plane.Kubectl, endpoint)
	return os.WriteFile(p.env(), []byte(env), 0o600)
}
