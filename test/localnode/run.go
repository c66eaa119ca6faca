package localnode

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/switchyard-dev/switchyard/test/localnode/process"
)

// run is one process of a container, from its start to its end.
type run struct {
	id        string
	startedAt time.Time
	ended     chan struct{} // closed once the process is gone
	exit      exit          // once ended

	// What the probes found; they wake the pod's worker.
	started, ready atomic.Bool
	unhealthy      atomic.Pointer[string] // why it is to be restarted

	cmd *exec.Cmd
	log *boundedLog
}

type exit struct {
	code   int32
	signal int32
	at     time.Time
}

// startRun starts a process that dies with this one. wake is called once it has ended.
func startRun(
	ctx context.Context, c command, logPath, notePath string, now func() time.Time, wake func(),
) (*run, error) {
	log, err := openLog(logPath)
	if err != nil {
		return nil, err
	}
	// Not of a context: the worker ends it, with its grace period.
	cmd := exec.CommandContext(context.WithoutCancel(ctx), c.binary, c.args...)
	cmd.Env, cmd.Dir = c.env, c.dir
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	cmd.WaitDelay = time.Second // for a grandchild that keeps the output open
	r := &run{id: "localnode://" + strings.ToLower(rand.Text()), ended: make(chan struct{}), cmd: cmd, log: log}
	r.startedAt = now() // not after its first instruction
	if err := cmd.Start(); err != nil {
		_ = log.Close()
		return nil, err
	}
	if p, err := process.Of(cmd.Process.Pid); err == nil { // else it has ended already
		if err := p.Note(notePath); err != nil {
			r.signal(syscall.SIGKILL)
			_ = cmd.Wait()
			_ = log.Close()
			return nil, err
		}
	}
	go func() {
		_ = cmd.Wait() // how it ended is in ProcessState
		r.signal(syscall.SIGKILL)
		_ = os.Remove(notePath)
		_ = log.Close()
		r.exit = exitOf(cmd.ProcessState, now())
		close(r.ended)
		wake()
	}()
	return r, nil
}

// signal reaches the process and all its children.
func (r *run) signal(s syscall.Signal) { _ = syscall.Kill(-r.cmd.Process.Pid, s) } // an error says that none is left

func (r *run) hasEnded() bool {
	select {
	case <-r.ended:
		return true
	default:
		return false
	}
}

func exitOf(state *os.ProcessState, at time.Time) exit {
	status, ok := state.Sys().(syscall.WaitStatus)
	if ok && status.Signaled() {
		return exit{code: 128 + int32(status.Signal()), signal: int32(status.Signal()), at: at}
	}
	return exit{code: int32(state.ExitCode()), at: at}
}

// mostLog bounds a container's log; the part before is kept as .1.
const mostLog = 8 << 20

// boundedLog is a file that begins anew when it is full. Safe for concurrent use.
type boundedLog struct {
	mu   sync.Mutex
	path string
	file *os.File
	size int64
}

func openLog(path string) (*boundedLog, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return &boundedLog{path: path, file: file, size: info.Size()}, nil
}

func (l *boundedLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.size+int64(len(p)) > mostLog {
		if err := os.Rename(l.path, l.path+".1"); err != nil {
			return 0, err
		}
		fresh, err := os.Create(l.path)
		if err != nil {
			return 0, fmt.Errorf("log: %w", err)
		}
		_ = l.file.Close()
		l.file, l.size = fresh, 0
	}
	n, err := l.file.Write(p)
	l.size += int64(n)
	return n, err
}

func (l *boundedLog) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.file.Close()
}
