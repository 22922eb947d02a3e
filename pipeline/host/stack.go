package host

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"bigdisk/bundle/store"
	"bigdisk/image/storedb"
)

// newStack is the next stack before it gets its name.
const newStack = stackName + ".new"

// prepareStack makes what one read-only store of several disks needs besides its
// directory. Nix wants exactly one directory below a layered store, which the
// kernel can merge from several, and one database, which is made here. Both can
// be used by everybody, and are not written to.
func (u upper) prepareStack(ctx context.Context, lowers []string) error {
	if err := os.RemoveAll(u.path(newStack)); err != nil {
		return err
	}
	state := u.path(newStack, stateDir)
	for _, f := range storedb.Layout() {
		name, ok := strings.CutPrefix(f.Path, "nix/var/nix/")
		if !ok {
			continue
		}
		if err := layOut(filepath.Join(state, name), f); err != nil {
			return err
		}
	}
	return mergeDatabases(ctx, filepath.Join(state, "db", "db.sqlite"), lowers)
}

// setStack puts the store of several disks that was prepared in the place of the
// one before, or of one disk nothing.
func (u upper) setStack(lowers []string) error {
	at := u.path(stackName, "store")
	if err := unmountAll(at, false); err != nil {
		return err
	}
	if err := os.RemoveAll(u.path(stackName)); err != nil || len(lowers) < 2 {
		return err
	}
	if err := os.Rename(u.path(newStack), u.path(stackName)); err != nil {
		return err
	}
	var dirs []string
	for _, lower := range lowers {
		dirs = append(dirs, filepath.Join(lower, store.Dir))
	}
	if err := os.MkdirAll(at, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("overlay", at, "overlay", unix.MS_RDONLY|unix.MS_NODEV|unix.MS_NOSUID, "lowerdir="+strings.Join(dirs, ":")); err != nil {
		return fmt.Errorf("mount an overlay of %s at %s: %w", strings.Join(dirs, " and "), at, err)
	}
	return nil
}

// layOut makes one of the files and directories that Nix wants to find.
func layOut(name string, f storedb.File) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	if f.Kind == store.Directory {
		return os.MkdirAll(name, 0o755)
	}
	return os.WriteFile(name, f.Data, 0o444)
}

// mergeDatabases makes a database with the paths of all disks: a copy of the
// largest one, and what the others have besides. A path that two disks have
// with different contents is an error, since the kernel would mix them.
func mergeDatabases(ctx context.Context, name string, lowers []string) error {
	var sources []string
	for _, lower := range lowers {
		sources = append(sources, filepath.Join(lower, databasePath))
	}
	slices.SortStableFunc(sources, func(a, b string) int { return cmp.Compare(fileSize(b), fileSize(a)) })
	if err := copyFile(name, sources[0]); err != nil {
		return err
	}
	conn, err := sqlite.OpenConn(name, sqlite.OpenReadWrite|sqlite.OpenURI)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	defer conn.Close()
	conn.SetInterrupt(ctx.Done())
	for _, source := range sources[1:] {
		if err := addDatabase(conn, source); err != nil {
			return fmt.Errorf("add %s to %s: %w", source, name, err)
		}
	}
	return os.Chmod(name, 0o444)
}

func fileSize(name string) int64 {
	fi, err := os.Stat(name)
	if err != nil {
		return 0
	}
	return fi.Size()
}

// addDatabase adds what a database has and conn has not.
func addDatabase(conn *sqlite.Conn, source string) (err error) {
	uri := "file:" + escape(source) + "?immutable=1"
	if err := sqlitex.Execute(conn, "attach ? as added", &sqlitex.ExecOptions{Args: []any{uri}}); err != nil {
		return err
	}
	defer func() {
		if e := sqlitex.Execute(conn, "detach added", nil); err == nil {
			err = e
		}
	}()
	var differs string
	err = sqlitex.Execute(conn, "select b.path from added.ValidPaths b join main.ValidPaths a on a.path = b.path where a.hash <> b.hash limit 1",
		&sqlitex.ExecOptions{ResultFunc: func(s *sqlite.Stmt) error {
			differs = s.ColumnText(0)
			return nil
		}})
	if err != nil {
		return err
	}
	if differs != "" {
		return fmt.Errorf("%s has other contents on this disk than on another", differs)
	}
	return merge(conn)
}

// mergeSteps add the rows, with the numbers that the paths have in the merged
// database. It is written anew and has no journal: if this fails, it is thrown
// away.
var mergeSteps = []string{
	`create temp table Fresh as select id, path from added.ValidPaths where path not in (select path from main.ValidPaths)`,
	`insert into main.ValidPaths (path, hash, registrationTime, deriver, narSize, ultimate, sigs, ca)
	   select path, hash, registrationTime, deriver, narSize, ultimate, sigs, ca from added.ValidPaths
	   where id in (select id from Fresh) order by path`,
	`insert into main.Refs (referrer, reference)
	   select a.id, b.id from added.Refs r
	   join Fresh f on f.id = r.referrer
	   join main.ValidPaths a on a.path = f.path
	   join added.ValidPaths t on t.id = r.reference
	   join main.ValidPaths b on b.path = t.path`,
	`insert or ignore into main.DerivationOutputs (drv, id, path)
	   select a.id, o.id, o.path from added.DerivationOutputs o
	   join Fresh f on f.id = o.drv
	   join main.ValidPaths a on a.path = f.path`,
	`drop table Fresh`,
}

func merge(conn *sqlite.Conn) (err error) {
	if err := sqlitex.ExecuteTransient(conn, "pragma journal_mode = off", nil); err != nil {
		return err
	}
	end, err := sqlitex.ImmediateTransaction(conn)
	if err != nil {
		return err
	}
	defer end(&err)
	for _, step := range mergeSteps {
		if err := sqlitex.ExecuteTransient(conn, step, nil); err != nil {
			return err
		}
	}
	return nil
}

// copyFile copies a file to a new one that its owner may write to.
func copyFile(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		out.Close()
		return err
	}
	return out.Close()
}
