package batcher

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/switchyard-dev/switchyard/runtime/engine"
)

// fourCores is about a BERT-base on four cores: a row of these simulations takes 2 to 33 ms.
var fourCores = Cost{Batch: 1e-3, Token: 25e-5, Pair: 1e-7, Update: 1e-11}

// arrival is a request of a simulation.
type arrival struct {
	at      time.Duration
	adapter *engine.Adapter
	tokens  []int // of each row
}

// outcome is what became of it.
type outcome struct {
	arrival
	refused  bool
	answered time.Duration // when; 0: never
}

// simulation runs a schedule over an engine that takes what the cost says, but for noise, and a clock of its own. What
// is tested is the scheduler; the engine is real elsewhere.
type simulation struct {
	*schedule
	*rand.Rand
	cost     Cost
	arrivals []arrival // by time
	then     func(answered arrival, now time.Duration) (next arrival, ok bool)
	outcomes []outcome
	now      time.Duration
	busy     time.Duration // that the engine was
	longest  time.Duration // of all batches
}

// simulated is a traffic's outcomes, of clients who do not wait for answers.
func simulated(l limits, cost Cost, arrivals []arrival) *simulation {
	slices.SortStableFunc(arrivals, func(a, b arrival) int { return cmp.Compare(a.at, b.at) })
	s := &simulation{
		schedule: newSchedule(l), Rand: rand.New(rand.NewPCG(8, 3)), cost: cost, arrivals: arrivals,
		then: func(arrival, time.Duration) (arrival, bool) { return arrival{}, false },
	}
	return s.run()
}

// closed is the outcomes of so many clients, each of which asks for one row of the next adapter in turn, of so many
// tokens, as soon as it is answered.
func closed(
	l limits, cost Cost, clients int, adapters []*engine.Adapter, tokens func() int, to time.Duration,
) *simulation {
	places := make(map[*engine.Adapter]int)
	for i, a := range adapters {
		places[a] = i
	}
	s := &simulation{
		schedule: newSchedule(l), Rand: rand.New(rand.NewPCG(8, 3)), cost: cost,
		then: func(answered arrival, now time.Duration) (arrival, bool) {
			next := adapters[(places[answered.adapter]+1)%len(adapters)]
			return arrival{now, next, []int{tokens()}}, now < to
		},
	}
	for client := range clients {
		s.arrivals = append(s.arrivals, arrival{0, adapters[client%len(adapters)], []int{tokens()}})
	}
	return s.run()
}

// run is the simulation when all were answered or refused. The estimates are off by some percent from batch to batch.
func (s *simulation) run() *simulation {
	waiting := make(map[*claim]int) // which outcome
	for {
		s.arrive(waiting)
		batch, _ := s.take(time.Unix(0, int64(s.now)), s.cost.of(work{1}))
		if len(batch) == 0 {
			if len(s.outcomes) == len(s.arrivals) {
				return s
			}
			s.now = s.arrivals[len(s.outcomes)].at
			continue
		}
		took := seconds(s.cost.seconds(batchOf(batch)) * math.Exp(s.NormFloat64()/20))
		s.now += took
		s.busy += took
		s.longest = max(s.longest, took)
		for _, t := range batch {
			if len(t.claim.waiting) > 0 {
				continue
			}
			o := &s.outcomes[waiting[t.claim]]
			o.answered = s.now
			if next, ok := s.then(o.arrival, s.now); ok {
				s.arrivals = append(s.arrivals, next)
			}
		}
	}
}

// arrive admits who has come by now, or refuses them.
func (s *simulation) arrive(waiting map[*claim]int) {
	for len(s.outcomes) < len(s.arrivals) && s.arrivals[len(s.outcomes)].at <= s.now {
		a := s.arrivals[len(s.outcomes)]
		asks := rowsOf(a.adapter, a.tokens...)
		shares, retry := s.admit(lay(asks, &s.cost))
		if retry == 0 {
			c := &claim{shares: shares}
			waiting[c] = len(s.outcomes)
			s.enqueue(c, lay(asks, &s.cost), time.Unix(0, int64(a.at)))
		}
		s.outcomes = append(s.outcomes, outcome{arrival: a, refused: retry > 0})
	}
}

// poisson are requests of one row, so many seconds' work in a second, from the beginning to the end.
func poisson(r *rand.Rand, a *engine.Adapter, cost Cost, load float64, from, to time.Duration) (arrivals []arrival) {
	at := from
	for {
		tokens := 8 + r.IntN(120)
		work := cost.seconds(workOf(tokens, a))
		at += seconds(r.ExpFloat64() * work / load)
		if at >= to {
			return arrivals
		}
		arrivals = append(arrivals, arrival{at, a, []int{tokens}})
	}
}

// zipf is such traffic to adapters whose share falls as 1/n.
func zipf(r *rand.Rand, adapters []*engine.Adapter, cost Cost, load float64, to time.Duration) (arrivals []arrival) {
	sum := 0.0
	for i := range adapters {
		sum += 1 / float64(i+1)
	}
	for i, a := range adapters {
		arrivals = append(arrivals, poisson(r, a, cost, load/float64(i+1)/sum, 0, to)...)
	}
	return arrivals
}

// tally is what requests came to.
type tally struct {
	requests, refused, lost int
	latencies               []time.Duration // sorted
	asked, work             time.Duration   // of all, and of those that were answered
}

// tally is that of an adapter's requests, or of all (nil).
func (s *simulation) tally(a *engine.Adapter) (t tally) {
	for i := range s.outcomes {
		o := &s.outcomes[i]
		if a != nil && o.adapter != a {
			continue
		}
		work := time.Duration(0)
		for _, n := range o.tokens {
			work += s.cost.of(workOf(n, o.adapter))
		}
		t.requests++
		t.asked += work
		switch {
		case o.refused:
			t.refused++
		case o.answered == 0:
			t.lost++
		default:
			t.latencies = append(t.latencies, o.answered-o.at)
			t.work += work
		}
	}
	slices.Sort(t.latencies)
	return t
}

// mean is that of the latencies.
func (t *tally) mean() time.Duration {
	sum := time.Duration(0)
	for _, l := range t.latencies {
		sum += l
	}
	return sum / time.Duration(max(len(t.latencies), 1))
}

// p is the latency below which so many of a hundred are.
func (t *tally) p(percent int) time.Duration {
	if len(t.latencies) == 0 {
		return 0
	}
	return t.latencies[(len(t.latencies)*percent-1)/100]
}

func newRand() *rand.Rand { return rand.New(rand.NewPCG(5, 5)) }

// Below capacity nobody is refused, and nobody waits for long.
func TestZipfTrafficBelowCapacity(t *testing.T) {
	adapters := adaptersOf(64)
	s := simulated(someLimits, fourCores, zipf(newRand(), adapters, fourCores, 0.8, 5*time.Minute))
	all := s.tally(nil)
	t.Logf("at 0.8 of capacity: p50 %s, p99 %s of %d; longest batch %s", all.p(50), all.p(99), all.requests, s.longest)
	if all.refused > 0 || all.lost > 0 {
		t.Errorf("expected all %d requests answered, found %d refused, %d lost", all.requests, all.refused, all.lost)
	}
	if p99 := all.p(99); p99 > 10*s.limits.batch {
		t.Errorf("expected a p99 of ten batches at most, found %s", p99)
	}
}

// At twice the capacity the engine goes on doing useful work all the time, those who ask for much less than their share
// get about all of it, and those who ask for more get about the same as each other.
func TestZipfTrafficAtTwiceTheCapacity(t *testing.T) {
	adapters := adaptersOf(64)
	const long = 5 * time.Minute
	s := simulated(someLimits, fourCores, zipf(newRand(), adapters, fourCores, 2, long))
	all := s.tally(nil)
	t.Logf("at 2 x capacity: %.3f of it answered, %d of %d refused, p99 %s",
		all.work.Seconds()/s.now.Seconds(), all.refused, all.requests, all.p(99))
	if all.lost > 0 {
		t.Errorf("%d requests were admitted and not answered", all.lost)
	}
	if goodput := all.work.Seconds() / s.now.Seconds(); goodput < 0.9 {
		t.Errorf("expected 0.9 of the capacity at least, found %.3f", goodput)
	}
	if p99, most := all.p(99), 2*s.limits.queue; p99 > most {
		t.Errorf("expected a p99 of at most twice what the queue holds, %s, found %s", most, p99)
	}
	most := s.tally(adapters[0]).work
	for i, a := range adapters {
		switch found := s.tally(a); {
		case found.asked < most/2 && found.work < found.asked*9/10:
			t.Errorf("adapter %d asked for %s, half its share: expected about all of it, found %s", i, found.asked, found.work)
		case found.asked > most*3/2 && found.work < most*8/10:
			t.Errorf("adapter %d asked for %s: expected about the share of the first, %s, found %s",
				i, found.asked, most, found.work)
		}
	}
}

// One adapter asks for ten times the capacity, another now and then: this one is never refused, and waits for the batch
// that is in the engine and its own, as long as batches really take; or one more, behind another row of its own.
func TestAFloodDoesNotHurtAQuietAdapter(t *testing.T) {
	adapters := adaptersOf(2)
	r := newRand()
	flood := poisson(r, adapters[0], fourCores, 10, 0, 2*time.Minute)
	quiet := poisson(r, adapters[1], fourCores, 0.05, 0, 2*time.Minute)
	s := simulated(someLimits, fourCores, slices.Concat(flood, quiet))
	found, loud := s.tally(adapters[1]), s.tally(adapters[0])
	t.Logf("beside a flood: quiet p50 %s, p99 %s of %d; the flood's p99 %s; longest batch %s",
		found.p(50), found.p(99), found.requests, loud.p(99), s.longest)
	if found.refused > 0 || found.lost > 0 || found.p(99) > 3*s.longest || found.p(50) > 2*s.longest {
		t.Errorf("expected all answered, within two batches mostly, three at p99, found %d refused, %d lost, p50 %s, p99 %s",
			found.refused, found.lost, found.p(50), found.p(99))
	}
	if busy := s.busy.Seconds() / s.now.Seconds(); busy < 0.95 {
		t.Errorf("expected the flood to have what is left, found the engine busy for %.2f of the time", busy)
	}
}

// Clients of adapters that are asked for about the same are answered in the order in which they come, so that none
// waits for much longer than all do. But where what waits of an adapter is several quanta, as that of long texts is
// here, it is computed in as many rounds: adapters have even shares of the time, not clients.
func TestEqualAdaptersWaitEqually(t *testing.T) {
	l := someLimits
	l.queue = time.Minute // there is room for all
	for _, c := range []struct {
		name  string
		texts int     // lengths of texts, from 8 tokens
		most  float64 // p99 over the mean
	}{
		{"short texts", 17, 1.3},
		{"of all lengths", 120, 3.5},
	} {
		r := newRand()
		s := closed(l, fourCores, 256, adaptersOf(64), func() int { return 8 + r.IntN(c.texts) }, 2*time.Minute)
		all := s.tally(nil)
		ratio := all.p(99).Seconds() / all.mean().Seconds()
		t.Logf("256 clients, 64 adapters, %s: mean %s, p50 %s, p99 %s, %.2f times the mean; %d requests, %d refused",
			c.name, all.mean(), all.p(50), all.p(99), ratio, all.requests, all.refused)
		if all.refused > 0 || all.lost > 0 || ratio > c.most {
			t.Errorf("%s: expected all answered, and a p99 of %g times the mean at most, found %d refused, %d lost, %.2f",
				c.name, c.most, all.refused, all.lost, ratio)
		}
	}
}

// Requests of many rows come to all adapters at once, again and again: who is admitted is answered within the time of
// the queue, whatever was before.
func TestBursts(t *testing.T) {
	adapters := adaptersOf(64)
	var arrivals []arrival
	r := newRand()
	for burst := range 20 {
		for _, a := range adapters {
			rows := make([]int, 1+r.IntN(16))
			for i := range rows {
				rows[i] = 8 + r.IntN(40)
			}
			arrivals = append(arrivals, arrival{time.Duration(burst) * 5 * time.Second, a, rows})
		}
	}
	s := simulated(someLimits, fourCores, arrivals)
	all := s.tally(nil)
	t.Logf("bursts: %d of %d requests refused, p50 %s, p99 %s", all.refused, all.requests, all.p(50), all.p(99))
	if all.lost > 0 || all.refused == all.requests {
		t.Errorf("expected answers or refusals, found %d lost, %d refused of %d", all.lost, all.refused, all.requests)
	}
	// What a batch costs beside its rows is not counted in the queue.
	if longest, most := all.p(100), s.limits.queue*11/10+s.limits.batch; longest > most {
		t.Errorf("expected answers within %s, found %s", most, longest)
	}
	if all.work < 20*s.limits.queue*8/10 {
		t.Errorf("expected each burst to fill the queue about, found %s answered", all.work)
	}
}
