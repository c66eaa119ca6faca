package registry

import (
	"context"
	"crypto/sha256"
	"errors"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
	"golang.org/x/time/rate"
)

const (
	// keepKnown is how long a token goes on being taken after its pod or its account is gone.
	keepKnown = time.Minute
	// keepUnknown is how long a refused token is not asked about again.
	keepUnknown = 10 * time.Second
	// mostTokens bounds each of what is known and what is refused; some thousand pods have one each.
	mostTokens = 8192

	// mostReviews run at the same time, each for at most reviewTime.
	mostReviews = 16
	reviewTime  = 10 * time.Second
	// What one address may have reviewed. A pod asks once a minute; those of a node may share an address.
	reviewRate     = 20
	reviewBurst    = 100
	mostReviewers  = 4096
	maxTokenLength = 16 << 10
)

// Reviewer tells whose a token is: in a cluster, the API server's TokenReview.
type Reviewer interface {
	// Review is the user's name that a token is of, or "" if it is of nobody, of nobody any more, or for somebody else
	// than the artifact registry. Its error says that this could not be found out.
	Review(ctx context.Context, token string) (user string, err error)
}

// errTooMany says that an address has more tokens reviewed than an honest one has.
var errTooMany = errors.New("too many tokens to review")

// identities knows whose a token is, and remembers it for a while. It never keeps a token, only its digest.
type identities struct {
	reviewer Reviewer
	now      func() time.Time
	flight   singleflight.Group
	slots    chan struct{} // one for each review under way

	mu      sync.Mutex
	known   map[[sha256.Size]byte]identity
	unknown map[[sha256.Size]byte]identity // of its own, so that garbage pushes nobody out who is known
	asked   map[string]*rate.Limiter       // by address
}

type identity struct {
	user  string
	until time.Time
}

func newIdentities(reviewer Reviewer, now func() time.Time) *identities {
	return &identities{
		reviewer: reviewer, now: now, slots: make(chan struct{}, mostReviews),
		known: map[[sha256.Size]byte]identity{}, unknown: map[[sha256.Size]byte]identity{},
		asked: map[string]*rate.Limiter{},
	}
}

// of is the user's name that a token is of, "" if it is nobody's. Requests with the same token share one review.
func (i *identities) of(ctx context.Context, token, address string) (string, error) {
	key := sha256.Sum256([]byte(token))
	if user, ok := i.recall(key); ok {
		return user, nil
	}
	review := i.flight.DoChan(string(key[:]), func() (any, error) {
		// Others may wait for it when the one who asked first has gone.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), reviewTime)
		defer cancel()
		return i.review(ctx, key, token, address)
	})
	select {
	case <-ctx.Done():
		return "", ctx.Err()
	case r := <-review:
		user, _ := r.Val.(string) // there is none with an error
		return user, r.Err
	}
}

func (i *identities) recall(key [sha256.Size]byte) (user string, ok bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, kept := range []map[[sha256.Size]byte]identity{i.known, i.unknown} {
		if id, ok := kept[key]; ok && i.now().Before(id.until) {
			return id.user, true
		}
	}
	return "", false
}

func (i *identities) review(ctx context.Context, key [sha256.Size]byte, token, address string) (string, error) {
	if !i.may(address) {
		return "", errTooMany
	}
	select {
	case i.slots <- struct{}{}:
		defer func() { <-i.slots }()
	case <-ctx.Done():
		return "", ctx.Err()
	}
	asked := i.now() // what is answered may be as old
	user, err := i.reviewer.Review(ctx, token)
	if err != nil {
		return "", err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	kept, until := i.known, asked.Add(keepKnown)
	if user == "" {
		kept, until = i.unknown, asked.Add(keepUnknown)
	}
	delete(i.known, key)
	i.makeRoom(kept)
	kept[key] = identity{user, until}
	return user, nil
}

// makeRoom removes, where all is full, what is out of date, and then anything, until a quarter is free: so that it is
// seldom done, however much garbage comes.
func (i *identities) makeRoom(kept map[[sha256.Size]byte]identity) {
	if len(kept) < mostTokens {
		return
	}
	for key, id := range kept {
		if !i.now().Before(id.until) {
			delete(kept, key)
		}
	}
	for key := range kept {
		if len(kept) <= mostTokens/4*3 {
			return
		}
		delete(kept, key)
	}
}

// may tells whether an address may have one more token reviewed.
func (i *identities) may(address string) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	limit := i.asked[address]
	if limit == nil {
		if len(i.asked) >= mostReviewers {
			clear(i.asked) // all begin anew; how many reviews run at once is bounded all the same
		}
		limit = rate.NewLimiter(reviewRate, reviewBurst)
		i.asked[address] = limit
	}
	return limit.AllowN(i.now(), 1)
}
