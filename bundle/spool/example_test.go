package spool_test

import (
	"fmt"
	"io"

	"bigdisk/bundle/spool"
)

func Example() {
	area := spool.NewArea("", spool.NewBudget(64<<20), 8<<20)
	s := area.New(0)
	defer s.Close()
	fmt.Fprint(s, "checked before it is used")
	text, err := io.ReadAll(s)
	fmt.Println(string(text), err)
	// Output: checked before it is used <nil>
}
