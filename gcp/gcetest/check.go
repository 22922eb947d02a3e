package gcetest

import (
	"fmt"
	"slices"

	"cloud.google.com/go/compute/apiv1/computepb"
)

// Checks are the rules that depend on the test.
type Checks struct{}

// violate notes that a rule was broken; s.mu is held.
func (s *Server) violate(format string, args ...any) {
	s.violations = append(s.violations, fmt.Sprintf(format, args...))
}

// Violations are the rules that were broken so far, in words.
func (s *Server) Violations() (all []string) {
	s.locked(func() { all = slices.Clone(s.violations) })
	return all
}

func (s *Server) checkDeletion(d *disk)                                            {}
func (s *Server) checkAttachment(i *instance, d *disk, ad *computepb.AttachedDisk) {}
func (s *Server) checkDetachment(a *attachment)                                    {}
func (s *Server) noticeDisks(i *instance)                                          {}

// Hosts are simulated.
type Hosts struct{}
