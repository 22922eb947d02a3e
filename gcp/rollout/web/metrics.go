package web

import (
	"context"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"bigdisk/gcp/rollout/state"
	"bigdisk/gcp/rollout/status"
	"bigdisk/gcp/rollout/world"
)

// collector makes metrics of what is read. Those that there is nothing to say of
// are left out.
type collector struct{ h *Handler }

// Describe says nothing: which metrics there are depends on what is read.
func (c *collector) Describe(chan<- *prometheus.Desc) {}

// Collect reads, and sends the metrics.
func (c *collector) Collect(to chan<- prometheus.Metric) {
	// promhttp does not pass the request on. What takes longer is read on for the
	// next scrape.
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	m := &metrics{to: to, service: c.h.opt.Service}
	got := c.h.snapshot.get(ctx)
	m.flag("bigdisk_rollout_up", "Whether the rollout's state could be read.", got.err == nil)
	if got.err == nil {
		m.state(got.value, c.h.opt.Now().Sub(got.at).Seconds())
	}
	if c.h.world == nil {
		return
	}
	seen := c.h.world.get(ctx)
	m.flag("bigdisk_fleet_up", "Whether hosts and disks could be listed.", seen.err == nil)
	if seen.err == nil {
		m.fleet(seen.value)
	}
}

// metrics sends gauges of one service.
type metrics struct {
	to      chan<- prometheus.Metric
	service string
}

// gauge sends one; labels are names and values in turn.
func (m *metrics) gauge(name, help string, value float64, labels ...string) {
	var names, values []string
	for i := 0; i+1 < len(labels); i += 2 {
		names, values = append(names, labels[i]), append(values, labels[i+1])
	}
	desc := prometheus.NewDesc(name, help, names, prometheus.Labels{"service": m.service})
	metric, err := prometheus.NewConstMetric(desc, prometheus.GaugeValue, value, values...)
	if err != nil {
		metric = prometheus.NewInvalidMetric(desc, err)
	}
	m.to <- metric
}

func (m *metrics) flag(name, help string, set bool, labels ...string) {
	value := 0.0
	if set {
		value = 1
	}
	m.gauge(name, help, value, labels...)
}

// state is about the document, which was read age seconds ago.
func (m *metrics) state(s *snapshot, age float64) {
	st := s.status
	m.flag("bigdisk_rollout_controller", "Whether a controller holds the lease.", st.Controller != "")
	if st.Controller != "" {
		m.gauge("bigdisk_rollout_heartbeat_age_seconds", "Seconds since the controller's last heartbeat.", st.Heartbeat+age)
	}
	if st.Deployed != "" {
		m.gauge("bigdisk_rollout_deployed_info", "The version that hosts should have when nothing is under way.", 1, "version", st.Deployed)
	}
	ended := map[[2]string]int{}
	for _, p := range s.history {
		ended[[2]string{p.Kind, p.Phase}]++
	}
	for key, n := range ended {
		m.gauge("bigdisk_rollout_ended", "Rollouts in the history, which has the last 100.", float64(n), "kind", key[0], "phase", key[1])
	}
	if st.Rollout != nil {
		m.rollout(st.Rollout)
	}
	if st.Reconcile != nil {
		m.reconcile(st.Reconcile)
	}
}

func (m *metrics) reconcile(r *state.Reconcile) {
	for name, n := range map[string]int{"right": r.Right, "repaired": r.Repaired, "failed": len(r.Failed), "sick": len(r.Sick)} {
		m.gauge("bigdisk_reconcile_hosts", "What the last reconciliation found and did.", float64(n), "state", name)
	}
	m.gauge("bigdisk_reconcile_timestamp_seconds", "When the last reconciliation looked.", float64(r.At.UnixMilli())/1000)
}

func (m *metrics) rollout(r *status.Rollout) {
	m.gauge("bigdisk_rollout_info", "The last rollout.", 1, "id", r.ID, "kind", r.Kind, "version", r.Version, "previous", r.Previous)
	for _, phase := range []string{state.Running, state.Paused, state.Done, state.Aborted, state.RolledBack} {
		m.flag("bigdisk_rollout_phase", "1 for the phase that the rollout is in.", r.Phase == phase, "phase", phase)
	}
	m.flag("bigdisk_rollout_paused", "Whether the rollout waits for people.", r.Phase == state.Paused)
	m.gauge("bigdisk_rollout_started_timestamp_seconds", "When the rollout began.", float64(r.Started.UnixMilli())/1000)
	if r.ETASeconds != nil {
		m.gauge("bigdisk_rollout_eta_seconds", "How long the rollout will take from now, as far as can be told.", *r.ETASeconds)
	}
	m.hosts("bigdisk_rollout_hosts", "Hosts of the rollout.", r.Hosts, r.Done, r.Changing, r.Failed)
	m.gauge("bigdisk_rollout_failures", "Hosts that failed.", float64(r.Failed))
	for _, z := range r.Zones {
		at := []string{"project", z.Zone.Project(), "zone", z.Zone.Name()}
		m.hosts("bigdisk_rollout_zone_hosts", "Hosts of the rollout in a zone.", z.Hosts, z.Done, z.Changing, z.Failed, at...)
		m.flag("bigdisk_rollout_zone_unknown", "Whether a zone cannot be read.", z.Unknown != "", at...)
	}
	number := 0
	for i, w := range r.Waves {
		if w.State == status.Changing || w.State == status.Baking || w.State == status.Over {
			number = i + 1
		}
		at := []string{"wave", strconv.Itoa(i + 1), "name", w.Name}
		m.hosts("bigdisk_rollout_wave_hosts", "Hosts of a wave.", w.Hosts, w.Done, w.Changing, w.Failed, at...)
		m.gauge("bigdisk_rollout_wave_failures_allowed", "How many hosts of a wave may fail.", float64(w.Allowed), at...)
	}
	m.gauge("bigdisk_rollout_wave", "The number of the last wave that has begun, from 1; 0 for none.", float64(number))
	m.gauge("bigdisk_rollout_waves", "How many waves there are.", float64(len(r.Waves)))
}

// hosts sends how many hosts are done, in change, failed and left.
func (m *metrics) hosts(name, help string, all, done, changing, failed int, labels ...string) {
	for _, p := range []struct {
		phase string
		n     int
	}{{"done", done}, {"changing", changing}, {"failed", failed}, {"pending", max(0, all-done-changing-failed)}} {
		m.gauge(name, help, float64(p.n), append([]string{"phase", p.phase}, labels...)...)
	}
}

// fleet counts hosts and disks by zone and version.
func (m *metrics) fleet(w *world.World) {
	type key struct {
		zone           world.Zone
		version, state string
	}
	disks, hosts, attached := map[key]int{}, map[key]int{}, map[key]int{}
	for id, d := range w.Disks {
		k := key{id.Zone(), d.Version, "making"}
		switch {
		case d.Failed:
			k.state = "failed"
		case d.Ready:
			k.state = "ready"
		}
		disks[k]++
	}
	for id, h := range w.Hosts {
		hosts[key{zone: id.Zone()}]++
		for _, a := range h.Attachments {
			if a.Version != "" {
				attached[key{zone: id.Zone(), version: a.Version}]++
			}
		}
	}
	for k, n := range disks {
		m.gauge("bigdisk_disks", "Disks of the service.", float64(n), "project", k.zone.Project(), "zone", k.zone.Name(), "version", k.version, "state", k.state)
	}
	for k, n := range hosts {
		m.gauge("bigdisk_hosts", "Hosts that the fleet's filter selects.", float64(n), "project", k.zone.Project(), "zone", k.zone.Name())
	}
	for k, n := range attached {
		m.gauge("bigdisk_attachments", "Hosts that a version's disk is attached to.", float64(n), "project", k.zone.Project(), "zone", k.zone.Name(), "version", k.version)
	}
	m.gauge("bigdisk_zones_unknown", "Zones that could not be read.", float64(len(w.Unknown)))
}
