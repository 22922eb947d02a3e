package source

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// maxNetrc is the size in bytes of the largest netrc file that is read.
const maxNetrc = 1 << 20

// netrc holds credentials by host, in the order of the file.
type netrc struct{ machines []machine }

// machine is one entry; the default entry has no name.
type machine struct{ name, login, password string }

// find returns the first entry for the host. The default entry, the last in
// its file, counts only if asked for.
func (n *netrc) find(host string, withDefault bool) (login, password string, ok bool) {
	if n == nil {
		return "", "", false
	}
	for _, m := range n.machines {
		if strings.EqualFold(m.name, host) || m.name == "" && withDefault {
			return m.login, m.password, true
		}
	}
	return "", "", false
}

// loadNetrc reads the file of that name, which must be there; with "" that of
// $NETRC, or else ~/.netrc, which need not.
func loadNetrc(name string) (*netrc, error) {
	optional := name == ""
	if optional {
		name = os.Getenv("NETRC")
	}
	if name == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return nil, nil // no home, no file in it
		}
		name = filepath.Join(home, ".netrc")
	}
	text, err := readSmall(name)
	if optional && errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("netrc: %w", err)
	}
	n, err := parseNetrc(text)
	if err != nil {
		return nil, fmt.Errorf("netrc %s: %w", name, err)
	}
	return n, nil
}

func readSmall(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxNetrc+1))
	if err == nil && len(text) > maxNetrc {
		err = fmt.Errorf("%s is over %d bytes", name, maxNetrc)
	}
	return string(text), err
}

// parseNetrc reads the words of a netrc file as curl does: machine, default,
// login, password and account with what follows each, in any layout; comments
// from a # that starts a word to the end of the line; quotes around a word with
// blanks, with a backslash before a quote in it. A macdef ends at an empty line
// and is passed over.
func parseNetrc(text string) (*netrc, error) {
	n := new(netrc)
	var current *machine
	l := lexer{rest: text}
	for {
		word, ok := l.word()
		if !ok {
			return n, nil
		}
		switch word {
		case "default":
			n.machines = append(n.machines, machine{})
			current = &n.machines[len(n.machines)-1]
			continue
		case "macdef":
			l.skipMacro()
			continue
		}
		value, ok := l.word()
		if !ok {
			return nil, fmt.Errorf("nothing follows %q", clip(word))
		}
		if word == "machine" {
			n.machines = append(n.machines, machine{name: value})
			current = &n.machines[len(n.machines)-1]
			continue
		}
		if err := current.set(word, value); err != nil {
			return nil, err
		}
	}
}

// set reads one property. Errors do not repeat what may be a password.
func (m *machine) set(word, value string) error {
	if m == nil {
		return errors.New("it does not start with machine, default or macdef")
	}
	switch word {
	case "login":
		m.login = value
	case "password":
		m.password = value
	case "account":
	default:
		return fmt.Errorf("the entry for %q has a word that is none of login, password, account, machine, default, macdef", clip(m.name))
	}
	return nil
}

// lexer cuts a netrc file into words.
type lexer struct{ rest string }

func (l *lexer) word() (string, bool) {
	for {
		l.rest = strings.TrimLeft(l.rest, " \t\r\n\v\f")
		if l.rest == "" {
			return "", false
		}
		if l.rest[0] != '#' {
			break
		}
		_, l.rest, _ = strings.Cut(l.rest, "\n")
	}
	if l.rest[0] == '"' {
		return l.quoted(), true
	}
	end := strings.IndexAny(l.rest, " \t\r\n\v\f")
	if end < 0 {
		end = len(l.rest)
	}
	word := l.rest[:end]
	l.rest = l.rest[end:]
	return word, true
}

// quoted reads up to the closing quote, or to the end.
func (l *lexer) quoted() string {
	var b strings.Builder
	for i := 1; i < len(l.rest); i++ {
		switch c := l.rest[i]; {
		case c == '"':
			l.rest = l.rest[i+1:]
			return b.String()
		case c == '\\' && i+1 < len(l.rest):
			i++
			b.WriteByte(l.rest[i])
		default:
			b.WriteByte(c)
		}
	}
	l.rest = ""
	return b.String()
}

// skipMacro goes on after the next empty line.
func (l *lexer) skipMacro() {
	_, l.rest, _ = strings.Cut(l.rest, "\n\n")
}
