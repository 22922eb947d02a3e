package fleet

import (
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

// The YAML parser's time grows with the square of a line's length and of how
// deep brackets are nested, so both are bounded. 500 zones need 30 KiB.
const (
	maxSize = 1 << 20  // bytes
	maxLine = 16 << 10 // bytes
	maxOpen = 32       // brackets at a time
)

// Load reads a fleet.yaml. Every fault in it is an [*Error], and they are
// joined.
func Load(path string) (*Config, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0) // a FIFO that nobody writes to is empty
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return parse(path, text)
}

// Parse is [Load] for a file's contents.
func Parse(text []byte) (*Config, error) { return parse("", text) }

func parse(file string, text []byte) (*Config, error) {
	r := &reader{file: file}
	if line, err := checkLimits(text); err != nil {
		return nil, &Error{File: file, Line: line, Err: err}
	}
	parsed, err := parser.ParseBytes(text, 0, parser.AllowDuplicateMapKey())
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
// file has for it. JSON is YAML too: [Parse] reads it back, if there are hosts for
// the rollout.
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

func checkLimits(text []byte) (line int, err error) {
	if len(text) > maxSize {
		return 1, fmt.Errorf("more than %d bytes", maxSize)
	}
	open, start := 0, 0
	line = 1
	for i, c := range text {
		switch c {
		case '\n':
			line, start = line+1, i+1
		case '[', '{':
			open++
		case ']', '}':
			open--
		}
		if open > maxOpen {
			return line, fmt.Errorf("more than %d brackets are open", maxOpen)
		}
		if i-start > maxLine {
			return line, fmt.Errorf("a line of more than %d bytes", maxLine)
		}
	}
	return line, nil
}
