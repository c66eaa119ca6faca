// Package telemetry tells of requests, whatever carries them: each has an id, is counted and timed, has a span with
// children if it is traced, and a line in the log. What carries requests calls Begin and End, and knows no more of it.
//
// Invariants: nothing of a body, no header but the request's id, no adapter's content and no error's text leaves by a
// span; a line of the log has an error's text only if its code is 500, 503 or 504. Routes are few: nothing that a
// stranger may choose names a series or a span. Times are taken where they pass, and made spans of when the request has
// ended.
package telemetry
