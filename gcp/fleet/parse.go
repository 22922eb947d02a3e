package fleet

import (
	"bigdisk/bundle/yamlfile"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"golang.org/x/sys/unix"
)

// Load reads a fleet.yaml. Every fault in it is an [*Error], and they are
// joined.
func Load(path string) (*Config, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0) // a FIFO that nobody writes to is empty
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, yamlfile.MaxSize+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return parse(path, text)
}

// Parse is [Load] for a file's contents.
func Parse(text []byte) (*Config, error) { return parse("", text) }

func parse(file string, text []byte) (*Config, error) {
	r := &reader{file: file}
	parsed, err := yamlfile.Parse(text, parser.AllowDuplicateMapKey())
	if limit := (*yamlfile.LimitError)(nil); errors.As(err, &limit) {
		return nil, &Error{File: file, Line: limit.Line, Err: limit}
	}
	if err != nil {
		return nil, &Error{File: file, Line: errorLine(err), Err: errors.New(strings.TrimSpace(yaml.FormatError(err, false, true)))}
	}
	body, err := onlyBody(parsed)
	if err != nil {
		return nil, &Error{File: file, Line: 1, Err: err}
	}
	c := defaults()
	r.config(node{Node: body, line: lineOf(body, 1)}, c)
	if err := r.err(); err != nil {
		return nil, err
	}
	return c, nil
}

// JSON is the configuration with all defaults filled in, under the names that the
// file has for it, in one line. JSON is YAML too: [Parse] reads it back, if there are
// hosts for the rollout and the line is not too long for it.
func (c *Config) JSON() ([]byte, error) { return yaml.MarshalWithOptions(c, yaml.JSON()) }

func onlyBody(f *ast.File) (ast.Node, error) {
	switch {
	case len(f.Docs) > 1:
		return nil, errors.New("more than one YAML document")
	case len(f.Docs) == 0 || f.Docs[0].Body == nil:
		return nil, errors.New("the file is empty")
	}
	return f.Docs[0].Body, nil
}

func errorLine(err error) int {
	var at yaml.Error
	if errors.As(err, &at) {
		if t := at.GetToken(); t != nil && t.Position != nil {
			return t.Position.Line
		}
	}
	return 1
}
