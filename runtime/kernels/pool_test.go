package kernels_test

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/switchyard-dev/switchyard/runtime/kernels"
)

func newPool(t testing.TB, workers int) *kernels.Pool {
	t.Helper()
	p := kernels.NewPool(workers)
	t.Cleanup(p.Close)
	return p
}

func TestEveryTaskRunsOnce(t *testing.T) {
	for _, workers := range []int{1, 2, 5} {
		p := newPool(t, workers)
		for _, tasks := range []int{0, 1, 2, 3, 100} {
			ran := make([]atomic.Int32, tasks)
			p.Run(tasks, func(task int) { ran[task].Add(1) })
			for i := range ran {
				if n := ran[i].Load(); n != 1 {
					t.Errorf("%d workers, %d tasks: task %d ran %d times", workers, tasks, i, n)
				}
			}
		}
	}
}

func TestOperationsMayRunAtOnce(t *testing.T) {
	p := newPool(t, 3)
	var total atomic.Int64
	var callers sync.WaitGroup
	for range 8 {
		callers.Go(func() {
			for range 50 {
				p.Run(20, func(int) { total.Add(1) })
			}
		})
	}
	callers.Wait()
	if got := total.Load(); got != 8*50*20 {
		t.Errorf("expected %d tasks, ran %d", 8*50*20, got)
	}
}

// Two tasks that wait for each other end only if two workers are at them, in this operation and in the next.
func TestEveryOperationIsHelped(t *testing.T) {
	p := newPool(t, 2)
	for range 100 {
		meet := make(chan struct{})
		p.Run(2, func(task int) {
			if task == 0 {
				meet <- struct{}{}
			} else {
				<-meet
			}
		})
	}
}

// synctest fails if a goroutine of the pool is left.
func TestCloseEndsTheWorkers(t *testing.T) {
	synctest.Test(t, func(*testing.T) {
		p := kernels.NewPool(4)
		p.Run(8, func(int) {})
		p.Close()
	})
}

func TestAPanicReachesTheCallerAndThePoolLives(t *testing.T) {
	p := newPool(t, 2)
	caught := func() (v any) {
		defer func() { v = recover() }()
		p.Run(10, func(task int) {
			if task == 3 {
				panic("task 3")
			}
		})
		return nil
	}()
	var failure *kernels.TaskPanic
	err, _ := caught.(error)
	if !errors.As(err, &failure) || failure.Value != "task 3" || len(failure.Stack) == 0 {
		t.Fatalf("expected the task's panic with its stack, caught %v", caught)
	}
	single := newPool(t, 1) // in order: what comes behind the panic is not begun
	ran := atomic.Int32{}
	func() {
		defer func() { _ = recover() }()
		single.Run(10, func(task int) {
			if ran.Add(1); task == 3 {
				panic("task 3")
			}
		})
	}()
	if ran.Load() != 4 {
		t.Errorf("expected the tasks up to the panic, ran %d", ran.Load())
	}
	ran.Store(0)
	p.Run(10, func(int) { ran.Add(1) })
	if ran.Load() != 10 {
		t.Errorf("after a panic: expected 10 tasks, ran %d", ran.Load())
	}
}
