// Package serve tests "runtime serve" as its users run it: a process of its own, asked over HTTP.
package serve
