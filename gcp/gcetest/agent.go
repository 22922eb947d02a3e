package gcetest

import (
	"strings"
	"time"

	"bigdisk/gcp/guest"
)

// host is one simulated host; all its methods need Server.mu.
type host struct {
	hosts *Hosts
	zone  string
	name  string
	inst  *instance // nil while there is none
	times map[string]int

	bootID    string
	current   string      // the version in use
	candidate *attachment // that the host is about to use, uses, or has refused
	report    *guest.Report
	silent    bool
}

func (h *host) version(a *attachment) string {
	return strings.TrimPrefix(a.device, h.hosts.spec.Service+"-")
}

// newest is the service's disk that was attached last.
func (h *host) newest() *attachment {
	var last *attachment
	for _, a := range h.inst.attachments {
		if a.state != attaching && strings.HasPrefix(a.device, h.hosts.spec.Service+"-") && (last == nil || !a.since.Before(last.since)) {
			last = a
		}
	}
	return last
}

// noticeDisks lets the host of an instance see, a little later, that its disks
// are others.
func (s *Server) noticeDisks(i *instance) {
	h := i.host
	if h == nil {
		return
	}
	s.schedule(h.hosts.spec.Look(s.rand), func() {
		if h.inst == i {
			h.look()
		}
	})
}

// look is what the agent does when its disks changed.
func (h *host) look() {
	a := h.newest()
	if a == h.candidate || h.silent {
		return
	}
	h.candidate = a
	if a == nil {
		h.current = ""
		return
	}
	s, spec, version := h.hosts.s, h.hosts.spec, h.version(a)
	nth := h.times[version]
	h.times[version]++
	took := spec.Mount
	switch does := spec.Behave(h.name, version, nth); does {
	case Silent:
		h.silent = true
	case Vanishing:
		h.vanish()
	case Recreated:
		h.recreate()
	case SlowHost:
		took = spec.SlowMount
		fallthrough
	default:
		h.say(guest.Pending, version, "")
		s.schedule(took(s.rand), func() { h.settle(a, does == Sick) })
	}
}

// settle ends the checking of a disk.
func (h *host) settle(a *attachment, sick bool) {
	if h.candidate != a || h.inst != a.inst {
		return // it was taken away meanwhile
	}
	if sick {
		h.say(guest.Failed, h.version(a), h.hosts.spec.SickError)
		return
	}
	h.current = h.version(a)
	h.say(guest.OK, h.current, "")
}

// say publishes a report.
func (h *host) say(health guest.Health, version, text string) {
	h.report = &guest.Report{Version: version, Health: health, Error: text, Current: h.current, BootID: h.bootID, Time: h.hosts.s.present()}
	h.publish()
}

func (h *host) publish() {
	h.inst.guest.set(h.hosts.spec.Service, h.report.Attributes())
	h.inst.noteReport(h.hosts.spec.Service)
}

// beat renews the time of the report as often as heartbeats have passed since.
func (h *host) beat(now time.Time) {
	if h.report == nil || h.silent {
		return
	}
	if beats := now.Sub(h.report.Time) / h.hosts.spec.Heartbeat; beats > 0 {
		h.report.Time = h.report.Time.Add(beats * h.hosts.spec.Heartbeat)
		h.publish()
	}
}

func (h *host) vanish() {
	h.hosts.s.removeInstance(h.inst)
	h.inst, h.report, h.candidate, h.current = nil, nil, nil, ""
}

func (h *host) recreate() {
	h.vanish()
	s := h.hosts.s
	s.schedule(h.hosts.spec.Absence(s.rand), func() {
		if h.inst == nil {
			_ = h.create(0, false) // its boot disk is new and it has no other
		}
	})
}
