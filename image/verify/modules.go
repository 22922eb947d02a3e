package verify

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"bigdisk/bundle/store"
	"bigdisk/image/read"
)

const (
	modulesDir  = "etc/nixmodules"
	modulesPath = modulesDir + "/modules.json"
	// maxModules bounds a file in /etc/nixmodules in bytes.
	maxModules = 256 << 20
)

// module is an entry of modules.json.
type module struct {
	Commit string `json:"commit"`
	Path   string `json:"path"`
}

// checkModules checks what is in /etc/nixmodules.
func (v *verifier) checkModules(ctx context.Context) error {
	n, err := v.im.Lookup(modulesDir)
	if errors.Is(err, fs.ErrNotExist) {
		if v.Manifest != nil && len(v.Manifest.Modules) > 0 {
			v.errorf(BadModules, "/"+modulesDir, "it is missing, but the manifest names %d modules", len(v.Manifest.Modules))
		}
		return nil
	}
	if err != nil {
		return v.soften("/"+modulesDir, err)
	}
	err = read.Guard("reading /"+modulesDir, func() error {
		return v.im.Walk(n, func(path string, n *read.Node, leave bool) error {
			if n.Kind != store.Regular || !strings.HasSuffix(path, ".json") {
				return ctx.Err()
			}
			return v.checkJSON(modulesDir+"/"+path, n)
		})
	})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return v.soften("/"+modulesDir, err)
}

func (v *verifier) checkJSON(path string, n *read.Node) error {
	b, err := v.readSmall(n, maxModules)
	if err != nil {
		return v.soften("/"+path, err)
	}
	if !json.Valid(b) {
		v.errorf(BadModules, "/"+path, "it is not JSON")
		return nil
	}
	if path != modulesPath {
		return nil
	}
	var modules map[string]module
	if err := json.Unmarshal(b, &modules); err != nil {
		v.errorf(BadModules, "/"+path, "%v", err)
		return nil
	}
	v.compareModules(modules)
	return nil
}

// compareModules holds modules.json against the disk and the manifest.
func (v *verifier) compareModules(modules map[string]module) {
	for _, id := range slices.Sorted(maps.Keys(modules)) {
		p, err := store.ParsePath(modules[id].Path)
		if err != nil {
			v.errorf(BadModules, "/"+modulesPath, "module %q: %v", clip(id), err)
			continue
		}
		if !v.onDisk(p) {
			v.errorf(ModulePathNotOnDisk, string(p), "it is the path of the module %q, but it is not on the disk", clip(id))
		}
	}
	if v.Manifest == nil {
		return
	}
	inManifest := make(map[string]bool, len(v.Manifest.Modules))
	for _, m := range v.Manifest.Modules {
		inManifest[m.ID] = true
		on, ok := modules[m.ID]
		switch {
		case !ok:
			v.errorf(ManifestModules, string(m.Path), "the manifest has the module %q for it, but modules.json on the disk has not", m.ID)
		case on.Path != string(m.Path) || on.Commit != m.Commit:
			v.errorf(ManifestModules, string(m.Path), "the manifest has the module %q for it at commit %s, but modules.json on the disk has %s at %s",
				m.ID, m.Commit, clip(on.Path), clip(on.Commit))
		}
	}
	for _, id := range slices.Sorted(maps.Keys(modules)) {
		if !inManifest[id] {
			v.errorf(ManifestModules, modules[id].Path, "modules.json on the disk has the module %q for it, but the manifest has not", clip(id))
		}
	}
}
