// Package integration tests Switchyard as a whole, on the local place (test/local): what its users see when processes
// die, pods come and go, and adapters change, for the better or the worse. Everything is real but the node.
//
// Each test has a namespace and a pool of its own. Through all of them a watcher (truth) holds every status that is
// written against the pods and their reports: none may say for more than two seconds what they do not.
//
//	go test ./test/integration          # everything
//	go test -short ./test/integration   # what a change breaks most often
package integration
