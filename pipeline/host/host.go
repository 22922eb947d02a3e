package host

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"

	"bigdisk/gcp/guest"
	"bigdisk/image"
)

// The defaults of [Options].
const (
	DefaultSample = 8
	DefaultBlocks = 256
)

// Reporter takes reports; [guest.Writer] is one.
type Reporter interface {
	Write(ctx context.Context, r guest.Report) error
}

// Options are the choices of [Mount] and [Watch].
type Options struct {
	// Service is what disks and directories are called after.
	Service string
	// Version is the one to mount; "" is that of the disk attached last.
	Version string
	// DeviceDir is where disks are found, MountRoot where the service's
	// directory is made; "" is [DefaultDeviceDir] and [DefaultMountRoot].
	DeviceDir, MountRoot string
	// Manifest finds the manifest of a device; nil, and nil from it, do
	// without. An error refuses the disk.
	Manifest func(ctx context.Context, d Device) (*image.Manifest, error)
	// Label is the label to expect; "" is what the manifest says.
	Label string
	// RootHash is the dm-verity root hash to expect; nil is what the manifest
	// says.
	RootHash *image.HexSHA256
	// Sample is how many store paths are hashed; Blocks is how many blocks are held
	// against the hash tree.
	Sample, Blocks int
	// Full reads and checks everything.
	Full bool
	// Keep is how many earlier versions stay mounted.
	Keep int
	// Reporter is told what has become of the disk; nil tells nobody.
	Reporter Reporter
	// Logger gets what is not worth an error; nil keeps it silent.
	Logger *slog.Logger

	// step is called with the name of each step that comes: tests end it there.
	step func(name string)
}

func (o Options) fill() Options {
	o.DeviceDir = cmp.Or(o.DeviceDir, DefaultDeviceDir)
	o.MountRoot = cmp.Or(o.MountRoot, DefaultMountRoot)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.step == nil {
		o.step = func(string) {}
	}
	return o
}

// Result is what has become of a service on this host.
type Result struct {
	Service string `json:"service"`
	// Version is the one that was to be mounted.
	Version string `json:"version"`
	// Current is the one in use, mounted at Path; "" if there is none.
	Current string `json:"current,omitempty"`
	Path    string `json:"path,omitempty"`
	// Device is what Version lies on.
	Device string `json:"device,omitempty"`
	// Switched is set if another version, or none, was current before.
	Switched bool `json:"switched"`
	// Error says why Version is not current.
	Error string `json:"error,omitempty"`
}

// ErrNoDevice is wrapped by errors about disks that are not attached.
var ErrNoDevice = errors.New("no such disk is attached")

// Mount finds the disk, checks it, mounts it, makes it current and reports. A
// disk that does not pass is an error that wraps [ErrRefused]: what was current
// before stays so, or, if there was none, the newest other disk that passes
// becomes it. The result is there whenever the service's directory could be
// looked at, with an error or without.
func Mount(ctx context.Context, o Options) (*Result, error) {
	o = o.fill()
	l, err := newLayout(o.MountRoot, o.Service)
	if err != nil {
		return nil, err
	}
	if o.Version != "" {
		if err := checkVersion(o.Version); err != nil {
			return nil, err
		}
	}
	boot, err := guest.BootID()
	if err != nil {
		return nil, err
	}
	r := &run{Options: o, layout: l, boot: boot}
	lock, err := l.lock()
	if errors.Is(err, ErrBusy) {
		return nil, err
	}
	result := &Result{Service: o.Service, Version: o.Version}
	if err == nil {
		defer lock.Close()
		result, err = r.round(ctx)
	}
	r.telling.Wait()
	if ctx.Err() == nil {
		r.report(ctx, result, err)
		r.telling.Wait()
	}
	return result, err
}

// run is one look at the disks.
type run struct {
	Options
	layout layout
	boot   string
	state  *state
	// telling is the report that is under way, which nothing else waits for.
	telling sync.WaitGroup
}

// round goes through the steps.
func (r *run) round(ctx context.Context) (*Result, error) {
	r.step("look")
	result := &Result{Service: r.Service, Version: r.Version}
	devices, err := r.look()
	if err != nil {
		return result, err
	}
	current, alive, err := r.standing(devices)
	if err != nil {
		return result, err
	}
	result.setCurrent(r.layout, current)
	wanted, err := r.choose(devices)
	if err != nil {
		result.Version = cmp.Or(r.Version, current)
		return result, err
	}
	result.Version, result.Device = wanted.Version, wanted.Path
	if wanted.Version != current && ctx.Err() == nil {
		r.tell(ctx, result, guest.Pending, "")
	}
	err = r.take(ctx, wanted, result)
	if err != nil && ctx.Err() == nil {
		result.Error = err.Error()
		if !alive && r.Version == "" {
			r.fallBack(ctx, devices, wanted, result)
		}
		return result, err
	}
	if err == nil {
		r.retire(devices, result.Current)
	}
	return result, err
}

func (res *Result) setCurrent(l layout, version string) {
	res.Current, res.Path = version, ""
	if version != "" {
		res.Path = l.at(version)
	}
}

// look finds the service's disks, in the order in which they came.
func (r *run) look() ([]Device, error) {
	devices, err := r.attached()
	if err != nil {
		return nil, err
	}
	if r.state, err = r.layout.loadState(); err != nil {
		return nil, err
	}
	boot, before := r.state.Boot, r.state.Attached
	devices = r.state.arrange(r.boot, devices)
	if boot == r.boot && slices.Equal(before, devices) {
		return devices, nil
	}
	return devices, r.layout.saveState(r.state)
}

// attached lists the service's disks.
func (o *Options) attached() ([]Device, error) {
	others, err := otherServices(o.MountRoot, o.Service)
	if err != nil {
		return nil, err
	}
	return Attached(o.DeviceDir, o.Service, others...)
}

// standing finds out what is current, and whether its disk is still there. A
// link to what is not mounted, as after a boot, is taken away.
func (r *run) standing(devices []Device) (current string, alive bool, err error) {
	if current, err = r.layout.current(); current == "" || err != nil {
		return "", false, err
	}
	m, err := mountAt(r.layout.at(current))
	if err != nil {
		return "", false, err
	}
	if !isDisk(m) {
		return "", false, r.layout.dropCurrent()
	}
	d, attached := find(devices, r.Service, current)
	return current, attached && r.state.Mounted[current] == d.Seq, nil
}

// choose picks the disk to mount.
func (r *run) choose(devices []Device) (Device, error) {
	if r.Version != "" {
		if d, ok := find(devices, r.Service, r.Version); ok {
			return d, nil
		}
		return Device{}, fmt.Errorf("%w: version %s of %s in %s, where there %s", ErrNoDevice, r.Version, r.Service, r.DeviceDir, names(devices))
	}
	if len(devices) == 0 {
		return Device{}, fmt.Errorf("%w: %s%s-VERSION in %s", ErrNoDevice, devicePrefix, r.Service, r.DeviceDir)
	}
	return devices[len(devices)-1], nil
}

func names(devices []Device) string {
	if len(devices) == 0 {
		return "is none of that service"
	}
	var all []string
	for _, d := range devices {
		all = append(all, d.Name)
	}
	return "is " + strings.Join(all, ", ")
}

// take mounts a disk, if it is not mounted, checks it, and makes it current.
func (r *run) take(ctx context.Context, d Device, result *Result) error {
	err := r.bring(ctx, d)
	if err != nil {
		return fmt.Errorf("%s: %w", d.Name, err)
	}
	if result.Current != d.Version {
		r.step("switch")
		if err := r.layout.setCurrent(d.Version); err != nil {
			return err
		}
		result.Switched = true
	}
	result.setCurrent(r.layout, d.Version)
	r.step("switched")
	return nil
}

// bring sees to it that a disk is mounted under its version, and sound.
func (r *run) bring(ctx context.Context, d Device) error {
	m, err := r.manifest(ctx, d)
	if err != nil {
		return err
	}
	r.step("check device")
	info, err := r.checkDevice(ctx, d.Path, m)
	if err != nil {
		return err
	}
	at, err := mountAt(r.layout.at(d.Version))
	if err != nil {
		return err
	}
	if isDisk(at) && r.state.Mounted[d.Version] == d.Seq {
		return r.checkMounted(ctx, at.Path, m)
	}
	r.step("mount")
	defer r.unstage()
	if err := r.layout.stage(d.Path, info); err != nil {
		return err
	}
	r.step("check contents")
	if err := r.checkMounted(ctx, r.layout.staging(), m); err != nil {
		return err
	}
	return r.show(d)
}

// show gives the staged disk its place.
func (r *run) show(d Device) error {
	if current, err := r.layout.current(); err != nil {
		return err
	} else if current != d.Version {
		if err := unmountAll(r.layout.at(d.Version), true); err != nil {
			return err
		}
	}
	r.step("show")
	if err := r.layout.promote(d.Version); err != nil {
		return err
	}
	r.step("remember")
	r.state.Mounted[d.Version] = d.Seq
	return r.layout.saveState(r.state)
}

func (r *run) unstage() {
	if err := unmountAll(r.layout.staging(), true); err != nil {
		r.Logger.Warn(err.Error())
	}
}

func (r *run) manifest(ctx context.Context, d Device) (*image.Manifest, error) {
	if r.Options.Manifest == nil {
		return nil, nil
	}
	m, err := r.Options.Manifest(ctx, d)
	if err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	return m, nil
}

// fallBack makes the newest other disk that passes current, where there would
// be none.
func (r *run) fallBack(ctx context.Context, devices []Device, bad Device, result *Result) {
	for i := len(devices) - 1; i >= 0 && ctx.Err() == nil; i-- {
		if devices[i].Name == bad.Name {
			continue
		}
		err := r.take(ctx, devices[i], result)
		if err == nil {
			return
		}
		r.Logger.Warn(err.Error())
	}
}

// retire unmounts the versions that are not needed any more: all but the
// current one and the newest Keep others. What is in use, and still attached,
// stays until the next time.
func (r *run) retire(devices []Device, current string) {
	r.step("retire")
	mounts, err := r.layout.mounted()
	if err != nil {
		r.Logger.Warn(err.Error())
		return
	}
	delete(mounts, current)
	attached := make(map[string]bool)
	kept := 0
	for i := len(devices) - 1; i >= 0; i-- {
		v := devices[i].Version
		attached[v] = true
		if mounts[v] != nil && kept < r.Keep {
			delete(mounts, v)
			kept++
		}
	}
	for version := range mounts {
		if err := unmountAll(r.layout.at(version), !attached[version]); err != nil {
			r.Logger.Warn(fmt.Sprintf("%v: it stays mounted until nobody uses it", err))
			continue
		}
		delete(r.state.Mounted, version)
	}
}
