// Package pipeline joins what goes on a disk (bundle) with how it is laid out
// (image): in which order, with how many workers, in how much memory.
//
// [Build] is the way from a lock file to an image and its manifest.
package pipeline
