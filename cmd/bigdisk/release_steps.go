package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/spf13/pflag"

	"bigdisk/bundle/lock/worktree"
	"bigdisk/gcp/fleet"
	"bigdisk/gcp/gce"
	"bigdisk/gcp/publish"
	"bigdisk/gcp/rollout"
	"bigdisk/gcp/rollout/state"
	"bigdisk/pipeline"
	"bigdisk/pipeline/release"
)

// releaseSteps are the stages of a release, as the other commands do them.
type releaseSteps struct {
	config *releaseConfig
	opts   *releaseOptions
}

// steps are those that the configuration asks for.
func (s *releaseSteps) steps() release.Steps {
	steps := release.Steps{Build: s.build}
	if s.config.CheckLock {
		steps.Check = s.check
	}
	if s.config.Verify {
		steps.Verify = s.verify
	}
	if s.config.Publish != publishNone {
		steps.Publish = s.publish
	}
	if s.config.Rollout {
		steps.Mark, steps.Rollout = s.mark, s.rollout
	}
	return steps
}

// check is bigdisk lock check.
func (s *releaseSteps) check(ctx context.Context) (*release.Checked, error) {
	opts := worktree.CheckOptions{Lock: s.config.build.Lock, Upstream: s.config.Upstream}
	report, err := worktree.Check(ctx, opts)
	if err != nil {
		return nil, err
	}
	for _, p := range report.Problems {
		fmt.Fprintln(os.Stderr, p)
	}
	if n := len(report.Problems); n > 0 {
		return nil, hintedError{fmt.Errorf("%s: %w: %d problems", opts.Lock, errBroken, n), "mend it, and run this again with --abandon; after a merge conflict, " + worktree.Fix}
	}
	return &release.Checked{Entries: report.Entries, Upstream: report.Upstream}, nil
}

// build is bigdisk build.
func (s *releaseSteps) build(ctx context.Context, output, base string) (*release.Built, error) {
	opts := *s.config.build
	opts.Output, opts.Progress = output, s.opts.Progress
	if s.config.Base == baseLast {
		opts.Base, opts.BaseOptional = base, base != ""
	}
	var r *pipeline.BuildResult
	err := opts.run(func(build pipeline.BuildOptions) (err error) {
		r, err = pipeline.Build(ctx, build)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &release.Built{
		SHA256: r.SHA256.String(), Size: r.Size, Label: r.Label, Format: r.Format,
		Modules: r.Modules, StorePaths: r.Totals.StorePaths, Missing: r.Missing,
	}, nil
}

// verify is bigdisk verify.
func (s *releaseSteps) verify(ctx context.Context, image string) (*release.Verified, error) {
	opts := verifyOptions{Progress: s.opts.Progress, Jobs: s.config.build.Jobs}
	r, err := opts.verify(ctx, image)
	if err != nil {
		return nil, err
	}
	if !r.OK() {
		return nil, errors.Join(fmt.Errorf("%s: %w: errors: %d", image, errNotSound, r.Errors), printReport(os.Stderr, image, r))
	}
	return &release.Verified{StorePaths: r.StorePaths, Files: r.Files, Warnings: r.Warnings}, nil
}

// publish is bigdisk publish.
func (s *releaseSteps) publish(ctx context.Context, image, last string) (*release.Published, error) {
	var opts publishOptions
	opts.AddFlags(pflag.NewFlagSet("", pflag.ContinueOnError))
	opts.Config, opts.Version, opts.Format, opts.Progress = s.config.Fleet, s.opts.Version, s.config.Publish, s.opts.Progress
	opts.Source, opts.DeviceDir = s.config.Source, s.opts.DeviceDir
	if opts.Source == sourceDisk && last != "" {
		there, err := s.hasSnapshot(ctx, last)
		if err != nil {
			return nil, err
		}
		if there {
			opts.Base = last
		}
	}
	r, err := opts.publish(ctx, image)
	if err != nil && r != nil {
		err = errors.Join(err, r.WriteTable(os.Stderr))
	}
	if err != nil {
		return nil, err
	}
	return &release.Published{Version: r.Version, Created: r.Count(publish.Created), Found: r.Count(publish.Found)}, nil
}

// hasSnapshot tells whether the builder's project has the snapshot of a version,
// which bigdisk gc may have taken away.
func (s *releaseSteps) hasSnapshot(ctx context.Context, version string) (bool, error) {
	c := s.config.fleet
	compute, err := gce.New(ctx, gce.Options{Endpoint: c.ComputeEndpoint, MutationsPerSecond: c.Publish.MutationsPerSecond})
	if err != nil {
		return false, hintedError{err, credentialsHint}
	}
	defer compute.Close()
	at, err := publish.Self(ctx, c.Builder)
	if err != nil {
		return false, hintedError{err, "run it on the builder instance, or name that in " + s.config.Fleet}
	}
	_, err = compute.Snapshot(ctx, at.Project, fleet.SnapshotName(c.Service, version))
	if errors.Is(err, gce.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// mark is the rollout that ended last.
func (s *releaseSteps) mark(ctx context.Context) (id string, err error) {
	err = controlled(ctx, &fleetOptions{Config: s.config.Fleet}, &s.opts.Controller, func(r *rollout.Service) error {
		d, err := r.Document(ctx)
		if n := len(d.History); err == nil && n > 0 {
			id = d.History[n-1].ID
		}
		return err
	})
	return id, err
}

// rollout is bigdisk rollout start --stop-when-paused.
func (s *releaseSteps) rollout(ctx context.Context, version, mark string) (*release.RolledOut, error) {
	var out *release.RolledOut
	err := controlled(ctx, &fleetOptions{Config: s.config.Fleet}, &s.opts.Controller, func(r *rollout.Service) error {
		r.Options.StopWhenPaused = true
		d, err := r.Document(ctx)
		if err != nil {
			return err
		}
		if out = rolledOut(d, version); out != nil {
			return nil
		}
		if err := undone(d, version, mark); err != nil {
			return err
		}
		if err := r.Start(ctx, version); err != nil {
			return err
		}
		if d, err = r.Document(ctx); err != nil {
			return err
		}
		if out = rolledOut(d, version); out == nil {
			return fmt.Errorf("%w: the last rollout is another one, of %s", rollout.ErrNotDone, d.Rollout.Version)
		}
		return nil
	})
	return out, err
}

// rolledOut is the rollout of the version, if that is the last one and done.
func rolledOut(d *state.Document, version string) *release.RolledOut {
	r := d.Rollout
	if d.Deployed != version || r == nil || r.Version != version || r.Phase != state.Done {
		return nil
	}
	return &release.RolledOut{ID: r.ID, Hosts: len(r.Done), Failed: len(r.Failed)}
}

// undone is an error if people, or the rollout itself, have ended this release's
// rollout, one after that with the ID mark, otherwise than well: to begin it again
// is theirs to decide.
func undone(d *state.Document, version, mark string) error {
	for _, p := range slices.Backward(d.History) {
		if p.ID == mark {
			return nil
		}
		if p.Version == version && p.Kind == state.KindRollout && (p.Phase == state.Aborted || p.Phase == state.RolledBack) && !d.Rollout.Active() {
			return hintedError{
				fmt.Errorf("%w: its rollout %s is %s: %s", rollout.ErrNotDone, p.ID, p.Phase, p.Reason),
				"bigdisk rollout start --version " + version + " begins it again; to release something else, change the inputs and give this one up with --abandon",
			}
		}
	}
	return nil
}
