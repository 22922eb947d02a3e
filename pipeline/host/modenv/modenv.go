// Package modenv reads a module's environment from a mounted disk. In flow the
// files in /etc/nixmodules, out flows the environment of the version that a
// module's ID leads to. It is a package of its own so that a small program can
// have it: starting a large one takes longer than all of this.
package modenv

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"bigdisk/bundle"
	"bigdisk/bundle/environment"
	"bigdisk/bundle/lock"
	"bigdisk/bundle/modules"
)

// The files that are read, besides the environments.
const (
	modulesName = bundle.EtcDir + "/modules.json"
	autoName    = bundle.EtcDir + "/auto-upgrade.json"
)

// ErrNoDisk is wrapped where no disk with modules is mounted.
var ErrNoDisk = errors.New("no disk with modules is mounted there")

// Module is a module's environment, and the version it is of.
type Module struct {
	modules.Resolution
	Env environment.Env `json:"env"`
}

// Current is where a service's current disk is mounted: a symlink.
func Current(mountRoot, service string) (string, error) {
	if service == "." || strings.Contains(service, "/") || !fs.ValidPath(service) {
		return "", fmt.Errorf("%q cannot be a service", service)
	}
	return path.Join(mountRoot, service, "current"), nil
}

// Read resolves a module ID through the automatic upgrades of the disk that is
// mounted at root, which may be a symlink, and returns the environment of the
// version where they end. It is checked against the store path that it was made
// from: what does not fit wraps [environment.ErrStale]. Where there is no disk it
// wraps [ErrNoDisk].
//
// What is recommended is not looked at: whether that can be had says nothing
// about what runs.
func Read(root, id string) (*Module, error) {
	d, err := os.OpenRoot(root) // once: the name may stand for another disk in a moment
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w: %w", root, ErrNoDisk, err)
	}
	if err != nil {
		return nil, err
	}
	defer d.Close()
	m, err := disk{d}.read(id)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", root, err)
	}
	return m, nil
}

// disk is a mounted disk. Its symlinks lead nowhere else.
type disk struct{ *os.Root }

func (d disk) read(id string) (*Module, error) {
	resolution, err := d.resolve(id)
	if err != nil {
		return nil, err
	}
	key := resolution.Version.ID
	name := path.Join(bundle.EtcDir, environment.Name(key))
	text, err := d.readFile(name, environment.MaxFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w of %s on this disk: it was built without environments", environment.ErrNone, key)
	}
	if err != nil {
		return nil, err
	}
	f, err := environment.Decode(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	var module []byte
	if f.Path == resolution.Version.Path && f.SHA256 != "" {
		if module, err = d.readFile(strings.TrimPrefix(string(f.Path), "/"), bundle.MaxModuleFile); err != nil {
			return nil, err
		}
	}
	if err := f.Check(resolution.Version.Path, module); err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	return &Module{*resolution, f.Env}, nil
}

// resolve follows the automatic upgrades.
func (d disk) resolve(id string) (*modules.Resolution, error) {
	text, err := d.readFile(modulesName, bundle.MaxEtcFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %w", ErrNoDisk, err)
	}
	if err != nil {
		return nil, err
	}
	file, err := lock.Parse(bytes.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", modulesName, err)
	}
	var maps modules.Maps
	text, err = d.readFile(autoName, bundle.MaxEtcFile)
	if err == nil {
		maps.Auto, err = modules.ParseMap(text)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", autoName, err)
	}
	return maps.Resolve(file, id)
}

// readFile reads a file of at most most bytes. It does not wait for anybody to
// write to a FIFO.
func (d disk) readFile(name string, most int64) ([]byte, error) {
	f, err := d.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > most {
		return nil, fmt.Errorf("%s: over %d bytes long", name, most)
	}
	return data, nil
}

// Write writes the environment: as commands for a shell, in which the variables
// in keep go on with what they are already, or as JSON. It returns the names
// that no shell variable can have, and that it left out.
func (m *Module) Write(w io.Writer, asJSON bool, keep ...string) (skipped []string, err error) {
	if asJSON {
		enc := json.NewEncoder(w)
		enc.SetEscapeHTML(false)
		return nil, enc.Encode(m)
	}
	commands, skipped := m.Env.Shell(keep...)
	_, err = w.Write(commands)
	return skipped, err
}
