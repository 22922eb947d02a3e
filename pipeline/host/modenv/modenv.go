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
	"path/filepath"

	"golang.org/x/sys/unix"

	"bigdisk/bundle"
	"bigdisk/bundle/environment"
	"bigdisk/bundle/lock"
	"bigdisk/bundle/modules"
)

// The files in [bundle.EtcDir].
const (
	modulesName   = "modules.json"
	autoName      = "auto-upgrade.json"
	recommendName = "recommend-upgrade.json"
)

// Module is a module's environment, and the version it is of.
type Module struct {
	modules.Resolution
	Env environment.Env `json:"env"`
}

// Read resolves a module ID through the upgrade maps of the disk that is
// mounted at root, which may be a symlink, and returns the environment of the
// version where the automatic upgrades end. It is checked against the store path
// that it was made from: what does not fit wraps [environment.ErrStale].
func Read(root, id string) (*Module, error) {
	root, err := filepath.EvalSymlinks(root) // once: it may name another disk in a moment
	if err != nil {
		return nil, err
	}
	etc := filepath.Join(root, bundle.EtcDir)
	resolution, err := resolve(etc, id)
	if err != nil {
		return nil, err
	}
	name := filepath.Join(etc, filepath.FromSlash(environment.Name(resolution.Version.ID)))
	text, err := readSmall(name, environment.MaxFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w of %s on this disk: it was built without environments", root, environment.ErrNone, resolution.Version.ID)
	}
	if err != nil {
		return nil, err
	}
	f, err := environment.Decode(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	path := resolution.Version.Path
	var module []byte
	if f.Path == path && f.SHA256 != "" {
		if module, err = readSmall(filepath.Join(root, string(path)), bundle.MaxModuleFile); err != nil {
			return nil, err
		}
	}
	if err := f.Check(path, module); err != nil {
		return nil, fmt.Errorf("%s: %w", resolution.Version.ID, err)
	}
	return &Module{*resolution, f.Env}, nil
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

// resolve follows the upgrade maps.
func resolve(etc, id string) (*modules.Resolution, error) {
	text, err := readSmall(filepath.Join(etc, modulesName), bundle.MaxEtcFile)
	if err != nil {
		return nil, err
	}
	file, err := lock.Parse(bytes.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(etc, modulesName), err)
	}
	var maps modules.Maps
	for name, m := range map[string]*map[string]modules.Upgrade{autoName: &maps.Auto, recommendName: &maps.Recommend} {
		*m, err = modules.ReadMap(filepath.Join(etc, name))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	return maps.Resolve(file, id)
}

// readSmall reads a file of at most most bytes. It does not wait for anybody to
// write to a FIFO.
func readSmall(name string, most int64) ([]byte, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
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
