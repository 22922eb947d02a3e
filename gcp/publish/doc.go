// Package publish takes an image to where hosts can attach it: an object in a
// bucket, a Compute Engine image for each project and storage location, and
// disks in every zone. What is there already and is ours and right is left as it
// is, so that publishing again continues what was interrupted, and changes
// nothing when all is done. What exists under our names but is something else is
// an error that says how it differs.
//
// A zone that fails does not stop the others. [Report] has what became of every
// object, image, snapshot and disk.
package publish
