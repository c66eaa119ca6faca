// Package artifact brings folders from where users keep them to where pods pull them: it fetches a source (Fetcher),
// says whether the folder is a base model or an adapter for one (InspectBase, InspectAdapter), packs it (Pack) and
// keeps it in the artifact registry (Store), which is the package registry beside this file.
//
// Invariants:
//   - Sources are hostile. What is read of them is bounded in number, size and time, every byte is checked against a
//     digest before it is used (an archive's where one is given), only files of known names are written, and only into
//     the folder that was given.
//   - A connection to a source is made only to an address that may be asked, whatever led there: its name, a redirect
//     or where a registry gives out its tokens.
//   - Credentials go to the host that they are for, as the origin's URL names it, and never with a request that a
//     redirect made.
//   - The same files and settings give the same digest, that of runtime/model.Open and peft.Load, whatever the source
//     and the day.
//   - An artifact is there only if its manifest and every blob is: a registry that lost one has lost it.
//   - Nothing that a foreign server says is repeated; errors say in our own words what failed, where and whether it
//     helps to try again.
package artifact
