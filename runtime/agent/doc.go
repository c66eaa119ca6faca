// Package agent makes a pod hold what its AdapterAssignment says, and reports what it holds.
//
// Invariants:
//   - What is decided is a pure function of the assignment and of what is held (plan.go); one goroutine owns the state.
//   - A name answers with its target as soon as that is loaded and has answered one row; until then with what it
//     answered before, or with the entry's fallback. It never goes back.
//   - A report follows what is so: a name answers with a digest before the report says that it does.
//   - The last assignment and the artifacts it names are on disk: a restarted container serves again without the API
//     server and without the artifact registry. When the API server answers, what it says wins.
//   - A container that was ready once is ready again without what it lacks. One that was not comes up as a new pod.
//   - Readiness latches once everything first assigned is loaded or failed, and that is reported: a pod that comes does
//     not make adapters seem to be loading that are served.
//   - Nothing is opened unmarked: a process that ends over a revision is known to the next, which loads one at a time,
//     what is suspected last, and not at all what ended two.
//   - Nobody's absence stops what is served: API server and registry are tried again with back-off, quietly.
package agent
