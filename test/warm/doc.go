// Package warm is a warm pool on the local place, to measure and to count on: pods that are ready and wait for
// adapters, adapters in the source registry with weights of their own, and what becomes of them as it comes. It counts
// too what the API server was asked to write.
package warm
