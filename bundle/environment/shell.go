package environment

import (
	"bytes"
	"maps"
	"slices"
	"strings"
)

// pathSeparator is between the elements of variables like PATH.
const pathSeparator = ":"

// Shell returns the commands that set the environment in any POSIX shell, one
// a line for each variable, sorted, and the names that cannot be set so, which it
// leaves out: those that no shell variable can have, and those that a shell keeps
// for itself. Values are quoted: nothing in them is expanded or
// run. The variables in keep go on with what they are already.
func (e Env) Shell(keep ...string) (commands []byte, skipped []string) {
	var b bytes.Buffer
	for _, name := range slices.Sorted(maps.Keys(e)) {
		if !shellName(name) || keptByShell(name) {
			skipped = append(skipped, name)
			continue
		}
		b.WriteString("export " + name + "=" + quote(e[name]))
		if slices.Contains(keep, name) {
			b.WriteString(`"${` + name + `:+` + pathSeparator + `$` + name + `}"`)
		}
		b.WriteByte('\n')
	}
	return b.Bytes(), skipped
}

// shellName reports whether it is a name as POSIX has them (XBD 3.216).
func shellName(s string) bool {
	for i := range len(s) {
		c := s[i]
		if c != '_' && !('a' <= c && c <= 'z') && !('A' <= c && c <= 'Z') && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return s != ""
}

// keptByShell reports whether it is the name of a variable that bash does not
// let be set, or that dash takes nothing but numbers for: either may end with the
// variable that comes next unset.
func keptByShell(name string) bool {
	switch name {
	case "BASHOPTS", "BASH_VERSINFO", "EUID", "OPTIND", "PPID", "SHELLOPTS", "UID":
		return true
	}
	return false
}

// quote puts text between single quotes, in which only they mean something.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
