package batcher

import (
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/switchyard-dev/switchyard/runtime/arch"
	"github.com/switchyard-dev/switchyard/runtime/engine"
)

const ms = time.Millisecond

// aMillisecond is the cost of a token in these tests: a row of n tokens takes n ms.
var aMillisecond = Cost{Token: 1e-3}

// someLimits are as the defaults are, and a batch of them has room for a hundred tokens.
var someLimits = limits{batch: 100 * ms, queue: 2000 * ms, rows: 32, tokens: 1 << 14}

// adaptersOf are that many adapters, each of which changes all layers.
func adaptersOf(n int) []*engine.Adapter {
	adapters := make([]*engine.Adapter, n)
	for i := range adapters {
		adapters[i] = &engine.Adapter{Digest: strconv.Itoa(i), Head: arch.Head{Task: arch.Token}}
	}
	return adapters
}

// rowsOf are rows of an adapter, each of that many tokens of its own.
func rowsOf(a *engine.Adapter, tokens ...int) []Ask {
	asks := make([]Ask, len(tokens))
	for i, n := range tokens {
		asks[i] = Ask{i, a, n}
	}
	return asks
}

// ask has a schedule admit rows and queues them; nil: they were refused.
func (s *schedule) ask(now time.Time, asks []Ask) *claim {
	shares, retry := s.admit(lay(asks, &aMillisecond))
	if retry > 0 {
		return nil
	}
	c := &claim{shares: shares}
	s.enqueue(c, lay(asks, &aMillisecond), now)
	return c
}

// tokensOf are those of each track.
func tokensOf(tracks []*track) (tokens []int) {
	for _, t := range tracks {
		tokens = append(tokens, t.tokens)
	}
	return tokens
}

func TestWhoIsAdmitted(t *testing.T) {
	a := adaptersOf(8)
	type asked struct {
		adapter int
		ms      int
	}
	for name, c := range map[string]struct {
		before []asked // that are in the queue
		rows   []asked // of one request
		held   int     // of the queue in all then; -1: refused
		retry  int     // when to come again
	}{
		"an empty queue":                         {nil, []asked{{0, 100}}, 100, 0},
		"half of it":                             {nil, []asked{{0, 1000}}, 1000, 0},
		"more than half counts as half":          {nil, []asked{{0, 1001}}, 1000, 0},
		"far more than all of it":                {nil, []asked{{0, 90000}}, 1000, 0},
		"up to half":                             {[]asked{{0, 900}}, []asked{{0, 100}}, 1000, 0},
		"beyond half":                            {[]asked{{0, 900}}, []asked{{0, 101}}, -1, 2},
		"another beside one that floods":         {[]asked{{0, 1000}}, []asked{{1, 500}}, 1500, 0},
		"half of what a flood leaves":            {[]asked{{0, 1000}}, []asked{{1, 501}}, 1500, 0},
		"of a queue beyond half":                 {[]asked{{0, 1000}, {1, 1}}, []asked{{2, 700}}, -1, 401},
		"too much, while something of it waits":  {[]asked{{0, 1}}, []asked{{0, 5000}}, -1, 1},
		"two that flood":                         {[]asked{{0, 1000}, {1, 300}}, []asked{{1, 33}}, 1333, 0},
		"two that flood, a third each":           {[]asked{{0, 666}, {1, 600}}, []asked{{1, 67}}, 1333, 0},
		"two that flood, more than a third each": {[]asked{{0, 666}, {1, 600}}, []asked{{1, 68}}, -1, 2},
		"an input asked of many":                 {nil, []asked{{0, 200}, {1, 200}, {2, 200}, {3, 200}}, 800, 0},
		"of so many that it is too much":         {nil, []asked{{0, 500}, {1, 500}, {2, 500}, {3, 500}}, 1000, 0},
		"too much for one of many":               {[]asked{{0, 500}}, []asked{{0, 500}, {1, 200}}, -1, 200},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSchedule(someLimits)
			for _, b := range c.before {
				if s.ask(time.Time{}, rowsOf(a[b.adapter], b.ms)) == nil {
					t.Fatalf("expected %+v to be admitted", b)
				}
			}
			var asks []Ask
			for i, r := range c.rows {
				asks = append(asks, Ask{i, a[r.adapter], r.ms})
			}
			before := s.reserved
			_, retry := s.admit(lay(asks, &aMillisecond))
			if retry != time.Duration(c.retry)*ms {
				t.Errorf("expected to hear of room in %d ms, found %s", c.retry, retry)
			}
			want := time.Duration(c.held) * ms
			if c.held < 0 {
				want = before
			}
			if d := (s.reserved - want).Abs(); d > ms {
				t.Errorf("expected %s in the queue, found %s", want, s.reserved)
			}
		})
	}
}

// What a request counts for when it is queued is what it costs by then: less than was asked, or more where there is
// room.
func TestRealTokensCount(t *testing.T) {
	a := adaptersOf(2)
	for name, c := range map[string]struct{ other, asked, found, held int }{
		"fewer":                         {0, 500, 20, 20},
		"more":                          {0, 20, 500, 500},
		"more than there is room for":   {0, 20, 1500, 20},
		"more than another leaves":      {1000, 20, 600, 20},
		"too many, and as many":         {0, 5000, 5000, 1000},
		"too many, and fewer":           {0, 5000, 800, 800},
		"too many, and still too many":  {0, 5000, 3000, 1000},
		"as many, and nothing was left": {1000, 500, 500, 500},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSchedule(someLimits)
			if c.other > 0 {
				s.ask(time.Time{}, rowsOf(a[0], c.other))
			}
			shares, retry := s.admit(lay(rowsOf(a[1], c.asked), &aMillisecond))
			if retry != 0 {
				t.Fatalf("refused, with room in %s", retry)
			}
			s.enqueue(&claim{shares: shares}, lay(rowsOf(a[1], c.found), &aMillisecond), time.Time{})
			if held, want := s.held(a[1]), time.Duration(c.held)*ms; held != want {
				t.Errorf("expected it to hold %s, found %s", want, held)
			}
		})
	}
}

func TestWhatIsComputedAsOne(t *testing.T) {
	head, other := &engine.Adapter{}, &engine.Adapter{}
	trunk := adaptersOf(1)[0]
	for name, c := range map[string]struct {
		asks []Ask
		want [][]int // rows of each track
	}{
		"inputs of their own":            {[]Ask{{0, nil, 5}, {1, nil, 5}}, [][]int{{0}, {1}}},
		"heads of one input":             {[]Ask{{0, head, 5}, {0, other, 5}, {0, nil, 5}}, [][]int{{0, 1, 2}}},
		"heads of two":                   {[]Ask{{0, head, 5}, {1, other, 5}, {0, other, 5}}, [][]int{{0, 2}, {1}}},
		"what changes layers is its own": {[]Ask{{0, trunk, 5}, {0, head, 5}, {0, trunk, 5}}, [][]int{{0}, {1}, {2}}},
	} {
		var found [][]int
		for _, t := range lay(c.asks, &aMillisecond) {
			found = append(found, t.rows)
		}
		if !slices.EqualFunc(found, c.want, slices.Equal) {
			t.Errorf("%s: expected tracks of the rows %v, found %v", name, c.want, found)
		}
	}
}

func TestABatchHasRowsOfManyAdapters(t *testing.T) {
	a := adaptersOf(3)
	s := newSchedule(someLimits)
	s.ask(time.Time{}, rowsOf(a[0], slices.Repeat([]int{10}, 50)...))
	s.ask(time.Time{}, rowsOf(a[1], 30, 30))
	s.ask(time.Time{}, rowsOf(a[2], 7))
	batch, _ := s.take(time.Time{}, 2*ms)
	// Each has its turn, and the first as much as those that come anew. Then it is the second's again: there is no room.
	if got := tokensOf(batch); !slices.Equal(got, []int{30, 10, 10, 10, 10, 10, 10, 7}) {
		t.Errorf("expected a batch of all three, the longest first, found %v", got)
	}
	// One that comes anew is next, before those that wait.
	s.ask(time.Time{}, rowsOf(a[2], 3))
	if batch, _ := s.take(time.Time{}, 2*ms); !slices.Contains(tokensOf(batch), 3) {
		t.Errorf("expected the row that came anew in the next batch, found %v", tokensOf(batch))
	}
}

// Adapters that keep within a quantum are answered in the order of arrival, and others as far as they do. The rows of
// one stay in order.
func TestTheOldestRowIsNext(t *testing.T) {
	type row struct{ adapter, ms int }
	for name, c := range map[string]struct {
		rows []row // in the order of arrival, behind one of each adapter
		want []row
	}{
		"within a quantum":             {[]row{{0, 9}, {1, 8}, {0, 7}, {2, 6}}, []row{{0, 9}, {1, 8}, {0, 7}, {2, 6}}},
		"one asks for more":            {[]row{{0, 20}, {0, 10}, {0, 9}, {1, 8}}, []row{{0, 20}, {0, 10}, {1, 8}, {0, 9}}},
		"a long row is paid in rounds": {[]row{{0, 60}, {0, 9}, {1, 30}, {1, 31}}, []row{{0, 60}, {1, 30}, {1, 31}, {0, 9}}},
		"nobody else asks":             {[]row{{0, 60}, {0, 50}, {0, 1}}, []row{{0, 60}, {0, 50}, {0, 1}}},
	} {
		s, a := newSchedule(someLimits), adaptersOf(3)
		for _, adapter := range a {
			s.ask(time.Time{}, rowsOf(adapter, 0))
		}
		for _, r := range c.rows {
			s.ask(time.Time{}, rowsOf(a[r.adapter], r.ms))
		}
		var found []row
		for f := s.turn(); f != nil; f = s.turn() {
			if n := f.tracks[0].tokens; n > 0 {
				found = append(found, row{slices.Index(a, f.adapter), n})
			}
			s.compute(f)
		}
		if !slices.Equal(found, c.want) {
			t.Errorf("%s: expected %v, found %v", name, c.want, found)
		}
	}
}

// A batch is as long as makes it efficient, and no longer.
func TestWhatIsEnough(t *testing.T) {
	a := adaptersOf(1)[0]
	for overhead, want := range map[time.Duration]int{0: 25, ms / 2: 24, ms: 49, 2 * ms: 98, 40 * ms: 60, time.Second: 1} {
		s := newSchedule(limits{batch: 100 * ms, queue: time.Second, rows: 1000, tokens: 1000, delay: ms})
		s.ask(time.Time{}, rowsOf(a, slices.Repeat([]int{1}, 200)...))
		if batch, _ := s.take(time.Time{}, overhead); len(batch) != want {
			t.Errorf("with %s beside the rows: expected %d rows of a millisecond, found %d", overhead, want, len(batch))
		}
	}
}

func TestLateRowsAreNotComputed(t *testing.T) {
	a := adaptersOf(1)[0]
	start := time.Unix(0, 0)
	s := newSchedule(someLimits)
	for _, deadline := range []time.Duration{0, 9 * ms, 10 * ms, time.Hour} {
		c := s.ask(start, rowsOf(a, 20, 20))
		if c.deadline = start.Add(deadline); deadline == 0 {
			c.deadline = time.Time{} // has none
		}
	}
	batch, late := s.take(start, 2*ms)
	if len(late) != 1 || late[0].deadline != start.Add(9*ms) || len(batch) != 4 || s.tracks != 2 {
		t.Errorf("expected the request with less than half the time to be late, and four rows, found %d and %d",
			len(late), len(batch))
	}
	if batch, late = s.take(start.Add(time.Minute), 2*ms); len(batch) != 2 || len(late) != 0 || s.reserved != 0 {
		t.Errorf("expected the last two rows, found %d, and %d late, %s reserved", len(batch), len(late), s.reserved)
	}
}

func TestAnIdleEngineWaitsIfItIsTold(t *testing.T) {
	a := adaptersOf(2)
	start := time.Unix(0, 0)
	for name, c := range map[string]struct {
		delay, after time.Duration
		rows         []int
		ready        bool
		wait         time.Duration
	}{
		"no rows":                  {0, 0, nil, false, 0},
		"no delay":                 {0, 0, []int{1}, true, 0},
		"a delay":                  {10 * ms, 0, []int{1}, false, 10 * ms},
		"some of it has passed":    {10 * ms, 4 * ms, []int{1}, false, 6 * ms},
		"it has passed":            {10 * ms, 10 * ms, []int{1}, true, 0},
		"no rows for long":         {10 * ms, time.Hour, nil, false, 0},
		"as much as a batch has":   {10 * ms, 0, []int{50, 45}, true, 0},
		"as many as a batch has":   {10 * ms, 0, slices.Repeat([]int{1}, 32), true, 0},
		"nearly as much as it has": {10 * ms, 0, []int{50, 44}, false, 10 * ms},
		"a row and nothing else":   {10 * ms, 0, []int{94}, false, 10 * ms},
	} {
		limits := someLimits
		limits.delay = c.delay
		s := newSchedule(limits)
		s.ask(start, rowsOf(a[0], c.rows...))
		if len(c.rows) > 0 {
			s.ask(start.Add(c.after), rowsOf(a[1], 0)) // that came later
		}
		if ready, wait := s.isReady(start.Add(c.after), 5*ms); ready != c.ready || wait != c.wait {
			t.Errorf("%s: expected %v, %s, found %v, %s", name, c.ready, c.wait, ready, wait)
		}
	}
}

// check holds what must always hold.
func (s *schedule) check(t *testing.T) {
	t.Helper()
	var held, cost time.Duration
	tracks := 0
	for a, f := range s.flows {
		ofTracks := time.Duration(0)
		for _, tr := range f.tracks {
			cost += tr.cost
			ofTracks += tr.held
		}
		if !slices.IsSortedFunc(f.tracks, func(a, b *track) int { return a.number - b.number }) {
			t.Fatal("the rows of an adapter are not in the order of arrival")
		}
		if f.held < ofTracks || a != f.adapter {
			t.Fatalf("a flow holds %s, its rows %s", f.held, ofTracks)
		}
		if (len(f.tracks) > 0 || f.deficit < s.quantum()) && !f.listed || f.listed != slices.Contains(s.turns, f) {
			t.Fatal("a flow with rows, or that is to get some of its quantum back, takes no turns")
		}
		tracks += len(f.tracks)
		held += f.held
	}
	if held != s.reserved || held > s.limits.queue || cost != s.cost || tracks != s.tracks {
		t.Fatalf("expected %s reserved of %s, %s for %d rows, found %s, %s, %d",
			held, s.limits.queue, cost, tracks, s.reserved, s.cost, s.tracks)
	}
	if tracks == 0 && held == 0 && len(s.flows) > len(s.turns) {
		t.Fatalf("an empty queue remembers %d adapters", len(s.flows))
	}
}

// history is a random one of a schedule.
type history struct {
	*schedule
	*rand.Rand
	adapters []*engine.Adapter
	prepared []*claim
	claims   map[*claim]int // of each that is queued, how many rows were computed
	sizes    map[*claim]int
	now      time.Time
}

// step does something.
func (h *history) step(t *testing.T) {
	switch h.IntN(8) {
	case 0, 1, 2:
		shares, retry := h.admit(lay(h.asks(), &aMillisecond))
		for _, sh := range shares {
			if held := h.held(sh.adapter); held > max(h.limits.queue-h.reserved, h.limits.batch) {
				t.Fatalf("an adapter holds %s, and %s are left", held, h.limits.queue-h.reserved)
			}
		}
		if retry < 0 || (retry == 0) != (shares != nil) {
			t.Fatalf("expected room, or a time until there is, found %s", retry)
		}
		if retry == 0 {
			h.prepared = append(h.prepared, &claim{shares: shares})
		}
	case 3, 4:
		if len(h.prepared) == 0 {
			return
		}
		c := h.prepared[0]
		h.prepared = h.prepared[1:]
		if h.IntN(5) == 0 {
			h.release(c)
			return
		}
		asks := h.asks()
		if h.IntN(3) == 0 {
			c.deadline = h.now.Add(time.Duration(h.IntN(2000)) * ms)
		}
		h.enqueue(c, lay(asks, &aMillisecond), h.now)
		h.claims[c], h.sizes[c] = 0, len(asks)
	case 5:
		for c := range h.claims { // any
			h.drop(c)
			delete(h.claims, c)
			break
		}
	default:
		h.compute(t)
	}
}

func (h *history) asks() []Ask {
	asks := make([]Ask, 1+h.IntN(6))
	for i := range asks {
		asks[i] = Ask{h.IntN(3), h.adapters[h.IntN(len(h.adapters))], h.IntN(150)}
	}
	return asks
}

// compute takes a batch, and holds it to its bounds.
func (h *history) compute(t *testing.T) {
	before := h.tracks
	batch, late := h.take(h.now, 5*ms)
	if before > 0 && len(batch) == 0 && len(late) == 0 {
		t.Fatal("rows wait, and none is taken")
	}
	cost, tokens := 5*ms, 0
	for _, tr := range batch {
		cost, tokens = cost+tr.cost, tokens+tr.tokens
		if tr.claim.isLate(h.now, tr.cost) {
			t.Fatal("a late row was computed")
		}
		rows, ok := h.claims[tr.claim]
		if !ok {
			t.Fatal("a row was computed of a request that is none any more, or once more")
		}
		if rows += len(tr.rows); rows == h.sizes[tr.claim] {
			delete(h.claims, tr.claim)
		} else {
			h.claims[tr.claim] = rows
		}
	}
	if l := h.limits; len(batch) > 1 && (cost > l.batch || tokens > l.tokens || len(batch) > l.rows) {
		t.Fatalf("a batch of %d rows, %d tokens, %s", len(batch), tokens, cost)
	}
	for _, c := range late {
		delete(h.claims, c)
	}
	h.now = h.now.Add(cost)
}

// Whatever happens in whatever order: the bounds hold, and every row that was queued is computed once, or dropped with
// its request.
func TestRandomHistories(t *testing.T) {
	for seed := range uint64(200) {
		h := history{
			schedule: newSchedule(limits{batch: 100 * ms, queue: 2000 * ms, rows: 5, tokens: 300}),
			Rand:     rand.New(rand.NewPCG(seed, 0)),
			adapters: append(adaptersOf(5), nil, &engine.Adapter{}), now: time.Unix(0, 0),
			claims: make(map[*claim]int), sizes: make(map[*claim]int),
		}
		for range 400 {
			h.step(t)
			h.check(t)
		}
		for _, c := range h.prepared {
			h.release(c)
		}
		for h.tracks > 0 {
			h.compute(t)
			h.check(t)
		}
		if len(h.claims) > 0 || h.reserved != 0 {
			t.Fatalf("seed %d: %d requests are lost, %s are held for nobody", seed, len(h.claims), h.reserved)
		}
		if h.turn() != nil || len(h.flows) > 0 {
			t.Fatalf("seed %d: an empty queue remembers %d adapters", seed, len(h.flows))
		}
	}
}

// However many come anew, those that always have rows get a share, and so do rows that are longer than a batch: an even
// one beside few, and one of many where new ones ask for more than the engine can do.
func TestNobodyStarves(t *testing.T) {
	for anew := range 11 { // tenths of the time that the new ones ask for
		s := newSchedule(someLimits)
		busy, long := adaptersOf(2)[0], adaptersOf(2)[1]
		computed := make(map[*engine.Adapter]time.Duration)
		var now, came time.Duration
		for now < 10*time.Minute {
			for s.ask(time.Time{}, rowsOf(busy, 10)) != nil {
			}
			if f := s.flows[long]; f == nil || len(f.tracks) == 0 { // admitted whether there is room or not
				s.enqueue(&claim{}, lay(rowsOf(long, 300), &aMillisecond), time.Time{})
			}
			for ; came*10 < now*time.Duration(anew); came += 10 * ms {
				s.ask(time.Time{}, rowsOf(adaptersOf(1)[0], 5, 5)) // that nobody has heard of
			}
			batch, _ := s.take(time.Time{}, 0)
			for _, t := range batch {
				computed[t.adapter] += t.cost
				now += t.cost
			}
			s.check(t)
		}
		least := 0.3
		if anew > 3 {
			least = 0.001
		}
		for name, a := range map[string]*engine.Adapter{"one that floods": busy, "one with long rows": long} {
			if share := float64(computed[a]) / float64(now); share < least {
				t.Errorf("%s, beside %d tenths anew: expected %g of the time at least, found %.3f", name, anew, least, share)
			}
		}
	}
}

// All who always have rows get the same time, however long their rows are.
func TestSharesAreEven(t *testing.T) {
	lengths := []int{1, 7, 12, 13, 24, 26, 60, 300}
	s := newSchedule(limits{batch: 100 * ms, queue: time.Hour, rows: 32, tokens: 1 << 14})
	a := adaptersOf(len(lengths))
	computed := make(map[*engine.Adapter]time.Duration)
	var now time.Duration
	for now < 10*time.Minute {
		for i, n := range lengths {
			for f := s.flow(a[i]); len(f.tracks) < 200; {
				s.enqueue(&claim{}, lay(rowsOf(a[i], n), &aMillisecond), time.Time{})
			}
		}
		batch, _ := s.take(time.Time{}, 2*ms)
		for _, t := range batch {
			computed[t.adapter] += t.cost
			now += t.cost
		}
	}
	for i, n := range lengths {
		if share := float64(computed[a[i]]) / float64(now) * float64(len(a)); share < 0.98 || share > 1.02 {
			t.Errorf("rows of %d ms: expected the same time as all others, found %.3f of it", n, share)
		}
	}
}
