package kernels

import (
	"fmt"
	"runtime/debug"
	"sync"
	"sync/atomic"
)

// Pool is a fixed set of workers that share out the tasks of one operation at a time. Safe for concurrent use, though
// operations that run at once share the same workers.
type Pool struct {
	jobs    chan *job
	workers int
}

// job is one operation: its tasks are taken one by one, by whichever worker is free.
type job struct {
	run     func(task int)
	tasks   int64
	next    atomic.Int64
	pending sync.WaitGroup // tasks not yet done
	failure atomic.Pointer[TaskPanic]
}

// TaskPanic is what Run panics with when a task panicked: the task's own value and stack.
type TaskPanic struct {
	Value any
	Stack []byte
}

func (p *TaskPanic) Error() string { return fmt.Sprintf("panic in a kernel: %v\n%s", p.Value, p.Stack) }

// NewPool starts a pool that computes on so many processors: the caller of Run is one of them.
func NewPool(workers int) *Pool {
	p := &Pool{jobs: make(chan *job), workers: workers}
	for range workers - 1 {
		go func() {
			for j := range p.jobs {
				j.work()
			}
		}()
	}
	return p
}

// Close ends the workers. No Run may be under way or follow.
func (p *Pool) Close() { close(p.jobs) }

// Run calls run for every task from 0 to tasks-1, each once, in no particular order, and returns when all are done. If
// a task panics the tasks not yet begun are dropped, and Run panics with a *TaskPanic once the others have ended.
func (p *Pool) Run(tasks int, run func(task int)) {
	j := &job{run: run, tasks: int64(tasks)}
	j.pending.Add(tasks)
	for range min(p.workers, tasks) - 1 {
		select {
		case p.jobs <- j:
		default: // every worker is busy with another operation: the caller does the work itself
		}
	}
	j.work()
	j.pending.Wait()
	if failure := j.failure.Load(); failure != nil {
		panic(failure)
	}
}

func (j *job) work() {
	for {
		task := j.next.Add(1) - 1
		if task >= j.tasks {
			return
		}
		j.one(int(task))
	}
}

func (j *job) one(task int) {
	defer j.pending.Done()
	defer func() {
		if v := recover(); v != nil {
			j.failure.CompareAndSwap(nil, &TaskPanic{Value: v, Stack: debug.Stack()})
		}
	}()
	if j.failure.Load() == nil {
		j.run(task)
	}
}
