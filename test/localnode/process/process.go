// Package process knows processes by their id and the time they started, so that one may be noted in a file and stopped
// by another program later, and never a stranger that got the same id.
package process

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
)

// every is how often a process is looked at: only a parent is told of its end.
const every = 10 * time.Millisecond

// Process is one that ran when it was looked at.
type Process struct {
	PID     int    `json:"pid"`
	Started uint64 `json:"started"` // in clock ticks since boot
}

// Of is the process that has the id now.
func Of(pid int) (Process, error) {
	started, err := startTime(pid)
	return Process{pid, started}, err
}

// Alive says whether the process still runs; one that only waits to be reaped does not.
func (p Process) Alive() bool {
	started, err := startTime(p.PID)
	return err == nil && started == p.Started
}

// Wait returns once the process is gone.
func (p Process) Wait(ctx context.Context) error {
	gone := func(context.Context) (bool, error) { return !p.Alive(), nil }
	return wait.PollUntilContextCancel(ctx, every, true, gone)
}

// Usage is what a process has taken since it started.
type Usage struct {
	CPU        time.Duration
	PeakMemory int64 // bytes that were resident at most
	Memory     int64 // bytes that are resident
	Files      int   // that are open
}

// clockTicks of /proc/PID/stat in a second, on every Linux that Go runs on.
const clockTicks = 100

// Usage tells what the process has taken so far.
func (p Process) Usage() (Usage, error) {
	fields, err := stat(p.PID)
	if err != nil {
		return Usage{}, err
	}
	const user, system = 11, 12
	var u Usage
	for _, i := range []int{user, system} {
		ticks, err := strconv.ParseInt(fields[i], 10, 64)
		if err != nil {
			return Usage{}, fmt.Errorf("/proc/%d/stat: %w", p.PID, err)
		}
		u.CPU += time.Duration(ticks) * time.Second / clockTicks
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.PID))
	if err != nil {
		return Usage{}, err
	}
	found := 0
	for line := range strings.Lines(string(text)) {
		words := strings.Fields(line)
		if len(words) < 2 {
			continue
		}
		into := map[string]*int64{"VmHWM:": &u.PeakMemory, "VmRSS:": &u.Memory}[words[0]]
		if into == nil {
			continue
		}
		kilobytes, err := strconv.ParseInt(words[1], 10, 64)
		if err != nil {
			return Usage{}, fmt.Errorf("/proc/%d/status: %w", p.PID, err)
		}
		*into = kilobytes << 10
		found++
	}
	if found < 2 {
		return Usage{}, fmt.Errorf("/proc/%d/status: expected VmHWM and VmRSS, found %d of them", p.PID, found)
	}
	files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.PID))
	u.Files = len(files)
	return u, err
}

// Stop sends SIGTERM to the process and the group it leads, SIGKILL if it is still there after the grace period, and
// waits for it.
func (p Process) Stop(grace time.Duration) error {
	if p.end(syscall.SIGTERM, grace) == nil {
		return nil
	}
	const most = 5 * time.Second // the kernel needs it only where a disk hangs
	return p.end(syscall.SIGKILL, most)
}

// end signals the process and waits for it.
func (p Process) end(signal syscall.Signal, within time.Duration) error {
	if !p.Alive() {
		return nil
	}
	_ = syscall.Kill(-p.PID, signal) // it may lead no group; and it may have ended meanwhile
	_ = syscall.Kill(p.PID, signal)
	//nolint:forbidigo // nobody tells of the end of a process that is not a child
	timeout, look := time.After(within), time.NewTicker(every)
	defer look.Stop()
	for p.Alive() {
		select {
		case <-timeout:
			return fmt.Errorf("process %d still runs %v after %v", p.PID, within, signal)
		case <-look.C:
		}
	}
	return nil
}

// Note writes the process into a file.
func (p Process) Note(path string) error {
	text, err := json.Marshal(p)
	if err != nil {
		return err
	}
	if err := os.WriteFile(path+".new", text, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// Noted is the process that a file notes, if it still runs.
func Noted(path string) (Process, bool) {
	var p Process
	text, err := os.ReadFile(path)
	if err != nil || json.Unmarshal(text, &p) != nil {
		return Process{}, false // no note, or an interrupted one of a start that never came to be
	}
	return p, p.Alive()
}

// StopNoted stops the process that a file notes, and removes the note. Where there is none it does nothing.
func StopNoted(path string, grace time.Duration) error {
	if p, lives := Noted(path); lives {
		if err := p.Stop(grace); err != nil {
			return err
		}
	}
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func startTime(pid int) (uint64, error) {
	fields, err := stat(pid)
	if err != nil {
		return 0, err
	}
	const state, started = 0, 19
	if fields[state] == "Z" || fields[state] == "X" {
		return 0, fmt.Errorf("process %d has ended", pid)
	}
	return strconv.ParseUint(fields[started], 10, 64)
}

// stat are the fields of /proc/PID/stat after the name, at least twenty.
func stat(pid int) ([]string, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil, err
	}
	// pid (name) state ppid …: proc(5). The name may hold anything, so fields are counted from its last parenthesis.
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	const least = 20
	if len(fields) < least {
		return nil, fmt.Errorf("/proc/%d/stat: expected %d fields after the name, found %d", pid, least, len(fields))
	}
	return fields, nil
}
