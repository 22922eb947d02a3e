package process

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Orphans collects what commands leave behind in sessions of their own, as the
// builders of a Nix that was killed. While it is open, such processes become
// ours when their parents end (PR_SET_CHILD_SUBREAPER), instead of nobody's.
type Orphans struct{ proc string }

// AdoptOrphans starts to collect. There should be one at a time in a process.
func AdoptOrphans() (*Orphans, error) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return nil, fmt.Errorf("become the parent of orphaned processes: %w", err)
	}
	return &Orphans{proc: "/proc"}, nil
}

// killRounds bounds how often Close looks for processes: killing one may make
// us the parent of others.
const killRounds = 100

// Close kills the processes that were collected, and collects no more. No
// command may be running that is to go on.
func (o *Orphans) Close() error {
	defer unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
	for range killRounds {
		orphans, err := o.find()
		if err != nil || len(orphans) == 0 {
			return err
		}
		for _, pid := range orphans {
			killAndReap(pid)
		}
	}
	return errors.New("processes that Nix left behind start new ones faster than they are killed")
}

// killAndReap ends a child and its group.
func killAndReap(pid int) {
	unix.Kill(-pid, unix.SIGKILL) // if it leads one
	unix.Kill(pid, unix.SIGKILL)
	for {
		if _, err := unix.Wait4(pid, nil, unix.WNOHANG, nil); err != unix.EINTR {
			break
		}
	}
	time.Sleep(time.Millisecond) // the kernel takes a moment to hand on its children
}

// find lists our children in other sessions than ours: none that we started.
func (o *Orphans) find() ([]int, error) {
	session, err := unix.Getsid(0)
	if err != nil {
		return nil, err
	}
	dirs, err := os.ReadDir(o.proc)
	if err != nil {
		return nil, err
	}
	var orphans []int
	for _, d := range dirs {
		pid, err := strconv.Atoi(d.Name())
		if err != nil {
			continue
		}
		stat, err := os.ReadFile(o.proc + "/" + d.Name() + "/stat")
		if err != nil {
			continue // it has ended
		}
		if parent, sid, ok := parseStat(stat); ok && parent == os.Getpid() && sid != session {
			orphans = append(orphans, pid)
		}
	}
	return orphans, nil
}

// parseStat finds parent and session in a /proc/PID/stat (proc(5)): the fields
// follow the last parenthesis, state, ppid, pgrp, session.
func parseStat(stat []byte) (parent, session int, ok bool) {
	_, after, ok := bytes.Cut(stat[max(0, bytes.LastIndexByte(stat, ')')):], []byte(")"))
	fields := bytes.Fields(after)
	if !ok || len(fields) < 4 {
		return 0, 0, false
	}
	parent, err1 := strconv.Atoi(string(fields[1]))
	session, err2 := strconv.Atoi(string(fields[3]))
	return parent, session, err1 == nil && err2 == nil
}
