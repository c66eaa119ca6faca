// Package artifacts gets revisions by digest from the artifact registry and keeps them in a folder, so that a restarted
// container needs no registry.
//
// Invariants: a blob lies under its digest only whole and checked, since it comes there by renaming; what is found
// there is checked again before it is used, and pulled anew if it is not what its name says; what is read of a registry
// is bounded by what the manifest, itself bounded, says of it; a revision's folder has the files its manifest lists,
// with plain names, and no others.
//
// The folder:
//
//	blobs/sha256/<hex>   manifests, settings and files, shared by revisions
//	revisions/<hex>/     the files of one revision, links to the blobs
//	incoming/            what is being written
//	marks/               what is being loaded, and what ended a process that loaded it (marks.go)
package artifacts
