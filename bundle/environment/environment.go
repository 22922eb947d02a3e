// Package environment is the environment that a module gives to those who use
// it, computed once when a disk is built, so that no host has to.
//
// In flows the JSON that a module is, as its store path has it; out flows a
// [File], which lies on the disk in [Dir] under the module's key and says what
// store path it was made from. On a host, [Decode] reads it and
// [File.Check] holds it against that store path.
package environment

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"bigdisk/bundle/store"
)

// Dir is where the files are, below /etc/nixmodules.
const Dir = "env"

// Name is the file of a module, by its key "ID:TAG" in the lock file.
func Name(key string) string { return Dir + "/" + key + ".json" }

const (
	// MaxSize bounds the names and values of one environment, in bytes: a
	// process has to have room for its arguments and other variables, too.
	MaxSize = 256 << 10
	// MaxVariable bounds a name and its value, with the equals sign between them
	// and the zero byte after them, in bytes: MAX_ARG_STRLEN in Linux'
	// include/uapi/linux/binfmts.h. execve(2) takes no longer ones.
	MaxVariable = 128 << 10
	// MaxFile is the largest [File] that is read, in bytes.
	MaxFile = 8 * MaxSize
)

// ErrNone is wrapped by errors about modules that have no environment to be
// found.
var ErrNone = errors.New("no environment")

// ErrStale is wrapped by errors about files that were made from another store
// path, or from another content of it.
var ErrStale = errors.New("stale environment")

var errNoFile = fmt.Errorf("%w: the module is not a small file", ErrNone)

// Env is names and their values.
type Env map[string]string

// Parse finds the environment in the JSON that a module is: the object "env",
// whose values are text. A module without one has an empty environment. What
// is not such a module, or too large, wraps [ErrNone].
func Parse(module []byte) (Env, error) {
	var fields map[string]json.RawMessage // not a struct: those match names in any case
	if err := json.Unmarshal(module, &fields); err != nil || fields == nil {
		return nil, fmt.Errorf("%w: the module is not a JSON object", ErrNone)
	}
	raw, ok := fields["env"]
	if !ok || string(raw) == "null" {
		return Env{}, nil
	}
	var values map[string]json.RawMessage
	if err := json.Unmarshal(raw, &values); err != nil {
		return nil, fmt.Errorf("%w: the module's env is not a JSON object", ErrNone)
	}
	if !utf8.Valid(raw) {
		return nil, fmt.Errorf("%w: the module's env is not UTF-8", ErrNone)
	}
	env, size := make(Env, len(values)), 0
	for _, name := range slices.Sorted(maps.Keys(values)) {
		var value *string
		if err := json.Unmarshal(values[name], &value); err != nil || value == nil || altered(values[name], *value) {
			return nil, fmt.Errorf("%w: the module's env has %.60q, which is not text", ErrNone, name)
		}
		if err := check(name, *value); err != nil {
			return nil, fmt.Errorf("%w: the module's env: %w", ErrNone, err)
		}
		if size += len(name) + len(*value); size > MaxSize {
			return nil, fmt.Errorf("%w: the module's env has over %d bytes", ErrNone, MaxSize)
		}
		env[name] = *value
	}
	return env, nil
}

// altered reports whether the text of a JSON string lacks something that stands
// there: encoding/json takes U+FFFD for half of a surrogate pair.
func altered(raw json.RawMessage, text string) bool {
	return strings.ContainsRune(text, utf8.RuneError) &&
		!bytes.ContainsRune(raw, utf8.RuneError) && !bytes.Contains(bytes.ToLower(raw), []byte(`\ufffd`))
}

// check refuses what execve(2) cannot pass on.
func check(name, value string) error {
	if name == "" || strings.ContainsAny(name, "=\x00") {
		return fmt.Errorf("%.60q cannot be the name of a variable", name)
	}
	if strings.Contains(value, "\x00") {
		return fmt.Errorf("the value of %.60q has a zero byte", name)
	}
	if len(name)+len("=")+len(value)+len("\x00") > MaxVariable {
		return fmt.Errorf("%.60q is longer than the %d bytes that a variable can have", name, MaxVariable)
	}
	return nil
}

// File is an environment on a disk.
type File struct {
	// Path is the store path that it was made from.
	Path store.Path `json:"path"`
	// SHA256 is that of the file at Path, in hexadecimal; "" if it is no file.
	SHA256 string `json:"sha256,omitempty"`
	// Env is the environment; nil if there is none to be had, and Problem says
	// why.
	Env     Env    `json:"env"`
	Problem string `json:"problem,omitempty"`
}

// New makes the file of a module from the bytes of its store path.
func New(path store.Path, module []byte) *File {
	sum := sha256.Sum256(module)
	f := &File{Path: path, SHA256: hex.EncodeToString(sum[:])}
	env, err := Parse(module)
	if err != nil {
		f.Problem = err.Error()
		return f
	}
	f.Env = env
	return f
}

// NoFile is the file of a module whose store path is something else than a
// single file, or too large for one.
func NoFile(path store.Path) *File {
	return &File{Path: path, Problem: errNoFile.Error()}
}

// Encode writes the file: the same for the same module, a variable a line,
// sorted.
func (f *File) Encode() ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	err := enc.Encode(f)
	return b.Bytes(), err
}

// Decode reads a file. [File.Check] tells whether what it says is so.
func Decode(data []byte) (*File, error) {
	if len(data) > MaxFile {
		return nil, fmt.Errorf("an environment of over %d bytes", MaxFile)
	}
	f := new(File)
	if err := json.Unmarshal(data, f); err != nil {
		return nil, err
	}
	if _, err := store.ParsePath(string(f.Path)); err != nil {
		return nil, err
	}
	return f, nil
}

// Check holds the file against the store path that the lock file has, and
// against that path's bytes: what was made from anything else, or has been
// changed since, wraps [ErrStale]. That there is no environment to be had wraps
// [ErrNone]. module is not looked at where f.SHA256 is "".
func (f *File) Check(path store.Path, module []byte) error {
	if f.Path != path {
		return fmt.Errorf("%w: it was made from %s, not from %s", ErrStale, f.Path, path)
	}
	if f.SHA256 == "" {
		return errNoFile
	}
	if sum := sha256.Sum256(module); hex.EncodeToString(sum[:]) != f.SHA256 {
		return fmt.Errorf("%w: %s has the SHA-256 %x, and it was made from %s", ErrStale, path, sum, f.SHA256)
	}
	env, err := Parse(module)
	if err != nil {
		return err
	}
	if f.Env == nil || !maps.Equal(f.Env, env) {
		return fmt.Errorf("%w: it is not what %s says, which it was made from", ErrStale, path)
	}
	return nil
}
