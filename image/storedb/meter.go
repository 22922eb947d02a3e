package storedb

import "context"

// checkEvery is how many steps lie between two looks at the context.
const checkEvery = 4096

// meter counts steps, reports them, and ends the work when the context ends.
type meter struct {
	ctx         context.Context
	report      func(done, total int64)
	done, total int64
	known       bool // total is
	next        int64
}

// step notes n steps done.
func (m *meter) step(n int64) error {
	m.done += n
	if m.done < m.next {
		return nil
	}
	m.next = m.done + checkEvery
	if m.report != nil && m.known {
		m.report(m.done, m.total)
	}
	return context.Cause(m.ctx)
}

// finish notes all steps done: there were fewer if references came twice.
func (m *meter) finish() error {
	if m.report != nil {
		m.report(m.total, m.total)
	}
	return context.Cause(m.ctx)
}
