// Package gcetest is a Compute Engine in memory, served over HTTP, for tests of
// programs that publish images, make disks and attach them to instances.
//
// It speaks the REST protocol of compute v1 as the clients of
// cloud.google.com/go/compute/apiv1 send and read it, and checks every request
// as strictly as the service does: unknown fields and query parameters, enum
// values, resource names, labels, URLs, sizes, disk types, reader limits and
// the states of resources. Mutations answer with operations that take time on
// a clock of the test's choice, fail late where the service fails late, and
// give the first operation again when a request ID comes a second time.
//
// On top of that a test may inject faults ([Server.AddFault]), limit the rate
// of calls ([Options].RateLimits), let simulated hosts report the health of
// what is attached to them ([Server.AddHosts]), and read afterwards what was
// called ([Server.Calls]) and which rules of the trade were broken
// ([Server.Violations]).
//
// What the service does and no source confirms is a field of [Options] where a
// client could depend on it.
package gcetest
