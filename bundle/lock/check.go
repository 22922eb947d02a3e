package lock

import "fmt"

// Problem is a rule that an entry breaks.
type Problem struct {
	// Line is the entry's line in the lock file, from 1; 0 when it is not there.
	Line int `json:"line,omitempty"`
	// Key is the entry's.
	Key string `json:"key"`
	// Text says what is wrong.
	Text string `json:"text"`
}

// String puts line and key before the text.
func (p Problem) String() string {
	if p.Line == 0 {
		return fmt.Sprintf("%q: %s", p.Key, p.Text)
	}
	return fmt.Sprintf("line %d: %q: %s", p.Line, p.Key, p.Text)
}

func (e *Entry) problem(format string, args ...any) Problem {
	return Problem{e.Line, e.Key(), fmt.Sprintf(format, args...)}
}

// CheckVersions finds entries of one module with the same number, as a merge
// leaves them when both sides have added a version.
func (f *File) CheckVersions() []Problem {
	type version struct {
		id ID
		n  int
	}
	var problems []Problem
	first := make(map[version]*Entry, len(f.Entries))
	for i := range f.Entries {
		e := &f.Entries[i]
		v := version{e.ID, e.Tag.Version}
		if other := first[v]; other != nil {
			problems = append(problems, e.problem("version %d of %s is %s already, in line %d", v.n, v.id, other.Key(), other.Line))
			continue
		}
		first[v] = e
	}
	return problems
}

// CheckAppended finds entries of an earlier file that are not in this one as
// they were, or no longer come first and in their order: a lock file is only
// ever added to at its end.
func (f *File) CheckAppended(earlier *File) []Problem {
	at := make(map[string]int, len(f.Entries))
	for i := range f.Entries {
		at[f.Entries[i].Key()] = i
	}
	var problems []Problem
	moved := false
	for i := range earlier.Entries {
		old := &earlier.Entries[i]
		j, there := at[old.Key()]
		if !there {
			problems = append(problems, Problem{0, old.Key(), "it was in the earlier file and is gone"})
			continue
		}
		e := &f.Entries[j]
		switch {
		case e.Commit != old.Commit:
			problems = append(problems, e.problem("its commit was %s and is %s", old.Commit, e.Commit))
		case e.Path != old.Path:
			problems = append(problems, e.problem("its path was %s and is %s", old.Path, e.Path))
		case i != j && !moved && len(problems) == 0:
			moved = true // and so are many after it
			problems = append(problems, e.problem("it was entry %d and is entry %d: new entries belong at the end", i+1, j+1))
		}
	}
	return problems
}

// Commits lists the commits of the entries, each once, in the file's order.
func (f *File) Commits() []Commit {
	seen := make(map[Commit]bool)
	var commits []Commit
	for i := range f.Entries {
		if c := f.Entries[i].Commit; !seen[c] {
			seen[c] = true
			commits = append(commits, c)
		}
	}
	return commits
}

// CheckHistory finds entries whose commit is not in the history of a branch:
// absent says which are not, and why.
func (f *File) CheckHistory(absent map[Commit]string) []Problem {
	var problems []Problem
	for i := range f.Entries {
		e := &f.Entries[i]
		if why := absent[e.Commit]; why != "" {
			problems = append(problems, e.problem("its commit %s %s", e.Commit, why))
		}
	}
	return problems
}

// CheckDates finds entries whose date is none of the days that their commit was
// made on; a commit without days is left out.
func (f *File) CheckDates(days map[Commit][]Date) []Problem {
	var problems []Problem
	for i := range f.Entries {
		e := &f.Entries[i]
		if made := days[e.Commit]; len(made) > 0 && !contains(made, e.Tag.Date) {
			problems = append(problems, e.problem("its tag has the date %s, but its commit is of %s", e.Tag.Date, made[0]))
		}
	}
	return problems
}

func contains(days []Date, d Date) bool {
	for _, day := range days {
		if day == d {
			return true
		}
	}
	return false
}
