// Package plan is the arithmetic of a rollout: how many hosts a wave has and
// which, how many copies of a disk a zone needs, and which host reads which copy.
// It is pure: the same world gives the same plan.
package plan

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"maps"
	"slices"

	"bigdisk/gcp/fleet"
	"bigdisk/gcp/rollout/state"
	"bigdisk/gcp/rollout/world"
)

// Sizes is how many of n hosts each wave has: waves include those before them,
// so that the sum is n. A wave that asks for no more than there is already has
// none.
func Sizes(waves []state.WaveConfig, n int) []int {
	sizes := make([]int, len(waves))
	before := 0
	for i, w := range waves {
		upTo := min(n, max(before, w.Hosts.Of(n), w.Min))
		if i == len(waves)-1 {
			upTo = n
		}
		sizes[i], before = upTo-before, upTo
	}
	return sizes
}

// Order lists hosts in the order in which a rollout takes them: by a hash of
// host and version, so that zones mix and each version has other canaries.
func Order(version string, hosts []world.ID) []world.ID {
	type ranked struct {
		rank uint64
		id   world.ID
	}
	all := make([]ranked, len(hosts))
	for i, id := range hosts {
		sum := sha256.Sum256([]byte(version + "\x00" + string(id)))
		all[i] = ranked{binary.BigEndian.Uint64(sum[:]), id}
	}
	slices.SortFunc(all, func(a, b ranked) int { return cmp.Or(cmp.Compare(a.rank, b.rank), cmp.Compare(a.id, b.id)) })
	ordered := make([]world.ID, len(all))
	for i, r := range all {
		ordered[i] = r.id
	}
	return ordered
}

// Turn lists a world's hosts in the order in which a rollout takes them. In a
// rollback those come first that have the version to be left, so that its first
// waves heal hosts, and those last that were sick when it began: they are the
// least likely to be healed, and would use up what may fail.
func Turn(r *state.Rollout, w *world.World) []world.ID {
	hosts := Order(r.Version, slices.Collect(maps.Keys(w.Hosts)))
	if r.Kind != state.KindRollback {
		return hosts
	}
	leave := fleet.LabelValue(r.Previous)
	rank := func(id world.ID) int {
		switch {
		case r.Sick.Has(id):
			return 2
		case w.Hosts[id].Has(leave):
			return 0
		}
		return 1
	}
	slices.SortStableFunc(hosts, func(a, b world.ID) int { return cmp.Compare(rank(a), rank(b)) })
	return hosts
}

// Members chooses the hosts of a wave that begins, from hosts in the order of
// [Turn]: as many as the waves up to it ask for and those before it do not have.
// The last wave has no members of its own: it is for everyone.
func Members(r *state.Rollout, wave int, hosts []world.ID) world.Set {
	if wave == len(r.Waves)-1 {
		return nil
	}
	upTo := 0
	for i, size := range Sizes(r.Speed.Waves, len(hosts)) {
		if i <= wave {
			upTo += size
		}
	}
	taken := world.Set{}
	for i := range wave {
		for id := range r.Waves[i].Members {
			taken.Add(id)
		}
	}
	members := world.Set{}
	missing := upTo - present(taken, hosts)
	for _, id := range hosts {
		if missing <= 0 {
			break
		}
		if !taken.Has(id) {
			members.Add(id)
			missing--
		}
	}
	return members
}

// present counts the hosts that are in set.
func present(set world.Set, hosts []world.ID) int {
	n := 0
	for _, id := range hosts {
		if set.Has(id) {
			n++
		}
	}
	return n
}

// InWave reports whether a host is among those to change by the end of a wave.
func InWave(r *state.Rollout, wave int, id world.ID) bool {
	if wave >= len(r.Waves)-1 {
		return true
	}
	for i := range wave + 1 {
		if r.Waves[i].Members.Has(id) {
			return true
		}
	}
	return false
}

// FailuresAllowed is how many hosts of a wave may fail: maxFailures of them,
// and one at least.
func FailuresAllowed(r *state.Rollout, size int) int { return max(1, r.Speed.MaxFailures.Of(size)) }

// PerZone is how many of a zone's hosts may be in change: the share, and one at
// least.
func PerZone(s *state.Speed, hosts int) int { return max(1, s.MaxPerZone.Of(hosts)) }
