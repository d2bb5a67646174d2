// Package compare is what a verification compares with: sinks that look up what a target holds and write nothing, an
// index of rows that cannot be found by key, and what becomes of rows that differ. Package verify explains.
package compare
