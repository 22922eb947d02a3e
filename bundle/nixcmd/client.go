// Package nixcmd has Nix do things through its command-line interface: tell
// which store paths are valid, substitute, evaluate the modules of a flake,
// build, protect from garbage collection.
//
// What does the work is nix-store and nix-instantiate, whose interfaces are
// stable; only evaluating a flake takes the newer "nix eval". Nix 2.8 and later will do. Remote stores,
// builders, substituters and keys are those of Nix's own configuration.
package nixcmd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"

	"bigdisk/bundle/internal/process"
	"bigdisk/bundle/store"
)

// Client is a Nix. Its zero value is the one on the PATH with the store that
// it is configured for.
type Client struct {
	// Bin is the directory of the nix, nix-store and nix-instantiate commands; ""
	// is the PATH.
	Bin string
	// Store is what is given as --store; "" is what Nix is configured for.
	Store string
	// Settings are given as --option NAME VALUE: "NAME=VALUE".
	Settings []string
}

// maxArgs bounds the arguments of one command, in bytes; Linux allows 2 MiB,
// the environment included.
const maxArgs = 512 << 10

// maxOutput bounds what is taken from a command, in bytes.
const maxOutput = 256 << 20

// Error is a Nix command that failed.
type Error struct {
	// Err is how it ended.
	Err error
	// Message is what it gave as the reason; "" if nothing.
	Message string
}

// Error gives the reason, or else how it ended.
func (e *Error) Error() string {
	switch {
	case e.Message == "" || Killed(e.Err):
		return e.Err.Error()
	case Crashed(e.Err):
		return e.Err.Error() + ": " + e.Message
	}
	return e.Message
}

// Unwrap returns how it ended, and what the message means.
func (e *Error) Unwrap() []error {
	if cause := Cause(e.Message); cause != nil {
		return []error{e.Err, cause}
	}
	return []error{e.Err}
}

// Killed reports that somebody has killed Nix.
func Killed(err error) bool {
	var e *process.SignalError
	return errors.As(err, &e) && !e.Crashed()
}

// Crashed reports that Nix has ended in a way that it should not, and that may
// be different next time: Nix 2.8 sometimes aborts when a server fails.
func Crashed(err error) bool {
	var e *process.SignalError
	return errors.As(err, &e) && e.Crashed()
}

// Cause tells which failure of the machine a message speaks of:
// [syscall.ENOSPC], or nil.
func Cause(message string) error {
	if strings.Contains(message, "No space left on device") || strings.Contains(message, "database or disk is full") {
		return syscall.ENOSPC
	}
	return nil
}

// transient matches what may be different next time.
var transient = regexp.MustCompile(`(?i)unable to download|could ?n[o']t (resolve|connect)|time-?d? ?out|connection (reset|refused|closed)|` +
	`temporary failure|HTTP error (429|5\d\d)|cannot connect to socket|database is (locked|busy)|failed to start SSH|Nix daemon disconnected`)

// Transient reports whether a message tells of a failure that may be different
// next time, such as a server that cannot be reached.
func Transient(message string) bool { return transient.MatchString(message) }

// command is one of Nix's, with the options that all have.
func (c *Client) command(name string, args ...string) process.Command {
	if c.Bin != "" {
		name = filepath.Join(c.Bin, name)
	}
	if c.Store != "" {
		args = append(args, "--store", c.Store)
	}
	for _, s := range c.Settings {
		key, value, _ := strings.Cut(s, "=")
		args = append(args, "--option", key, value)
	}
	// Nix has a subdirectory of TMPDIR for each build, where not everybody may
	// enter; that is Nix's business.
	return process.Command{Name: name, Args: args}
}

// run runs a command with its log, and returns its standard output.
func (c *Client) run(ctx context.Context, cmd process.Command, log *Log) ([]byte, error) {
	if log == nil {
		log = new(Log)
	}
	out := &limited{left: maxOutput}
	cmd.Stdout, cmd.Stderr = out, log
	err := cmd.Run(ctx)
	if out.left < 0 {
		return nil, fmt.Errorf("%s: it wrote more than %d bytes", cmd.Name, maxOutput)
	}
	if err != nil && ctx.Err() == nil {
		return nil, &Error{Err: err, Message: log.Last()}
	}
	return out.kept.Bytes(), err
}

// limited refuses what goes beyond its limit.
type limited struct {
	kept bytes.Buffer
	left int64
}

// Write keeps what fits and drops the rest.
func (l *limited) Write(p []byte) (int, error) {
	if l.left -= int64(len(p)); l.left < 0 {
		return 0, errors.New("too much output")
	}
	return l.kept.Write(p)
}

// jsonLog is the option that a Log reads best.
var jsonLog = []string{"--log-format", "internal-json"}

// Invalid tells which of the paths are not valid in the store, in their order.
// It takes one process for thousands of paths.
func (c *Client) Invalid(ctx context.Context, paths []store.Path) ([]store.Path, error) {
	var invalid []store.Path
	for _, some := range chunks(paths) {
		args := append([]string{"--check-validity", "--print-invalid"}, some...)
		out, err := c.run(ctx, c.command("nix-store", args...), nil)
		if err != nil {
			return nil, fmt.Errorf("ask Nix which paths are valid: %w", err)
		}
		for _, line := range strings.Fields(string(out)) {
			path, err := store.ParsePath(line)
			if err != nil {
				return nil, fmt.Errorf("nix-store --check-validity: %w", err)
			}
			invalid = append(invalid, path)
		}
	}
	return invalid, nil
}

// chunks cuts paths into the arguments of commands.
func chunks[S ~string](paths []S) [][]string {
	var all [][]string
	var some []string
	size := 0
	for _, p := range paths {
		if size += len(p) + 1 + 8; size > maxArgs && len(some) > 0 {
			all, some, size = append(all, some), nil, len(p)+1+8
		}
		some = append(some, string(p))
	}
	if len(some) > 0 {
		all = append(all, some)
	}
	return all
}

// Substitute gets those of the paths that a substituter has, and goes on with
// the others when one cannot be had. Paths that no substituter has are not an
// error: ask Invalid what is left.
func (c *Client) Substitute(ctx context.Context, paths []store.Path, log *Log) error {
	for _, some := range chunks(paths) {
		args := append([]string{"--realise", "--ignore-unknown", "--keep-going"}, jsonLog...)
		if _, err := c.run(ctx, c.command("nix-store", append(args, some...)...), log); err != nil {
			return err
		}
	}
	return nil
}

// Output is an output of a derivation in the store.
type Output struct {
	Drv  store.Path
	Name string // "out"
}

// Build builds the outputs, or substitutes them. With keepGoing it goes on
// with the others when one fails.
func (c *Client) Build(ctx context.Context, outputs []Output, keepGoing bool, log *Log) error {
	names := make([]string, len(outputs))
	for i, o := range outputs {
		names[i] = string(o.Drv) + "!" + o.Name
	}
	for _, some := range chunks(names) {
		args := append([]string{"--realise"}, jsonLog...)
		if keepGoing {
			args = append(args, "--keep-going")
		}
		if _, err := c.run(ctx, c.command("nix-store", append(args, some...)...), log); err != nil {
			return err
		}
	}
	return nil
}

// Protect keeps the paths, which have to be valid, and all they refer to, from
// being collected as garbage for as long as a link is there that it makes; link
// is its name, an absolute path. In the store it adds a derivation that refers
// to the paths, which nobody is to build: one root is far quicker to make than
// one for each path.
func (c *Client) Protect(ctx context.Context, link string, paths []store.Path) error {
	if len(paths) == 0 {
		return nil
	}
	var expr strings.Builder
	expr.WriteString(`derivation { name = "bigdisk-roots"; system = "none"; builder = "none"; paths = map builtins.storePath [`)
	for _, p := range paths {
		expr.WriteString("\n\"" + string(p) + `"`)
	}
	expr.WriteString("\n]; }\n")
	args := append([]string{"-", "--option", "substitute", "false", "--add-root", link, "--indirect"}, jsonLog...)
	cmd := c.command("nix-instantiate", args...)
	cmd.Stdin = strings.NewReader(expr.String())
	if _, err := c.run(ctx, cmd, nil); err != nil {
		return fmt.Errorf("protect %d store paths from garbage collection: %w", len(paths), err)
	}
	return nil
}

// Requisites lists what it takes to build a derivation: derivations and other
// files in the store.
func (c *Client) Requisites(ctx context.Context, drv store.Path) (map[store.Path]bool, error) {
	out, err := c.run(ctx, c.command("nix-store", "--query", "--requisites", string(drv)), nil)
	if err != nil {
		return nil, err
	}
	all := make(map[store.Path]bool)
	for _, line := range strings.Fields(string(out)) {
		all[store.Path(line)] = true
	}
	return all, nil
}

// Root is the directory that the store lies below, "/" for the one of this
// machine. A store that is not in a directory of this machine is an error, as
// its contents cannot be read.
func (c *Client) Root() (string, error) {
	uri := c.Store
	if uri == "" {
		uri = os.Getenv("NIX_REMOTE")
	}
	for _, name := range []string{"NIX_STORE_DIR", "NIX_STATE_DIR", "NIX_DB_DIR"} {
		if v := os.Getenv(name); v != "" && v != defaultDirs[name] {
			return "", fmt.Errorf("%s is %s: only Nix's usual directories are read: use a store local?root=DIR", name, v)
		}
	}
	kind, query, _ := strings.Cut(uri, "?")
	switch {
	case kind == "", kind == "auto", kind == "daemon", strings.HasPrefix(kind, "unix://"):
		return "/", nil
	case strings.HasPrefix(kind, "/"):
		return kind, nil
	case kind == "local" || kind == "local://":
		return localRoot(query)
	}
	return "", fmt.Errorf("the store %s is not in a directory of this machine, so its contents cannot be read: copy from it with a --from of its own", uri)
}

var defaultDirs = map[string]string{
	"NIX_STORE_DIR": store.Dir, "NIX_STATE_DIR": "/nix/var/nix", "NIX_DB_DIR": "/nix/var/nix/db",
}

// localRoot finds root= among a local store's parameters.
func localRoot(query string) (string, error) {
	root := "/"
	for _, param := range strings.Split(query, "&") {
		key, value, _ := strings.Cut(param, "=")
		switch key {
		case "":
		case "root":
			decoded, err := unescape(value)
			if err != nil || !filepath.IsAbs(decoded) {
				return "", fmt.Errorf("the store's root=%s is not an absolute path", value)
			}
			root = decoded
		case "real", "state", "store":
			return "", fmt.Errorf("a local store with %s= is not read: use root= alone", key)
		}
	}
	return root, nil
}
