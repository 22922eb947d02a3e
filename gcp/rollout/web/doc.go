// Package web is a service's rollout as a page that follows it, and as metrics
// for Prometheus. It only reads: there is no request that changes anything. The
// document of the rollout, one object in the bucket, is read at most once a
// second however many clients there are, and not at all while there is none.
//
//	/             the page, which asks for nothing but /status.json
//	/status.json  what the page shows
//	/metrics      the same for Prometheus, and counts of hosts and disks
//	/healthz      "ok" as long as it serves
package web
