package main

import (
	"bigdisk/bundle/yamlfile"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"
)

// readConfig sets the fields of into from a YAML file whose keys are the names
// of flags; what the file does not mention stays as it is. Unknown keys, keys
// that come twice and values of the wrong type are usage errors that show the
// place.
func readConfig(file string, into any) error {
	node, err := parseConfig(file)
	if err != nil || node == nil {
		return err
	}
	if err := decodeConfig(node, into); err != nil {
		return configError(file, err)
	}
	return nil
}

// parseConfig reads a YAML file of one document; nil if it says nothing.
func parseConfig(file string) (ast.Node, error) {
	text, err := readSmall(file, yamlfile.MaxSize)
	if err != nil {
		return nil, usageError{fmt.Errorf("configuration: %w", err), "give --config a YAML file"}
	}
	parsed, err := yamlfile.Parse(text)
	if limit := (*yamlfile.LimitError)(nil); errors.As(err, &limit) {
		return nil, configError(file, fmt.Errorf("line %d: %w", limit.Line, limit))
	}
	if err != nil {
		return nil, configError(file, errors.New(yaml.FormatError(err, false, true)))
	}
	if len(parsed.Docs) > 1 {
		return nil, configError(file, errors.New("more than one YAML document"))
	}
	if len(parsed.Docs) == 0 || parsed.Docs[0].Body == nil || parsed.Docs[0].Body.Type() == ast.NullType {
		return nil, nil
	}
	return parsed.Docs[0].Body, nil
}

// decodeConfig sets the fields of into from a part of a configuration. Errors
// show the place.
func decodeConfig(node ast.Node, into any) error {
	if err := yaml.NodeToValue(node, into, yaml.Strict()); err != nil {
		return errors.New(yaml.FormatError(plainTypeError(err), false, true))
	}
	return nil
}

// plainTypeError says of a value of the wrong type what was wanted, in words
// of the file and not of Go.
func plainTypeError(err error) error {
	var wrong *yaml.TypeError
	if !errors.As(err, &wrong) {
		return err
	}
	wanted := "text"
	switch wrong.DstType.Kind() {
	case reflect.Int:
		wanted = "a whole number"
	case reflect.Bool:
		wanted = "true or false"
	}
	return &yaml.SyntaxError{Message: "the value has to be " + wanted, Token: wrong.Token}
}

// configError puts the file's name before err, and a hint after it unless err
// has one.
func configError(file string, err error) error {
	hint := "its keys are the flags of bigdisk build, see --help"
	var inner usageError
	if errors.As(err, &inner) {
		hint = inner.hint
	}
	return usageError{fmt.Errorf("configuration %s: %s", file, strings.TrimSpace(err.Error())), hint}
}

// readSmall reads a file of at most limit bytes.
func readSmall(file string, limit int64) ([]byte, error) {
	f, err := os.OpenFile(file, os.O_RDONLY|unix.O_NONBLOCK, 0) // a FIFO that nobody writes to is empty
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(text)) > limit {
		return nil, fmt.Errorf("%s: more than %d bytes", file, limit)
	}
	return text, nil
}

// override sets the flags in to that were given in from.
func override(to, from *pflag.FlagSet) error {
	var failed error
	from.Visit(func(given *pflag.Flag) {
		flag := to.Lookup(given.Name)
		if flag == nil || failed != nil {
			return
		}
		if list, ok := given.Value.(pflag.SliceValue); ok {
			failed = flag.Value.(pflag.SliceValue).Replace(list.GetSlice())
			return
		}
		failed = flag.Value.Set(given.Value.String())
	})
	return failed
}

// relativeTo makes a path in a file relative to that file's directory.
func relativeTo(dir, path string) string {
	if path == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}

// resolveStore makes the directory in a --from relative to dir: a plain
// directory is a store, "file:DIR" a binary cache. "file://./DIR" and
// "file://../DIR" are taken for what their writer meant. Everything else is
// passed on as it is.
func resolveStore(dir, from string) (string, error) {
	cache, isCache := strings.CutPrefix(from, "file:")
	if !isCache {
		if from == "nix" || strings.Contains(from, "://") {
			return from, nil
		}
		return relativeTo(dir, from), nil
	}
	if rest, ok := strings.CutPrefix(cache, "//"); ok {
		if !strings.HasPrefix(rest, "/") && !strings.HasPrefix(rest, "./") && !strings.HasPrefix(rest, "../") {
			return "", usageError{
				fmt.Errorf("--from %s: %q would be a host", from, strings.SplitN(rest, "/", 2)[0]),
				"write file:" + rest + " for a relative directory, file:///DIR for an absolute one",
			}
		}
		cache = rest
	}
	if unescaped, err := url.PathUnescape(cache); err == nil {
		cache = unescaped
	}
	abs, err := filepath.Abs(relativeTo(dir, cache))
	if err != nil {
		return "", fmt.Errorf("--from %s: %w", from, err)
	}
	return (&url.URL{Scheme: "file", Path: abs}).String(), nil
}
