package gcetest

import (
	"container/heap"
	"time"
)

// event is something that happens at a moment of the server's clock.
type event struct {
	at  time.Time
	seq uint64 // events of one moment happen in the order they were planned
	do  func() // called with Server.mu held
}

type eventHeap []event

func (h eventHeap) Len() int { return len(h) }
func (h eventHeap) Less(i, j int) bool {
	if !h[i].at.Equal(h[j].at) {
		return h[i].at.Before(h[j].at)
	}
	return h[i].seq < h[j].seq
}
func (h eventHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *eventHeap) Push(x any)   { *h = append(*h, x.(event)) }
func (h *eventHeap) Pop() any {
	old := *h
	e := old[len(old)-1]
	old[len(old)-1] = event{}
	*h = old[:len(old)-1]
	return e
}

// schedule plans do for d from now; s.mu is held.
func (s *Server) schedule(d time.Duration, do func()) {
	s.eventSeq++
	heap.Push(&s.events, event{at: s.present().Add(max(d, 0)), seq: s.eventSeq, do: do})
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// runDue lets everything happen whose moment has come; s.mu is held. Every
// request calls it first, so that what a client sees depends on the clock only
// and not on when the scheduler's goroutine was last given a processor.
func (s *Server) runDue() {
	for len(s.events) > 0 && !s.events[0].at.After(s.clock.Now()) {
		e := heap.Pop(&s.events).(event)
		s.eventTime = e.at
		e.do()
	}
	s.eventTime = time.Time{}
}

// present is the moment that it is: within an event the one that it was planned
// for, although it may happen later; s.mu is held.
func (s *Server) present() time.Time {
	if !s.eventTime.IsZero() {
		return s.eventTime
	}
	return s.clock.Now()
}

// runEvents runs until Close.
func (s *Server) runEvents() {
	defer s.owned.Done()
	for {
		s.mu.Lock()
		s.runDue()
		var timer <-chan time.Time
		if len(s.events) > 0 {
			timer = s.clock.After(s.events[0].at.Sub(s.clock.Now()))
		}
		s.mu.Unlock()
		select {
		case <-timer:
		case <-s.wake:
		case <-s.closing:
			return
		}
	}
}
