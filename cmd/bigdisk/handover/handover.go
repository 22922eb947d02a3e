// Package handover gives bigdisk host env to the program bigdisk-env, if that
// lies beside this one: Google's libraries alone take longer to initialise
// themselves than the answer does.
//
// It has to do so before they are. Go initialises packages one at a time, always
// the first by import path of those whose imports have been (The Go Programming
// Language Specification, "Program initialization"). This one imports only os and
// what os does, so that its turn comes before that of all that do more.
package handover

import (
	"os"
	"syscall"
)

func init() {
	if len(os.Args) < 3 || os.Args[1] != "host" || os.Args[2] != "env" {
		return
	}
	self, err := os.Executable()
	if err != nil {
		return
	}
	program := self + "-env"
	// It returns only where there is no such program: then this one answers.
	_ = syscall.Exec(program, append([]string{program}, os.Args[3:]...), os.Environ())
}
