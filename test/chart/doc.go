// Package chart holds charts/switchyard to its word, by helm itself: it installs what config/ does, in whatever
// namespace; each value does what it says, and a wrong one is refused by its name; a real API server takes all of it,
// and an uninstall leaves what it should.
package chart
