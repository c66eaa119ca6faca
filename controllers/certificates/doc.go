// Package certificates keeps the Secret with the artifact registry's certificate, and tells what of it others may know:
// the certificates to trust.
//
// A certificate has a CA of its own, whose key is thrown away as soon as it has signed: who can read the Secret can be
// the registry until that certificate is out of date, and can make no other. So there is always one certificate that is
// used and, in the last third of its life, its successor, which is announced – its CA is trusted – for a while before
// it is used, until everybody may be taken to know it.
//
//	tls.crt, tls.key     what the registry serves
//	next.crt, next.key   its successor, while that is only announced
//	ca.crt               what is trusted: the CA of the one that is used, and that of its successor or its predecessor
//
// Invariants:
//   - What the Secret should hold is a pure function of what it holds, the names and the time (secret.go). What is
//     damaged, out of date, for other names, or not ours is made anew.
//   - A certificate is not used before its CA has been in ca.crt for the grace period, unless there is none that can be
//     used; and its CA stays there for as long as somebody may still serve it.
//   - With cert-manager the Secret is cert-manager's, and only read.
package certificates
