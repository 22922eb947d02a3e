package progress_test

import (
	"os"

	"bigdisk/pipeline/progress"
)

// A run makes a tracker, shows it somewhere, and its workers count.
func Example() {
	tracker := progress.New(nil)
	display := progress.Show(tracker, progress.None, os.Stdout)
	defer display.Close()

	stage := tracker.Stage("write", progress.Bytes, 3<<20)
	stage.Add(3 << 20)
	stage.Finish()

	state := tracker.Snapshot()[0]
	os.Stdout.WriteString(state.Stage + " is done: ")
	if state.Finished && state.Done == state.Total {
		os.Stdout.WriteString("yes\n")
	}
	// Output: write is done: yes
}
