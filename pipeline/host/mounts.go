package host

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// mountinfoFile lists the mounts that this process sees, see proc_pid_mountinfo(5).
const mountinfoFile = "/proc/self/mountinfo"

// mountPoint is a mounted filesystem: a line of mountinfo.
type mountPoint struct {
	Device  string // "MAJOR:MINOR"
	Path    string
	Options []string // those of the mount, such as ro
	Type    string
	Source  string
	Super   []string // options of the filesystem
}

// readMounts lists all mounts, in the order in which they were made at any one
// path.
func readMounts() ([]mountPoint, error) {
	text, err := os.ReadFile(mountinfoFile)
	if err != nil {
		return nil, err
	}
	return parseMounts(text)
}

func parseMounts(text []byte) ([]mountPoint, error) {
	var all []mountPoint
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		m, err := parseMount(lines.Text())
		if err != nil {
			return nil, fmt.Errorf("%s: %w", mountinfoFile, err)
		}
		all = append(all, m)
	}
	return all, lines.Err()
}

// parseMount reads "ID PARENT MAJOR:MINOR ROOT PATH OPTIONS [FIELD…] - TYPE
// SOURCE SUPEROPTIONS".
func parseMount(line string) (mountPoint, error) {
	left, right, ok := strings.Cut(line, " - ")
	of, fs := strings.Fields(left), strings.Split(right, " ")
	if !ok || len(of) < 6 || len(fs) < 3 {
		return mountPoint{}, fmt.Errorf("a line that is no mount: %.100q", line)
	}
	return mountPoint{
		Device: of[2], Path: unescape(of[4]), Options: strings.Split(of[5], ","),
		Type: fs[0], Source: unescape(fs[1]), Super: strings.Split(fs[2], ","),
	}, nil
}

// unescape undoes the octal escapes that the kernel writes for space, tab,
// newline and backslash.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) && octal(s[i+1]) && octal(s[i+2]) && octal(s[i+3]) {
			b.WriteByte((s[i+1]-'0')<<6 | (s[i+2]-'0')<<3 | (s[i+3] - '0'))
			i += 3
			continue
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func octal(c byte) bool { return '0' <= c && c <= '7' }

// mountAt returns what is mounted at path; nil if nothing is. Of several mounts
// on top of each other it is the last.
func mountAt(path string) (*mountPoint, error) {
	path, err := realPath(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	all, err := readMounts()
	if err != nil {
		return nil, err
	}
	for i := len(all) - 1; i >= 0; i-- {
		if all[i].Path == path {
			return &all[i], nil
		}
	}
	return nil, nil
}

// realPath is a directory's path as mountinfo has it. The directory itself is
// not looked at: what is mounted there may be out of order.
func realPath(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil || path == "/" {
		return path, err
	}
	parent, err := filepath.EvalSymlinks(filepath.Dir(path))
	return filepath.Join(parent, filepath.Base(path)), err
}

// readOnly reports whether the filesystem itself, and so every mount of it, is
// read-only.
func (m *mountPoint) readOnly() bool {
	for _, o := range m.Super {
		if o == "ro" {
			return true
		}
	}
	return false
}

// unmount takes away the mount at path. With lazy it goes out of sight at once,
// and is gone when nobody uses it any more.
func unmount(path string, lazy bool) error {
	flags := unix.UMOUNT_NOFOLLOW
	if lazy {
		flags |= unix.MNT_DETACH
	}
	if err := unix.Unmount(path, flags); err != nil {
		return fmt.Errorf("unmount %s: %w", path, err)
	}
	return nil
}
