package modules

import (
	"bigdisk/bundle/yamlfile"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"
)

// kind is what a value in a YAML or JSON file is.
type kind int

const (
	text kind = iota
	boolean
	list
	object
	other
)

var kindNames = [...]string{text: "text", boolean: "true or false", list: "a list", object: "a mapping", other: "something else"}

// value is a value in a YAML or JSON file.
type value struct {
	kind   kind
	line   int // from 1
	text   string
	truth  bool
	list   []value
	fields []field
}

// field is a key of a mapping.
type field struct {
	name  string
	line  int
	value value
}

// maxDepth is how deep values may be nested: a mapping needs far less.
const maxDepth = 16

func errorAt(line int, format string, args ...any) error {
	return fmt.Errorf("%w: line %d: %w", ErrMapping, line, fmt.Errorf(format, args...))
}

// parseValue reads a YAML or JSON file.
func parseValue(data []byte) (value, error) {
	if first := bytes.TrimLeft(data, " \t\r\n"); len(first) > 0 && (first[0] == '{' || first[0] == '[') && json.Valid(data) {
		return parseJSON(data)
	}
	file, err := yamlfile.Parse(data)
	if limit := (*yamlfile.LimitError)(nil); errors.As(err, &limit) {
		return value{}, errorAt(limit.Line, "%w: write it as JSON, which has no such limits", limit)
	}
	if err != nil {
		return value{}, fmt.Errorf("%w: %s", ErrMapping, clip(strings.TrimSpace(yaml.FormatError(err, false, true))))
	}
	if len(file.Docs) > 1 {
		return value{}, fmt.Errorf("%w: more than one YAML document", ErrMapping)
	}
	if len(file.Docs) == 0 || file.Docs[0].Body == nil {
		return value{kind: object, line: 1}, nil
	}
	return yamlValue(file.Docs[0].Body, 0)
}

// parseJSON reads a JSON file.
func parseJSON(data []byte) (value, error) {
	if err := json.Unmarshal(data, new(json.RawMessage)); err != nil {
		line := 1
		if at := new(json.SyntaxError); errors.As(err, &at) {
			line += bytes.Count(data[:min(at.Offset, int64(len(data)))], []byte("\n"))
		}
		return value{}, errorAt(line, "%w", err)
	}
	p := &jsonParser{data: data, dec: json.NewDecoder(bytes.NewReader(data)), line: 1}
	return p.value(0)
}

// jsonParser reads JSON that is valid, with lines.
type jsonParser struct {
	data []byte
	dec  *json.Decoder
	at   int // up to where lines are counted
	line int
}

// token returns the next token and its line.
func (p *jsonParser) token() (json.Token, int, error) {
	t, err := p.dec.Token()
	end := int(p.dec.InputOffset())
	p.line += bytes.Count(p.data[p.at:end], []byte("\n"))
	p.at = end
	return t, p.line, err
}

func (p *jsonParser) value(depth int) (value, error) {
	t, line, err := p.token()
	if err != nil {
		return value{}, errorAt(line, "%w", err)
	}
	if depth > maxDepth {
		return value{}, errorAt(line, "nested too deep")
	}
	switch t := t.(type) {
	case string:
		return value{kind: text, line: line, text: t}, nil
	case bool:
		return value{kind: boolean, line: line, truth: t}, nil
	case json.Delim:
		if t == '{' {
			return p.object(line, depth)
		}
		return p.list(line, depth)
	}
	return value{kind: other, line: line}, nil
}

func (p *jsonParser) list(line, depth int) (value, error) {
	v := value{kind: list, line: line}
	for p.dec.More() {
		item, err := p.value(depth + 1)
		if err != nil {
			return v, err
		}
		v.list = append(v.list, item)
	}
	_, _, err := p.token()
	return v, err
}

func (p *jsonParser) object(line, depth int) (value, error) {
	v := value{kind: object, line: line}
	seen := make(map[string]bool)
	for p.dec.More() {
		t, line, err := p.token()
		name, ok := t.(string)
		if err != nil || !ok {
			return v, errorAt(line, "a key is wanted: %w", errors.Join(err, io.ErrUnexpectedEOF))
		}
		if seen[name] {
			return v, errorAt(line, "%q comes twice", clip(name))
		}
		seen[name] = true
		item, err := p.value(depth + 1)
		if err != nil {
			return v, err
		}
		v.fields = append(v.fields, field{name, line, item})
	}
	_, _, err := p.token()
	return v, err
}

// yamlValue reads a node. Anchors, aliases and tags are not taken.
func yamlValue(n ast.Node, depth int) (value, error) {
	line := 1
	if t := n.GetToken(); t != nil && t.Position != nil {
		line = t.Position.Line
	}
	if depth > maxDepth {
		return value{}, errorAt(line, "nested too deep")
	}
	switch n := n.(type) {
	case *ast.StringNode:
		return value{kind: text, line: line, text: n.Value}, nil
	case *ast.LiteralNode:
		return value{kind: text, line: line, text: n.Value.Value}, nil
	case *ast.BoolNode:
		return value{kind: boolean, line: line, truth: n.Value}, nil
	case *ast.SequenceNode:
		return yamlList(n, line, depth)
	case *ast.MappingNode:
		return yamlObject(n.Values, line, depth)
	case *ast.MappingValueNode:
		return yamlObject([]*ast.MappingValueNode{n}, line, depth)
	}
	return value{kind: other, line: line}, nil
}

func yamlList(n *ast.SequenceNode, line, depth int) (value, error) {
	v := value{kind: list, line: line}
	for _, item := range n.Values {
		if item == nil {
			return v, errorAt(line, "an empty list item")
		}
		read, err := yamlValue(item, depth+1)
		if err != nil {
			return v, err
		}
		v.list = append(v.list, read)
	}
	return v, nil
}

func yamlObject(values []*ast.MappingValueNode, line, depth int) (value, error) {
	v := value{kind: object, line: line}
	seen := make(map[string]bool)
	for _, pair := range values {
		name, at, err := yamlKey(pair, line)
		if err != nil {
			return v, err
		}
		if seen[name] {
			return v, errorAt(at, "%q comes twice", clip(name))
		}
		seen[name] = true
		if pair.Value == nil {
			return v, errorAt(at, "%q has no value", clip(name))
		}
		item, err := yamlValue(pair.Value, depth+1)
		if err != nil {
			return v, err
		}
		v.fields = append(v.fields, field{name, at, item})
	}
	return v, nil
}

// yamlKey reads a key, which has to be text.
func yamlKey(pair *ast.MappingValueNode, line int) (string, int, error) {
	var t *token.Token
	if pair.Key != nil {
		t = pair.Key.GetToken()
	}
	if t != nil && t.Position != nil {
		line = t.Position.Line
	}
	s, ok := pair.Key.(*ast.StringNode)
	if !ok {
		return "", line, errorAt(line, "a key has to be text")
	}
	return s.Value, line, nil
}

// clip shortens what somebody else wrote before it goes into an error.
func clip(s string) string {
	const most = 400
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}
