package state

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"bigdisk/gcp/fleet"
	"bigdisk/gcp/rollout/world"
)

// MaxSize bounds a document, in bytes: more than a hundred thousand hosts, all of
// them failed.
const MaxSize = 64 << 20

// ErrMalformed is wrapped by errors about bytes that are no document of ours.
var ErrMalformed = errors.New("malformed rollout state")

// Duration is a time.Duration that JSON has as text, "30m0s".
type Duration time.Duration

// MarshalText writes the duration as [time.ParseDuration] reads it.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText reads a duration of zero or more.
func (d *Duration) UnmarshalText(text []byte) error {
	parsed, err := time.ParseDuration(string(text))
	if err != nil {
		return err
	}
	if parsed < 0 {
		return fmt.Errorf("%s is a negative duration", text)
	}
	*d = Duration(parsed)
	return nil
}

// Encode writes the document as JSON. It refuses what [Decode] would: a
// document that nobody can read again would stop the service for good.
func (d *Document) Encode() ([]byte, error) {
	text, err := d.marshal()
	if err != nil {
		return nil, err
	}
	if _, err := decode(text); err != nil {
		return nil, fmt.Errorf("rollout state of %s: nobody could read it again: %w", d.Service, err)
	}
	return text, nil
}

func (d *Document) marshal() ([]byte, error) {
	if err := d.check(); err != nil {
		return nil, err
	}
	text, err := json.Marshal(d.brief())
	if err != nil {
		return nil, fmt.Errorf("rollout state of %s: %w", d.Service, err)
	}
	if len(text) > MaxSize {
		return nil, fmt.Errorf("rollout state of %s: over %d bytes", d.Service, MaxSize)
	}
	return text, nil
}

const (
	// maxReasons is how many hosts' reasons are written out, and maxBrief how
	// much is of each where there are more, in bytes.
	maxReasons = 1000
	maxBrief   = 60
)

// brief is the document with less of each reason where a great many hosts failed: a
// document that has grown too large would stop the service for good. What is shared
// with d is left as it is.
func (d *Document) brief() *Document {
	short := *d
	if d.Rollout != nil {
		r := *d.Rollout
		r.Failed = brief(r.Failed)
		short.Rollout = &r
	}
	if d.Reconcile != nil {
		r := *d.Reconcile
		r.Failed, r.Sick = brief(r.Failed), brief(r.Sick)
		short.Reconcile = &r
	}
	return &short
}

func brief(failures map[world.ID]Failure) map[world.ID]Failure {
	if len(failures) <= maxReasons {
		return failures
	}
	short := make(map[world.ID]Failure, len(failures))
	for id, f := range failures {
		if len(f.Reason) > maxBrief {
			f.Reason = strings.ToValidUTF8(f.Reason[:maxBrief], "") + "…"
		}
		short[id] = f
	}
	return short
}

// Decode reads a service's document. It refuses other services' documents, other schemas,
// unknown fields and what cannot be, with an error that wraps [ErrMalformed].
func Decode(text []byte, service string) (*Document, error) {
	d, err := decode(text)
	if err == nil && d.Service != service {
		err = fmt.Errorf("it is of service %q", d.Service)
	}
	if err != nil {
		return nil, fmt.Errorf("%w of service %s: %w", ErrMalformed, service, err)
	}
	return d, nil
}

func decode(text []byte) (*Document, error) {
	if len(text) > MaxSize {
		return nil, fmt.Errorf("over %d bytes", MaxSize)
	}
	var head struct {
		Schema int `json:"schema"`
	}
	if err := json.Unmarshal(text, &head); err != nil {
		return nil, err
	}
	if head.Schema != Schema {
		return nil, fmt.Errorf("it has schema %d, and this bigdisk knows %d: use one that is as new as the one that wrote it", head.Schema, Schema)
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	d := new(Document)
	if err := dec.Decode(d); err != nil {
		return nil, err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("there is something after the document")
	}
	return d, d.check()
}

// check refuses documents that code working with them could trip over.
func (d *Document) check() error {
	if d.Service == "" {
		return errors.New("it names no service")
	}
	if l := d.Lease; l != nil && (l.Owner == "" || l.TTL <= 0) {
		return errors.New("its lease has no owner or no time to live")
	}
	if q := d.Request; q != nil {
		if err := q.check(); err != nil {
			return fmt.Errorf("request: %w", err)
		}
	}
	if r := d.Rollout; r != nil {
		if err := r.check(); err != nil {
			return fmt.Errorf("rollout %q: %w", r.ID, err)
		}
	}
	return nil
}

func (q *Request) check() error {
	switch q.Action {
	case Pause, Resume, Abort, Yield:
		return nil
	case Rollback:
		if q.Plan == nil {
			return errors.New("a rollback without waves")
		}
		return q.Plan.check()
	}
	return fmt.Errorf("%q is not something to ask for", q.Action)
}

func (r *Rollout) check() error {
	switch r.Phase {
	case Running, Paused, Done, Aborted, RolledBack:
	default:
		return fmt.Errorf("%q is no phase", r.Phase)
	}
	if r.Kind != KindRollout && r.Kind != KindRollback {
		return fmt.Errorf("%q is no kind", r.Kind)
	}
	if err := fleet.CheckVersion(r.Version); err != nil {
		return err
	}
	if r.Version == r.Previous {
		return fmt.Errorf("it goes from %q to itself", r.Version)
	}
	if len(r.Waves) != len(r.Speed.Waves) || r.Wave < 0 || r.Wave > len(r.Waves) {
		return fmt.Errorf("wave %d of %d", r.Wave, len(r.Waves))
	}
	for id := range r.Failed {
		if !id.Valid() {
			return fmt.Errorf("%q is not a host", id)
		}
	}
	return r.Speed.check()
}

func (s *Speed) check() error {
	if len(s.Waves) == 0 {
		return errors.New("no waves")
	}
	if s.Waves[len(s.Waves)-1].Hosts != fleet.Percent(100) {
		return errors.New("the last wave is not of 100% of the hosts")
	}
	if s.MaxConcurrent < 1 || s.HealthTimeout <= 0 {
		return errors.New("maxConcurrent or healthTimeout is not over zero")
	}
	if s.OnFailure != fleet.OnFailurePause && s.OnFailure != fleet.OnFailureRollback {
		return fmt.Errorf("onFailure is %q", s.OnFailure)
	}
	return nil
}

// Check refuses waves and limits that a configuration could not have either:
// waves and bakes below zero, and shares of nothing.
func (s *Speed) Check() error {
	if err := s.check(); err != nil {
		return err
	}
	for _, w := range s.Waves {
		switch {
		case w.Bake < 0:
			return fmt.Errorf("wave %s: a bake of %s is less than none", w.Name, time.Duration(w.Bake))
		case w.Hosts.IsZero():
			return fmt.Errorf("wave %s: %s is of no hosts", w.Name, w.Hosts)
		case w.Min < 0:
			return fmt.Errorf("wave %s: %d hosts are less than none", w.Name, w.Min)
		}
	}
	if s.MaxPerZone.IsZero() {
		return fmt.Errorf("maxPerZone: %s is of no hosts", s.MaxPerZone)
	}
	if s.MaxConcurrent > maxConcurrent {
		return fmt.Errorf("maxConcurrent: %d is over %d", s.MaxConcurrent, maxConcurrent)
	}
	return nil
}

// maxConcurrent is the most that package fleet takes, too.
const maxConcurrent = 1_000_000

// Clone is a copy that shares nothing.
func (d *Document) Clone() (*Document, error) {
	text, err := d.marshal()
	if err != nil {
		return nil, err
	}
	return decode(text)
}

// SpeedOf takes the rollout section of a configuration.
func SpeedOf(r fleet.Rollout) Speed {
	s := Speed{
		MaxConcurrent: r.MaxConcurrent, MaxPerZone: r.MaxPerZone, HealthTimeout: Duration(r.HealthTimeout),
		MaxFailures: r.MaxFailures, OnFailure: r.OnFailure, KeepPrevious: r.KeepPrevious,
	}
	for _, w := range r.Waves {
		s.Waves = append(s.Waves, WaveConfig{Name: w.Name, Hosts: w.Hosts, Min: w.Min, Bake: Duration(w.Bake)})
	}
	return s
}
