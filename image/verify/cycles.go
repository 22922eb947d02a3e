package verify

import (
	"context"
	"strings"
)

// checkReferences looks for circles of references, which end Nix with a stack
// overflow. A path may refer to itself.
func (v *verifier) checkReferences(ctx context.Context) error {
	if v.db == nil {
		return nil
	}
	left := v.db.unordered()
	if len(left) == 0 {
		return ctx.Err()
	}
	cycle := v.db.cycle(left)
	names := make([]string, 0, len(cycle))
	for _, i := range cycle {
		names = append(names, string(v.db.rows[i].path))
		if len(names) == 10 {
			names = append(names, "…")
			break
		}
	}
	v.errorf(ReferenceCycle, names[0], "it refers to itself by way of others: %s", strings.Join(names, " -> "))
	return ctx.Err()
}

// unordered returns the rows that are left when, again and again, all rows are
// taken away that refer to none of the rest: those that are in a circle, or lead to one.
func (d *database) unordered() map[int32]bool {
	open := make([]int32, len(d.rows)) // references not taken away yet
	users := d.users()
	var free []int32
	for i := range d.rows {
		for _, to := range d.references(i) {
			if to != int32(i) {
				open[i]++
			}
		}
		if open[i] == 0 {
			free = append(free, int32(i))
		}
	}
	taken := 0
	for len(free) > 0 {
		i := free[len(free)-1]
		free = free[:len(free)-1]
		taken++
		for _, user := range users.of(i) {
			if open[user]--; open[user] == 0 {
				free = append(free, user)
			}
		}
	}
	left := make(map[int32]bool)
	if taken == len(d.rows) {
		return left
	}
	for i, n := range open {
		if n > 0 {
			left[int32(i)] = true
		}
	}
	return left
}

// userIndex has the rows that refer to each row, without those that refer to
// themselves.
type userIndex struct {
	list  []int32
	start []int64
}

func (u *userIndex) of(i int32) []int32 { return u.list[u.start[i]:u.start[i+1]] }

// users turns the references around.
func (d *database) users() *userIndex {
	u := &userIndex{start: make([]int64, len(d.rows)+2)}
	for i := range d.rows {
		for _, to := range d.references(i) {
			if to != int32(i) {
				u.start[to+2]++
			}
		}
	}
	for i := 2; i < len(u.start); i++ {
		u.start[i] += u.start[i-1]
	}
	u.list = make([]int32, u.start[len(u.start)-1])
	for i := range d.rows {
		for _, to := range d.references(i) {
			if to != int32(i) {
				u.list[u.start[to+1]] = int32(i)
				u.start[to+1]++
			}
		}
	}
	return u
}

// cycle follows references among left, each of which refers to another of
// them, until it comes back.
func (d *database) cycle(left map[int32]bool) []int32 {
	at := int32(len(d.rows))
	for i := range left {
		at = min(at, i)
	}
	seen := make(map[int32]int)
	var trail []int32
	for {
		if from, ok := seen[at]; ok {
			return append(trail[from:], at)
		}
		seen[at] = len(trail)
		trail = append(trail, at)
		for _, to := range d.references(int(at)) {
			if to != at && left[to] {
				at = to
				break
			}
		}
	}
}
