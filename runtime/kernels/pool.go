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
	idle   []*worker  // that work on no job
	closed atomic.Bool
	// open is the number of jobs, for those who look without the lock.
	open atomic.Int64
	// workers is how many compute at once.
	workers int
	helpers sync.WaitGroup
}

// worker is what one goroutine computes with, and keeps from one operation to the next.
type worker struct {
	args    arguments
	product []float32 // a block of a product
	rows    []float32 // rows of a matrix, copied
	rounded []uint32  // the same as bfloat16
	vector  []float32 // of a table
	reduced []float32 // of a table's A
	heads   heads
}

// A worker looks for work, or for the end of it, so often before it sleeps: about a millisecond on a processor that
// nobody else wants. Within a batch the next operation is nearer than that, and where a processor that has nothing to
// do is given to others, by the system or below it, it is late to come back and comes back cold.
const (
	looks      = 1_000 // between two of them whoever else wants the processor gets it
	looksAtOne = 200
)

// job is one operation: its tasks are taken one by one, by whichever worker is free.
type job struct {
	run     func(w *worker, task int)
	tasks   int64
	next    atomic.Int64
	done    atomic.Int64
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
	p := &Pool{workers: workers}
	p.wake = sync.NewCond(&p.mu)
	for range workers - 1 {
		p.helpers.Go(p.help)
	}
	return p
}

// Close ends the workers, and returns when they have ended. No Run may be under way or follow.
func (p *Pool) Close() {
	p.mu.Lock()
	p.closed.Store(true)
	p.mu.Unlock()
	p.wake.Broadcast()
	p.helpers.Wait()
}

// Run calls run for every task from 0 to tasks-1, each once, in no particular order, and returns when all are done. If
// a task panics the tasks not yet begun are dropped, and Run panics with a *TaskPanic once the others have ended.
func (p *Pool) Run(tasks int, run func(task int)) {
	p.run(tasks, func(_ *worker, task int) { run(task) })
}

func (p *Pool) run(tasks int, run func(w *worker, task int)) {
	j := &job{run: run, tasks: int64(tasks)}
	j.pending.Add(tasks)
	if tasks > 1 {
		p.mu.Lock()
		p.jobs = append(p.jobs, j)
		p.open.Store(int64(len(p.jobs)))
		p.mu.Unlock()
		p.wake.Broadcast()
	}
	p.work(j)
	await(func() bool { return j.done.Load() == j.tasks }) // another worker has the last task
	j.pending.Wait()
	if failure := j.failure.Load(); failure != nil {
		panic(failure)
	}
}

// runEach runs several operations as one: tasks tells how many tasks each has.
func (p *Pool) runEach(tasks []int, run func(w *worker, op, task int)) {
	total := 0
	for _, n := range tasks {
		total += n
	}
	p.run(total, func(w *worker, task int) {
		op := 0
		for task >= tasks[op] {
			task -= tasks[op]
			op++
		}
		run(w, op, task)
	})
}

// help is a worker: it works on whatever job there is.
func (p *Pool) help() {
	for {
		await(func() bool { return p.open.Load() > 0 || p.closed.Load() }) // the next operation is near, within a batch
		p.mu.Lock()
		for len(p.jobs) == 0 && !p.closed.Load() {
			p.wake.Wait()
		}
		if p.closed.Load() {
			p.mu.Unlock()
			return
		}
		j := p.jobs[0]
		p.mu.Unlock()
		p.work(j)
	}
}

// await returns when something is so, or when it has looked for it long enough.
func await(so func() bool) {
	for range looks {
		for range looksAtOne {
			if so() {
				return
			}
		}
		yield()
	}
}

// work does tasks of a job until none is left to take, and then takes the job off the list.
func (p *Pool) work(j *job) {
	w := p.worker()
	for {
		task := j.next.Add(1) - 1
		if task >= j.tasks {
			break
		}
		j.one(w, int(task))
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	w.args = arguments{} // else it would keep what it worked on alive
	p.idle = append(p.idle, w)
	p.jobs = slices.DeleteFunc(p.jobs, func(other *job) bool { return other == j })
	p.open.Store(int64(len(p.jobs)))
}

// worker is one that nobody else works with.
func (p *Pool) worker() *worker {
	p.mu.Lock()
	defer p.mu.Unlock()
	last := len(p.idle) - 1
	if last < 0 {
		return &worker{}
	}
	w := p.idle[last]
	p.idle = p.idle[:last]
	return w
}

func (j *job) one(w *worker, task int) {
	defer func() {
		j.done.Add(1)
		j.pending.Done()
	}()
	defer func() {
		if v := recover(); v != nil {
			j.failure.CompareAndSwap(nil, &TaskPanic{Value: v, Stack: debug.Stack()})
		}
	}()
	if j.failure.Load() == nil {
		j.run(w, task)
	}
}
