package local

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"sync/atomic"
	"syscall"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/switchyard-dev/switchyard/test/localnode/process"
)

// restartAfter is the pause between two starts of a program that ends by itself.
const restartAfter = 500 * time.Millisecond

// program is one of our binaries, kept running as kubelet would: where it ends by itself it is started again. One that
// is killed stays away.
type program struct {
	binary string
	args   []string
	log    string // its file

	from   atomic.Int64 // where in the log the present process begins
	pid    atomic.Int64 // of the present process
	paused atomic.Bool  // the present process is
	stop   context.CancelFunc
	ended  chan struct{}
}

// startProgram keeps a program running until ctx ends or it is killed.
func startProgram(ctx context.Context, log, binary string, args ...string) (*program, error) {
	ctx, stop := context.WithCancel(ctx)
	p := &program{binary: binary, args: args, log: log, stop: stop, ended: make(chan struct{})}
	first, err := p.start(ctx)
	if err != nil {
		stop()
		return nil, err
	}
	go func() {
		defer close(p.ended)
		_ = first.Wait() // how it ended is nobody's concern: it is killed, or the log says why
		wait.UntilWithContext(ctx, func(ctx context.Context) {
			if next, err := p.start(ctx); err == nil { // else tried again
				_ = next.Wait()
			}
		}, restartAfter)
	}()
	return p, nil
}

func (p *program) start(ctx context.Context) (*exec.Cmd, error) {
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }() // the process has its own
	info, err := log.Stat()
	if err != nil {
		return nil, err
	}
	p.from.Store(info.Size())
	cmd := exec.CommandContext(ctx, p.binary, p.args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p.pid.Store(int64(cmd.Process.Pid))
	return cmd, nil
}

// kill ends the process at once, as kill -9 does, and waits for that.
func (p *program) kill() {
	p.stop()
	<-p.ended
}

// says tells whether the present process, if there is one, has logged a text.
func (p *program) says(text string) bool {
	if _, err := process.Of(int(p.pid.Load())); err != nil { // it has ended, and the next has not begun
		return false
	}
	log, err := readLog(p.log, p.from.Load())
	return err == nil && bytes.Contains(log, []byte(text))
}

// readLog reads a log from an offset on, up to a bound.
func readLog(path string, from int64) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	const most = 1 << 20
	text, err := io.ReadAll(io.NewSectionReader(file, from, most))
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return text, err
}
