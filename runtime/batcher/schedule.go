package batcher

import (
	"slices"
	"time"

	"github.com/switchyard-dev/switchyard/runtime/engine"
)

// schedule decides who is admitted and what is computed next. It is a value with functions on it: it knows no
// goroutine, and the time is told to it.
//
// Room in the queue is estimated time. An adapter may hold as much of it as is left free by all (Choudhury and Hahne,
// "Dynamic queue length thresholds for shared-memory packet switches", 1998): one that floods holds half of it, two
// hold a third each, and there is always room for one that comes anew. An adapter that holds nothing may have a batch's
// time of what is free: what is left when many flood may be less than two of its rows. And none that holds something
// may hold more than an even share of all of it, among those that take turns: it gets no more than that of the engine's
// time, so that a row waits for about the time of the whole queue at most.
//
// Batches are filled by deficit round robin (Shreedhar and Varghese, 1995) in estimated time. An adapter that comes
// anew need not wait for a round of those that always have rows (as fq_codel has it, RFC 8290): its first turn is the
// next, unless those who come anew have had more time by now than all others. So neither can keep the other out,
// however many they are. A debt is kept until it is paid in rounds, so nobody gains by coming and going.
type schedule struct {
	limits limits

	flows    map[*engine.Adapter]*flow // of all that hold room, have rows, or are in debt
	fresh    []*flow                   // that have not had their first turn
	busy     []*flow                   // that have had it
	ahead    time.Duration             // how much more time the fresh have had than the busy, of late
	reserved time.Duration             // of all that was admitted and is not in the engine yet
	tracks   int                       // that wait
	cost     time.Duration             // of them
}

// limits bound it.
type limits struct {
	batch, queue time.Duration // of estimated time
	rows, tokens int           // of a batch: the memory there is for it
	delay        time.Duration // how long the first row of a batch waits for others, while the engine is idle
}

// flow is the rows that wait for one adapter (nil: the base), first in first out.
type flow struct {
	adapter *engine.Adapter
	tracks  []*track
	held    time.Duration // of the queue's room
	deficit time.Duration // what it may still have computed in this turn; below 0: its debt
	listed  bool          // among fresh or busy
	fresh   bool          // among fresh
}

// track is rows of one request that the engine computes once: one row; or one input as the base computes it, with all
// the heads that are asked of it. It waits in the queue of its first row's adapter.
type track struct {
	claim   *claim
	adapter *engine.Adapter
	rows    []int // of the request
	tokens  int
	work    work
	cost    time.Duration // estimated
	held    time.Duration // of the queue's room: what it costs, unless its request was admitted for less
}

// claim is what one request has in the queue.
type claim struct {
	request  *request
	shares   []share   // reserved until its rows are queued
	deadline time.Time // zero: none
	queued   time.Time
	waiting  []*track
}

// share is so much of the queue's room for one adapter.
type share struct {
	adapter *engine.Adapter
	time    time.Duration
}

func newSchedule(l limits) *schedule {
	return &schedule{limits: l, flows: make(map[*engine.Adapter]*flow)}
}

// lay makes the tracks of rows.
func lay(asks []Ask, cost *Cost) []*track {
	tracks, memory, numbers := make([]*track, 0, len(asks)), make([]track, len(asks)), make([]int, len(asks))
	trunks := make(map[int]*track) // of inputs, as the base computes them
	for i, ask := range asks {
		numbers[i] = i
		onTrunk := ask.Adapter == nil || ask.Adapter.IsHead()
		if trunk := trunks[ask.Input]; trunk != nil && onTrunk {
			trunk.rows = append(trunk.rows, i)
			continue
		}
		t := &memory[i]
		t.adapter, t.rows, t.tokens = ask.Adapter, numbers[i:i+1:i+1], ask.Tokens
		t.work = workOf(ask.Tokens, ask.Adapter)
		t.cost = cost.ofTrack(t.work)
		tracks = append(tracks, t)
		if onTrunk {
			trunks[ask.Input] = t
		}
	}
	return tracks
}

// sharesOf is the room that tracks take, by adapter, and in all.
func sharesOf(tracks []*track) (shares []share, total time.Duration) {
	places := make(map[*engine.Adapter]int)
	for _, t := range tracks {
		place, ok := places[t.adapter]
		if !ok {
			place = len(shares)
			places[t.adapter] = place
			shares = append(shares, share{adapter: t.adapter})
		}
		shares[place].time += t.cost
		total += t.cost
	}
	return shares, total
}

// admit reserves room for tracks that will be queued, or tells about how long it takes until there is some.
//
// What is larger than all the room there may ever be is admitted while the queue is calm: when nothing of its adapters
// is in it, and it is at most half full. It counts as half of what is free then.
func (s *schedule) admit(tracks []*track) (shares []share, retry time.Duration) {
	shares, total := sharesOf(tracks)
	switch missing := s.missing(shares, total); {
	case missing <= 0:
	case s.isCalm(shares):
		scale(shares, (s.limits.queue-s.reserved)/2, total)
	default:
		return nil, min(missing, s.emptied(shares))
	}
	s.reserve(shares)
	return shares, 0
}

// missing is about how much longer than until now it takes until these shares fit into the queue: not above 0 if they
// do.
func (s *schedule) missing(shares []share, total time.Duration) time.Duration {
	free := s.limits.queue - s.reserved - total // beside them
	missing := -free
	for _, sh := range shares {
		held := s.held(sh.adapter)
		if held > 0 || sh.time > s.limits.batch {
			missing = max(missing, held+sh.time-free)
		}
		if held > 0 {
			missing = max(missing, s.turns()*(held+sh.time)-s.limits.queue)
		}
	}
	return missing
}

// emptied is about how long it takes until nothing of these adapters is in the queue.
func (s *schedule) emptied(shares []share) time.Duration {
	longest := s.reserved
	for _, sh := range shares {
		longest = max(longest, s.turns()*s.held(sh.adapter))
	}
	return longest
}

// turns is how many flows take turns.
func (s *schedule) turns() time.Duration { return time.Duration(len(s.fresh) + len(s.busy)) }

func (s *schedule) held(a *engine.Adapter) time.Duration {
	if f := s.flows[a]; f != nil {
		return f.held
	}
	return 0
}

// isCalm tells whether the queue has room for more than it would take of these adapters otherwise.
func (s *schedule) isCalm(shares []share) bool {
	return s.reserved <= s.limits.queue/2 &&
		!slices.ContainsFunc(shares, func(sh share) bool { return s.held(sh.adapter) > 0 })
}

// scale makes shares of a whole shares of another.
func scale(shares []share, to, from time.Duration) {
	for i := range shares {
		shares[i].time = scaled(shares[i].time, to, from)
	}
}

// scaled is d·to/from, where to is the less: never more than that.
func scaled(d, to, from time.Duration) time.Duration {
	return min(time.Duration(float64(d)*(float64(to)/float64(from))), d)
}

func (s *schedule) reserve(shares []share) {
	for _, sh := range shares {
		s.flow(sh.adapter).held += sh.time
		s.reserved += sh.time
	}
}

// release gives back what was reserved for a claim.
func (s *schedule) release(c *claim) {
	for _, sh := range c.shares {
		s.giveBack(sh.adapter, sh.time)
	}
	c.shares = nil
}

func (s *schedule) giveBack(a *engine.Adapter, held time.Duration) {
	f := s.flows[a]
	f.held -= held
	s.reserved -= held
	s.forget(f)
}

// flow is that of an adapter.
func (s *schedule) flow(a *engine.Adapter) *flow {
	f := s.flows[a]
	if f == nil {
		f = &flow{adapter: a}
		s.flows[a] = f
	}
	return f
}

// forget drops a flow of which there is nothing to know.
func (s *schedule) forget(f *flow) {
	if f.held == 0 && len(f.tracks) == 0 && !f.listed {
		delete(s.flows, f.adapter)
	}
}

// enqueue queues a claim's tracks in place of what was reserved for them. What they cost by now counts, as far as there
// is room: what was admitted is not refused any more, and the bounds hold.
func (s *schedule) enqueue(c *claim, tracks []*track, now time.Time) {
	admitted := time.Duration(0)
	for _, sh := range c.shares {
		admitted += sh.time
	}
	s.release(c)
	shares, total := sharesOf(tracks)
	fits := s.missing(shares, total) <= 0
	c.queued, c.waiting = now, tracks
	for _, t := range tracks {
		if t.claim, t.held = c, t.cost; !fits && admitted < total {
			t.held = scaled(t.cost, admitted, total)
		}
		f := s.flow(t.adapter)
		f.tracks = append(f.tracks, t)
		f.held += t.held
		s.reserved += t.held
		s.cost += t.cost
		s.tracks++
		if !f.listed {
			f.listed, f.fresh, f.deficit = true, true, s.quantum()
			s.fresh = append(s.fresh, f)
		}
	}
}

// quantum is what a flow has computed in a turn: a small part of a batch, so that a batch is many adapters'.
func (s *schedule) quantum() time.Duration { return max(s.limits.batch/16, leastCost) }

// isReady tells whether a batch should begin now; if not, and rows wait for more of them, how long they still do.
// overhead is what a batch costs beside its tracks.
func (s *schedule) isReady(now time.Time, overhead time.Duration) (ready bool, wait time.Duration) {
	switch {
	case s.tracks == 0:
		return false, 0
	case s.limits.delay == 0 || s.tracks >= s.limits.rows || s.cost+overhead >= s.limits.batch:
		return true, 0
	}
	for _, f := range s.flows {
		if len(f.tracks) > 0 {
			wait = max(wait, now.Sub(f.tracks[0].claim.queued))
		}
	}
	wait = s.limits.delay - wait
	return wait <= 0, max(wait, 0)
}

// take takes a batch out of the queue, the longest first: as much as the bounds let, and at least one track. It drops
// claims that are late, and returns them.
func (s *schedule) take(now time.Time, overhead time.Duration) (batch []*track, late []*claim) {
	left, tokens := s.limits.batch-overhead, s.limits.tokens
	for {
		f := s.turn()
		if f == nil {
			break
		}
		t := f.tracks[0]
		if t.claim.isLate(now, t.cost) {
			late = append(late, t.claim)
			s.drop(t.claim)
			continue
		}
		left, tokens = left-t.cost, tokens-t.tokens
		if len(batch) > 0 && (left < 0 || tokens < 0 || len(batch) >= s.limits.rows) {
			break // its turn is the next batch's first
		}
		f.tracks[0] = nil
		f.tracks = f.tracks[1:]
		f.deficit -= t.cost
		s.count(f, t.cost)
		s.left(t)
		t.claim.waiting = slices.DeleteFunc(t.claim.waiting, func(other *track) bool { return other == t })
		batch = append(batch, t)
	}
	slices.SortStableFunc(batch, func(a, b *track) int { return b.tokens - a.tokens })
	return batch, late
}

// turn is the flow whose turn it is, which has a track; nil if none has.
func (s *schedule) turn() *flow {
	for {
		list := &s.busy
		if len(s.busy) == 0 || s.ahead <= 0 && len(s.fresh) > 0 {
			list = &s.fresh
		}
		if len(*list) == 0 {
			return nil
		}
		f := (*list)[0]
		if f.deficit > 0 && len(f.tracks) > 0 {
			return f
		}
		(*list)[0] = nil
		*list = (*list)[1:]
		switch {
		case f.deficit <= 0:
			f.deficit += s.quantum()
			s.again(f)
		case f.fresh:
			s.again(f) // it is anew only when all others have had their turn
		default:
			f.listed = false
			s.forget(f)
		}
	}
}

// count keeps the time of the fresh and of the busy even, while there are both: neither gets more than a batch ahead.
func (s *schedule) count(f *flow, cost time.Duration) {
	var least, most time.Duration
	if len(s.fresh) > 0 {
		least = -s.limits.batch
	}
	if len(s.busy) > 0 {
		most = s.limits.batch
	}
	if !f.fresh {
		cost = -cost
	}
	s.ahead = min(max(s.ahead+cost, least), most)
}

// again gives a flow its next turn behind the busy ones.
func (s *schedule) again(f *flow) {
	f.fresh = false
	s.busy = append(s.busy, f)
}

// left takes what a track counts for out of the sums.
func (s *schedule) left(t *track) {
	s.cost -= t.cost
	s.tracks--
	s.giveBack(t.adapter, t.held)
}

// drop takes all that a claim has out of the queue.
func (s *schedule) drop(c *claim) {
	for _, t := range c.waiting {
		f := s.flows[t.adapter]
		f.tracks = slices.DeleteFunc(f.tracks, func(other *track) bool { return other.claim == c })
	}
	for _, t := range c.waiting {
		s.left(t)
	}
	c.waiting = nil
}

// isLate tells whether what takes so long by the estimate cannot be in time. An estimate may be twice the truth: it is
// trusted by half.
func (c *claim) isLate(now time.Time, cost time.Duration) bool {
	return !c.deadline.IsZero() && now.Add(cost/2).After(c.deadline)
}
