// Package yamlfile parses the YAML files that people write, and refuses those
// that the parser would take minutes or gigabytes for.
package yamlfile

import (
	"bytes"
	"fmt"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// What a file may be. The parser's time grows with the square of a line's length,
// and its memory with that of the brackets that are open.
const (
	MaxSize = 1 << 20  // bytes
	MaxLine = 16 << 10 // bytes
	MaxOpen = 32       // brackets at a time
)

// LimitError says what is more than it may be.
type LimitError struct {
	Line int // counts from 1
	what string
}

// Error does not name the line.
func (e *LimitError) Error() string { return e.what }

// Parse parses a file. Its errors are a [*LimitError] and those of the parser.
func Parse(text []byte, options ...parser.Option) (*ast.File, error) {
	if len(text) > MaxSize {
		return nil, &LimitError{1, fmt.Sprintf("more than %d bytes", MaxSize)}
	}
	line := 0
	for l := range bytes.Lines(text) {
		if line++; len(l) > MaxLine {
			return nil, &LimitError{line, fmt.Sprintf("a line of more than %d bytes", MaxLine)}
		}
	}
	tokens := lexer.Tokenize(string(text))
	open := 0
	for _, t := range tokens {
		switch t.Type {
		case token.SequenceStartType, token.MappingStartType:
			open++
		case token.SequenceEndType, token.MappingEndType:
			open = max(0, open-1)
		}
		if open > MaxOpen {
			return nil, &LimitError{t.Position.Line, fmt.Sprintf("more than %d brackets are open", MaxOpen)}
		}
	}
	return parser.Parse(tokens, 0, options...)
}
