// Package gce is the Compute Engine API made safe to change things with. What
// the Go client leaves to its user is done here: each mutation carries a
// request ID that is kept over the retries of that mutation; its operation is
// awaited with the API's own wait call and looked at for errors, for DONE is not
// success; calls are paced in each project and repeated within a budget where
// repeating helps; and errors are told apart by what can be done about them
// ([ErrQuota], [ErrStockout] and their like).
//
// Requests and answers are the messages of computepb. The package keeps no
// state between calls: whether a resource that exists already is the right one
// is for the caller to compare.
package gce
