// Package docs holds that what the pages beside it say of tests is so.
package docs
