package nixcmd

import (
	"bytes"
	"encoding/json"
	"strings"
	"sync"

	"bigdisk/bundle/internal/process"
)

// Counts are how far a Nix command has come.
type Counts struct {
	// Built and ToBuild count derivations, Copied and ToCopy store paths that
	// are substituted. What is to be done grows while Nix finds it out.
	Built, ToBuild, Copied, ToCopy int64
	// CopiedBytes and BytesToCopy are sizes of NARs in bytes.
	CopiedBytes, BytesToCopy int64
}

// Log takes what a Nix command writes to standard error. With
// --log-format internal-json that is a line "@nix {…}" for each event
// (Nix's src/libutil/logging.cc, JSONLogger); any other line is kept as text.
// It needs little memory, whatever is written. Its zero value is ready, and it
// is safe for concurrent use.
type Log struct {
	// OnCounts is called with each change, if it is set; it must be quick.
	OnCounts func(Counts)

	mu         sync.Mutex
	line       []byte
	long       bool // the rest of the line is dropped
	counts     Counts
	activities map[uint64]*activity
	errors     []string
	warnings   []string
	logs       map[string]*buildLog
	order      []string // of logs, the oldest first
	text       process.Tail
}

// activity is something that Nix is doing, of a kind that we follow.
type activity struct {
	kind int
	done int64  // bytes, of a copy
	drv  string // of a build
}

// buildLog is the end of a builder's output.
type buildLog struct{ lines []string }

// What a Log keeps at most.
const (
	maxLogLine    = 256 << 10 // bytes
	maxActivities = 1 << 16
	maxMessages   = 200
	maxMessage    = 4 << 10 // bytes
	maxBuildLogs  = 500
	buildLogLines = 10
	maxBuildLine  = 400 // bytes
)

// Kinds of activities and results (ActivityType and ResultType in Nix's
// src/libutil/logging.hh).
const (
	actCopyPath  = 100
	actCopyPaths = 103
	actBuilds    = 104
	actBuild     = 105

	resBuildLogLine = 101
	resProgress     = 105
	resSetExpected  = 106
)

// Verbosity levels.
const (
	levelError   = 0
	levelWarning = 1
)

// event is one line.
type event struct {
	Action string            `json:"action"`
	ID     uint64            `json:"id"`
	Type   int               `json:"type"`
	Level  int               `json:"level"`
	Msg    string            `json:"msg"`
	RawMsg string            `json:"raw_msg"`
	Fields []json.RawMessage `json:"fields"`
}

// Write takes more of the log. It never fails.
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := len(p)
	for {
		before, after, whole := bytes.Cut(p, []byte("\n"))
		l.add(before)
		if !whole {
			return n, nil
		}
		l.endLine()
		p = after
	}
}

// add adds to the current line, as much as fits.
func (l *Log) add(p []byte) {
	if fits := maxLogLine - len(l.line); len(p) > fits {
		p, l.long = p[:fits], true
	}
	l.line = append(l.line, p...)
}

// endLine reads the current line.
func (l *Log) endLine() {
	rest, isEvent := bytes.CutPrefix(l.line, []byte("@nix "))
	var e event
	if isEvent && !l.long && json.Unmarshal(rest, &e) == nil {
		l.event(&e)
	} else {
		l.text.Write(append(l.line, '\n'))
	}
	l.line, l.long = l.line[:0], false
}

func (l *Log) event(e *event) {
	before := l.counts
	switch e.Action {
	case "msg":
		l.message(e)
	case "start":
		l.start(e)
	case "stop":
		delete(l.activities, e.ID)
	case "result":
		l.result(e)
	}
	if l.OnCounts != nil && l.counts != before {
		l.OnCounts(l.counts)
	}
}

func (l *Log) message(e *event) {
	text := e.RawMsg
	if text == "" {
		text = e.Msg
	}
	text = clip(plain(text), maxMessage)
	switch e.Level {
	case levelError:
		if strings.HasPrefix(text, "(use '--show-trace'") {
			return // advice on the error before
		}
		l.errors = keep(l.errors, text)
	case levelWarning:
		l.warnings = keep(l.warnings, strings.TrimPrefix(text, "warning: "))
	}
}

// keep adds a message, in place of the oldest if there are too many.
func keep(messages []string, text string) []string {
	if len(messages) == maxMessages {
		messages = append(messages[:0], messages[1:]...)
	}
	return append(messages, text)
}

func (l *Log) start(e *event) {
	switch e.Type {
	case actCopyPath, actCopyPaths, actBuilds, actBuild:
	default:
		return
	}
	if l.activities == nil {
		l.activities = make(map[uint64]*activity)
		l.logs = make(map[string]*buildLog)
	}
	if len(l.activities) >= maxActivities {
		return
	}
	a := &activity{kind: e.Type}
	if e.Type == actBuild && len(e.Fields) > 0 {
		a.drv = clip(text(e.Fields[0]), maxBuildLine)
	}
	l.activities[e.ID] = a
}

func (l *Log) result(e *event) {
	if e.Type == resSetExpected {
		if n := numbers(e.Fields); len(n) == 2 && n[0] == actCopyPath {
			l.counts.BytesToCopy = n[1]
		}
		return
	}
	a := l.activities[e.ID]
	switch {
	case a == nil:
	case e.Type == resBuildLogLine && a.kind == actBuild && len(e.Fields) > 0:
		l.buildLine(a.drv, text(e.Fields[0]))
	case e.Type == resProgress:
		l.progress(a, numbers(e.Fields))
	}
}

// progress takes the fields of a resProgress: done, expected, running, failed.
func (l *Log) progress(a *activity, n []int64) {
	if len(n) < 2 {
		return
	}
	switch a.kind {
	case actBuilds:
		l.counts.Built, l.counts.ToBuild = n[0], n[1]
	case actCopyPaths:
		l.counts.Copied, l.counts.ToCopy = n[0], n[1]
	case actCopyPath:
		l.counts.CopiedBytes += n[0] - a.done
		a.done = n[0]
	}
}

// buildLine keeps a line of a builder.
func (l *Log) buildLine(drv, line string) {
	log := l.logs[drv]
	if log == nil {
		if len(l.order) == maxBuildLogs {
			delete(l.logs, l.order[0])
			l.order = append(l.order[:0], l.order[1:]...)
		}
		log = new(buildLog)
		l.logs[drv] = log
		l.order = append(l.order, drv)
	}
	if len(log.lines) == buildLogLines {
		log.lines = append(log.lines[:0], log.lines[1:]...)
	}
	log.lines = append(log.lines, clip(plain(line), maxBuildLine))
}

// Errors are the error messages so far, the oldest first.
func (l *Log) Errors() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]string(nil), l.errors...)
}

// Warnings are the warnings so far, the oldest first.
func (l *Log) Warnings() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]string(nil), l.warnings...)
}

// BuildLog is the end of what the builder of a derivation wrote, nil if there
// is nothing.
func (l *Log) BuildLog(drv string) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	log := l.logs[drv]
	if log == nil {
		return nil
	}
	return append([]string(nil), log.lines...)
}

// Last is the latest error message, or if there is none the end of the text
// that is no event.
func (l *Log) Last() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.errors) > 0 {
		return l.errors[len(l.errors)-1]
	}
	return plain(l.text.String() + string(l.line))
}

// text reads a field that is a string.
func text(field json.RawMessage) string {
	var s string
	if json.Unmarshal(field, &s) != nil {
		return ""
	}
	return s
}

// numbers reads fields that are all numbers.
func numbers(fields []json.RawMessage) []int64 {
	n := make([]int64, len(fields))
	for i, f := range fields {
		if json.Unmarshal(f, &n[i]) != nil {
			return nil
		}
	}
	return n
}

// plain leaves out control characters and the sequences that set colours
// (ECMA-48: ESC, bracket, parameters, a letter).
func plain(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\x1b' && i+1 < len(s) && s[i+1] == '[':
			for i += 2; i < len(s) && (s[i] < '@' || s[i] > '~'); i++ {
			}
		case c >= ' ' && c != 0x7f || c == '\n' || c == '\t':
			b.WriteByte(c)
		}
	}
	return strings.ToValidUTF8(strings.TrimSpace(b.String()), "\uFFFD")
}

func clip(s string, most int) string {
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}
