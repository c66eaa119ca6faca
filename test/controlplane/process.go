package controlplane

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/switchyard-dev/switchyard/test/localnode/process"
)

const (
	poll  = 50 * time.Millisecond // how often a state that nobody reports is looked at
	grace = 3 * time.Second       // from SIGTERM to SIGKILL: an apiserver waits for its watches, we do not
)

// start runs a program with its output in dir/logs, and notes its id in dir/run. The child dies with this process
// unless detached.
func start(ctx context.Context, dir, binary string, args []string, detach bool) error {
	name := filepath.Base(binary)
	log, err := os.Create(logPath(dir, name))
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }() // the child has its own
	// It outlives every context: Stop ends it.
	cmd := exec.CommandContext(context.WithoutCancel(ctx), binary, args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true} // a terminal's ^C is for the parent
	if detach {
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	p, err := process.Of(cmd.Process.Pid)
	if err == nil {
		err = p.Note(notePath(dir, name))
	}
	if err != nil { // it may have ended at once
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // its log is whole then
		return fmt.Errorf("%s did not come up: the process ended: %w\n%s", name, err, tail(dir, name))
	}
	go func() { _ = cmd.Wait() }() // reaps it; that it has ended is seen from outside
	return nil
}

// running is the process of a name that dir/run notes, if it lives.
func running(dir, name string) (process.Process, bool) { return process.Noted(notePath(dir, name)) }

// stop ends the process of a name, kindly and then not, and forgets it. None is fine.
func stop(dir, name string) error {
	if err := process.StopNoted(notePath(dir, name), grace); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// tail is the end of a program's log.
func tail(dir, name string) string {
	file, err := os.Open(logPath(dir, name))
	if err != nil {
		return err.Error()
	}
	defer func() { _ = file.Close() }()
	const most = 3 << 10
	if info, err := file.Stat(); err == nil && info.Size() > most {
		_, _ = file.Seek(-most, io.SeekEnd) // where it fails, the beginning is shown
	}
	text, _ := io.ReadAll(io.LimitReader(file, most))
	return strings.TrimSpace(string(text))
}

func logPath(dir, name string) string  { return filepath.Join(dir, "logs", name+".log") }
func notePath(dir, name string) string { return filepath.Join(dir, "run", name+".json") }

// writeFile leaves a whole file or the one before, for its owner only.
func writeFile(path string, text []byte) error {
	if err := os.WriteFile(path+".new", text, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}
