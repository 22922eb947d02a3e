// Package release takes a lock file all the way to the hosts, as one run that is
// written down: check, build, verify, publish, roll out. Each stage is a function
// of the caller's ([Steps]); this package knows their order, what is done, where
// to go on, and which images stay.
//
// What was done is in a journal, a small JSON document in the directory of the
// images. It is written before a stage begins and after it has ended, always
// whole. So a run may be killed at any moment: the next one with the same inputs
// goes on with the stage that was interrupted, which is begun again, and repeats
// none that is done. Publishing and rolling out have to be such that beginning
// them again continues them; a build starts over.
package release
