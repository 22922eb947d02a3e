package lease

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"bigdisk/gcp/rollout/state"
)

// memory is an object in memory. Faults are drawn by fail.
type memory struct {
	mu         sync.Mutex
	data       []byte
	generation int64
	writes     []time.Time
	fail       func() (before, after bool)
}

var errLost = errors.New("connection reset")

func (m *memory) Read(context.Context) ([]byte, int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		if before, _ := m.fail(); before {
			return nil, 0, errLost
		}
	}
	return m.data, m.generation, nil
}

func (m *memory) Write(_ context.Context, data []byte, generation int64) (int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var before, after bool
	if m.fail != nil {
		before, after = m.fail()
	}
	if before {
		return 0, errLost
	}
	if generation != m.generation {
		return 0, ErrConflict
	}
	m.data, m.generation = data, generation+1
	m.writes = append(m.writes, time.Now())
	if after {
		return 0, errLost
	}
	return m.generation, nil
}

// count is how often it was written.
func (m *memory) count() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.writes)
}

func (m *memory) doc(t *testing.T) *state.Document {
	t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	d, err := state.Decode(m.data, "svc")
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func acquire(t *testing.T, ctx context.Context, m Store, holder string) *Keeper {
	t.Helper()
	k, err := Acquire(ctx, m, "svc", Options{Holder: holder, Purpose: "rollout"})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func deploy(k *Keeper, version string) {
	k.Update(func(d *state.Document) { d.Deployed = version })
}

// named is an object that has a name.
type named struct{ *memory }

func (named) URL() string { return "gs://bucket/state/svc.rollout.json" }

// TestMalformedSaysWhere names the object that somebody has to restore.
func TestMalformedSaysWhere(t *testing.T) {
	for _, data := range []string{"", "{", `{"schema":2,"service":"svc"}`} {
		_, _, err := Read(t.Context(), named{&memory{data: []byte(data), generation: 3}}, "svc")
		if !errors.Is(err, state.ErrMalformed) || !strings.Contains(err.Error(), "gs://bucket/state/svc.rollout.json") {
			t.Errorf("%q: %v", data, err)
		}
	}
}

// TestFreshAfterSleep has the machine sleep, so that only the clock on the wall
// goes on: others may have taken the lease, however little seems to have passed.
func TestFreshAfterSleep(t *testing.T) {
	m := &memory{}
	k := acquire(t, t.Context(), m, "laptop")
	if err := k.Fresh(); err != nil {
		t.Fatal(err)
	}
	k.mu.Lock()
	k.wall = k.wall.Add(-time.Minute)
	k.mu.Unlock()
	if err := k.Fresh(); !errors.Is(err, ErrLost) {
		t.Errorf("after a minute's sleep: %v", err)
	}
}

func TestWritesAreFew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memory{}
		k := acquire(t, t.Context(), m, "alice")
		began := m.count()
		for i := range 6000 {
			deploy(k, fmt.Sprint(i))
			time.Sleep(10 * time.Millisecond)
		}
		if n := m.count() - began; n > 62 || n < 50 {
			t.Errorf("%d writes in a minute", n)
		}
		if err := k.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if d := m.doc(t); d.Deployed != "5999" || d.Lease != nil {
			t.Errorf("deployed %s, lease %v", d.Deployed, d.Lease)
		}
	})
}

func TestFlush(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memory{}
		k := acquire(t, t.Context(), m, "alice")
		defer k.Close(t.Context())
		for i := range 5 {
			deploy(k, fmt.Sprint(i))
			began := time.Now()
			if err := k.Flush(t.Context()); err != nil || m.doc(t).Deployed != fmt.Sprint(i) || time.Since(began) > 2*time.Second {
				t.Errorf("%v, %q is written after %s", err, m.doc(t).Deployed, time.Since(began))
			}
		}
	})
}

func TestDeadHolderIsTakenOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memory{}
		ctx, kill := context.WithCancel(t.Context())
		acquire(t, ctx, m, "alice")
		time.Sleep(10 * time.Second)
		kill()
		began := time.Now()
		k := acquire(t, t.Context(), m, "bob")
		defer k.Close(t.Context())
		if took := time.Since(began); took < 30*time.Second || took > 40*time.Second {
			t.Errorf("taken over after %s", took)
		}
		if h := m.doc(t).Lease.Holder; h != "bob" {
			t.Errorf("held by %s", h)
		}
	})
}

// TestFencing has a holder that was out of reach for long: it must not write
// again, nor think that it may.
func TestFencing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memory{}
		var cut atomic.Bool
		first := acquire(t, t.Context(), &memoryCut{m, &cut}, "alice")
		cut.Store(true)
		lost := make(chan time.Time, 1)
		go func() { <-first.Lost(); lost <- time.Now() }()
		second := acquire(t, t.Context(), m, "bob")
		defer second.Close(t.Context())
		at := time.Now()
		select {
		case when := <-lost:
			if when.After(at) {
				t.Errorf("lost only at %s, taken over at %s", when, at)
			}
		default:
			t.Error("both hold the lease")
		}
		if err := first.Fresh(); !errors.Is(err, ErrLost) {
			t.Errorf("the first still may: %v", err)
		}
		cut.Store(false)
		deploy(first, "torn")
		time.Sleep(10 * time.Second)
		if err := first.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if d := m.doc(t); d.Deployed != "" || d.Lease == nil || d.Lease.Holder != "bob" {
			t.Errorf("the first wrote %q, and %v holds the lease", d.Deployed, d.Lease)
		}
	})
}

// memoryCut is an object that one process cannot reach.
type memoryCut struct {
	*memory
	cut *atomic.Bool
}

func (m *memoryCut) Read(ctx context.Context) ([]byte, int64, error) {
	if m.cut.Load() {
		return nil, 0, errLost
	}
	return m.memory.Read(ctx)
}

func (m *memoryCut) Write(ctx context.Context, data []byte, generation int64) (int64, error) {
	if m.cut.Load() {
		return 0, errLost
	}
	return m.memory.Write(ctx, data, generation)
}

func TestHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memory{}
		k := acquire(t, t.Context(), m, "alice@desk")
		began := time.Now()
		_, err := Acquire(t.Context(), m, "svc", Options{Holder: "bob"})
		if !errors.Is(err, ErrHeld) || !strings.Contains(err.Error(), "alice@desk") || time.Since(began) > 10*time.Second {
			t.Errorf("after %s: %v", time.Since(began), err)
		}
		time.AfterFunc(2*time.Minute, func() { _ = k.Close(context.Background()) })
		standby, err := Acquire(t.Context(), m, "svc", Options{Holder: "carol", Wait: true})
		if err != nil || time.Since(began) < 2*time.Minute || time.Since(began) > 3*time.Minute {
			t.Errorf("the standby has it after %s: %v", time.Since(began), err)
		}
		_ = standby.Close(t.Context())
	})
}

func TestRequestsComeIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memory{}
		k := acquire(t, t.Context(), m, "alice")
		defer k.Close(t.Context())
		began := time.Now()
		_, err := Edit(t.Context(), m, "svc", func(d *state.Document) error {
			d.Request = &state.Request{ID: "1", Action: state.Pause}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		<-k.Changed()
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("seen after %s", took)
		}
		k.Update(func(d *state.Document) { d.Request, d.Answered = nil, "1" })
		if err := k.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if d := m.doc(t); d.Request != nil || d.Answered != "1" {
			t.Errorf("the request came back: %+v", d.Request)
		}
	})
}

// TestNothingIsLostUnderFaults counts in the document with a holder whose
// answers get lost, while others ask for things.
func TestNothingIsLostUnderFaults(t *testing.T) {
	for seed := range uint64(30) {
		synctest.Test(t, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 3))
			m := &memory{}
			k := acquire(t, t.Context(), m, "alice")
			m.mu.Lock()
			m.fail = func() (bool, bool) { return rng.IntN(5) == 0, rng.IntN(5) == 0 }
			m.mu.Unlock()
			asked := 0
			for i := range 100 {
				deploy(k, fmt.Sprint(i))
				if i%10 == 5 {
					asked++
					id := fmt.Sprint(asked)
					for {
						_, err := Edit(t.Context(), m, "svc", func(d *state.Document) error {
							d.Request = &state.Request{ID: id, Action: state.Pause}
							return nil
						})
						if err == nil {
							break
						}
					}
					<-k.Changed()
					k.Update(func(d *state.Document) { d.Request, d.Answered = nil, id })
				}
				if err := k.Flush(t.Context()); err != nil {
					t.Fatalf("seed %d, edit %d: %v", seed, i, err)
				}
				if d := m.doc(t); d.Deployed != fmt.Sprint(i) {
					t.Fatalf("seed %d: %s is written after flushing %d", seed, d.Deployed, i)
				}
			}
			if err := k.Fresh(); err != nil {
				t.Error(err)
			}
			m.mu.Lock()
			m.fail = nil
			m.mu.Unlock()
			_ = k.Close(t.Context())
			if d := m.doc(t); d.Deployed != "99" || d.Lease != nil {
				t.Errorf("in the end %s, lease %v", d.Deployed, d.Lease)
			}
		})
	}
}

func Example() {
	store := &memory{}
	ctx := context.Background()
	keeper, err := Acquire(ctx, store, "nixmodules", Options{Holder: "alice@desk", Purpose: "rollout"})
	if err != nil {
		fmt.Println(err)
		return
	}
	keeper.Update(func(d *state.Document) { d.Deployed = "v12" })
	if err := keeper.Fresh(); err == nil {
		fmt.Println("hosts may be changed")
	}
	fmt.Println(keeper.Close(ctx))
	d, _, err := Read(ctx, store, "nixmodules")
	fmt.Println(d.Deployed, d.Lease, err)
	// Output:
	// hosts may be changed
	// <nil>
	// v12 <nil> <nil>
}
