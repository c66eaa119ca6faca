// Package background lets a command leave a program running when it ends, tell whether it runs, and end it: what
// `make up` and `hack/cluster up` are made of.
//
// The program holds a lock on a file for as long as it lives, so a note of one that was killed is never taken for a
// living one, nor a stranger of the same number for it.
package background

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// upFile is the descriptor by which the program tells that it is up, heldFile that of its lock: exec gives the first
// extra file this number.
const (
	upFile   = 3
	heldFile = 4
)

// Program is one that is left running, known by its folder.
type Program struct {
	Dir string // of its log and its note; made if missing
}

// Log is the file of what it prints.
func (p Program) Log() string { return filepath.Join(p.Dir, "log") }

func (p Program) note() string { return filepath.Join(p.Dir, "pid") }

// Start starts a command in the background and returns once it has said Up. Where one runs already, it returns false.
// started, if not nil, is told the number of its process before that is waited for.
func (p Program) Start(cmd *exec.Cmd, started func(pid int) error) (fresh bool, err error) {
	if err := os.MkdirAll(p.Dir, 0o700); err != nil {
		return false, err
	}
	note, err := os.OpenFile(p.note(), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return false, err
	}
	defer func() { _ = note.Close() }() // the program has its own
	switch err := unix.Flock(int(note.Fd()), unix.LOCK_EX|unix.LOCK_NB); {
	case errors.Is(err, unix.EWOULDBLOCK):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("%s: %w", p.note(), err)
	}
	log, err := os.Create(p.Log())
	if err != nil {
		return false, err
	}
	defer func() { _ = log.Close() }()
	told, tell, err := os.Pipe()
	if err != nil {
		return false, err
	}
	defer func() { _ = told.Close() }()
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = log, log, []*os.File{tell, note}
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setsid = true // it stays when this terminal goes
	err = cmd.Start()
	_ = tell.Close() // the child has its own
	if err != nil {
		return false, err
	}
	if err := p.write(note, cmd.Process.Pid); err != nil {
		return false, errors.Join(err, cmd.Process.Kill())
	}
	if started != nil {
		if err := started(cmd.Process.Pid); err != nil {
			return false, errors.Join(err, cmd.Process.Kill())
		}
	}
	if word, _ := io.ReadAll(told); string(word) != "up" {
		text, _ := os.ReadFile(p.Log()) // said below, if it can be read
		return false, fmt.Errorf("it did not come up; %s says:\n%s", p.Log(), text)
	}
	return true, nil
}

func (p Program) write(note *os.File, pid int) error {
	if err := note.Truncate(0); err != nil {
		return err
	}
	_, err := fmt.Fprintln(note, pid)
	return err
}

// Tell prints whether a program was up already, and the file that says where it is.
func Tell(fresh bool, file string) error {
	if !fresh {
		fmt.Println("already up")
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	fmt.Printf("%s\n%s", file, text)
	return nil
}

// Hold is called first by the program: what it starts must not hold its descriptors, or nobody would see its end.
func Hold() {
	unix.CloseOnExec(upFile)
	unix.CloseOnExec(heldFile)
}

// Remove removes what Start wrote, of a program that does not run, and the folder if it is empty then.
func (p Program) Remove() error {
	if pid, ok := p.Running(); ok {
		return fmt.Errorf("process %d still runs", pid)
	}
	for _, path := range []string{p.Log(), p.note(), p.Dir} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTEMPTY) {
			return err
		}
	}
	return nil
}

// Files are the descriptors by which Start knows the program, for one that only starts it.
func Files() []*os.File {
	return []*os.File{os.NewFile(upFile, "up"), os.NewFile(heldFile, "held")}
}

// Up is called by the program once it is up.
func Up() error {
	up := os.NewFile(upFile, "up")
	if up == nil {
		return errors.New("not started in the background")
	}
	_, err := up.WriteString("up")
	return errors.Join(err, up.Close())
}

// Running is the number of its process, if it runs.
func (p Program) Running() (pid int, ok bool) {
	note, err := os.Open(p.note())
	if err != nil {
		return 0, false
	}
	defer func() { _ = note.Close() }()
	if err := unix.Flock(int(note.Fd()), unix.LOCK_SH|unix.LOCK_NB); err == nil {
		return 0, false // nobody holds it
	}
	text, err := os.ReadFile(p.note())
	if err != nil {
		return 0, false
	}
	pid, err = strconv.Atoi(strings.TrimSpace(string(text)))
	return pid, err == nil
}

// Stop sends SIGTERM to the program and waits until it has ended. Where none runs, it returns false.
func (p Program) Stop() (stopped bool, err error) {
	pid, ok := p.Running()
	if !ok {
		return false, nil
	}
	// A descriptor of the process rather than its number, which might be another's by now.
	process, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return false, fmt.Errorf("process %d: %w", pid, err)
	}
	defer func() { _ = unix.Close(process) }()
	if err := unix.PidfdSendSignal(process, unix.SIGTERM, nil, 0); err != nil {
		return false, fmt.Errorf("process %d: %w", pid, err)
	}
	for {
		_, err := unix.Poll([]unix.PollFd{{Fd: int32(process), Events: unix.POLLIN}}, -1) // until it has ended
		if !errors.Is(err, unix.EINTR) {
			return true, err
		}
	}
}
