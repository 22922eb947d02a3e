package release

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"bigdisk/image"
	"bigdisk/image/atomicfile"
)

// The files in the directory beside the images.
const (
	journalName = "journal.json"
	lockName    = "release.lock"
)

// maxJournal bounds a journal, in bytes.
const maxJournal = 16 << 20

// ErrBusy is wrapped by the error of a run that finds another one at work.
var ErrBusy = errors.New("another release is at work")

// directory is where images and journal are. It is locked for as long as it is
// open, by the kernel, so that nothing is left of a lock when its holder dies.
type directory struct {
	path string
	lock *os.File
}

// openDirectory makes the directory if it is not there, and locks it.
func openDirectory(path string) (*directory, error) {
	if err := os.MkdirAll(path, 0o755); err != nil {
		return nil, fmt.Errorf("directory of releases: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(path, lockName), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o644)
	if err != nil {
		return nil, fmt.Errorf("lock of the directory of releases: %w", err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = ErrBusy
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return &directory{path, f}, nil
}

// close unlocks it.
func (d *directory) close() { d.lock.Close() }

// file is the path of a file in it.
func (d *directory) file(name string) string { return filepath.Join(d.path, name) }

// readJournal reads a directory's journal; a new one if there is none.
func readJournal(dir, service string) (*Journal, error) {
	name := filepath.Join(dir, journalName)
	info, err := os.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return &Journal{Schema: Schema, Service: service, Runs: []*Entry{}}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: %w: it is no regular file", name, ErrJournal)
	}
	if info.Size() > maxJournal {
		return nil, fmt.Errorf("journal %s: %d bytes are too many for a journal", name, info.Size())
	}
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	j, err := Decode(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if j.Service != service {
		return nil, fmt.Errorf("%s is of service %s, and the fleet's is %s: give each service a directory of its own", name, j.Service, service)
	}
	return j, nil
}

// save writes the journal: it is whole and on the disk when save returns.
func (d *directory) save(j *Journal) error {
	data, err := j.Encode()
	if err != nil {
		return err
	}
	f, err := atomicfile.Create(d.file(journalName))
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	defer f.Discard()
	if _, err := f.Write(data); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	if err := f.Commit(); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	return nil
}

// holds tells whether an image and its manifest are there, the image with its
// size.
func holds(dir, name string, size int64) bool {
	info, err := os.Stat(filepath.Join(dir, name))
	if err != nil || !info.Mode().IsRegular() || info.Size() != size {
		return false
	}
	info, err = os.Stat(filepath.Join(dir, image.ManifestName(name)))
	return err == nil && info.Mode().IsRegular()
}

// remove deletes an image and its manifest, whole or begun. What is not there is
// no error.
func (d *directory) remove(name string) error {
	var failed error
	for _, name := range []string{d.file(image.ManifestName(name)), d.file(name)} {
		for _, name := range []string{name, atomicfile.TempName(name)} {
			if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
				failed = errors.Join(failed, err)
			}
		}
	}
	return failed
}
