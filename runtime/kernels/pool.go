package kernels

import (
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
)

// Pool is a fixed set of workers that share out the tasks of operations. Safe for concurrent use: operations that run
// at once share the workers.
type Pool struct {
	mu     sync.Mutex
	wake   *sync.Cond // jobs or closed has changed
	jobs   []*job     // with tasks that nobody has taken yet
	closed bool
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
	p := &Pool{}
	p.wake = sync.NewCond(&p.mu)
	for range workers - 1 {
		go p.help()
	}
	return p
}

// Close ends the workers. No Run may be under way or follow.
func (p *Pool) Close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.wake.Broadcast()
}

// Run calls run for every task from 0 to tasks-1, each once, in no particular order, and returns when all are done. If
// a task panics the tasks not yet begun are dropped, and Run panics with a *TaskPanic once the others have ended.
func (p *Pool) Run(tasks int, run func(task int)) {
	j := &job{run: run, tasks: int64(tasks)}
	j.pending.Add(tasks)
	if tasks > 1 {
		p.mu.Lock()
		p.jobs = append(p.jobs, j)
		p.mu.Unlock()
		p.wake.Broadcast()
	}
	p.work(j)
	j.pending.Wait()
	if failure := j.failure.Load(); failure != nil {
		panic(failure)
	}
}

// runEach runs several operations as one: tasks tells how many tasks each has.
func (p *Pool) runEach(tasks []int, run func(op, task int)) {
	total := 0
	for _, n := range tasks {
		total += n
	}
	p.Run(total, func(task int) {
		op := 0
		for task >= tasks[op] {
			task -= tasks[op]
			op++
		}
		run(op, task)
	})
}

// help is a worker: it works on whatever job there is.
func (p *Pool) help() {
	for {
		p.mu.Lock()
		for len(p.jobs) == 0 && !p.closed {
			p.wake.Wait()
		}
		if p.closed {
			p.mu.Unlock()
			return
		}
		j := p.jobs[0]
		p.mu.Unlock()
		p.work(j)
	}
}

// work does tasks of a job until none is left to take, and then takes the job off the list.
func (p *Pool) work(j *job) {
	for {
		task := j.next.Add(1) - 1
		if task >= j.tasks {
			break
		}
		j.one(int(task))
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.jobs = slices.DeleteFunc(p.jobs, func(other *job) bool { return other == j })
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
