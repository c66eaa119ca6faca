package batcher

import (
	"math"
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
// Batches are filled in the order of arrival, among adapters that keep within their share: each has a quantum in each
// round, and a row whose adapter has used it waits for the next round. Who has had more than a quantum pays it off in
// the next rounds, so that long rows get no more time than short ones (deficit round robin, Shreedhar and Varghese,
// 1995, in estimated time; but within a round the oldest row is next, whosever it is). What arrives during a round is
// of the next, so that rounds end, however many arrive.
//
// A row of an adapter that has none waiting, and has not used its quantum, need not wait for a round of those that
// always have rows (as fq_codel has it, RFC 8290): it is next, unless rows that came so have had more time by now than
// all others. So neither can keep the other out, however many they are. While others wait a debt is kept until it is
// paid in rounds, so nobody gains by coming and going.
type schedule struct {
	limits limits

	flows    map[*engine.Adapter]*flow // of all that hold room or take turns
	turns    []*flow                   // that have rows, or have not got their whole quantum back
	arrived  int                       // how many tracks were queued, ever
	round    int                       // how many of them when this round began: later ones are not of it
	ahead    time.Duration             // how much more time the fresh have had than the others, of late
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
	deficit time.Duration // what it may still have computed in this round; not above 0: what it owes
	listed  bool          // among those that take turns
	fresh   bool          // its first track came when it had no other, and had not used its quantum
}

// track is rows of one request that the engine computes once: one row; or one input as the base computes it, with all
// the heads that are asked of it. It waits in the queue of its first row's adapter.
type track struct {
	claim   *claim
	number  int // by arrival, from 1
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
			missing = max(missing, time.Duration(len(s.turns))*(held+sh.time)-s.limits.queue)
		}
	}
	return missing
}

// emptied is about how long it takes until nothing of these adapters is in the queue.
func (s *schedule) emptied(shares []share) time.Duration {
	longest := s.reserved
	for _, sh := range shares {
		longest = max(longest, time.Duration(len(s.turns))*s.held(sh.adapter))
	}
	return longest
}

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
		f = &flow{adapter: a, deficit: s.quantum()}
		s.flows[a] = f
	}
	return f
}

// forget drops a flow of which there is nothing to know.
func (s *schedule) forget(f *flow) {
	if f.held == 0 && !f.listed {
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
		s.arrived++
		t.number = s.arrived
		f := s.flow(t.adapter)
		if len(f.tracks) == 0 {
			f.fresh = f.deficit > 0
		}
		f.tracks = append(f.tracks, t)
		f.held += t.held
		s.reserved += t.held
		s.cost += t.cost
		s.tracks++
		if !f.listed {
			f.listed = true
			s.turns = append(s.turns, f)
		}
	}
}

// quantum is what a flow has computed in a round. While no flow has more than that waiting, all that waits is computed
// in the order of arrival; but one that comes anew waits for a quantum of each that comes before it.
func (s *schedule) quantum() time.Duration { return max(s.limits.batch/4, leastCost) }

// efficient is how many times what a batch costs beside its tracks it need last: what that takes of the engine's time
// is 2 percent then. With more tracks no more rows are answered a second, only later.
const efficient = 50

// enough is how long a batch lasts at most: until it is efficient, but a fourth of the bound in any case, as what it
// costs beside its tracks, the overhead, is an estimate that may be far too low.
func (s *schedule) enough(overhead time.Duration) time.Duration {
	return min(max(efficient*overhead, s.limits.batch/4), s.limits.batch)
}

// isReady tells whether a batch should begin now; if not, and rows wait for more of them, how long they still do.
// overhead is what a batch costs beside its tracks.
func (s *schedule) isReady(now time.Time, overhead time.Duration) (ready bool, wait time.Duration) {
	switch {
	case s.tracks == 0:
		return false, 0
	case s.limits.delay == 0 || s.tracks >= s.limits.rows || s.cost+overhead >= s.enough(overhead):
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

// take takes a batch out of the queue, the longest first: as much as is enough and the bounds let, and at least one
// track. It drops claims that are late, and returns them.
func (s *schedule) take(now time.Time, overhead time.Duration) (batch []*track, late []*claim) {
	left, tokens := s.enough(overhead)-overhead, s.limits.tokens
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
		s.compute(f)
		batch = append(batch, t)
	}
	slices.SortStableFunc(batch, func(a, b *track) int { return b.tokens - a.tokens })
	return batch, late
}

// turn is the flow whose first track is next; nil if none waits.
func (s *schedule) turn() *flow {
	fresh, other := s.oldest()
	if fresh != nil && s.ahead <= 0 {
		return fresh
	}
	if other == nil { // the round is over
		s.begin()
		_, other = s.oldest()
	}
	switch { // time that only one side asks for does not count
	case other == nil:
		s.ahead = 0
		return fresh
	case fresh == nil:
		s.ahead = max(s.ahead, 0)
	}
	return other
}

// oldest are, of the flows that may have a track computed in this round, the fresh one and the other whose tracks came
// first; nil if there is none.
func (s *schedule) oldest() (fresh, other *flow) {
	for _, f := range s.turns {
		switch {
		case len(f.tracks) == 0:
		case f.fresh:
			fresh = older(fresh, f)
		case f.deficit > 0 && f.tracks[0].number <= s.round:
			other = older(other, f)
		}
	}
	return fresh, other
}

// older is the flow whose first track came first. The one that was found before may be nil.
func older(found, f *flow) *flow {
	if found == nil || f.tracks[0].number < found.tracks[0].number {
		return f
	}
	return found
}

// begin begins a round, and drops the flows that take no turns in it.
func (s *schedule) begin() {
	s.round = s.arrived
	given := s.given()
	s.turns = slices.DeleteFunc(s.turns, func(f *flow) bool {
		f.deficit = min(f.deficit+given, s.quantum())
		f.listed = len(f.tracks) > 0 || f.deficit < s.quantum()
		s.forget(f)
		return !f.listed
	})
}

// given is what each flow is given when a round begins: a quantum, or as many as it takes until one of those that wait
// owes nothing, as nothing would be computed in the rounds before. If none waits but fresh ones, nobody is kept from a
// share, and all debts are forgiven.
func (s *schedule) given() time.Duration {
	given := time.Duration(math.MaxInt64 / 2)
	for _, f := range s.turns {
		if len(f.tracks) > 0 && !f.fresh {
			given = min(given, (1-min(f.deficit, 0)/s.quantum())*s.quantum())
		}
	}
	return given
}

// compute takes a flow's first track out of the queue.
func (s *schedule) compute(f *flow) {
	t := f.tracks[0]
	f.tracks[0] = nil
	f.tracks = f.tracks[1:]
	f.deficit -= t.cost
	lead := t.cost
	if !f.fresh {
		lead = -lead
	}
	s.ahead = min(max(s.ahead+lead, -s.limits.batch), s.limits.batch) // neither gets more than a batch ahead
	f.fresh = false
	s.left(t)
	t.claim.waiting = slices.DeleteFunc(t.claim.waiting, func(other *track) bool { return other == t })
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
