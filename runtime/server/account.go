package server

import (
	"context"
	"time"

	"github.com/switchyard-dev/switchyard/runtime/batcher"
)

// Account is what a request leaves behind for who tells of it: how many rows it asked, and when what was done for them.
// It is the request's goroutine's alone.
type Account struct {
	Rows     int
	Decoding time.Time     // when its rows began to be decoded and tokenized; zero: never
	Queued   time.Time     // when its rows were; zero: never
	Runs     []batcher.Run // of the batches that its rows were in, one after the other
}

type accountKey struct{}

// WithAccount opens an account for the request of a context, which Call.Answer keeps.
func WithAccount(ctx context.Context) (context.Context, *Account) {
	account := &Account{}
	return context.WithValue(ctx, accountKey{}, account), account
}

// accountOf is the request's, or one that nobody reads.
func accountOf(ctx context.Context) *Account {
	if account, ok := ctx.Value(accountKey{}).(*Account); ok {
		return account
	}
	return &Account{}
}
