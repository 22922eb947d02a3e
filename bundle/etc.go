package bundle

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"bigdisk/bundle/environment"
	"bigdisk/bundle/lock"
	"bigdisk/bundle/store"
)

// EtcDir is where the files about modules are on a disk, relative to its root.
const EtcDir = "etc/nixmodules"

// MaxEtcFile is the largest file that is taken for [EtcDir], in bytes.
const MaxEtcFile = 64 << 20

// MaxModuleFile is the largest module that is looked into for its name, in
// bytes.
const MaxModuleFile = 4 << 20

// maxModuleText bounds a module's name and description, in bytes each.
const maxModuleText = 64 << 10

// EtcFile is a file for [EtcDir].
type EtcFile struct {
	Name string // relative to EtcDir
	Data []byte
}

// EtcInput is what the files of [EtcDir] are made from.
type EtcInput struct {
	// Entries are the locked entries on the disk, in the lock file's order.
	Entries []lock.Entry
	// Modules tells about the modules at these paths; there need not be any.
	Modules map[store.Path]ModuleInfo
	// Environments are the modules' environments, by their paths, as
	// [environment.File.Encode] writes them; a module may be without.
	Environments map[store.Path][]byte
	// AutoUpgrade, RecommendUpgrade and ActiveModules are the contents of files
	// to take as they are, see [ReadObject]; nil is for one to be generated.
	AutoUpgrade, RecommendUpgrade, ActiveModules []byte
}

// ModuleInfo is what a module says about itself.
type ModuleInfo struct {
	Name        string `json:"name"`
	Description string `json:"description"`
}

// activeModule is a module in active-modules.json, its fields in the order in
// which the nixmodules repository's own file has them.
type activeModule struct {
	Commit      string     `json:"commit"`
	Description string     `json:"description"`
	Name        string     `json:"name"`
	Path        store.Path `json:"path"`
	Tag         string     `json:"tag"`
	Tags        []string   `json:"tags"`
	Version     int        `json:"version"`
}

// Etc makes the files for [EtcDir], sorted by name: active-modules.json,
// auto-upgrade.json, one for each module in the directory [environment.Dir],
// modules.json and recommend-upgrade.json.
func Etc(in EtcInput) ([]EtcFile, error) {
	modules, err := lock.Marshal(in.Entries)
	if err != nil {
		return nil, fmt.Errorf("modules.json: %w", err)
	}
	active := in.ActiveModules
	if active == nil {
		if active, err = ActiveModules(in.Entries, in.Modules); err != nil {
			return nil, fmt.Errorf("active-modules.json: %w", err)
		}
	}
	files := []EtcFile{
		{"active-modules.json", active},
		{"auto-upgrade.json", orEmptyObject(in.AutoUpgrade)},
	}
	files = append(files, environments(in)...)
	return append(files,
		EtcFile{"modules.json", modules},
		EtcFile{"recommend-upgrade.json", orEmptyObject(in.RecommendUpgrade)},
	), nil
}

// environments are the files of the entries' environments, sorted by name.
func environments(in EtcInput) []EtcFile {
	var files []EtcFile
	for _, e := range in.Entries {
		if text, ok := in.Environments[e.Path]; ok {
			files = append(files, EtcFile{environment.Name(e.Key()), text})
		}
	}
	slices.SortFunc(files, func(a, b EtcFile) int { return strings.Compare(a.Name, b.Name) })
	return files
}

func orEmptyObject(data []byte) []byte {
	if data == nil {
		return []byte("{}\n")
	}
	return data
}

// ActiveModules makes active-modules.json: for each module ID its newest
// version among the entries, and the tags of all of them, newest first. A module
// that says no name of its own goes by its ID.
func ActiveModules(entries []lock.Entry, modules map[store.Path]ModuleInfo) ([]byte, error) {
	newest := slices.Clone(entries)
	slices.Reverse(newest) // of two alike, the one further down the file is the newer
	slices.SortStableFunc(newest, func(a, b lock.Entry) int {
		return cmp.Or(cmp.Compare(b.Tag.Version, a.Tag.Version), cmp.Compare(b.Tag.Date, a.Tag.Date))
	})
	active := make(map[lock.ID]*activeModule)
	for _, e := range newest {
		m := active[e.ID]
		if m == nil {
			info := modules[e.Path]
			m = &activeModule{
				Commit: e.Commit.String(), Description: info.Description, Name: cmp.Or(info.Name, string(e.ID)),
				Path: e.Path, Tag: e.Tag.String(), Version: e.Tag.Version,
			}
			active[e.ID] = m
		}
		m.Tags = append(m.Tags, e.Tag.String())
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(active)
	return b.Bytes(), err
}

// ParseModuleInfo finds a module's name and description in the JSON that the
// module is. What is not there, too long or not even JSON is left empty: a
// module may be anything, and only its own users read what is in it.
func ParseModuleInfo(data []byte) ModuleInfo {
	var info ModuleInfo
	if json.Unmarshal(data, &info) != nil || len(info.Name) > maxModuleText || len(info.Description) > maxModuleText {
		return ModuleInfo{}
	}
	return info
}

// ReadObject reads a file that is to go into [EtcDir] as it is. It must be a
// JSON object of at most [MaxEtcFile] bytes; errors name the file.
func ReadObject(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, MaxEtcFile+1))
	if err != nil {
		return nil, err
	}
	if len(data) > MaxEtcFile {
		return nil, fmt.Errorf("%s: over %d bytes long", name, MaxEtcFile)
	}
	var object map[string]json.RawMessage
	if err := json.Unmarshal(data, &object); err != nil {
		return nil, fmt.Errorf("%s: not a JSON object: %w", name, err)
	}
	if object == nil {
		return nil, fmt.Errorf("%s: not a JSON object: it is null", name)
	}
	return data, nil
}
