// Package disk gives tests a disk that is small enough to be full.
package disk
